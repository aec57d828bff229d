"""Users, their invitations, passwords and sessions.

A user is made with an invitation: a link that is used once, within seven days, to choose a password. Passwords are kept
as scrypt hashes; tokens of invitations and sessions as SHA-256, since they are long and random.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets as random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update

from ... import names
from ...errors import Conflict, InvalidInput, InvalidName, NotFound
from ..databases.upsert import upsert
from ..models import invitations, profiles, secrets, sessions, users

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

DAY = 24 * 3600 * 1000
INVITATION_LIFETIME = 7 * DAY
SESSION_LIFETIME = 30 * DAY

SHORTEST_PASSWORD = 10
LONGEST_PASSWORD = 1000

# 16 MiB and about 50 ms for each attempt
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**14, 8, 1


@dataclass(frozen=True, slots=True)
class User:
    """A person with an account."""

    name: str
    is_admin: bool
    has_password: bool


@dataclass(frozen=True, slots=True)
class Profile:
    """What a user says about themselves; empty where they said nothing."""

    full_name: str = ""
    email: str = ""
    research_description: str = ""


#: Characters that each part of a profile may have.
LONGEST_PROFILE = {"full_name": 200, "email": 200, "research_description": 2000}


def find_user(connection: Connection, name: str) -> User | None:
    """A user by name."""
    row = connection.execute(select(users).where(users.c.name == name)).first()
    return None if row is None else _user(row)


def require_user(connection: Connection, name: str) -> User:
    """A user by name.

    Raises:
        NotFound: If there is none.
    """
    user = find_user(connection, name)
    if user is None:
        raise NotFound(f"this gateway has no user {name!r}", hint=f"`kachery admin user add {name}` makes one")
    return user


def list_users(connection: Connection) -> list[User]:
    """All users by name."""
    return [_user(row) for row in connection.execute(select(users).order_by(users.c.name))]


def add_user(connection: Connection, name: str, now: int, *, is_admin: bool = False) -> User:
    """Make a user, who cannot sign in before an invitation was used.

    Raises:
        InvalidName: If the name is not one; the rules are those of zones.
        Conflict: If there is one of this name.
    """
    try:
        names.zone(name)
    except InvalidName as error:
        raise InvalidName(f"not a user name: {name[:80]!r}", hint=error.hint) from error
    if find_user(connection, name) is not None:
        raise Conflict(f"there is a user {name!r} already", hint="`kachery admin user invite` makes a new link")
    connection.execute(insert(users).values(name=name, is_admin=int(is_admin), created=now))
    return User(name, is_admin, False)


def make_admin(connection: Connection, name: str) -> None:
    """Make a user an administrator of the gateway, who may do everything in every zone."""
    require_user(connection, name)
    connection.execute(update(users).where(users.c.name == name).values(is_admin=1))


def profile(connection: Connection, name: str) -> Profile:
    """What a user says about themselves."""
    row = connection.execute(select(profiles).where(profiles.c.user == name)).first()
    return Profile() if row is None else Profile(row.full_name, row.email, row.research_description)


def set_profile(connection: Connection, name: str, **parts: str) -> None:
    """Change some parts of a user's `Profile`.

    Raises:
        NotFound: If there is no such user.
        InvalidInput: If a part is longer than `LONGEST_PROFILE` says.
    """
    require_user(connection, name)
    for part, text in parts.items():
        if len(text) > LONGEST_PROFILE[part]:
            raise InvalidInput(f"Invalid {part.replace('full_', '').replace('_', ' ')}")
    if parts:
        statement = upsert(connection, profiles).values(
            user=name, **{"full_name": "", "email": "", "research_description": "", **parts}
        )
        connection.execute(statement.on_conflict_do_update(index_elements=[profiles.c.user], set_=parts))


def invite(connection: Connection, name: str, now: int) -> str:
    """A token with which a user chooses a password, once, within seven days; older ones end.

    Raises:
        NotFound: If there is no such user.
    """
    require_user(connection, name)
    token = random.token_urlsafe(32)
    connection.execute(delete(invitations).where(invitations.c.user == name, invitations.c.used.is_(None)))
    connection.execute(
        insert(invitations).values(
            token_hash=hash_token(token), user=name, created=now, expires=now + INVITATION_LIFETIME
        )
    )
    return token


def invited_user(connection: Connection, token: str, now: int) -> str | None:
    """Who an invitation is for; `None` if it was never made, was used, or has expired."""
    row = connection.execute(
        select(invitations.c.user).where(
            invitations.c.token_hash == hash_token(token), invitations.c.used.is_(None), invitations.c.expires > now
        )
    ).first()
    return None if row is None else str(row.user)


def accept_invitation(connection: Connection, token: str, password_hash: str, now: int) -> str:
    """Set the password of the user whom an invitation is for, and end all sessions of that user.

    Returns:
        The user's name.

    Raises:
        NotFound: If the invitation was never made, was used, or has expired.
    """
    user = invited_user(connection, token, now)
    if user is None:
        raise NotFound("this invitation was used already, has expired, or never was", hint="ask for a new one")
    connection.execute(update(invitations).where(invitations.c.token_hash == hash_token(token)).values(used=now))
    connection.execute(update(users).where(users.c.name == user).values(password_hash=password_hash))
    connection.execute(delete(sessions).where(sessions.c.user == user))
    return user


def password_hash_of(connection: Connection, name: str) -> str | None:
    """The stored hash of a user's password, to be given to `check_password`."""
    row = connection.execute(select(users.c.password_hash).where(users.c.name == name)).first()
    return None if row is None else row.password_hash


def hash_password(password: str) -> str:
    """The hash of a password; slow on purpose.

    Raises:
        InvalidInput: If the password is too short or too long.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise InvalidInput(f"a password has at least {SHORTEST_PASSWORD} characters")
    salt = os.urandom(16)
    derived = _scrypt(password, salt)
    return f"scrypt${base64.b64encode(salt).decode()}${base64.b64encode(derived).decode()}"


def check_password(password: str, stored: str | None) -> bool:
    """Whether a password belongs to a stored hash; as slow for users who do not exist."""
    scheme, _, rest = (stored or "scrypt$AAAAAAAAAAAAAAAAAAAAAA==$").partition("$")
    salt, _, expected = rest.partition("$")
    if scheme != "scrypt" or len(password) > LONGEST_PASSWORD:
        return False
    derived = _scrypt(password, base64.b64decode(salt))
    return hmac.compare_digest(derived, base64.b64decode(expected))


def open_session(connection: Connection, user: str, now: int) -> str:
    """A token for a browser whose user has just signed in."""
    token = random.token_urlsafe(32)
    connection.execute(delete(sessions).where(sessions.c.expires < now))
    connection.execute(
        insert(sessions).values(token_hash=hash_token(token), user=user, created=now, expires=now + SESSION_LIFETIME)
    )
    return token


def session_user(connection: Connection, token: str, now: int) -> User | None:
    """Who a session belongs to; `None` if it has ended."""
    row = connection.execute(
        select(users)
        .join(sessions, sessions.c.user == users.c.name)
        .where(sessions.c.token_hash == hash_token(token), sessions.c.expires > now)
    ).first()
    return None if row is None else _user(row)


def close_session(connection: Connection, token: str) -> None:
    """End a session."""
    connection.execute(delete(sessions).where(sessions.c.token_hash == hash_token(token)))


def secret(connection: Connection, name: str) -> bytes:
    """The gateway's own key for some purpose, 32 bytes; made at the first use."""
    row = connection.execute(select(secrets.c.value).where(secrets.c.name == name)).first()
    if row is not None:
        return bytes(row.value)
    value = os.urandom(32)
    connection.execute(insert(secrets).values(name=name, value=value))
    return value


def hash_token(token: str) -> str:
    """How a token is stored."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "replace"), salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P, maxmem=2**26, dklen=32
    )


def _user(row: Row[tuple[object, ...]]) -> User:
    return User(row.name, row.is_admin == 1, row.password_hash is not None)
