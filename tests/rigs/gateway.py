"""A gateway in a process of its own, as `kachery up` starts it, and the command line of its administrator."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

#: Seconds that a gateway may take until it answers, on a busy machine.
START = 60.0

#: The zone that anybody may read, and the one that only listed users may read.
OPEN, PRIVATE = "lab", "unpublished"

KACHERY = Path(sys.prefix) / "bin" / "kachery"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Gateway:
    """A gateway, its data directory and its administrator.

    Args:
        directory: Where its data, its administrator's store directory and its log go; made if it is missing.
        zone: The zone that it starts with.
        environment: What else its shell sets.
        host: The address that it listens on.
        inside: A command that runs the gateway's command line somewhere else, in a network namespace for example.
        data: Its data directory, where it is shared with others.
        options: What else `kachery up` is told.
    """

    def __init__(
        self,
        directory: Path,
        zone: str = OPEN,
        *,
        environment: dict[str, str] | None = None,
        host: str = "127.0.0.1",
        inside: tuple[str, ...] = (),
        data: Path | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        self.data = data or directory / "data"
        self._options = options
        self.log = directory / "gateway.log"
        self.zone = zone
        self.port = free_port()
        self.host = host
        self.url = f"http://{host}:{self.port}"
        self._inside = inside
        self._process: subprocess.Popen[str] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._variables = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "KACHERY_CLOUD_DIR": str(directory / "administrator"),
            **(environment or {}),
        }

    @property
    def pid(self) -> int:
        """The process id of the running gateway."""
        assert self._process is not None, "the gateway is not running"
        return self._process.pid

    def start(self) -> None:
        """Start the process and wait for its line `ready …`."""
        command = [str(KACHERY), "up", "--data", str(self.data), "--host", self.host, "--port", str(self.port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._inside, *command, "--zone", self.zone, *self._options],
                env=self._variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = line_within(self._process.stdout, START)
        if line.strip() != f"ready {self.url}":
            self.kill()
            raise AssertionError(f"kachery up said {line!r}\n{self.log.read_text()[-4000:]}")

    def stop(self) -> int:
        """Ask it to end as Ctrl-C would, and give its exit code."""
        return self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(how)
        try:
            code = self._process.wait(START)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None
        return code

    def admin(self, *arguments: str) -> str:
        """Run `kachery admin`, which must succeed; gives its stdout without blanks around it."""
        done = subprocess.run(
            [str(KACHERY), "admin", "--data", str(self.data), *arguments],
            env=self._variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START,
            check=False,
        )
        assert done.returncode == 0, f"kachery admin {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def line_within(stream: IO[str], seconds: float) -> str:
    """The next line of a stream; empty when none comes in time."""
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.append(stream.readline()), daemon=True)
    reader.start()
    reader.join(seconds)
    return lines[0] if lines else ""
