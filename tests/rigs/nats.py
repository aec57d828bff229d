"""A NATS server of 127.0.0.1, in a directory of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rigs.gateway import START, free_port

if TYPE_CHECKING:
    from types import TracebackType


class Nats:
    """The server.

    Args:
        directory: Where its log goes; made if it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        program = Path(sys.prefix) / "bin" / "nats-server"
        log = self.directory / "nats.log"
        command = [str(program), "-a", "127.0.0.1", "-p", str(self.port), "-l", str(log)]
        self._process = subprocess.Popen(command, cwd=self.directory, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert self._process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, "the NATS server does not start"
                time.sleep(0.01)
            else:
                return

    def stop(self) -> None:
        """End it at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
