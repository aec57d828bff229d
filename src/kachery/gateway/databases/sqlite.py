"""SQLite, in a file of the data directory.

In WAL mode readers never wait for the writer. Reads run where they are asked for, since an indexed lookup takes
microseconds; writes run in one thread, each in a transaction that is on the disk when `write` returns.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate

import sqlalchemy
from sqlalchemy.pool import NullPool

from ...errors import KacheryError, NotAllowed, NotConfigured, StorageFull, TimedOut, from_os_error
from . import schema
from .contract import Database, P, T

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

# `kachery admin` may write while the gateway does; nobody holds the lock for longer than a moment
_BUSY_SECONDS = 15.0


class SqliteDatabase(Database):
    """One process's access to the database of a data directory.

    Args:
        path: The database file; it must exist, with the current schema (`prepare`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self._engine = _engine(path)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kachery-writer")
        self._reader: Connection | None = None
        self._write_connection: Connection | None = None

    async def read(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function reads; it is called with a connection and the arguments."""
        return self.read_now(function, *args, **kwargs)

    def read_now(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `read`, for code that is not asynchronous; one thread only."""
        try:
            if self._reader is None:
                self._reader = self._engine.connect()
            return function(self._reader, *args, **kwargs)
        except (sqlalchemy.exc.DBAPIError, sqlite3.Error) as error:
            raise _explain(error, self.path) from error

    async def write(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function returns that changes the database: all of it or nothing, on the disk when this returns."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, partial(self._write_in_thread, function, *args, **kwargs))

    def write_now(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `write`, for code that is not asynchronous; any thread."""
        return self._writer.submit(partial(self._write_in_thread, function, *args, **kwargs)).result()

    def _write_in_thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        try:
            if self._write_connection is None:
                self._write_connection = self._engine.connect()
            connection = self._write_connection
            with connection.begin():
                # the lock for writing is taken before anything is read: what was checked still holds at the commit
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                return function(connection, *args, **kwargs)
        except (sqlalchemy.exc.DBAPIError, sqlite3.Error) as error:
            raise _explain(error, self.path) from error

    def close(self) -> None:
        """Wait for what is being written, then let go of the file."""
        self._writer.submit(self._close_writer).result()
        self._writer.shutdown()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._engine.dispose()

    def _close_writer(self) -> None:
        if self._write_connection is not None:
            self._write_connection.close()
            self._write_connection = None


def prepare(path: Path) -> None:
    """Create the database of a data directory, or bring an older one up to date.

    Raises:
        NotConfigured: If the database was written by a newer kachery.
        KacheryError: If the directory cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.chmod(0o700)
        # created by us so that it is never readable by others, not even for a moment
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise from_os_error(error, "write to", path) from error
    if not schema.is_current(schema_version(path), str(path)):
        _migrate(path)


def schema_version(path: Path) -> str | None:
    """The schema that a database has; `None` for an empty one.

    Raises:
        NotConfigured: If the file is not a database.
    """
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS)
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise NotConfigured(f"cannot read {path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise NotConfigured(f"{path} is not a database of kachery: {error}") from error
    finally:
        connection.close()
    return str(row[0]) if row else None


def _migrate(path: Path) -> None:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    engine = _engine(path)
    try:
        schema.migrate(engine)
    finally:
        engine.dispose()


def _engine(path: Path) -> sqlalchemy.Engine:
    engine = sqlalchemy.create_engine(
        sqlalchemy.URL.create("sqlite", database=str(path)),
        poolclass=NullPool,
        connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False, "isolation_level": None},
    )
    sqlalchemy.event.listen(engine, "connect", _configure)
    return engine


def _configure(connection: Any, record: object) -> None:
    # transactions are begun by us (`isolation_level=None`); FULL: a committed row survives a power cut
    for pragma in ("foreign_keys=ON", "synchronous=FULL", "cache_size=-8192"):
        connection.execute(f"PRAGMA {pragma}")


def _explain(error: sqlalchemy.exc.DBAPIError | sqlite3.Error, path: Path) -> KacheryError:
    text = str(error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error)
    if "disk is full" in text:
        return StorageFull(f"could not write to {path}: {text}", hint="make room on this file system, then try again")
    if "locked" in text or "busy" in text:
        return TimedOut(f"another process keeps {path} locked", hint="try again in a moment")
    if "readonly" in text or "unable to open" in text:
        return NotAllowed(
            f"could not write to {path}: {text}", hint="check the owner and the mode of the data directory"
        )
    return KacheryError(f"the database {path} says: {text}")
