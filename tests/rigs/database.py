"""Debian's MariaDB in a process of its own, with a data directory that goes when it ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Self

from rigs.gateway import START, free_port

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

USER, PASSWORD = "root", "tutorial"

_PATH = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin"


class Database:
    """A server of MariaDB.

    Args:
        directory: Where its data go; made if it is missing.
        hosts: The addresses that it listens on.
        inside: A command that runs the server somewhere else, in a network namespace for example.
    """

    def __init__(self, directory: Path, hosts: tuple[str, ...] = ("127.0.0.1",), inside: tuple[str, ...] = ()) -> None:
        self.host = hosts[-1]
        self.port = free_port()
        self._hosts = hosts
        self._inside = inside
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Make the data directory and start the server; returns when it answers."""
        data, socket = self._directory / "data", self._directory / "socket"
        whoever = ["--user=root"] if os.geteuid() == 0 else []
        make = ["--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(
            [_program("mariadb-install-db"), *make, *whoever],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=START,
        )
        options = [
            *("--no-defaults", f"--datadir={data}", f"--socket={socket}", f"--port={self.port}"),
            *(f"--bind-address={','.join(self._hosts)}", "--skip-name-resolve", "--max-allowed-packet=256M"),
            # what is lost in a power cut is of no interest here
            *("--skip-log-bin", "--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync"),
        ]
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*self._inside, _program("mariadbd"), *options, *whoever], stdin=subprocess.DEVNULL, stderr=log
            )
        grant = f"create user {USER}@'%' identified by '{PASSWORD}'; grant all on *.* to {USER}@'%' with grant option;"
        grant += f" alter user {USER}@'127.0.0.1' identified by '{PASSWORD}'"
        client = [_program("mariadb"), "--no-defaults", f"--socket={socket}", f"--user={USER}", f"--execute={grant}"]
        deadline = time.monotonic() + START
        while True:
            done = subprocess.run(client, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.stop()
                raise AssertionError(done.stderr + (self._directory / "log").read_text()[-4000:])
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server, and remove its data."""
        if self._process is not None:
            # nothing of it is kept, so it need not put anything in order
            self._process.kill()
            self._process.wait()
            self._process = None
        shutil.rmtree(self._directory / "data", ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _program(name: str) -> str:
    path = shutil.which(name, path=_PATH)
    assert path is not None, f"{name} is not installed; scripts/ci-packages.sh installs it"
    return path
