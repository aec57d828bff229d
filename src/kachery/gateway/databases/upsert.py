"""`INSERT … ON CONFLICT`, which both databases know in the same words, and SQLAlchemy once for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table


def upsert(connection: Connection, table: Table) -> sqlite.Insert:
    """An insertion into a table that can say what to do with a row that is there."""
    if connection.dialect.name == "postgresql":
        # the two have the same methods, and no class in common that has them
        return postgresql.insert(table)  # type: ignore[return-value]
    return sqlite.insert(table)
