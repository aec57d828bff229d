"""A lab's machine that shares its files: a store directory of its own, `kachery-resource.yaml`, and the daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rigs.gateway import OPEN, START, line_within

if TYPE_CHECKING:
    from types import TracebackType

_BIN = Path(sys.prefix) / "bin"

#: What resources and the gateways of these tests agree on.
SECRET = "correct horse battery staple"


class Lab:
    """The machine.

    Args:
        directory: Its home; made if it is missing.
        relay: The relay's address.
        zone: The resource's zone.
        name: The resource's name.
        secret: The relay's secret.
        environment: What else its shell sets.
        inside: A command that runs its commands somewhere else, in a network namespace for example.
    """

    def __init__(
        self,
        directory: Path,
        relay: str,
        *,
        zone: str = OPEN,
        name: str = "lab-pc",
        secret: str = SECRET,
        environment: dict[str, str] | None = None,
        inside: tuple[str, ...] = (),
    ) -> None:
        self.home = directory
        self.name = name
        self.url = f"{relay}/r/{name}"
        self.log = directory / "daemon.log"
        self._inside = inside
        self._process: subprocess.Popen[str] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        # as the published `kachery-resource init` writes it
        (directory / "kachery-resource.yaml").write_text(
            f"resourceName: {name}\nkacheryZone: {zone}\nmaxConcurrentUploads: 3\n"
            f"proxyUrl: {relay}/\nproxySecret: {secret}\n"
        )
        self.variables = {
            "PATH": os.pathsep.join([str(_BIN), os.environ.get("PATH", os.defpath)]),
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "KACHERY_CLOUD_DIR": str(directory / "kachery-cloud"),
            "KACHERY_ZONE": zone,
            **(environment or {}),
        }

    @property
    def pid(self) -> int:
        """The process id of the running daemon."""
        assert self._process is not None, "the daemon is not running"
        return self._process.pid

    def file(self, name: str, content: bytes) -> Path:
        """Make a file, outside the store."""
        path = self.home / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def link(self, path: Path) -> str:
        """Link a file; gives its URI without a label."""
        return self._uri("link", str(path))

    def keep(self, path: Path) -> str:
        """Store a copy on this machine only; gives its URI without a label."""
        return self._uri("store", "--local", str(path))

    def _uri(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(_BIN / "kachery"), *arguments],
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()[: len("sha1://") + 40]

    def start(self, *, wait: bool = True) -> None:
        """Start the daemon, and wait until the relay has taken it."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._inside, str(_BIN / "kachery-resource"), "share"],
                env=self.variables,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        if not wait:
            return
        assert self._process.stdout is not None
        line = line_within(self._process.stdout, START)
        if line.strip() != f"Resource URL: {self.url}":
            self.kill()
            raise AssertionError(f"kachery-resource share said {line!r}\n{self.log.read_text()[-4000:]}")

    def stop(self) -> int:
        """Ask the daemon to end as a service manager would, and give its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the daemon as a power cut would."""
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

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
