"""A notebook: a Python process in some environment and directory, whose cells are run one after the other."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rigs.gateway import line_within

if TYPE_CHECKING:
    from types import TracebackType

_KERNEL = Path(__file__).with_name("kernel.py")

#: Seconds that a cell may take, on a busy machine.
PATIENCE = 300.0


class CellFailed(Exception):
    """A cell raised.

    Args:
        kinds: The names of the exception's class and its bases.
        message: Its text.
    """

    def __init__(self, kinds: list[str], message: str) -> None:
        super().__init__(f"{kinds[0]}: {message}")
        self.kinds = kinds
        self.message = message


class Notebook:
    """The process; started with the first cell, and anew with the first cell after `restart`.

    Args:
        python: The environment's interpreter.
        directory: Its working directory.
        variables: Its whole environment.
        inside: A command that runs it somewhere else, in a network namespace for example.
        log: What its cells write goes here; by default to a file in the directory.
    """

    def __init__(
        self,
        python: Path,
        directory: Path,
        variables: dict[str, str],
        inside: tuple[str, ...] = (),
        *,
        log: Path | None = None,
    ) -> None:
        self.directory = directory
        self._command = [*inside, str(python), str(_KERNEL)]
        self._variables = variables
        self._log = log or directory / "notebook.log"
        self._process: subprocess.Popen[str] | None = None
        self.said = ""

    def run(self, cell: str) -> Any:
        """Run a cell; what it writes is in `said` then.

        Args:
            cell: Python.

        Returns:
            What its last expression gives, as far as JSON knows it.

        Raises:
            CellFailed: If it raises.
        """
        if self._process is None:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    env=self._variables,
                    cwd=self.directory,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        before = self._log.stat().st_size
        self._process.stdin.write(json.dumps(cell) + "\n")
        self._process.stdin.flush()
        line = line_within(self._process.stdout, PATIENCE)
        with self._log.open("rb") as log:
            log.seek(before)
            self.said = log.read().decode(errors="replace")
        assert line, f"the notebook did not answer; it said {self.said[-4000:]}"
        reply = json.loads(line)
        if "error" in reply:
            raise CellFailed(reply["error"]["kind"], reply["error"]["message"])
        return reply["value"]

    def restart(self) -> None:
        """End the process; what its cells defined is gone."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restart()
