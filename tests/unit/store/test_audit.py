"""Looking over a store: entries, usage, verification, and what was left behind."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from kachery.store import Store, audit

if TYPE_CHECKING:
    from pathlib import Path

LARGE = b"large\n" * 200_000
OLD = time.time() - 2 * audit.ABANDONED_AFTER


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store()
    store.add_bytes(b"small")
    store.add_bytes(LARGE)
    for name, data in (("linked", b"linked"), ("large link", LARGE[1:])):
        (tmp_path / name).write_bytes(data)
        store.link(tmp_path / name)
    return store


def test_entries(store: Store, tmp_path: Path) -> None:
    found = {(entry.kind, entry.hash, entry.size) for entry in store.entries()}

    assert found == {
        ("blob", sha1(b"small"), 5),
        ("blob", sha1(LARGE), len(LARGE)),
        ("link", sha1(b"linked"), 6),
        ("link", sha1(LARGE[1:]), len(LARGE) - 1),
    }
    assert all(entry.path.startswith((str(store.root), str(tmp_path))) for entry in store.entries())


def test_what_lies_elsewhere_is_no_entry(store: Store) -> None:
    before = list(store.entries())
    (store.root / "sha1" / "aa").mkdir(exist_ok=True)
    (store.root / "sha1" / "aa" / ("0" * 40)).write_bytes(b"x")
    (store.root / "sha1" / "readme").write_bytes(b"x")

    assert list(store.entries()) == before


def test_usage(store: Store) -> None:
    usage = {item.kind: (item.files, item.size) for item in store.usage()}

    assert usage["blobs"] == (2, 5 + len(LARGE))
    assert usage["links"] == (2, 6 + len(LARGE) - 1)
    assert usage["damaged"] == usage["temporary"] == (0, 0)


def test_a_sound_store_is_verified(store: Store) -> None:
    assert sorted(map(str, store.verify())) == sorted(map(str, store.entries()))


@pytest.mark.parametrize("which", [b"small", LARGE])
def test_a_damaged_blob_is_a_problem_and_moved_away(store: Store, which: bytes) -> None:
    with open(store.layout.blob(sha1(which)), "r+b") as file:
        file.write(b"X")

    problems = [item for item in store.verify() if isinstance(item, audit.Problem)]

    assert [problem.entry.hash for problem in problems] == [sha1(which)]
    assert "damaged" in problems[0].reason
    assert len(list((store.root / "quarantine").iterdir())) == 1
    assert [item for item in store.verify() if isinstance(item, audit.Problem)] == []


def test_records_are_not_believed_even_where_they_cannot_be_removed(store: Store) -> None:
    # a record that says the damaged blob is fine, in a directory that cannot be written to
    path = store.layout.blob(sha1(LARGE))
    with open(path, "r+b") as file:
        file.write(b"X")
    store._verified.remember(sha1(LARGE), os.stat(path))
    assert store.find(sha1(LARGE)) is not None
    record = store.layout.verified(sha1(LARGE))
    subprocess.run(["chattr", "+i", record], check=False, capture_output=True)
    try:
        problems = [item for item in store.verify() if isinstance(item, audit.Problem)]
    finally:
        subprocess.run(["chattr", "-i", record], check=False, capture_output=True)

    assert [problem.entry.hash for problem in problems] == [sha1(LARGE)]


class Steps:
    """A progress that keeps what it was told."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def advance(self, count: int) -> None:
        self.steps.append(count)

    def say(self, state: str) -> None:
        raise AssertionError(state)


def test_progress_moves_within_a_large_file_and_ends_at_the_sum(store: Store, tmp_path: Path) -> None:
    (tmp_path / "linked").write_bytes(b"LINKED")
    told = Steps()

    results = list(store.verify(told))

    assert any(isinstance(item, audit.Problem) for item in results)
    assert sum(told.steps) == sum(entry.size for entry in store.entries())
    assert max(told.steps) < len(LARGE) - 1


def test_damaged_blobs_go_when_there_was_time_to_look_at_them(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(store.layout.blob(sha1(LARGE)), "ab") as file:
        file.write(b"more")
    assert store.find(sha1(LARGE)) is None
    quarantine = store.root / "quarantine"
    (damaged,) = quarantine.iterdir()
    os.utime(damaged, (1, 1))
    (quarantine / "notes").write_text("what happened")

    assert store.clean(0) == []
    assert damaged.exists()

    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + audit.DAMAGED_FOR + 60)
    assert store.clean(0) == [str(damaged)]
    assert [path.name for path in quarantine.iterdir()] == ["notes"]


def test_a_link_that_no_longer_holds_is_a_problem(store: Store, tmp_path: Path) -> None:
    (tmp_path / "linked").write_bytes(b"LINKED")
    (tmp_path / "large link").unlink()

    problems = {item.entry.hash: item.reason for item in store.verify() if isinstance(item, audit.Problem)}

    assert "no longer" in problems[sha1(b"linked")]
    assert "no such file" in problems[sha1(LARGE[1:])]


def left_over(store: Store) -> dict[str, Path]:
    """Files that processes of ours and upstream's left behind, by what they are."""
    hash_ = sha1(b"never finished")
    folder = store.root / "sha1" / hash_[:2] / hash_[2:4] / hash_[4:6]
    folder.mkdir(parents=True)
    temporary = store.root / "tmp"
    temporary.mkdir(exist_ok=True)
    return {
        "upstream's copy": folder / f"{hash_}.aB3dE6gH9j",
        "upstream's download": folder / f"{hash_}.tmp.aB3dE6gH",
        "our copy": temporary / "incoming.0123456789",
        "our record": temporary / "record.0123456789",
        "our download": temporary / f"sha1.{hash_}.part",
        "its list": temporary / f"sha1.{hash_}.part.ranges",
        "our keys": store.root / "private.pem.0123456789",
        "a list alone": temporary / f"sha1.{'0' * 40}.part.ranges",
    }


def test_abandoned_files_are_removed(store: Store) -> None:
    before = {path for path in store.root.rglob("*") if path.is_file()}
    for path in left_over(store).values():
        path.write_bytes(b"half")
        os.utime(path, (OLD, OLD))

    store.clean()

    assert {path for path in store.root.rglob("*") if path.is_file()} == before
    assert store.clean() == []


def test_fresh_files_stay(store: Store) -> None:
    paths = left_over(store)
    for path in paths.values():
        path.write_bytes(b"half")

    assert store.clean() == []
    assert all(path.exists() for path in paths.values())


def test_what_a_living_process_writes_stays(store: Store) -> None:
    paths = left_over(store)
    held = []
    for path in paths.values():
        path.write_bytes(b"half")
        os.utime(path, (OLD, OLD))
        if path != paths["its list"] and path != paths["a list alone"]:
            held.append(path.open("rb"))
            fcntl.flock(held[-1], fcntl.LOCK_EX)

    assert store.clean() == [str(paths["a list alone"])]
    assert all(path.exists() for name, path in paths.items() if name != "a list alone")
    for file in held:
        file.close()


def test_content_whose_name_looks_odd_stays(store: Store) -> None:
    store.mutables.set("@a/" + "0" * 40 + ".aB3dE6gH9j", "a user's own")
    odd = store.root / "sha1" / "notes.txt"
    odd.write_text("x")
    for path in store.root.rglob("*"):
        if path.is_file():
            os.utime(path, (OLD, OLD))

    store.clean()

    assert store.mutables.get("@a/" + "0" * 40 + ".aB3dE6gH9j") == "a user's own"
    assert odd.exists()
    assert store.find(sha1(b"small")) is not None


HOLD = """
import sys
from kachery.store import Store
incoming = Store().incoming()
print(incoming.path, flush=True)
sys.stdin.read()
"""


def test_a_file_goes_when_its_process_ends_however_it_ends(store: Store) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    path = child.stdout.readline().strip()
    os.utime(path, (OLD, OLD))
    assert store.clean() == []

    child.kill()
    child.communicate()

    assert store.clean() == [path]


def test_storing_cleans_up_after_others(store: Store, tmp_path: Path) -> None:
    path = left_over(store)["our copy"]
    path.write_bytes(b"half")
    os.utime(path, (OLD, OLD))
    (tmp_path / "new").write_bytes(LARGE[2:])

    store.add_file(tmp_path / "new")

    assert not path.exists()
