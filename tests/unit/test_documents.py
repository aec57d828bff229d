"""Documents: links lead somewhere, commands that they show exist, modules that they name are there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from rigs.gateway import KACHERY

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for folder in (".", "docs", "benchmarks", "changelog.d", "compat/kachery-cloud", "tests/data")
    for pattern in ("*.md", "*.ipynb")
    for path in (ROOT / folder).glob(pattern)
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    for target in re.findall(r"(?:^ {4}|`)make ([a-z0-9-]+)", document.read_text(), re.MULTILINE):
        assert target in targets, target


def test_the_architecture_names_every_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {
        path.name + ("/" if path.is_dir() else "")
        for path in (ROOT / "src" / "kachery").iterdir()
        if path.name[0] not in "_." and path.suffix in ("", ".py")
    }

    for room in rooms:
        assert f"`{room}`" in text, room


def test_commands_of_the_readme_are_understood() -> None:
    text = (ROOT / "README.md").read_text()
    commands = {
        match.group(1) for match in re.finditer(r"^(?: {4}|\$ )kachery ([a-z]+(?: (?:user|grant))?)", text, re.M)
    }

    assert {"up", "admin user", "admin grant", "init", "store", "load"} <= commands
    for command in commands:
        done = subprocess.run([KACHERY, *command.split(), "--help"], capture_output=True, check=False)
        assert done.returncode == 0, command
