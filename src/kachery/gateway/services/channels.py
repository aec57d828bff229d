"""Channels of the classic protocol: a shared password, a zone, and how much may go through on a day.

A channel comes from a `kachery.json` as the classic server reads it:

    {"channels": [{"name": "public", "password": "…",
                   "downloadQuotas": [{"name": "small", "maxFileSize": 1e6, "maxSimultaneous": 2,
                                       "maxNumFilesPerDay": 10000, "maxNumBytesPerDay": 1e9}],
                   "uploadQuotas": []}]}

The first quota that is large enough for a file is the file's; no quotas, no transfers. Of ours are, for each channel,
`zone` (where its files are), `tlsOnly` and `maxRequestsPerMinute` (from one address), and beside the channels `zone`
(for those that name none) and `port`. What is not understood is refused: a limit that is misspelt would be none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import bindparam, delete, select

from ...errors import InvalidInput
from ..databases.upsert import upsert
from ..models import channel_counts
from .prepared import PreparedLookup

if TYPE_CHECKING:
    from sqlalchemy import Connection

Direction = Literal["download", "upload"]

# what fits a column of the account book with what stands before it
_LONGEST_NAME = 40

_LIMITS = {
    "maxFileSize": "max_size",
    "maxSimultaneous": "max_simultaneous",
    "maxNumFilesPerDay": "max_files",
    "maxNumBytesPerDay": "max_bytes",
}


@dataclass(frozen=True, slots=True)
class Quota:
    """What may go through a channel in one direction.

    Args:
        name: Its name, unique in its channel and direction.
        max_size: The largest file that it is for, in bytes; `None`: for none.
        max_simultaneous: Transfers at a time; `None`: none, as upstream's server waits for ever.
        max_files: Files on a day; `None`: any number.
        max_bytes: Bytes on a day; `None`: any number.
    """

    name: str
    max_size: float | None
    max_simultaneous: float | None
    max_files: float | None
    max_bytes: float | None


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel.

    Args:
        name: Its name.
        password: What signatures are made with.
        zone: The zone whose files it gives and takes.
        downloads: Quotas, in the order in which they are looked at.
        uploads: Likewise.
        tls_only: Whether requests must have come over TLS.
        max_requests: How many requests one address may make in a minute; `None`: any number.
    """

    name: str
    password: str = field(repr=False)
    zone: str
    downloads: tuple[Quota, ...]
    uploads: tuple[Quota, ...]
    tls_only: bool = False
    max_requests: int | None = None

    def quota(self, direction: Direction, size: int) -> Quota | None:
        """The quota for a file of a size in bytes; `None` if there is none."""
        quotas = self.downloads if direction == "download" else self.uploads
        return next((quota for quota in quotas if quota.max_size is not None and size <= quota.max_size), None)


@dataclass(frozen=True, slots=True)
class Channels:
    """What a `kachery.json` says.

    Args:
        channels: The channels by name.
        port: The port of their own that they are served at, if any.
    """

    channels: dict[str, Channel]
    port: int | None = None


def parse(document: Any, zone: str | None = None) -> Channels:
    """The channels of a `kachery.json`.

    Args:
        document: Its content.
        zone: The zone of the channels that name none, if the document does not say it.

    Raises:
        InvalidInput: If something in it is missing, wrong or not understood.
    """
    _require_keys(document, "kachery.json", {"channels"}, {"zone", "port"})
    common = document.get("zone", zone)
    port = document.get("port")
    if port is not None and (type(port) is not int or not 0 <= port < 65536):
        raise InvalidInput(f"not a port: {port!r}")
    if not isinstance(document["channels"], list):
        raise InvalidInput("`channels` is not a list")
    channels: dict[str, Channel] = {}
    for item in document["channels"]:
        channel = _channel(item, common)
        if channel.name in channels:
            raise InvalidInput(f"there are two channels {channel.name!r}")
        channels[channel.name] = channel
    return Channels(channels, port)


def _channel(item: Any, common: Any) -> Channel:
    needed = {"name", "password", "downloadQuotas", "uploadQuotas"}
    _require_keys(item, "a channel", needed, {"zone", "tlsOnly", "maxRequestsPerMinute"})
    name, password, zone = item["name"], item["password"], item.get("zone", common)
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise InvalidInput(f"not the name of a channel: {name!r}", hint=f"up to {_LONGEST_NAME} printable characters")
    if not isinstance(password, str) or not password or not _is_unicode(password):
        # upstream lets everybody sign for a channel without one
        raise InvalidInput(f"channel {name!r} has no password", hint="`public` is the one that everybody knows")
    if not isinstance(zone, str):
        raise InvalidInput(f"channel {name!r} has no zone", hint='as in "zone": "default"')
    tls_only, most = item.get("tlsOnly", False), item.get("maxRequestsPerMinute")
    if not isinstance(tls_only, bool):
        raise InvalidInput(f"tlsOnly of channel {name!r} is neither true nor false")
    if most is not None and (type(most) is not int or most < 1):
        raise InvalidInput(f"maxRequestsPerMinute of channel {name!r} is not a number of requests: {most!r}")
    downloads = _quotas(item["downloadQuotas"], f"downloadQuotas of channel {name!r}")
    uploads = _quotas(item["uploadQuotas"], f"uploadQuotas of channel {name!r}")
    return Channel(name, password, zone, downloads, uploads, tls_only, most)


def _quotas(items: Any, where: str) -> tuple[Quota, ...]:
    if not isinstance(items, list):
        raise InvalidInput(f"{where} is not a list", hint="an empty list allows nothing")
    quotas: list[Quota] = []
    for number, item in enumerate(items):
        _require_keys(item, f"a quota in {where}", set(), {"name", *_LIMITS})
        for key in _LIMITS:
            value = item.get(key)
            if value is not None and not (type(value) in (int, float) and math.isfinite(value) and value >= 0):
                raise InvalidInput(f"{key} in {where} is not a number: {value!r}")
        name = str(item.get("name", ""))[:_LONGEST_NAME]
        # what is counted under a name must not be counted under another's
        unique = name if name and all(name != quota.name for quota in quotas) else f"{name}#{number}"
        quotas.append(Quota(unique, **{field: item.get(key) for key, field in _LIMITS.items()}))
    return tuple(quotas)


def _require_keys(item: Any, what: str, needed: set[str], allowed: set[str]) -> None:
    if not isinstance(item, dict):
        raise InvalidInput(f"{what} is not an object")
    if missing := needed - set(item):
        raise InvalidInput(f"{what} has no {', '.join(sorted(missing))}")
    if unknown := set(item) - needed - allowed:
        known = ", ".join(sorted(needed | allowed))
        raise InvalidInput(f"{what} has something unknown: {', '.join(sorted(unknown))}", hint=f"known are {known}")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# -- what was used ----------------------------------------------------------------------------------------------------

# channel, direction, quota, day
CountKey = tuple[str, str, str, str]

_COUNT = PreparedLookup(
    select(channel_counts.c.files, channel_counts.c.bytes).where(
        channel_counts.c.channel == bindparam("channel"),
        channel_counts.c.direction == bindparam("direction"),
        channel_counts.c.quota == bindparam("quota"),
        channel_counts.c.day == bindparam("day"),
    )
)


def count(connection: Connection, key: CountKey) -> tuple[int, int]:
    """How many files and bytes went through under a quota on a day."""
    row = _COUNT(connection, channel=key[0], direction=key[1], quota=key[2], day=key[3])
    return (0, 0) if row is None else (int(row[0]), int(row[1]))


def add_counts(connection: Connection, counts: dict[CountKey, tuple[int, int]], today: str) -> None:
    """Write down files and bytes that went through; days before `today` are forgotten."""
    connection.execute(delete(channel_counts).where(channel_counts.c.day < today))
    for (channel, direction, quota, day), (files, size) in counts.items():
        statement = upsert(connection, channel_counts).values(
            channel=channel, direction=direction, quota=quota, day=day, files=files, bytes=size
        )
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[getattr(channel_counts.c, name) for name in ("channel", "direction", "quota", "day")],
                set_={
                    "files": channel_counts.c.files + statement.excluded.files,
                    "bytes": channel_counts.c.bytes + statement.excluded.bytes,
                },
            )
        )
