"""The account book: who stored and fetched how much, by zone and day.

Counts are gathered in memory and written every few seconds (`Counters`), so that a download costs no write. A crash may
lose the last seconds of them; nothing else depends on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from ..databases.upsert import upsert
from ..models import usage, users

if TYPE_CHECKING:
    from sqlalchemy import Connection

COUNTS = ("finds", "uploads", "upload_bytes", "downloads", "download_bytes")

# zone, day, number of the user (0: nobody), client ("" if unknown)
_Key = tuple[str, str, int, str]


@dataclass(frozen=True, slots=True)
class Usage:
    """One line of the account book; `user` and `client` are empty for callers who did not say who they are."""

    zone: str
    day: str
    user: str
    client: str
    finds: int
    uploads: int
    upload_bytes: int
    downloads: int
    download_bytes: int


class Counters:
    """What was counted since the last `take`; used by one thread."""

    def __init__(self) -> None:
        self._counts: dict[_Key, list[int]] = {}

    def count(self, zone: str, user: int, client: str, now: int, **counts: int) -> None:
        """Add some of `COUNTS` for a user (by number) and client; `now` in milliseconds since the epoch."""
        day = datetime.fromtimestamp(now / 1000, UTC).date().isoformat()
        line = self._counts.setdefault((zone, day, user, client), [0] * len(COUNTS))
        for name, value in counts.items():
            line[COUNTS.index(name)] += value

    def put_back(self, counts: dict[_Key, list[int]]) -> None:
        """Count again what could not be written."""
        for key, line in counts.items():
            known = self._counts.setdefault(key, [0] * len(COUNTS))
            self._counts[key] = [one + other for one, other in zip(known, line, strict=True)]

    def take(self) -> dict[_Key, list[int]]:
        """What was counted, to be written; counting begins anew."""
        counts, self._counts = self._counts, {}
        return counts


def write(connection: Connection, counts: dict[_Key, list[int]]) -> None:
    """Add counts to the book."""
    numbers = {key[2] for key in counts if key[2]}
    rows = connection.execute(select(users.c.id, users.c.name).where(users.c.id.in_(numbers)))
    names = {row.id: row.name for row in rows}
    for (zone, day, user, client), line in counts.items():
        values = dict(zip(COUNTS, line, strict=True))
        statement = upsert(connection, usage).values(
            zone=zone, day=day, user=names.get(user, ""), client=client, **values
        )
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[usage.c.zone, usage.c.day, usage.c.user, usage.c.client],
                set_={name: usage.c[name] + statement.excluded[name] for name in COUNTS},
            )
        )


def read(connection: Connection, zone: str) -> list[Usage]:
    """The lines of a zone, by day, user and client."""
    rows = connection.execute(
        select(usage).where(usage.c.zone == zone).order_by(usage.c.day, usage.c.user, usage.c.client)
    )
    return [Usage(row.zone, row.day, row.user, row.client, *(getattr(row, name) for name in COUNTS)) for row in rows]


def by_day(connection: Connection, *, zone: str | None = None, user: str | None = None) -> list[Usage]:
    """The lines of a zone, of a user, or all; those of one day, zone and user made one, with an empty client."""
    columns = (usage.c.zone, usage.c.day, usage.c.user)
    statement = select(*columns, *(func.sum(usage.c[name]).label(name) for name in COUNTS))
    if zone is not None:
        statement = statement.where(usage.c.zone == zone)
    if user is not None:
        statement = statement.where(usage.c.user == user)
    rows = connection.execute(statement.group_by(*columns).order_by(usage.c.day, usage.c.zone, usage.c.user))
    return [Usage(row.zone, row.day, row.user, "", *(int(getattr(row, name)) for name in COUNTS)) for row in rows]
