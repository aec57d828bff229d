"""The command line in this process, as `kachery` would be called."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from kachery import http
from kachery.cli import main, output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass
class Done:
    """What a command left behind: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON on stdout."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The JSON error, the last line on stderr."""
        error: dict[str, Any] = json.loads(self.err.splitlines()[-1])["error"]
        return error


@pytest.fixture
def kachery(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., Done]]:
    """Runs a command line in an empty directory and gives what it left behind."""
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    # nobody waits for a gateway that will not answer
    monkeypatch.setattr(http, "pause", lambda attempt, error: None)
    # set by --quiet, and not for the next test
    monkeypatch.setenv("KACHERY_PROGRESS", "auto")

    def run(*arguments: str) -> Done:
        capfd.readouterr()
        code = main.run(arguments)
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    yield run
    output.begin([])
    output.logging.getLogger("kachery").handlers = []
