"""What a gateway remembers of itself, in all its processes and between its starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from ..databases.upsert import upsert
from ..models import secrets

if TYPE_CHECKING:
    from sqlalchemy import Connection


def read(connection: Connection, name: str) -> str | None:
    """What was noted under a name; `None` if nothing was."""
    row = connection.execute(select(secrets.c.value).where(secrets.c.name == name)).first()
    return None if row is None else bytes(row.value).decode()


def write(connection: Connection, name: str, text: str) -> None:
    """Note something under a name, in place of what was noted before."""
    statement = upsert(connection, secrets).values(name=name, value=text.encode())
    connection.execute(
        statement.on_conflict_do_update(index_elements=[secrets.c.name], set_={"value": statement.excluded.value})
    )
