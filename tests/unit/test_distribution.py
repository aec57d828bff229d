"""What is published: pins for every dependency, commands that exist, fragments that a release can read."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DROP_IN = tomllib.loads((ROOT / "compat" / "kachery-cloud" / "pyproject.toml").read_text())
OURS = {"kachery", "kachery-cloud"}


def required(requirements: list[str]) -> set[str]:
    names = (re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in requirements)
    return {name.group().lower() for name in names if name} - OURS


def pinned(name: str) -> dict[str, str]:
    """Packages and the text of their pins."""
    text = (ROOT / "requirements" / name).read_text()
    blocks = re.split(r"\n(?=[a-z0-9])", text)
    return {block.split("==")[0]: block for block in blocks if "==" in block}


@pytest.mark.parametrize("pins", ["dev.txt", "server.txt", "kachery-cloud-0.4.2.txt", "kachery-cloud-0.4.10.txt"])
def test_pins_carry_hashes_and_no_addresses(pins: str) -> None:
    for name, block in pinned(pins).items():
        assert "--hash=sha256:" in block, name
        assert "://" not in block, name


def test_every_dependency_is_pinned() -> None:
    client = required(PROJECT["project"]["dependencies"]) | required(DROP_IN["project"]["dependencies"])
    server = required(PROJECT["project"]["optional-dependencies"]["server"])
    development = required(PROJECT["dependency-groups"]["dev"])

    assert client | server <= set(pinned("server.txt"))
    assert client | server | development <= set(pinned("dev.txt"))


@pytest.mark.parametrize(
    ("distribution", "declared"),
    [("kachery", PROJECT["project"]["scripts"]), ("kachery-cloud", DROP_IN["project"]["scripts"])],
)
def test_every_command_is_there(distribution: str, declared: dict[str, str]) -> None:
    commands = metadata.distribution(distribution).entry_points.select(group="console_scripts")

    assert {command.name for command in commands} == set(declared)
    for command in commands:
        assert callable(command.load())


def test_fragments_are_of_a_kind_that_a_release_knows() -> None:
    fragments = [path.name for path in (ROOT / "changelog.d").glob("*.md") if path.name != "README.md"]

    for name in fragments:
        assert re.fullmatch(r"[a-z0-9-]+\.(added|changed|fixed|removed)\.md", name), name


def test_a_release_collects_the_fragments(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "changelog.py").write_text((ROOT / "scripts" / "changelog.py").read_text())
    (tmp_path / "changelog.d").mkdir()
    (tmp_path / "changelog.d" / "README.md").write_text("about")
    (tmp_path / "changelog.d" / "one.added.md").write_text("Something\nnew.\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.0 (2020-01-01)\n\n- old\n")

    subprocess.run([sys.executable, tmp_path / "scripts" / "changelog.py", "2.0"], check=True)

    text = (tmp_path / "CHANGELOG.md").read_text()
    assert re.fullmatch(
        r"# Changelog\n\n## 2\.0 \(\d{4}-\d\d-\d\d\)\n\n### Added\n\n- Something new\.\n\n## 1\.0 .*", text, re.DOTALL
    )
    assert [path.name for path in (tmp_path / "changelog.d").iterdir()] == ["README.md"]


def test_host_names_of_registries_are_refused(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "check-names.sh"
    bad = tmp_path / "bad.txt"
    host = "pythonhosted"
    bad.write_text(f"from https://files.{host}.org/packages\n")
    good = tmp_path / "good.txt"
    good.write_text("nothing to see\n")

    assert subprocess.run([script, bad], capture_output=True, check=False).returncode == 1
    assert subprocess.run([script, good], capture_output=True, check=False).returncode == 0
