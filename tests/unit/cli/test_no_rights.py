"""Directories and files of somebody else. A superuser may everything, so that these run as nobody."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rigs import everybody

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The user id of nobody, who owns nothing.
NOBODY = 65534

PROGRAM = "from kachery.cli.main import main; main()"

URI = f"sha1://{hashlib.sha1(b'x', usedforsecurity=False).hexdigest()}"


class Place:
    """A directory that anybody may enter, and command lines without a superuser's rights in it."""

    def __init__(self, top: Path) -> None:
        top.chmod(0o755)
        self.top = top
        self.store = top / "store"

    def allow(self, mode: int) -> None:
        """Give all directories a mode; from the top, so that those below can be reached."""
        self.top.chmod(0o755)
        for folder, folders, _ in os.walk(self.top):
            for name in folders:
                os.chmod(os.path.join(folder, name), mode)
        self.top.chmod(mode)

    def run(self, *arguments: str, nobody: bool = True) -> subprocess.CompletedProcess[str]:
        other = nobody and os.geteuid() == 0
        python, variables = everybody.python()
        own = {"PATH": os.defpath, "HOME": str(self.top), "KACHERY_CLOUD_DIR": str(self.store), "LANG": "C.UTF-8"}
        return subprocess.run(
            [python, "-c", PROGRAM, *arguments],
            env={**own, **variables},
            cwd=self.top,
            user=NOBODY if other else None,
            group=NOBODY if other else None,
            extra_groups=[] if other else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def place() -> Iterator[Place]:
    """A place with a store directory that has one blob."""
    # pytest's own directory is private
    place = Place(Path(tempfile.mkdtemp(prefix="kachery-rights-", dir="/tmp")))
    (place.top / "x").write_text("x")
    assert place.run("store", "--local", "x", nobody=False).returncode == 0
    yield place
    place.allow(0o755)
    shutil.rmtree(place.top)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["load", URI], 3),
        (["cat", URI], 3),
        (["ls"], 5),
        (["du"], 5),
        (["verify"], 5),
        (["clean"], 5),
        (["status"], 5),
        (["store", "--local", "x"], 5),
    ],
)
@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_store_that_cannot_be_seen_is_not_an_empty_one(
    place: Place, command: list[str], code: int, mode: int
) -> None:
    place.store.chmod(mode)
    done = place.run(*command)
    assert done.returncode == code, done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Permission denied" in error or "cannot be written to" in error


@pytest.mark.parametrize("command", ["ls", "du", "verify"])
def test_a_part_of_the_store_that_cannot_be_listed_is_said(place: Place, command: str) -> None:
    folder = place.store / "sha1" / URI[7:9]
    folder.chmod(0o000)
    done = place.run(command)
    folder.chmod(0o755)
    assert done.returncode == 5
    assert f"could not list {folder}: Permission denied" in done.stderr


def test_a_store_of_somebody_else_is_read_and_not_written_to(place: Place) -> None:
    (place.top / "y").write_text("y")
    # whoever runs the tests
    place.allow(0o555)
    before = sorted(place.top.rglob("*"))
    for command, code in (
        (["load", URI], 0),
        (["verify"], 0),
        (["ls"], 0),
        (["store", "--local", "y"], 5),
        (["link", "y"], 5),
        (["load", URI, "--dest", "copy"], 5),
        (["init", "--gateway", "http://127.0.0.1:1"], 5),
        (["status"], 5),
    ):
        done = place.run(*command)
        assert done.returncode == code, (command, done.stderr)
        assert "Traceback" not in done.stderr
    assert sorted(place.top.rglob("*")) == before


def test_a_file_that_may_not_be_read(place: Place) -> None:
    (place.top / "secret").write_text("secret")
    (place.top / "secret").chmod(0o000)
    for command in (["store", "--local", "secret"], ["link", "secret"]):
        done = place.run(*command)
        assert done.returncode == 5
        assert "secret: Permission denied" in done.stderr


def test_an_old_directory_that_may_not_be_read(place: Place) -> None:
    shutil.copytree(place.store / "sha1", place.top / "old" / "sha1")
    place.store.chmod(0o777)
    (blob,) = [path for path in (place.top / "old").rglob("*") if path.is_file()]
    blob.chmod(0o000)
    shutil.rmtree(place.store)
    place.allow(0o777)
    done = place.run("import-from", "old")
    assert done.returncode == 6
    assert f"unreadable  {URI}  could not read {blob}: Permission denied" in done.stdout
    (place.top / "old" / "sha1").chmod(0o000)
    done = place.run("import-from", "old")
    (place.top / "old" / "sha1").chmod(0o755)
    assert done.returncode == 5
    assert "could not list" in done.stderr
