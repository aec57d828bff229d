"""Clients: the key pairs that a zone knows, and the users they act for.

A client proves who it is with its key. What it may do is what its *owner* may do; it is registered in each zone that it
works with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, insert, select, update

from ...errors import Conflict, InvalidInput, NotFound
from ..models import clients, nonces, users
from . import zones
from .prepared import PreparedLookup

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

_CLIENT_ID = re.compile(r"[0-9a-f]{64}")
LONGEST_LABEL = 200

_FIND = select(clients).where(clients.c.zone == bindparam("zone"), clients.c.client_id == bindparam("client"))

_CALLER = PreparedLookup(
    select(clients.c.owner, users.c.id)
    .join(users, users.c.name == clients.c.owner)
    .where(clients.c.zone == bindparam("zone"), clients.c.client_id == bindparam("client"))
)


@dataclass(frozen=True, slots=True)
class Client:
    """A client as a zone knows it; `created` in milliseconds since the epoch."""

    client_id: str
    zone: str
    owner: str
    label: str
    created: int


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, after its signature was checked.

    Args:
        client_id: The key that signed it; `None` for anonymous callers.
        user: The key's owner in the zone; `None` if the zone does not know the key.
        user_number: The owner's number; 0 if there is none.
    """

    client_id: str | None = None
    user: str | None = None
    user_number: int = 0


ANONYMOUS = Caller()


def caller(connection: Connection, zone: str, client_id: str | None) -> Caller:
    """Who a client is in a zone."""
    if client_id is None:
        return ANONYMOUS
    row = _CALLER(connection, zone=zone, client=client_id)
    return Caller(client_id) if row is None else Caller(client_id, *row)


def find_client(connection: Connection, zone: str, client_id: str) -> Client | None:
    """A client of a zone."""
    row = connection.execute(_FIND, {"zone": zone, "client": client_id}).first()
    return None if row is None else _client(row)


def list_clients(connection: Connection, *, owner: str | None = None, zone: str | None = None) -> list[Client]:
    """The clients of a user, of a zone, or all of them, oldest first."""
    statement = select(clients).order_by(clients.c.created, clients.c.client_id, clients.c.zone)
    if owner is not None:
        statement = statement.where(clients.c.owner == owner)
    if zone is not None:
        statement = statement.where(clients.c.zone == zone)
    return [_client(row) for row in connection.execute(statement)]


def register_client(connection: Connection, zone: str, client_id: str, owner: str, label: str, now: int) -> Client:
    """Make a client known in a zone. Doing so again for the same owner changes nothing.

    Raises:
        InvalidInput: If the client id or the label is not one.
        NotFound: If there is no such zone or user.
        Conflict: If the client belongs to another user in this zone.
    """
    require_client_id(client_id)
    require_label(label)
    zones.require(connection, zone)
    if connection.execute(select(users.c.id).where(users.c.name == owner)).first() is None:
        raise NotFound(f"this gateway has no user {owner!r}", hint=f"`kachery admin user add {owner}` makes one")
    known = find_client(connection, zone, client_id)
    if known is not None:
        if known.owner != owner:
            raise Conflict(
                f"client {client_id[:8]}… is registered in zone {zone!r} for another user",
                hint="its owner, or `kachery admin client remove`, can remove it first",
            )
        return known
    connection.execute(insert(clients).values(zone=zone, client_id=client_id, owner=owner, label=label, created=now))
    return Client(client_id, zone, owner, label, now)


def remove_client(connection: Connection, client_id: str, *, zone: str | None = None, owner: str | None = None) -> int:
    """Make a client unknown, in one zone or in all; says in how many zones it was known.

    Args:
        connection: A connection that may write.
        client_id: The client.
        zone: The zone; `None` for all.
        owner: Remove it only if it belongs to this user.
    """
    statement = delete(clients).where(clients.c.client_id == client_id)
    if zone is not None:
        statement = statement.where(clients.c.zone == zone)
    if owner is not None:
        statement = statement.where(clients.c.owner == owner)
    return connection.execute(statement).rowcount


def set_label(connection: Connection, zone: str, client_id: str, owner: str, label: str) -> None:
    """Change the label of a user's own client.

    Raises:
        NotFound: If the user has no such client in the zone.
        InvalidInput: If the label is too long or holds control characters.
    """
    require_label(label)
    changed = connection.execute(
        update(clients)
        .where(clients.c.zone == zone, clients.c.client_id == client_id, clients.c.owner == owner)
        .values(label=label)
    )
    if changed.rowcount == 0:
        raise NotFound("you have no such client")


def require_client_id(text: str) -> str:
    """A client id, itself, when it is one.

    Raises:
        InvalidInput: If it is not.
    """
    if not _CLIENT_ID.fullmatch(text):
        raise InvalidInput(
            f"not a client id: {text[:80]!r}", hint="64 lower-case hex digits, as `kachery init` prints it"
        )
    return text


def require_label(text: str) -> str:
    """A client's label, itself, when it can be shown.

    Raises:
        InvalidInput: If it is longer than 200 characters or holds control characters.
    """
    if len(text) > LONGEST_LABEL or not text.isprintable():
        raise InvalidInput(f"not a label: {text[:80]!r}", hint=f"up to {LONGEST_LABEL} printable characters")
    return text


def use_once(connection: Connection, nonce: str, expires: int, now: int) -> bool:
    """Take note of something that may happen once; says whether it had not happened yet.

    Args:
        connection: A connection that may write.
        nonce: What must not come again, at most 128 characters.
        expires: When it can be forgotten, because it would be refused for its age.
        now: The time; both in milliseconds since the epoch.
    """
    connection.execute(delete(nonces).where(nonces.c.expires < now))
    if connection.execute(select(nonces.c.nonce).where(nonces.c.nonce == nonce)).first() is not None:
        return False
    connection.execute(insert(nonces).values(nonce=nonce, expires=expires))
    return True


def _client(row: Row[tuple[object, ...]]) -> Client:
    return Client(row.client_id, row.zone, row.owner, row.label, row.created)
