"""Disasters of directories: kill -9, a full disk, files that vanish or change, two who load at once."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import kachery
from kachery import manifests
from kachery.errors import Conflict, KacheryError, NotFound, SourceChanged, StorageFull, WrongContent
from kachery.store import Store, audit, keys
from rigs import disk
from rigs.cloud import Cloud
from rigs.disk import fill

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 6
DIRS = 12
FILES = 40

STORE = "import sys, kachery; print(kachery.store_dir(sys.argv[1], local=sys.argv[2] == 'local'), flush=True)"
LOAD = "import sys, kachery; kachery.load_dir(sys.argv[1], sys.argv[2]); print('done', flush=True)"


def fresh(directory: Path, seed: int, *, files: int = FILES) -> Path:
    """A directory that nobody stored before, with small files and some larger ones."""
    choice = random.Random(seed)
    for number in range(DIRS):
        below = directory / f"{number}" / "data"
        below.mkdir(parents=True)
        for name in range(files):
            (below / f"{name}").write_bytes(choice.randbytes(choice.choice([10, 4000, 4000, 4000, 300_000])))
    (directory / "large").write_bytes(choice.randbytes(2_000_000))
    return directory


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def killed_after(seconds: float, program: str, *arguments: str) -> str:
    """What a process says that is killed after a while, if it is not done by then."""
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True) as process:
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        said, _ = process.communicate()
        timer.cancel()
    assert process.returncode in (0, -signal.SIGKILL)
    return said.strip()


def how_long(program: str, *arguments: str) -> float:
    start = time.monotonic()
    assert killed_after(100, program, *arguments)
    return time.monotonic() - start


def complete(files: dict[str, bytes]) -> list[str]:
    """The manifests among some files by their hash; all that they name must be among them, too."""
    found = []
    for hash_, data in files.items():
        try:
            tree = manifests.parse(data)
        except KacheryError:
            continue
        found.append(hash_)
        for _, here in manifests.walk(tree):
            for entry in here["files"].values():
                assert hashlib.sha1(files[entry["sha1"]]).hexdigest() == entry["sha1"]
    return found


def blobs() -> dict[str, bytes]:
    return {entry.hash: Path(entry.path).read_bytes() for entry in Store().entries()}


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of its own with room for 8 MiB, which holds the store directory."""
    with disk.small() as place:
        monkeypatch.setenv("KACHERY_CLOUD_DIR", str(place / "store"))
        yield place


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with Cloud() as server:
        monkeypatch.setenv("KACHERY_GATEWAY_URL", server.url)
        keys.load_or_create()
        yield server


def test_whoever_stores_is_killed_and_what_is_listed_is_there(tmp_path: Path) -> None:
    choice = random.Random(1)
    usual = how_long(STORE, str(fresh(tmp_path / "first", 1000)), "local")
    acknowledged = 1
    for turn in range(ROUNDS):
        directory = fresh(tmp_path / str(turn), turn)
        acknowledged += bool(killed_after(choice.uniform(0.2, 1.2) * usual, STORE, str(directory), "local"))
        assert len(complete(blobs())) >= acknowledged
    for item in Store().verify():
        assert isinstance(item, audit.Entry), item
    uri = kachery.store_dir(tmp_path / "0", local=True)
    kachery.load_dir(uri, tmp_path / "copy", local_only=True)
    assert content(tmp_path / "copy") == content(tmp_path / "0")


def test_whoever_sends_is_killed_and_what_the_zone_lists_it_has(cloud: Cloud, tmp_path: Path) -> None:
    choice = random.Random(2)
    usual = how_long(STORE, str(fresh(tmp_path / "first", 1000, files=8)), "zone")
    for turn in range(ROUNDS):
        directory = fresh(tmp_path / str(turn), turn, files=8)
        said = killed_after(choice.uniform(0.2, 1.1) * usual, STORE, str(directory), "zone")
        found = complete(cloud.files)
        assert not said or said[10:50] in found
    # what was sent before the end is not sent again
    sent = len(cloud.asked("PUT"))
    uri = kachery.store_dir(tmp_path / "first")
    assert uri[10:50] in complete(cloud.files)
    assert len(cloud.asked("PUT")) == sent


def test_whoever_loads_is_killed_and_nothing_half_made_appears(tmp_path: Path) -> None:
    source = fresh(tmp_path / "source", 3)
    uri = kachery.store_dir(source, local=True)
    place = tmp_path / "place"
    usual = how_long(LOAD, uri, str(place / "usual"))
    choice = random.Random(3)
    for turn in range(ROUNDS):
        said = killed_after(choice.uniform(0.3, 1.1) * usual, LOAD, uri, str(place / "copy"))
        if said:
            assert (place / "copy").exists()
        if (place / "copy").exists():
            assert content(place / "copy") == content(source), turn
            shutil.rmtree(place / "copy")
    kachery.load_dir(uri, place / "copy")
    assert sorted(os.listdir(place)) == ["copy", "usual"]
    assert content(place / "copy") == content(source)


def test_an_interrupted_load_leaves_nothing(tmp_path: Path) -> None:
    source = fresh(tmp_path / "source", 4)
    uri = kachery.store_dir(source, local=True)
    place = tmp_path / "place"
    usual = how_long(LOAD, uri, str(place / "usual"))
    for part in (0.5, 0.7, 0.9):
        process = subprocess.Popen([sys.executable, "-c", LOAD, uri, str(place / "copy")], stderr=subprocess.PIPE)
        time.sleep(part * usual)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        if process.returncode == 0:
            shutil.rmtree(place / "copy")
        assert os.listdir(place) == ["usual"]


def test_two_who_load_to_one_place(tmp_path: Path) -> None:
    source = fresh(tmp_path / "source", 5)
    uri = kachery.store_dir(source, local=True)
    command = [sys.executable, "-c", LOAD, uri, str(tmp_path / "place" / "copy")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate(timeout=100)[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 1, 1, 1]
    assert sum("Conflict" in text for text in said) == 3
    assert os.listdir(tmp_path / "place") == ["copy"]
    assert content(tmp_path / "place" / "copy") == content(source)


def test_on_a_full_disk_no_directory_is_stored(small_disk: Path, tmp_path: Path) -> None:
    source = fresh(tmp_path / "source", 6, files=4)
    fill(small_disk, leave=1_000_000)
    with pytest.raises(StorageFull, match="could not"):
        kachery.store_dir(source, local=True)
    found = blobs()
    assert complete(found) == []
    for hash_, data in found.items():
        assert hashlib.sha1(data).hexdigest() == hash_
    (small_disk / "ballast").unlink()
    uri = kachery.store_dir(source, local=True)
    kachery.load_dir(uri, tmp_path / "copy")
    assert content(tmp_path / "copy") == content(source)


def test_on_a_full_disk_no_directory_appears(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fresh(tmp_path / "source", 7, files=4)
    monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / "store"))
    uri = kachery.store_dir(source, local=True)
    fill(small_disk, leave=1_000_000)
    with pytest.raises(StorageFull, match="room for fewer"):
        kachery.load_dir(uri, small_disk / "copy")
    # somebody else takes the room after it was looked for
    monkeypatch.setattr("kachery.files.appearing.require_room", lambda *_: None)
    with pytest.raises(StorageFull, match="could not write"):
        kachery.load_dir(uri, small_disk / "copy")
    assert os.listdir(small_disk) == ["ballast"]
    (small_disk / "ballast").unlink()
    kachery.load_dir(uri, small_disk / "copy")
    assert content(small_disk / "copy") == content(source)


@pytest.mark.parametrize("what", ["rewritten", "removed", "added", "replaced"])
def test_a_directory_in_which_somebody_works_is_whole_or_an_error(tmp_path: Path, what: str) -> None:
    source = fresh(tmp_path / "source", 8)
    stop = threading.Event()

    def work() -> None:
        choice = random.Random(what)
        number = 0
        while not stop.is_set():
            number += 1
            path = source / str(choice.randrange(DIRS)) / "data" / str(choice.randrange(FILES))
            if what == "rewritten":
                path.write_bytes(b"%d" % number * 1000)
            elif what == "removed":
                path.unlink(missing_ok=True)
            elif what == "added":
                path.with_name(f"new{number}").write_bytes(b"new")
            else:
                path.with_name("new").write_bytes(b"%d" % number)
                path.with_name("new").replace(path)
            time.sleep(0.001)

    worker = threading.Thread(target=work)
    worker.start()
    errors: list[str] = []
    try:
        for _ in range(5):
            try:
                kachery.store_dir(source, local=True)
            except (SourceChanged, NotFound) as error:
                errors.append(str(error))
    finally:
        stop.set()
        worker.join()
    assert errors
    assert all(str(source) in error for error in errors)
    complete(blobs())
    uri = kachery.store_dir(source, local=True)
    kachery.load_dir(uri, tmp_path / "copy")
    assert content(tmp_path / "copy") == content(source)


def test_a_store_that_vanishes_while_it_is_loaded_from(tmp_path: Path) -> None:
    source = fresh(tmp_path / "source", 9)
    uri = kachery.store_dir(source, local=True)
    place = tmp_path / "place"
    place.mkdir()
    vanishing = threading.Thread(target=shutil.rmtree, args=(Store().root / "sha1",), kwargs={"ignore_errors": True})
    vanishing.start()
    with pytest.raises((NotFound, WrongContent)):
        kachery.load_dir(uri, place / "copy", local_only=True)
    vanishing.join()
    assert os.listdir(place) == []


def test_damaged_members_are_put_right_when_the_directory_is_stored_again(tmp_path: Path) -> None:
    source = fresh(tmp_path / "source", 10)
    uri = kachery.store_dir(source, local=True)
    for path, data in content(source).items():
        blob = Path(Store().layout.blob(hashlib.sha1(data).hexdigest()))
        blob.write_bytes(b"x" * len(data))
        del path
    with pytest.raises((NotFound, WrongContent)):
        kachery.load_dir(uri, tmp_path / "copy", local_only=True)
    assert kachery.store_dir(source, local=True) == uri
    kachery.load_dir(uri, tmp_path / "copy", local_only=True)
    assert content(tmp_path / "copy") == content(source)


def test_a_manifest_of_a_million_files_takes_little_memory(tmp_path: Path) -> None:
    entry: dict[str, Any] = {"size": 6, "sha1": "f572d396fae9206628714fb2ce00f72e94f2258f"}
    one = json.dumps(entry)
    path = tmp_path / "manifest"
    with path.open("w") as file:
        file.write('{"files": {')
        file.write(", ".join(f'"{number:07d}": {one}' for number in range(1_000_000)))
        file.write('}, "dirs": {}}')
    uri = kachery.store_file(path, local=True, label="").replace("sha1://", "sha1dir://")
    program = (
        "import re, sys, kachery\n"
        "try:\n    kachery.load_dir(sys.argv[1], sys.argv[2])\n"
        "except kachery.KacheryError as error:\n"
        "    print(error.code, re.search('VmHWM:.*?([0-9]+)', open('/proc/self/status').read()).group(1))"
    )
    code, peak = killed_after(100, program, uri, str(tmp_path / "copy")).split()
    assert code == "too_large"
    assert int(peak) < 300 * 1024
    assert not (tmp_path / "copy").exists()


def test_a_place_where_something_is_stays_as_it_is(tmp_path: Path) -> None:
    uri = kachery.store_dir(fresh(tmp_path / "source", 11, files=1), local=True)
    (tmp_path / "copy").mkdir()
    with pytest.raises(Conflict):
        kachery.load_dir(uri, tmp_path / "copy")
    assert os.listdir(tmp_path / "copy") == []
