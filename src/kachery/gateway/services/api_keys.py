"""API keys: texts with which a user's programs say who they are, where a protocol knows no signatures.

A key is for `files` (store and load, as its user may) or for `management` (change zones, make keys). It is shown once,
when it is made, and stored as a hash.
"""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, insert, select

from ...errors import InvalidInput
from ..models import api_keys, users
from . import accounts, identity
from .prepared import PreparedLookup

if TYPE_CHECKING:
    from sqlalchemy import Connection

FILES = "files"
MANAGEMENT = "management"
PURPOSES = (FILES, MANAGEMENT)

# as upstream's: 32 of 62 characters, 190 bits
_LETTERS = string.ascii_letters + string.digits
_LENGTH = 32

_HOLDER = PreparedLookup(
    select(api_keys.c.id, users.c.name, users.c.id, users.c.is_admin)
    .join(users, users.c.name == api_keys.c.user)
    .where(api_keys.c.token_hash == bindparam("token_hash"), api_keys.c.purpose == bindparam("purpose"))
)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its user may see it again; `created` in milliseconds since the epoch."""

    id: str
    user: str
    purpose: str
    label: str
    created: int


@dataclass(frozen=True, slots=True)
class Holder:
    """Who sent a key.

    Args:
        key: The key's id.
        user: Its user.
        user_number: The user's number.
        is_admin: Whether the user administers the gateway.
    """

    key: str
    user: str
    user_number: int
    is_admin: bool


def holder(connection: Connection, token: str, purpose: str) -> Holder | None:
    """Who a key for some purpose belongs to; `None` if it is not one."""
    row = _HOLDER(connection, token_hash=accounts.hash_token(token), purpose=purpose)
    return None if row is None else Holder(str(row[0]), str(row[1]), int(row[2]), row[3] == 1)


def add(connection: Connection, user: str, purpose: str, label: str, now: int) -> str:
    """Make a key.

    Returns:
        The key itself, which cannot be had again.

    Raises:
        NotFound: If there is no such user.
        InvalidInput: If the purpose is none of `PURPOSES`, or the label cannot be shown.
    """
    accounts.require_user(connection, user)
    identity.require_label(label)
    if purpose not in PURPOSES:
        raise InvalidInput(f"not a purpose of a key: {purpose[:80]!r}", hint="one of " + ", ".join(PURPOSES))
    token = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
    connection.execute(
        insert(api_keys).values(
            id=secrets.token_hex(4),
            token_hash=accounts.hash_token(token),
            user=user,
            purpose=purpose,
            label=label,
            created=now,
        )
    )
    return token


def list_all(connection: Connection, user: str | None = None) -> list[ApiKey]:
    """The keys of a user, or all of them, oldest first."""
    statement = select(api_keys).order_by(api_keys.c.created, api_keys.c.id)
    if user is not None:
        statement = statement.where(api_keys.c.user == user)
    return [ApiKey(row.id, row.user, row.purpose, row.label, row.created) for row in connection.execute(statement)]


def remove(connection: Connection, user: str, *, key: str | None = None, purpose: str | None = None) -> int:
    """End a user's keys, from the next request on: all of them, one, or those for a purpose; says how many."""
    statement = delete(api_keys).where(api_keys.c.user == user)
    if key is not None:
        statement = statement.where(api_keys.c.id == key)
    if purpose is not None:
        statement = statement.where(api_keys.c.purpose == purpose)
    return connection.execute(statement).rowcount


def replace(connection: Connection, user: str, label: str, now: int) -> str:
    """End all of a user's keys for files, and make a new one."""
    remove(connection, user, purpose=FILES)
    return add(connection, user, FILES, label, now)
