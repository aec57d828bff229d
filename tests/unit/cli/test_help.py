from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer.main

from kachery.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[3]

#: What costs more than a person would wait for a help text.
HEAVY = (
    "alembic", "nacl", "kachery.files", "kachery.gateway", "kachery.store", "kachery.zone", "numpy", "rich",
    "sqlalchemy", "starlette", "tqdm", "urllib3", "uvicorn",
)  # fmt: skip


def commands(command: Any = None, name: str = "") -> Iterator[tuple[str, Any]]:
    command = command or typer.main.get_command(app)
    yield name.strip(), command
    for part, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{name} {part}")


def test_the_page_of_commands_says_what_the_help_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "commands.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_command_and_option_is_explained(name: str, command: Any) -> None:
    assert command.help, name
    for parameter in command.params:
        if name.partition(" ")[0] != "admin":
            assert parameter.help, f"{name} {parameter.name}"


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_help_is_on_the_standard_output(
    kachery: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = kachery(*name.split(), "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: kachery{name and ' '}{name}")
    # lists of commands cut what is too long
    assert [line for line in done.out.splitlines() if line.endswith("...") and not line.startswith("Usage:")] == []


@pytest.mark.parametrize("arguments", [[], ["admin"], ["admin", "zone"]])
def test_a_group_alone_is_explained_and_fails(kachery: Callable[..., Any], arguments: list[str]) -> None:
    done = kachery(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Commands:" in done.err


@pytest.mark.parametrize("arguments", [["--help"], ["store", "--help"], ["--version"], ["stor"]])
def test_nothing_heavy_is_imported_before_it_is_needed(arguments: list[str]) -> None:
    program = (
        "import sys, json; from kachery.cli.main import run; "
        f"run({arguments!r}); sys.stderr.write('\\n' + json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = json.loads(done.stderr.splitlines()[-1])
    assert [name for name in imported if name in HEAVY] == []
    assert "kachery.cli.output" in imported
