"""Where files go to and come from when a program does not say so at each call: `set_config`, `config()`, `get_config`.

| key | default | meaning |
|---|---|---|
| `to` | nowhere | where files go: a server or zone by name, or `{"url", "channel", "password"}`, or `{"zone"}` |
| `fr` | nowhere | where files come from; likewise |
| `to_remote_only` | `False` | keep no copy of what goes there on this machine |
| `from_remote_only` | `False` | do not look on this machine |
| `algorithm` | `sha1` | the hash that URIs are made of: `sha1` or `md5` |
| `verbose` | `False` | say on the log where files come from |
| `use_hard_links` | `False` | accepted and not done: a later edit of the source would change what is stored |

Without `to` and `fr` files go to and come from the zone of the settings. `set_config` is for the whole program;
`config()` is for a `with` block and what runs in it: other threads and tasks do not see it. Any of these keys may also
be given to one call of `store_*` and `load_*`, where `to=None` or `fr=None` means the settings' zone, and `config=`
brings a whole configuration.
"""

from __future__ import annotations

import copy
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from . import settings
from .errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .files import Place

_NOWHERE = {"url": None, "channel": None, "password": None}
_DEFAULTS: dict[str, Any] = {
    "to": _NOWHERE,
    "fr": _NOWHERE,
    "from_remote_only": False,
    "to_remote_only": False,
    "algorithm": "sha1",
    "verbose": False,
    "use_hard_links": False,
}
_PLACES = ("to", "fr")

# neither dict is ever changed, so that whoever reads one sees it whole
_lock = threading.Lock()
_everywhere: dict[str, Any] = _DEFAULTS
_backend: Any | None = None
_here: ContextVar[dict[str, Any] | None] = ContextVar("kachery_config", default=None)


class Options(TypedDict, total=False):
    """What a call of `store_*` or `load_*` may say about itself; see the module."""

    to: str | Mapping[str, Any] | None
    fr: str | Mapping[str, Any] | None
    from_remote_only: bool
    to_remote_only: bool
    algorithm: str
    verbose: bool
    use_hard_links: bool
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Chosen:
    """What one call goes by.

    Attributes:
        to: Where files go, described; `None` for the settings' zone.
        fr: Where files come from, described; `None` for the settings' zone.
        from_remote_only: Whether this machine is not looked at.
        to_remote_only: Whether no copy is kept on it.
        algorithm: `sha1` or `md5`.
        verbose: Whether to say on the log where files come from.
    """

    to: dict[str, Any] | None
    fr: dict[str, Any] | None
    from_remote_only: bool
    to_remote_only: bool
    algorithm: str
    verbose: bool

    def target(self) -> Place | None:
        """The place that files go to; `None` for the settings' zone.

        Raises:
            NotConfigured: If its password is in a variable that is not set, or it is a zone and no gateway is known.
        """
        from . import files

        return None if self.to is None else files.open_place(self.to, writing=True)

    def source(self) -> Place | None:
        """The place that files come from; `None` for the settings' zone. Errors as for `target`."""
        from . import files

        return None if self.fr is None else files.open_place(self.fr, writing=False)


def set_config(
    *,
    to: str | Mapping[str, Any] | None = None,
    fr: str | Mapping[str, Any] | None = None,
    from_remote_only: bool | None = None,
    to_remote_only: bool | None = None,
    verbose: bool | None = None,
    algorithm: str | None = None,
    use_hard_links: bool | None = None,
) -> None:
    """Change the configuration of this program, or of the `config()` block that this runs in; `None` changes nothing.

    Args:
        to: Where files go: the name of a server in `servers.json` (`server` or `server~channel`) or of a zone; or a
            dict with `url`, `channel` and `password`, where `None` for all three means the settings' zone again.
        fr: Where files come from; likewise.
        from_remote_only: Whether not to look on this machine.
        to_remote_only: Whether to keep no copy on this machine.
        verbose: Whether to say on the log where files come from.
        algorithm: `sha1` or `md5`.
        use_hard_links: Accepted; files are copied all the same.

    Raises:
        NotConfigured: If nobody named such a server and no gateway is known.
        InvalidInput: If a value makes no sense.
    """
    global _everywhere
    # the arguments by their names, and nothing else: there is nothing else yet
    changes = {key: value for key, value in locals().items() if value is not None}
    checked = _checked(changes)
    inside = _here.get()
    if inside is not None:
        _here.set({**inside, **checked})
        return
    with _lock:
        _everywhere = {**_everywhere, **checked}


def get_config() -> dict[str, Any]:
    """A copy of the configuration in effect, passwords included."""
    return copy.deepcopy(_effective())


@contextmanager
def config(
    *,
    to: str | Mapping[str, Any] | None = None,
    fr: str | Mapping[str, Any] | None = None,
    from_remote_only: bool | None = None,
    to_remote_only: bool | None = None,
    verbose: bool | None = None,
    algorithm: str | None = None,
    use_hard_links: bool | None = None,
) -> Iterator[None]:
    """A `with` block with another configuration; arguments and errors as for `set_config`.

    It counts for what runs in the block, in this thread or task; `contextvars.copy_context().run` brings it to others.
    """
    changes = {key: value for key, value in locals().items() if value is not None}
    token = _here.set({**_effective(), **_checked(changes)})
    try:
        yield
    finally:
        _here.reset(token)


def reset() -> None:
    """Forget what servers said, as classic programs ask for; nothing of it is kept, so there is nothing to forget."""


def set_custom_storage_backend(backend: Any | None) -> None:
    """Have `store_*` hand files to an object instead of a zone.

    Args:
        backend: Anything with `store_file(filename, *, label) -> str`, whose result becomes the URI as it is; `None` to
            use the zone again. What is stored with `local=True` or `to=` does not go there.
    """
    global _backend
    _backend = backend


def storage_backend() -> Any | None:
    """The object that files go to instead of a zone; `None` when there is none, or a plain directory comes first."""
    return _backend if settings.store_file_dir() is None else None


def chosen(options: Options) -> Chosen:
    """What a call goes by: its own options before its `config`, and that before the configuration in effect.

    Raises:
        TypeError: If an option is unknown.
        NotConfigured, InvalidInput: As for `set_config`.
    """
    given: dict[str, Any] = dict(options)
    base = given.pop("config", None)
    merged = _effective()
    for level in (base, given):
        if level:
            merged = {**merged, **_checked(level)}
    return Chosen(
        _named(merged["to"]),
        _named(merged["fr"]),
        bool(merged["from_remote_only"]),
        bool(merged["to_remote_only"]),
        merged["algorithm"],
        bool(merged["verbose"]),
    )


def _effective() -> dict[str, Any]:
    inside = _here.get()
    return _everywhere if inside is None else inside


def _checked(changes: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [key for key in changes if key not in _DEFAULTS]
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}; known are {', '.join(_DEFAULTS)} and config")
    checked = dict(changes)
    for key in _PLACES:
        if key in checked:
            checked[key] = _described(checked[key], writing=key == "to")
    if "algorithm" in checked and checked["algorithm"] not in ("sha1", "md5"):
        raise InvalidInput(f"unknown hash algorithm {checked['algorithm']!r}", hint="sha1 or md5")
    return checked


def _described(place: str | Mapping[str, Any] | None, *, writing: bool) -> dict[str, Any]:
    from . import files

    if not place or (hasattr(place, "keys") and not any(dict(place).values())):
        return dict(_NOWHERE)
    found = files.describe(place, writing=writing)
    return copy.deepcopy({**_NOWHERE, **found})


def _named(place: dict[str, Any]) -> dict[str, Any] | None:
    return place if any(place.values()) else None
