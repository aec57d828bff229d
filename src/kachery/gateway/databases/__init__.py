"""The gateway's database: one contract, and two implementations.

SQLite is the default, a file in the data directory; PostgreSQL carries several gateways at once. `contract.py` says
what both promise; the schema and its migrations are the same (`schema.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .contract import Database

__all__ = ["open_database"]


def open_database(place: Path | str) -> Database:
    """The database at a place, created or brought up to date.

    Args:
        place: The path of an SQLite file, or the address of a PostgreSQL database, as in `postgresql://USER@HOST/NAME`.

    Raises:
        NotConfigured: If it is no database of kachery, was written by a newer release, or its driver is not installed.
        Unreachable: If the server does not answer.
        KacheryError: If it cannot be used.
    """
    if isinstance(place, Path):
        from .sqlite import SqliteDatabase, prepare

        prepare(place)
        return SqliteDatabase(place)
    from .postgresql import open_server

    return open_server(place)
