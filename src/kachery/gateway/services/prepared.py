"""Statements on busy paths, put into words once.

Building and wrapping a statement takes SQLAlchemy ten times as long as SQLite takes for an indexed lookup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select


class PreparedLookup:
    """A query for at most one row, with named parameters.

    Args:
        statement: The query.
    """

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        self._prepared: dict[str, tuple[str, tuple[str, ...]]] = {}

    def __call__(self, connection: Connection, **parameters: Any) -> tuple[Any, ...] | None:
        """The row's columns, or `None` if there is none."""
        dialect = connection.dialect
        prepared = self._prepared.get(dialect.name)
        if prepared is None:
            compiled = self._statement.compile(dialect=dialect)
            names = tuple(compiled.positiontup) if compiled.positional and compiled.positiontup else ()
            prepared = self._prepared[dialect.name] = str(compiled), names
        text, names = prepared
        cursor = connection.connection.cursor()
        try:
            cursor.execute(text, tuple(parameters[name] for name in names) if names else parameters)
            row: tuple[Any, ...] | None = cursor.fetchone()
            return row
        finally:
            cursor.close()
