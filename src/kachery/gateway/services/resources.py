"""Resources: programs next to the data that upload a file when a client asks for it.

The gateway only knows under which name and address each is reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sqlalchemy import delete, insert, select

from ... import names
from ...errors import Conflict, InvalidInput
from ..models import resources
from . import accounts, zones

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource of a zone; `created` in milliseconds since the epoch."""

    zone: str
    name: str
    owner: str
    proxy_url: str
    created: int


def find(connection: Connection, zone: str, name: str) -> Resource | None:
    """A resource of a zone by name."""
    row = connection.execute(select(resources).where(resources.c.zone == zone, resources.c.name == name)).first()
    return None if row is None else _resource(row)


def list_all(connection: Connection, zone: str) -> list[Resource]:
    """The resources of a zone by name."""
    rows = connection.execute(select(resources).where(resources.c.zone == zone).order_by(resources.c.name))
    return [_resource(row) for row in rows]


def add(connection: Connection, zone: str, name: str, owner: str, proxy_url: str, now: int) -> Resource:
    """Make a resource known.

    Raises:
        InvalidInput: If the name or the address is not one.
        NotFound: If there is no such zone or user.
        Conflict: If the zone has a resource of this name.
    """
    names.component(name, "resource name")
    parts = urlsplit(proxy_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(
            f"not the address of a resource proxy: {proxy_url!r}", hint="as in https://proxy.example.org"
        )
    zones.require(connection, zone)
    accounts.require_user(connection, owner)
    if find(connection, zone, name) is not None:
        raise Conflict(f"zone {zone!r} has a resource {name!r} already")
    connection.execute(insert(resources).values(zone=zone, name=name, owner=owner, proxy_url=proxy_url, created=now))
    return Resource(zone, name, owner, proxy_url, now)


def remove(connection: Connection, zone: str, name: str) -> bool:
    """Forget a resource; says whether there was one."""
    statement = delete(resources).where(resources.c.zone == zone, resources.c.name == name)
    return connection.execute(statement).rowcount > 0


def _resource(row: Row[tuple[object, ...]]) -> Resource:
    return Resource(row.zone, row.name, row.owner, row.proxy_url, row.created)
