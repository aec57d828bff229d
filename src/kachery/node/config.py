"""`kachery-resource.yaml`: under which name, in which zone and through which relay a machine shares its files.

| key | meaning |
|---|---|
| `resourceName` | the name of the resource, a part of its public address |
| `kacheryZone` | its zone |
| `maxConcurrentUploads` | how many files (or, on our own wire, ranges) are sent at once; 2 when it is missing |
| `proxyUrl` | the relay's address, http or https |
| `proxySecret` | the relay's secret; not needed where the relay knows this machine's client |
| `directories` | ours: share only what lies in these directories; all that is linked or stored when it is missing |
| `kacheryCloudDir` | ours: the store directory whose files it shares; that of the settings when it is missing |
| `gatewayKey` | ours: the key that requests must be signed with, learned at first contact |

The first five are upstream's. Other keys are kept when the file is written. Upstream reads YAML 1.2, in which `no` and
`on` are texts; so do we, and what we write means the same in both versions.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from .. import names
from ..errors import InvalidInput, NotConfigured, explaining
from ..store.layout import random_letters, remove_if_there, write_all

#: What the file is called in the working directory.
FILE_NAME = "kachery-resource.yaml"

DEFAULT_UPLOADS = 2

_MOST_UPLOADS = 64
_KEY = re.compile("[0-9a-f]{64}")

# what a scalar without quotes is in the core schema of YAML 1.2
_CORE = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"null|Null|NULL|~|", "nN~\0"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


@dataclass(frozen=True)
class ResourceConfig:
    """One resource.

    Attributes:
        name: Its name.
        zone: Its zone.
        relay: The relay's address, without a slash at its end.
        uploads: How much is sent at once.
        secret: The relay's secret, or `None`.
        directories: What is shared lies in these; all that the store knows when there are none.
        store: The store directory whose files it shares; `None` for that of the settings.
        gateway_key: The public key that requests must be signed with, in hex, or `None` before the first contact.
        path: The file it comes from.
    """

    name: str
    zone: str
    relay: str
    uploads: int
    secret: str | None = field(repr=False)
    directories: tuple[str, ...]
    store: Path | None
    gateway_key: str | None
    path: Path

    @property
    def url(self) -> str:
        """What clients set `KACHERY_RESOURCE_URL` to."""
        return f"{self.relay}/r/{quote(self.name, safe='')}"


def read(path: Path) -> dict[str, Any]:
    """The content of a file as it is; empty when there is none.

    Raises:
        NotConfigured: If it is not YAML, or not a mapping.
    """
    import yaml

    try:
        with explaining("read", path):
            text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise NotConfigured(
            f"{path} is not text: {error}", hint="make it again with `kachery-resource init`"
        ) from error
    try:
        content = yaml.load(text, _loader())  # noqa: S506 — a safe loader, see below
        # the texts as they stand, for values that look like numbers and are none
        texts = yaml.load(text, yaml.BaseLoader)  # noqa: S506 — makes nothing but texts
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NotConfigured(f"{path} is not YAML: {reason}", hint="mend it or make it again") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise NotConfigured(f"{path} holds no keys and values", hint="make it again with `kachery-resource init`")
    for key in ("resourceName", "kacheryZone", "proxyUrl", "proxySecret", "gatewayKey"):
        if isinstance(content.get(key), int | float):
            content[key] = texts[key]
    return content


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a file that its owner alone can read, whole or not at all.

    Raises:
        NotAllowed, StorageFull: As the file system says.
    """
    import yaml

    text = yaml.dump(content, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=10**6)
    # a link to a file elsewhere stays one
    target = os.path.realpath(path)
    temporary = f"{target}.{random_letters(10)}"
    with explaining("write to", path):
        # private from its first moment on
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb", buffering=0):
                write_all(fd, text.encode())
                os.fsync(fd)
            os.replace(temporary, target)
        except BaseException:
            remove_if_there(temporary)
            raise


def load(path: Path) -> ResourceConfig:
    """A resource, from its file.

    Raises:
        NotConfigured: If there is no file, or it lacks something.
        InvalidInput: If something in it makes no sense.
    """
    content = read(path)
    if not content:
        raise NotConfigured(f"No config: there is no {path}", hint="make it with `kachery-resource init`")
    return made(content, path)


def made(content: dict[str, Any], path: Path) -> ResourceConfig:
    """A resource, from the content of its file.

    Args:
        content: As `read` gives it.
        path: Where the file is, for errors and for what is learned later.

    Raises:
        NotConfigured: If something is missing.
        InvalidInput: If something makes no sense.
    """
    zone = content.get("kacheryZone")
    if not zone:
        raise NotConfigured(f"No kachery zone in config: {path}", hint="run `kachery-resource init` again")
    return ResourceConfig(
        name=require_name(_text(content, "resourceName", path)),
        zone=names.zone(_text(content, "kacheryZone", path)),
        relay=require_relay(_text(content, "proxyUrl", path)),
        uploads=require_uploads(content.get("maxConcurrentUploads", DEFAULT_UPLOADS)),
        secret=_text(content, "proxySecret", path) if content.get("proxySecret") is not None else None,
        directories=_directories(content.get("directories"), path),
        store=_store(content, path),
        gateway_key=_gateway_key(content.get("gatewayKey"), path),
        path=path,
    )


def remember_gateway(config: ResourceConfig, key: str) -> ResourceConfig:
    """Write down the key that a gateway signs its requests with.

    Raises:
        NotAllowed, StorageFull: If the file cannot be written.
    """
    write(config.path, {**read(config.path), "gatewayKey": key})
    return replace(config, gateway_key=key)


def require_name(text: str) -> str:
    """A resource's name, itself, when it can be a part of an address.

    Raises:
        InvalidName: If it cannot.
    """
    return names.component(text, "resource name")


def require_relay(text: str) -> str:
    """A relay's address without the slash at its end.

    Raises:
        InvalidInput: If it is not an http or https address.
    """
    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidInput(f"not the address of a relay: {text!r}", hint="for example https://kachery.mylab.org")
    return text.strip().rstrip("/")


def require_uploads(value: Any) -> int:
    """How much may be sent at once, itself, when it is a number of 1 or more; at most 64.

    Raises:
        InvalidInput: If it is not. With 0 nothing would ever be sent, and every request would wait for ever.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidInput(f"maxConcurrentUploads must be a whole number of 1 or more, not {value!r}")
    return min(value, _MOST_UPLOADS)


def _text(content: dict[str, Any], key: str, path: Path) -> str:
    value = content.get(key)
    if value is None or value == "":
        raise NotConfigured(f"{path} has no {key}", hint="run `kachery-resource init` again")
    if not isinstance(value, str):
        raise NotConfigured(f"{key} in {path} is not a text", hint="put it in quotes")
    return value


def _directories(value: Any, path: Path) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
        raise NotConfigured(f"directories in {path} is not a list of paths", hint="as in directories: [/data/raw]")
    return tuple(_beside(path, item) for item in value)


def _store(content: dict[str, Any], path: Path) -> Path | None:
    if content.get("kacheryCloudDir") is None:
        return None
    return Path(_beside(path, _text(content, "kacheryCloudDir", path)))


def _beside(path: Path, name: str) -> str:
    return os.path.join(path.parent.absolute(), os.path.expanduser(name))


def _gateway_key(value: Any, path: Path) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        raise NotConfigured(
            f"gatewayKey in {path} is not a key of 64 hex digits", hint="remove the line; the key is learned anew"
        )
    return value


def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {}  # noqa: RUF012 — the library's own way

    for name, pattern, first in _CORE:
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(f"(?:{pattern})\\Z"), _first(first))
    Loader.add_constructor("tag:yaml.org,2002:int", _integer)
    Loader.add_constructor("tag:yaml.org,2002:float", _float)
    return Loader


def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        # the resolvers of YAML 1.1, which decide there what needs quotes, and those of 1.2
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: list(found) for first, found in yaml.SafeDumper.yaml_implicit_resolvers.items()
        }

    for name, pattern, first in _CORE:
        Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(f"(?:{pattern})\\Z"), _first(first))
    return Dumper


def _first(letters: str) -> list[str]:
    return ["" if letter == "\0" else letter for letter in letters]


def _integer(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node)
    return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)


def _float(loader: Any, node: Any) -> float:
    text = loader.construct_scalar(node).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))
