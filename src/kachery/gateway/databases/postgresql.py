"""PostgreSQL, for several gateways on one database.

Writes are serializable transactions, which the server undoes when two cannot be put one after the other; the loser is
done again. Reads and writes run in threads, each with a connection of its own, since every statement waits for the
network. The password may be in the address, or where the server's own programs look for it (`PGPASSWORD`, `~/.pgpass`).
"""

from __future__ import annotations

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate

import sqlalchemy
from sqlalchemy.pool import QueuePool

from ...errors import InvalidInput, KacheryError, NotAllowed, NotConfigured, StorageFull, TimedOut, Unreachable
from . import schema
from .contract import Database, P, T

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg
    from sqlalchemy import Connection

try:
    import psycopg
except ImportError:
    psycopg = None  # type: ignore[assignment]

# threads, and with them connections, of one gateway process
_READERS = 4
_WRITERS = 4

# seconds to wait for a connection, and milliseconds for one statement
_CONNECT_SECONDS = 10
_STATEMENT_MS = 60_000

# how often a write that lost against another is done again, and the longest pause before that, in seconds
_ATTEMPTS = 12
_LONGEST_PAUSE = 0.5

# serialization_failure, deadlock_detected: https://www.postgresql.org/docs/current/errcodes-appendix.html
_LOST = {"40001", "40P01"}


def open_server(address: str) -> PostgresDatabase:
    """A database on a server, brought up to date.

    Args:
        address: As in `postgresql://USER@HOST:5432/NAME`.

    Raises:
        InvalidInput: If it is no such address.
        NotConfigured: If the driver is not installed, or the database was written by a newer release.
        Unreachable: If the server does not answer.
    """
    if psycopg is None:
        raise NotConfigured("PostgreSQL needs its driver", hint="pip install 'kachery[postgresql]'")
    try:
        url = sqlalchemy.make_url(address)
    except sqlalchemy.exc.ArgumentError:
        url = None
    if url is None or url.drivername not in ("postgresql", "postgres", "postgresql+psycopg") or not url.database:
        raise InvalidInput(
            "not the address of a PostgreSQL database", hint="as in --database postgresql://USER@HOST:5432/NAME"
        )
    database = PostgresDatabase(url.set(drivername="postgresql+psycopg"))
    try:
        if not schema.is_current(database.read_now(_schema_version), database.name):
            database.migrate()
    except BaseException:
        database.close()
        raise
    return database


class PostgresDatabase(Database):
    """One process's access to a database on a server.

    Args:
        url: Its address.
    """

    def __init__(self, url: sqlalchemy.URL) -> None:
        self.name = url.set(drivername="postgresql", password=None, query={}).render_as_string()
        self._engine = sqlalchemy.create_engine(
            url,
            poolclass=QueuePool,
            pool_size=_READERS + _WRITERS + 1,
            max_overflow=2,
            pool_timeout=_CONNECT_SECONDS,
            connect_args={
                "connect_timeout": _CONNECT_SECONDS,
                "application_name": "kachery",
                "options": f"-c statement_timeout={_STATEMENT_MS}",
            },
        )
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writing = self._engine.execution_options(isolation_level="SERIALIZABLE")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="kachery-reader")
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="kachery-writer")

    async def read(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function reads; it is called with a connection and the arguments."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, partial(self.read_now, function, *args, **kwargs))

    def read_now(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `read`, for code that is not asynchronous; any thread."""
        try:
            return self._read_once(function, *args, **kwargs)
        except _ConnectionLost:
            # one that was kept, of a server that has restarted since
            try:
                return self._read_once(function, *args, **kwargs)
            except _ConnectionLost as error:
                raise self._gone(error) from error

    def _read_once(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        with self._explained(), self._reading.connect() as connection, _watched(connection):
            return function(connection, *args, **kwargs)

    async def write(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function returns that changes the database: all of it or nothing, durable when this returns."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writers, partial(self._persist, function, *args, **kwargs))

    def write_now(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `write`, for code that is not asynchronous; any thread."""
        return self._writers.submit(partial(self._persist, function, *args, **kwargs)).result()

    def _persist(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        reconnected = False
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._explained():
                    return self._write_once(function, *args, **kwargs)
            except _Lost:
                time.sleep(random.uniform(0, min(_LONGEST_PAUSE, 0.005 * 2**attempt)))
            except _ConnectionLost as error:
                # nothing was committed: that case is another error
                if reconnected:
                    raise self._gone(error) from error
                reconnected = True
        raise TimedOut(f"others keep changing the same rows of {self.name}", hint="try again in a moment")

    def _write_once(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        with self._writing.connect() as connection, _watched(connection):
            transaction = connection.begin()
            try:
                result = function(connection, *args, **kwargs)
            except BaseException:
                transaction.rollback()
                raise
            try:
                transaction.commit()
            except sqlalchemy.exc.DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                raise Unreachable(
                    f"the connection to {self.name} broke while it was written to, so it is not known whether it was",
                    hint="try again: doing it twice changes nothing",
                ) from error
            return result

    def migrate(self) -> None:
        """Give the database the current schema."""
        with self._explained():
            schema.migrate(self._engine)

    def close(self) -> None:
        """Wait for what is being written, then let go of the server."""
        self._writers.shutdown()
        self._readers.shutdown()
        self._engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlalchemy.exc.TimeoutError as error:
            raise TimedOut(f"no connection to {self.name} is free", hint="try again in a moment") from error
        except sqlalchemy.exc.DBAPIError as error:
            if isinstance(error.orig, psycopg.Error):
                raise self._explain(error.orig, gone=error.connection_invalidated) from error
            raise
        except psycopg.Error as error:
            # from a prepared lookup, which goes past SQLAlchemy
            raise self._explain(error, gone=False) from error

    def _explain(self, error: psycopg.Error, *, gone: bool) -> Exception:
        text = " ".join(str(error).split())
        state = error.sqlstate or ""
        if state in _LOST:
            return _Lost(text)
        if state in ("57P01", "57P02", "57P03") or gone or (isinstance(error, psycopg.OperationalError) and not state):
            return _ConnectionLost(text)
        if state.startswith("53"):
            # out of room, memory, or connections
            return StorageFull(f"{self.name} has no room: {text}", hint="ask who keeps the database server")
        if state in ("57014", "55P03"):
            return TimedOut(f"{self.name} took too long: {text}", hint="try again in a moment")
        if state in ("42501", "25006"):
            return NotAllowed(f"{self.name} does not let kachery do that: {text}", hint="check the user's rights there")
        if isinstance(error, psycopg.DataError):
            return InvalidInput(f"a text or number that the database does not take: {text}")
        return KacheryError(f"the database {self.name} says: {text}")

    def _gone(self, error: Exception) -> KacheryError:
        return Unreachable(
            f"the database {self.name} cannot be reached: {error}",
            hint="check that the server runs, its address, user and password",
        )


class _Lost(Exception):
    """A write that cannot stand beside another one; nothing of it was done."""


class _ConnectionLost(Exception):
    """The server cannot be reached, or the connection broke; nothing was committed."""


@contextmanager
def _watched(connection: Connection) -> Iterator[None]:
    """Let go of a connection that broke where SQLAlchemy did not see it."""
    try:
        yield
    except psycopg.OperationalError as error:
        if getattr(connection.connection.driver_connection, "broken", False):
            connection.invalidate(error)
            raise _ConnectionLost(" ".join(str(error).split())) from error
        raise


def _schema_version(connection: Connection) -> str | None:
    if connection.exec_driver_sql("SELECT to_regclass('alembic_version')").scalar() is None:
        return None
    version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if version is None else str(version)
