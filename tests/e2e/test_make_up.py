"""What a person sees of `make up`: the script behind it, on a directory and a port of the test's own."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rigs.gateway import KACHERY, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
LAST_LINE = "kachery --help"


class Up:
    """A running `make up`.

    Args:
        directory: Where it keeps its zone.
        port: Where the zone listens.
    """

    def __init__(self, directory: Path, port: int) -> None:
        command = [sys.executable, str(ROOT / "scripts" / "up.py"), "--directory", str(directory), "--port", str(port)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        self.said = ""

    def wait_until_it_stands(self) -> None:
        assert self.process.stdout is not None
        while LAST_LINE not in self.said:
            line = self.process.stdout.readline()
            assert line, f"it ended: {self.said}\n{self.process.stderr.read() if self.process.stderr else ''}"
            self.said += line

    def exported(self) -> dict[str, str]:
        """The settings that it tells the person to export."""
        lines = [line.strip().removeprefix("export ") for line in self.said.splitlines() if "export KACHERY" in line]
        return dict(word.split("=", 1) for line in lines for word in shlex.split(line))

    def end(self, how: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(how)
        said, _ = self.process.communicate(timeout=60)
        self.said += said
        return self.process.returncode


@contextmanager
def up(directory: Path, port: int) -> Iterator[Up]:
    running = Up(directory, port)
    guard = threading.Timer(110, running.process.kill)
    guard.start()
    try:
        running.wait_until_it_stands()
        yield running
    finally:
        guard.cancel()
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
            running.process.communicate(timeout=60)
        running.process.stdout.close()  # type: ignore[union-attr]
        running.process.stderr.close()  # type: ignore[union-attr]


def kachery(settings: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [KACHERY, *arguments],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_recording_goes_through_a_zone_and_stays(tmp_path: Path, recording: Path) -> None:
    directory, port = tmp_path / "zone", free_port()
    hash_ = hashlib.sha1(recording.read_bytes(), usedforsecurity=False).hexdigest()

    with up(directory, port) as first:
        assert f"sha1://{hash_}" in first.said
        settings = first.exported()
        mine = tmp_path / "mine.txt"
        mine.write_text("something of mine")
        uri = kachery(settings, "store", str(mine))
        elsewhere = {**settings, "KACHERY_CLOUD_DIR": str(tmp_path / "elsewhere")}
        assert Path(kachery(elsewhere, "load", uri)).read_text() == "something of mine"
        assert first.end() == 0
        assert "Traceback" not in first.said
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=10):
        pass

    with up(directory, port) as second:
        # the first one's files and registrations are still there
        third = {**settings, "KACHERY_CLOUD_DIR": str(tmp_path / "third")}
        assert Path(kachery(third, "load", uri)).read_text() == "something of mine"
        assert kachery(settings, "store", str(mine)) == uri
        assert second.end(signal.SIGTERM) == 0


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", 0))
        occupant.listen()
        port = occupant.getsockname()[1]
        done = subprocess.run(
            [sys.executable, ROOT / "scripts" / "up.py", "--directory", tmp_path / "zone", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    assert done.returncode == 1
    assert f"make up PORT={port + 1}" in done.stderr
