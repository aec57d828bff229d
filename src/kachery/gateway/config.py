"""What a gateway was told when it was started, and where its data directory keeps things.

DATA/                     0700
├── kachery.sqlite        0600: users, zones, permissions, files, uploads, usage
├── gateway.json          the address of the gateway that runs, or ran last, on this directory
├── kachery.json          the channels of the classic protocol, if there are any
├── gateway.lock          held by the gateway that runs, or those that share it
├── receiving.lock        held by the one of several that receives files
├── starting.lock         held by one that is just starting
├── spool/                what is being received, when the bucket is elsewhere
└── buckets/default/      the directory bucket
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import InvalidInput, NotConfigured, from_os_error
from .services import channels

DEFAULT_PORT = 8471

#: The largest file that a gateway accepts unless told otherwise, in bytes: what ext4 can hold.
DEFAULT_MAX_SIZE = 16 * 1024**4

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True)
class GatewayConfig:
    """The settings of one gateway process.

    Args:
        data: The data directory, absolute.
        host: The address to listen on.
        port: The TCP port; 0 lets the system choose.
        public_url: The address that clients use when it is not the one listened on, without a slash at its end.
        max_size: The largest file accepted, in bytes.
        log_level: `debug`, `info`, `warning` or `error`.
        channels: The channels of the classic protocol; without them it is not spoken.
        bucket_address: Where files are kept, as in `s3://BUCKET`; `None` for where they are (first: here).
        database_url: The database on a server, as in `postgresql://USER@HOST/NAME`; `None` for the file here.
        broker: The zone of files of the broker's protocol; without one it is not spoken.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    public_url: str | None = None
    max_size: int = DEFAULT_MAX_SIZE
    log_level: str = "info"
    channels: channels.Channels | None = None
    database_url: str | None = None
    broker: str | None = None
    bucket_address: str | None = None

    @property
    def database(self) -> Path | str:
        """Where the database is: an address, or the path of the SQLite file."""
        return self.database_url or self.database_path

    @property
    def database_path(self) -> Path:
        """The SQLite database."""
        return self.data / "kachery.sqlite"

    @property
    def spool_path(self) -> Path:
        """What is being received, when the bucket is elsewhere."""
        return self.data / "spool"

    @property
    def bucket_path(self) -> Path:
        """The directory bucket."""
        return self.data / "buckets" / "default"

    @property
    def channels_path(self) -> Path:
        """Where channels are looked for when nothing else is said."""
        return self.data / "kachery.json"

    @property
    def lock_path(self) -> Path:
        """The file that the running gateway holds a lock on."""
        return self.data / "gateway.lock"

    @property
    def address_path(self) -> Path:
        """Where the running gateway says how it is reached."""
        return self.data / "gateway.json"

    def base_url(self, scheme: str, host: str) -> str:
        """The address to put into links that a caller will follow: the public one, or the one the caller used."""
        return self.public_url or f"{scheme}://{host}"

    def is_own_address(self, url: str, reached_at: str | None) -> bool:
        """Whether an address that a client signed is this gateway's, so that nobody can pass its request on to us.

        Args:
            url: The address, as the client sees it.
            reached_at: The local IP address of the connection that the request came over.
        """
        if self.public_url is not None:
            return url.rstrip("/") == self.public_url
        host = urlsplit(url).hostname
        if host is None:
            return False
        own = {self.host, socket.gethostname(), socket.getfqdn()}
        if reached_at is not None:
            own.add(reached_at)
        if own & _LOOPBACK:
            own |= _LOOPBACK
        return host in own


def default_data_directory() -> Path:
    """`KACHERY_DATA`, or `~/.local/share/kachery`."""
    given = os.environ.get("KACHERY_DATA")
    return Path(given).expanduser().absolute() if given else Path.home() / ".local" / "share" / "kachery"


def require_public_url(url: str) -> str:
    """A public address without a slash at its end, when it is one.

    Raises:
        InvalidInput: If it is not an http or https address with a host.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidInput(f"not an address that a gateway can have: {url!r}", hint="as in https://kachery.example.org")
    return url.rstrip("/")


def read_channels(path: Path, zone: str) -> channels.Channels:
    """The channels of a `kachery.json`.

    Args:
        path: The file.
        zone: The zone of channels that name none.

    Raises:
        NotFound, NotAllowed: If it cannot be read.
        NotConfigured: If something in it is missing, wrong or not understood.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise from_os_error(error, "read", path) from error
    try:
        return channels.parse(json.loads(content), zone)
    except InvalidInput as error:
        raise NotConfigured(f"{path}: {error.message}", hint=error.hint) from error
    except (ValueError, RecursionError) as error:
        raise NotConfigured(f"{path} is not JSON: {error}") from error


def record_address(config: GatewayConfig, url: str) -> None:
    """Write down how the gateway is reached, for `kachery admin`."""
    temporary = config.address_path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps({"url": url, "pid": os.getpid()}) + "\n", encoding="utf-8")
    temporary.replace(config.address_path)


def recorded_address(config: GatewayConfig) -> str:
    """How the gateway on this data directory is, or was last, reached.

    Raises:
        NotConfigured: If none ever ran here.
    """
    try:
        url = json.loads(config.address_path.read_text(encoding="utf-8"))["url"]
    except (OSError, ValueError, KeyError, TypeError):
        url = None
    if not isinstance(url, str):
        raise NotConfigured(
            f"no gateway has run on {config.data} yet, so its address is not known",
            hint=f"run `kachery up --data {config.data}` once",
        )
    return url
