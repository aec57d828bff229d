"""Clients that asked to be registered and wait for a signed-in user to say yes.

A client signs who it is, which gateway and zone it means, and a nonce that counts once; it gets a link for its user. So
the document is of no use to another gateway, at another time, or twice.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select

from ... import names
from ...errors import Conflict, InvalidInput, NotFound, TooLarge
from ..models import registrations
from . import accounts, identity

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: How long a link can be used, in milliseconds.
LIFETIME = 15 * 60 * 1000

_MOST_WAITING = 10_000
_NONCE = re.compile(r"[A-Za-z0-9_-]{16,100}")


@dataclass(frozen=True, slots=True)
class Registration:
    """A client that waits; `expires` in milliseconds since the epoch."""

    client_id: str
    zone: str
    label: str
    expires: int


def begin(connection: Connection, client_id: str, zone: str, label: str, nonce: str, window: int, now: int) -> str:
    """A code for the link that a client's user opens. Its request's signature has been checked.

    Args:
        connection: A connection that may write.
        client_id: The client.
        zone: The zone it names; nothing is said yet about whether there is one.
        label: How it calls itself.
        nonce: What it chose for this request alone.
        window: For how long a request of this age would be accepted, in milliseconds.
        now: The time, in milliseconds since the epoch.

    Raises:
        InvalidInput: If one of these is not what it should be.
        Conflict: If the nonce was used before.
    """
    identity.require_client_id(client_id)
    identity.require_label(label)
    names.zone(zone)
    if not _NONCE.fullmatch(nonce):
        raise InvalidInput("not a nonce", hint="16 to 100 letters, digits, `-` and `_`, chosen at random")
    if not identity.use_once(connection, f"register:{nonce}", now + 2 * window, now):
        raise Conflict("this request was made before", hint="choose a new nonce for each request")
    connection.execute(delete(registrations).where(registrations.c.expires < now))
    if connection.execute(select(func.count()).select_from(registrations)).scalar_one() >= _MOST_WAITING:
        raise TooLarge("too many clients wait to be registered", hint="try again in some minutes")
    code = secrets.token_urlsafe(16)
    connection.execute(
        insert(registrations).values(
            code_hash=accounts.hash_token(code),
            client_id=client_id,
            zone=zone,
            label=label,
            created=now,
            expires=now + LIFETIME,
        )
    )
    return code


def find(connection: Connection, code: str, now: int) -> Registration:
    """Who waits under a code.

    Raises:
        NotFound: If nobody does, or not any more.
    """
    row = connection.execute(
        select(registrations).where(
            registrations.c.code_hash == accounts.hash_token(code), registrations.c.expires > now
        )
    ).first()
    if row is None:
        raise NotFound(
            "this registration link was used already, has expired, or never was", hint="run `kachery init` again"
        )
    return Registration(row.client_id, row.zone, row.label, row.expires)


def accept(connection: Connection, code: str, owner: str, now: int) -> identity.Client:
    """Register the client that waits under a code, for the user who says yes.

    Raises:
        NotFound: If nobody waits, or the zone does not exist.
        Conflict: If the client belongs to another user in this zone.
    """
    waiting = find(connection, code, now)
    client = identity.register_client(connection, waiting.zone, waiting.client_id, owner, waiting.label, now)
    connection.execute(delete(registrations).where(registrations.c.code_hash == accounts.hash_token(code)))
    return client
