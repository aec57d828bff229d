"""Resources: programs next to the data that bring a file when somebody asks for it.

A zone knows its resources by name. One without an address connects to this gateway's own relay. Whoever connected once
is known from then on, so that its files are not reachable, instead of not there, while it is away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sqlalchemy import delete, func, insert, select

from ... import names
from ...errors import Conflict, InvalidInput, InvalidName
from ..models import resources
from . import accounts, identity, zones

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

# Whoever holds the proxy secret chooses names; the list of those that are remembered has an end
_MOST_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource of a zone: its proxy's address, empty for this gateway; `created` in milliseconds since the epoch."""

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
    if proxy_url and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise InvalidInput(
            f"not the address of a resource proxy: {proxy_url!r}", hint="as in https://proxy.example.org"
        )
    zones.require(connection, zone)
    accounts.require_user(connection, owner)
    if find(connection, zone, name) is not None:
        raise Conflict(f"zone {zone!r} has a resource {name!r} already")
    connection.execute(insert(resources).values(zone=zone, name=name, owner=owner, proxy_url=proxy_url, created=now))
    return Resource(zone, name, owner, proxy_url, now)


def remember(connection: Connection, zone: str, name: str, now: int) -> None:
    """Make a resource known that has connected with the proxy secret, as one of the zone's owner; who is known stays.

    A name that no resource can be given, or one too many, is passed over.
    """
    known = zones.find(connection, zone)
    if known is None or find(connection, zone, name) is not None:
        return
    count = connection.execute(select(func.count()).select_from(resources).where(resources.c.zone == zone)).scalar()
    if count is not None and count < _MOST_REMEMBERED:
        try:
            add(connection, zone, name, known.owner, "", now)
        except InvalidName:
            return


def sharer(connection: Connection, zone: str, name: str, caller: identity.Caller, now: int) -> str | None:
    """Who runs a resource that a client wants to connect, when the client's owner may do so.

    The zone's administrators may, under any name, which becomes known; and the resource's own owner.

    Returns:
        The owner; `None` if they may not.
    """
    if caller.user is None:
        return None
    known = find(connection, zone, name)
    if known is not None and known.owner == caller.user:
        return known.owner
    if not zones.rights_of(connection, zones.find(connection, zone), caller.user).admin:
        return None
    return known.owner if known is not None else add(connection, zone, name, caller.user, "", now).owner


def remove(connection: Connection, zone: str, name: str) -> bool:
    """Forget a resource; says whether there was one."""
    statement = delete(resources).where(resources.c.zone == zone, resources.c.name == name)
    return connection.execute(statement).rowcount > 0


def _resource(row: Row[tuple[object, ...]]) -> Resource:
    return Resource(row.zone, row.name, row.owner, row.proxy_url, row.created)
