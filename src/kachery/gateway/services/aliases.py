"""Files by other hashes than their SHA-1.

SHA-256 is known of all content, MD5 of what was stored under it or asked to be recorded. The tables say what content
*is*, for the whole gateway; whether a zone has it is asked of the zone's own files each time, so a hash from one zone
finds nothing in another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from ...digest import is_hash
from ...errors import Collision
from ..databases.upsert import upsert
from ..models import aliases, content, files

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: Algorithms that a file can be asked for by.
ALGORITHMS = ("sha1", "sha256", "md5")


@dataclass(frozen=True, slots=True)
class Known:
    """A file of a zone: its SHA-1, its size in bytes, and since when, in milliseconds since the epoch."""

    sha1: str
    size: int
    created: int


def resolve(connection: Connection, zone: str, algorithm: str, hash_: str) -> Known | None:
    """A zone's file by any hash; `None` if the zone has no such file.

    Args:
        connection: A connection that may read.
        zone: The zone.
        algorithm: One of `ALGORITHMS`; for any other nothing is found.
        hash_: The hash; nothing is found by what is not one.
    """
    if algorithm not in ALGORITHMS or not is_hash(algorithm, hash_):
        return None
    statement = select(files.c.sha1, files.c.size, files.c.created).where(files.c.zone == zone)
    if algorithm == "sha1":
        statement = statement.where(files.c.sha1 == hash_)
    elif algorithm == "sha256":
        statement = statement.join(content, content.c.sha1 == files.c.sha1).where(content.c.sha256 == hash_)
    else:
        # of two contents with one MD5 the first that was recorded
        statement = (
            statement.join(aliases, aliases.c.sha1 == files.c.sha1)
            .where(aliases.c.algorithm == algorithm, aliases.c.hash == hash_)
            .order_by(aliases.c.created, aliases.c.sha1)
        )
    row = connection.execute(statement.limit(1)).first()
    return None if row is None else Known(str(row.sha1), int(row.size), int(row.created))


def require_same(connection: Connection, zone: str, algorithm: str, hash_: str, sha1: str) -> None:
    """Make sure that a hash does not name another file of a zone already.

    Raises:
        Collision: If it does.
    """
    known = resolve(connection, zone, algorithm, hash_)
    if known is not None and known.sha1 != sha1:
        raise Collision(
            f"{algorithm} {hash_} is that of another file of this zone, with the SHA-1 {known.sha1}",
            hint="one of the two files was made to collide; nothing was changed",
        )


def record(connection: Connection, algorithm: str, hash_: str, sha1: str, now: int) -> None:
    """Take note of a hash that the gateway has taken of content itself."""
    connection.execute(
        upsert(connection, aliases)
        .values(algorithm=algorithm, hash=hash_, sha1=sha1, created=now)
        .on_conflict_do_nothing(index_elements=[aliases.c.algorithm, aliases.c.hash, aliases.c.sha1])
    )
