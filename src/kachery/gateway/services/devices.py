"""Programs that have no browser, and wait for their user to say yes in one (the device flow of RFC 8628).

A program gets two codes: a long one, which it keeps and asks with, and a short one, which its user types in on a page
of the gateway after signing in there. Then the long one gives the program an API key for files, once.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update

from ...errors import NotFound, NotIdentified, TooLarge
from ..models import device_codes
from . import accounts, api_keys

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

#: How long the codes can be used, in milliseconds, and how often a program may ask, in seconds.
LIFETIME = 15 * 60 * 1000
INTERVAL = 5

_MOST_WAITING = 10_000

# letters that nobody mistakes for each other, and no words: 34 bits, which are typed in by somebody who has signed in
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Codes:
    """What a program gets: the long code, and the short one as it is shown, as in `BDWP-HQPK`."""

    device: str
    user: str


def begin(connection: Connection, now: int) -> Codes:
    """The codes for a program that wants to act for somebody.

    Raises:
        TooLarge: If too many wait already.
    """
    connection.execute(delete(device_codes).where(device_codes.c.expires < now))
    if connection.execute(select(func.count()).select_from(device_codes)).scalar_one() >= _MOST_WAITING:
        raise TooLarge("too many programs wait for their users to sign in", hint="try again in some minutes")
    device = secrets.token_urlsafe(32)
    user = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
    connection.execute(
        insert(device_codes).values(
            device_hash=accounts.hash_token(device),
            user_hash=accounts.hash_token(user),
            created=now,
            expires=now + LIFETIME,
        )
    )
    return Codes(device, f"{user[:4]}-{user[4:]}")


def approve(connection: Connection, code: str, user: str, now: int) -> None:
    """Let the program that shows a short code act for the user who typed it in.

    Raises:
        NotFound: If no program waits under it, or not any more.
    """
    letters = "".join(letter for letter in code.upper() if letter.isalnum())
    changed = connection.execute(
        update(device_codes)
        .where(
            device_codes.c.user_hash == accounts.hash_token(letters),
            device_codes.c.expires > now,
            device_codes.c.user.is_(None),
        )
        .values(user=user)
    )
    if changed.rowcount != 1:
        raise NotFound(
            "no program waits under this code", hint="codes can be used once, for 15 minutes; let it show a new one"
        )


def is_approved(connection: Connection, code: str, now: int) -> bool:
    """Whether the user of the program that holds a long code has said yes.

    Raises:
        NotIdentified: If the code was used, has expired, or never was.
    """
    return _waiting(connection, code, now).user is not None


def redeem(connection: Connection, code: str, label: str, now: int) -> tuple[str, accounts.User]:
    """An API key for the program that holds an approved long code, and whom it acts for; once.

    Raises:
        NotIdentified: If the code was used, has expired, never was, or is not approved.
    """
    row = _waiting(connection, code, now)
    if row.user is None:
        raise NotIdentified("nobody has typed in the code yet")
    connection.execute(delete(device_codes).where(device_codes.c.device_hash == row.device_hash))
    user = accounts.require_user(connection, str(row.user))
    return api_keys.add(connection, user.name, api_keys.FILES, label, now), user


def _waiting(connection: Connection, code: str, now: int) -> Row[tuple[object, ...]]:
    row = connection.execute(
        select(device_codes).where(
            device_codes.c.device_hash == accounts.hash_token(code), device_codes.c.expires > now
        )
    ).first()
    if row is None:
        raise NotIdentified("this code was used already, has expired, or never was", hint="sign in again")
    return row
