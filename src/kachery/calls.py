"""What a call of `store_*` or `load_*` goes by: its arguments, under any generation's names, and the configuration."""

from __future__ import annotations

import functools
import os
import tempfile
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import configuration, files, settings
from .errors import InvalidInput
from .uri import TreeRef, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from .configuration import Chosen, Options
    from .files import Stored

_F = TypeVar("_F", bound="Callable[..., Any]")

#: What a URI begins with, as opposed to a path.
URIS = ("sha1://", "sha256://", "md5://", "sha1dir://", "md5dir://", "kachery:", "gh://", "http://", "https://")


def also_called(**spellings: str) -> Callable[[_F], _F]:
    """Have a function take arguments under the names that another generation had for them as well."""

    def spelled(function: _F) -> _F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for theirs, ours in spellings.items():
                if theirs in kwargs:
                    if ours in kwargs:
                        raise TypeError(f"{function.__name__}() got both {theirs!r} and {ours!r}")
                    kwargs[ours] = kwargs.pop(theirs)
            return function(*args, **kwargs)

        return cast("_F", call)

    return spelled


def store_data(
    data: bytes,
    own_name: str,
    name: str | None,
    *,
    zone: str | None,
    local: bool,
    keep: bool,
    uri_type: int | None,
    options: Options,
) -> str:
    """Store the bytes of a value; see `store_file`. `own_name` is what the file is called when nobody gave a name."""
    chosen = configuration.chosen(options)
    backend = None if local or chosen.to is not None else configuration.storage_backend()
    if backend is not None:
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, own_name)
            with open(path, "wb") as file:
                file.write(data)
            return str(backend.store_file(path, label=name))
    stored = files.store_bytes(data, label=name, **where_to(chosen, zone, local=local, keep=keep))
    return spelled(stored, name, own_name, uri_type)


def load_data(
    uri: str,
    start: int | None = None,
    end: int | None = None,
    *,
    zone: str | None,
    local_only: bool,
    options: Options,
) -> bytes:
    """The bytes of a file, or of a part of it; see `load_bytes`."""
    where = whence(configuration.chosen(options), zone)
    return files.load_bytes(located(uri), start=start, end=end, local_only=local_only, **where)


def where_to(chosen: Chosen, zone: str | None, *, local: bool, keep: bool) -> dict[str, Any]:
    """Where a file goes, for `files.store_*`: what was said of this call comes before the configuration."""
    to = None if local or zone is not None else chosen.target()
    if to is not None:
        # so that it is found without asking whoever else has it
        keep = keep or not chosen.to_remote_only
    here = local or (to is None and files.stays_here(zone))
    return {"zone": zone, "local": here, "keep": keep, "to": to, "algorithm": chosen.algorithm}


def whence(chosen: Chosen, zone: str | None) -> dict[str, Any]:
    """Where a file comes from, for `files.load_*`."""
    fr = chosen.source() if zone is None else None
    return {"zone": zone, "fr": fr, "remote_only": chosen.from_remote_only}


def located(uri: Any) -> Any:
    """A URI, or the absolute path of what is a file on this machine and no URI."""
    if not isinstance(uri, str | bytes | os.PathLike):
        # whoever reads it says what is wrong with it
        return uri
    text = os.fsdecode(uri)
    if not text or "://" in text or text.startswith("kachery:"):
        return text
    path = os.path.abspath(text)
    return path if os.path.exists(path) else text


def chosen_name(label: str | None, basename: str | None) -> str | None:
    """The name for people, which generations called by different words; `None` when nobody gave one.

    Raises:
        InvalidInput: If both were given and differ.
    """
    if label is not None and basename is not None and label != basename:
        raise InvalidInput(f"two names were given: {label[:80]!r} and {basename[:80]!r}", hint="give one of them")
    return basename if label is None else label


def name_in(uri: str) -> str:
    """The name for people in a URI, or `file`."""
    reference = parse(uri)
    if isinstance(reference, TreeRef):
        return reference.path[-1] if reference.path else "file"
    return getattr(reference, "label", None) or "file"


def spelled(stored: Stored, name: str | None, own_name: str, uri_type: int | None) -> str:
    """The URI of what was stored, in the spelling that was asked for; `own_name` when nobody gave a name."""
    kind = settings.uri_type() if uri_type is None else uri_type
    if kind is None and stored.prefix is None:
        return stored.uri(own_name if name is None else name)
    return stored.older_uri(name, 1 if kind is None else kind)
