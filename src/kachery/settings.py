"""Every setting, its default, and where it comes from.

Programs change these variables between two calls (Spyglass does so for each file), so they are read at each call and
nothing here is kept. A value in the environment wins over `kachery.json` in the store directory, which
`kachery init` writes, and that wins over the default. An empty variable counts as unset.

| variable | default | meaning |
|---|---|---|
| `KACHERY_CLOUD_DIR` | `~/.kachery-cloud` | the store directory: blobs, links, local mutables, keys |
| `KACHERY_ZONE` | `default` | the zone that files go to and come from |
| `KACHERY_GATEWAY_URL` | from `kachery.json`; no public default | the gateway's base address |
| `KACHERY_RESOURCE_URL` | none | `<proxy>/r/<name>`: ask this resource for files that the zone lacks |
| `KACHERY_CLOUD_CLIENT_ID`, `KACHERY_CLOUD_PRIVATE_KEY` | none | a client's keys in hex, instead of key files |
| `KACHERY_STORE_FILE_DIR`, `KACHERY_STORE_FILE_PREFIX` | none | plain directory for `store_*`, prefix of its URIs |
| `KACHERY_SERVERS` | `~/.config/kachery/servers.json` | the classic servers that have names (`servers.py`) |
| `KACHERY_BASE_URL`, `KACHERY_API_KEY` | none | a gateway that speaks kachery 2.x, and a key for it |
| `KACHERY_ALLOW_PUBLIC_ZONES` | `0` | `1`: tell such a gateway that a public zone is meant |
| `KACHERY_URI_TYPE` | none | `1`: URIs as `sha1://HASH?label=NAME`; `2`: as `kachery:ZONE:sha1:HASH:NAME` |
| `KACHERY_MISSING` | `error` | `none`: `load_*` gives `None` for what is not found or reachable |
| `KACHERY_DIR` | `~/.kachery` | where kachery 2.x keeps things; read when loading |
| `KACHERY_STORAGE_DIR`, `KACHERY_STORAGE_DIR_ALT` | none | where classic kachery does; read when loading |
| `SHA1_CACHE_DIR`, `KBUCKET_CACHE_DIR`, `MD5_CACHE_DIR` | none | the same for older releases of classic kachery |
| `KACHERY_CLOUD_USE_SANDBOX`, `KACHERY_CLOUD_SANDBOX_DIR` | `0`, none | use a throw-away store directory |
| `KACHERY_CLOUD_MULTI_USER` | `0` | `1`: make new files and directories writable for the Unix group |
| `KACHERY_CLOUD_KEEP_TEMP_FILES` | `0` | `1`: leave temporary directories in place |
| `KACHERY_DURABILITY` | `close` | `close`: as durable as a copied file; `sync`: on the disk before a URI is returned |
| `KACHERY_PROGRESS` | `auto` | `0`: no progress bars; `1`: always; `auto`: for people, when it takes long |
| `KACHERY_TIMEOUT` | `60` | seconds to wait for a peer that says nothing |
| `KACHERY_TRANSFERS` | `4` | connections for one large file |
| `KACHERY_DEBUG` | `0` | `1`: the command line shows all it logs, and where an unexpected error came from |
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .errors import InvalidInput, NotConfigured

CONFIG_NAME = "kachery.json"
DEFAULT_ZONE = "default"


def variable(name: str) -> str | None:
    """A variable of the environment; `None` when it is unset or empty."""
    return os.environ.get(name) or None


def flag(name: str) -> bool:
    """Whether a variable is exactly `1`."""
    return os.environ.get(name) == "1"


def store_dir(*, respect_sandbox: bool = True) -> Path:
    """The store directory; it need not exist.

    Args:
        respect_sandbox: Whether a sandbox in use takes its place. Keys never live in a sandbox.

    Raises:
        InvalidInput: If it is in the home of a user whom this machine does not know.
    """
    return Path(store_path(respect_sandbox=respect_sandbox))


def store_path(*, respect_sandbox: bool = True) -> str:
    """As `store_dir`, a text."""
    if respect_sandbox and flag("KACHERY_CLOUD_USE_SANDBOX"):
        sandbox = variable("KACHERY_CLOUD_SANDBOX_DIR")
        if sandbox:
            return str(Path(sandbox).absolute())
    directory = variable("KACHERY_CLOUD_DIR")
    if directory is not None and directory[0] == "/" and os.path.normpath(directory) == directory:
        # a Path costs as much as storing half a small file does otherwise
        return directory
    try:
        return str(Path(directory).expanduser().absolute() if directory else Path.home() / ".kachery-cloud")
    except RuntimeError as error:
        raise InvalidInput(
            f"KACHERY_CLOUD_DIR names no directory: {error}", hint="set it to an absolute path"
        ) from error


def config_path() -> Path:
    """Where `kachery init` keeps what it learned."""
    return store_dir(respect_sandbox=False) / CONFIG_NAME


def config() -> dict[str, Any]:
    """The content of `kachery.json`; empty when there is none.

    Raises:
        NotConfigured: If the file is there but cannot be understood.
    """
    path = config_path()
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except OSError as error:
        raise NotConfigured(f"{path} cannot be read: {error.strerror}", hint="mend or remove it") from error
    except (ValueError, RecursionError) as error:
        raise NotConfigured(
            f"{path} is not JSON: {error}", hint="mend or remove it, then run `kachery init`"
        ) from error
    if not isinstance(content, dict):
        raise NotConfigured(f"{path} does not hold a JSON object", hint="remove it, then run `kachery init`")
    return content


def _configured(key: str) -> str | None:
    value = config().get(key)
    return value if isinstance(value, str) and value else None


def zone(given: str | None = None) -> str:
    """The zone to use: the one given, the environment's, the configured one, or `default`."""
    return given or variable("KACHERY_ZONE") or _configured("zone") or DEFAULT_ZONE


def gateway_url_or_none() -> str | None:
    """The gateway's base address without a slash at its end; `None` when there is none."""
    url = variable("KACHERY_GATEWAY_URL") or _configured("gateway_url")
    return url.rstrip("/") if url else None


def is_gateway_known() -> bool:
    """Whether somebody said where a zone is to be found."""
    return gateway_url_or_none() is not None or base_url() is not None


def gateway_url() -> str:
    """The gateway's base address without a slash at its end.

    Raises:
        NotConfigured: If nobody named one; no public host is ever assumed.
        InvalidInput: If it is not an http or https address.
    """
    url = gateway_url_or_none()
    if url is None:
        raise NotConfigured(
            "no gateway is configured",
            hint="set KACHERY_GATEWAY_URL, run `kachery init --gateway URL`, or start your own with `kachery up`",
        )
    if not url.startswith(("http://", "https://")):
        raise InvalidInput(f"the gateway's address must begin with http:// or https://: {url!r}")
    return url


def resource_url() -> str | None:
    """The resource to ask for files that the zone lacks, without a slash at its end."""
    url = variable("KACHERY_RESOURCE_URL")
    return url.rstrip("/") if url else None


def key_pair() -> tuple[str, str] | None:
    """The client id and private key in hex from the environment, or `None`.

    Raises:
        NotConfigured: If only one of the two is set.
    """
    client_id = variable("KACHERY_CLOUD_CLIENT_ID")
    private_key = variable("KACHERY_CLOUD_PRIVATE_KEY")
    if client_id and private_key:
        return client_id, private_key
    if client_id or private_key:
        raise NotConfigured(
            "of KACHERY_CLOUD_CLIENT_ID and KACHERY_CLOUD_PRIVATE_KEY one is set and the other is not",
            hint="set both or neither",
        )
    return None


def base_url() -> str | None:
    """The address of a gateway that speaks the protocol of kachery 2.x, without a slash at its end, or `None`."""
    url = variable("KACHERY_BASE_URL")
    return url.rstrip("/") if url else None


def api_key() -> str | None:
    """The API key of a user of kachery 2.x, or `None`."""
    return variable("KACHERY_API_KEY")


def allow_public_zones() -> bool:
    """Whether a gateway that speaks kachery 2.x is told that a public zone is meant."""
    return flag("KACHERY_ALLOW_PUBLIC_ZONES")


def user_directory() -> Path:
    """Where this user's own settings are kept, apart from the store directory; it need not exist."""
    base = variable("XDG_CONFIG_HOME")
    return Path(base or os.path.expanduser("~/.config")).absolute() / "kachery"


def servers_path() -> Path:
    """The file in which the user names classic servers; it need not be there."""
    given = variable("KACHERY_SERVERS")
    return Path(os.path.expanduser(given)).absolute() if given else user_directory() / "servers.json"


def uri_type() -> int | None:
    """How `store_*` spell URIs that nobody asked to be spelled otherwise: 1 or 2 as in kachery 2.x, or `None`."""
    value = variable("KACHERY_URI_TYPE")
    if value not in (None, "1", "2"):
        raise InvalidInput(f"KACHERY_URI_TYPE must be 1 or 2, not {value!r}")
    return None if value is None else int(value)


def missing_is_none() -> bool:
    """Whether `load_*` gives `None`, as in old programs, for what is not found or not reachable."""
    value = variable("KACHERY_MISSING") or "error"
    if value not in ("error", "none"):
        raise InvalidInput(f"KACHERY_MISSING must be error or none, not {value!r}")
    return value == "none"


def older_places(algorithm: str) -> list[str]:
    """Directories where earlier generations of kachery keep content of an algorithm; they are only read.

    Those of classic kachery when their variables are set, and that of kachery 2.x.
    """
    # looked at for each file that is not in the store: a variable that is not set costs one look, the rest nothing
    set_ = os.environ.get
    places = [f"{root}/{algorithm}" for name in _OLDER_STORES if (root := set_(name))]
    places += [root for name in _OLDER_CACHES.get(algorithm, ()) if (root := set_(name))]
    if not set_("KACHERY_DIR"):
        places.append(f"{set_('HOME') or '~'}/.kachery/{algorithm}")
    return [place if place[0] == "/" else os.path.abspath(os.path.expanduser(place)) for place in places]


_OLDER_STORES = ("KACHERY_STORAGE_DIR", "KACHERY_STORAGE_DIR_ALT", "KACHERY_DIR")
_OLDER_CACHES = {"sha1": ("SHA1_CACHE_DIR", "KBUCKET_CACHE_DIR"), "md5": ("MD5_CACHE_DIR",)}


def store_file_dir() -> str | None:
    """The plain directory that takes the place of store and zone, or `None`."""
    return variable("KACHERY_STORE_FILE_DIR")


def store_file_prefix() -> str | None:
    """The prefix of URIs made with `store_file_dir`, or `None`."""
    return variable("KACHERY_STORE_FILE_PREFIX")


def multi_user() -> bool:
    """Whether new files and directories must be writable for the Unix group, whatever the directory says."""
    return flag("KACHERY_CLOUD_MULTI_USER")


def keep_temporary_files() -> bool:
    """Whether temporary directories are left in place."""
    return flag("KACHERY_CLOUD_KEEP_TEMP_FILES")


def durable() -> bool:
    """Whether bytes must be on the disk before their URI is returned."""
    value = variable("KACHERY_DURABILITY") or "close"
    if value not in ("close", "sync"):
        raise InvalidInput(f"KACHERY_DURABILITY must be close or sync, not {value!r}")
    return value == "sync"


def progress() -> str:
    """`0`, `1` or `auto`."""
    value = variable("KACHERY_PROGRESS") or "auto"
    return value if value in ("0", "1") else "auto"


def timeout() -> float:
    """How long to wait for a peer that says nothing, in seconds."""
    return _number("KACHERY_TIMEOUT", 60.0)


def transfers() -> int:
    """How many connections one large file may use."""
    return max(1, min(32, int(_number("KACHERY_TRANSFERS", 4))))


def debug() -> bool:
    """Whether the command line shows all it logs, and where an unexpected error came from."""
    return flag("KACHERY_DEBUG")


def _number(name: str, default: float) -> float:
    text = variable(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise InvalidInput(f"{name} must be a number above zero, not {text!r}")
    return value
