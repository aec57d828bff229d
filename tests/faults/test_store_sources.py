"""Sources that change, vanish or are written to while they are read: an error, never a wrong hash; never touched."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kachery.errors import KacheryError, NotFound, SourceChanged
from kachery.store import Store, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE = 24_000_000
BLOCK = 64 * 1024


class Writer:
    """A thread that goes on changing a file until it is told to stop."""

    def __init__(self, path: Path, how: str) -> None:
        self.path = path
        self.how = how
        self._over = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        assert self._begun.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(20)

    def _write(self) -> None:
        count = 0
        with self.path.open("r+b", buffering=0) as file:
            while not self._over.is_set():
                count += 1
                if self.how == "append":
                    file.seek(0, os.SEEK_END)
                    file.write(b"more")
                elif self.how == "rewrite":
                    # the whole file always holds one letter, so that a mixture can be told
                    file.seek(0)
                    letter = b"ab"[count % 2 : count % 2 + 1]
                    for _ in range(SIZE // BLOCK):
                        file.write(letter * BLOCK)
                elif self.how == "truncate":
                    file.truncate(SIZE // 2)
                    file.truncate(SIZE)
                self._begun.set()
                self._over.wait(0.001)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "source"
    path.write_bytes(b"a" * (SIZE // BLOCK) * BLOCK)
    yield path
    path.unlink(missing_ok=True)


WAYS: dict[str, Callable[[Store, Path], object]] = {
    "store": lambda store, path: store.add_file(path),
    "link": lambda store, path: store.link(path),
    "hash": lambda store, path: store.hash_file(path),
    "plain": lambda store, path: plain.add_file(store.root / "plain", path),
}


@pytest.mark.parametrize("how", ["append", "rewrite", "truncate"])
@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_is_written_to_gives_an_error_and_never_a_wrong_hash(source: Path, how: str, way: str) -> None:
    store = Store()
    changed = 0
    with Writer(source, how):
        for _ in range(6):
            try:
                WAYS[way](store, source)
            except SourceChanged:
                changed += 1
    assert changed > 0

    # what got through has the hash it lies under
    for path in store.root.rglob("*"):
        if path.is_file() and len(path.name) == 40 and path.parent.name != "@compute_sha1_cache":
            if "linked_files" in path.parts or "verified" in path.parts:
                continue
            assert hashlib.sha1(path.read_bytes()).hexdigest() == path.name
    assert list(store.root.rglob("tmp/*")) == []
    # and nothing that was remembered meanwhile is believed now
    true = hashlib.sha1(source.read_bytes()).hexdigest()
    assert store.hash_file(source)[0] == true
    found = store.find(true)
    if found is not None:
        with open(found.path, "rb") as file:
            assert hashlib.file_digest(file, "sha1").hexdigest() == true


def test_small_files_that_are_written_to(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"a" * 100_000)
    over = threading.Event()

    def write() -> None:
        with source.open("r+b", buffering=0) as file:
            while not over.is_set():
                for letter in (b"b", b"a"):
                    file.seek(0)
                    file.write(letter * 100_000)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    store = Store()
    for _ in range(200):
        try:
            hash_, _ = store.add_file(source)
        except SourceChanged:
            continue
        with open(store.layout.blob(hash_), "rb") as file:
            assert hashlib.sha1(file.read()).hexdigest() == hash_
    over.set()
    thread.join(20)


def test_files_that_vanish(tmp_path: Path) -> None:
    source = tmp_path / "source"
    data = os.urandom(2_000_000)
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            (tmp_path / "new").write_bytes(data)
            os.replace(tmp_path / "new", source)
            source.unlink()

    thread = threading.Thread(target=come_and_go, daemon=True)
    thread.start()
    store = Store()
    for number in range(60):
        try:
            hash_, _ = (store.add_file, store.link)[number % 2](source)
        except (NotFound, SourceChanged):
            # removing a name changes a file's status: whoever has it open cannot tell what else changed
            continue
        assert hash_ == hashlib.sha1(data).hexdigest()
    over.set()
    thread.join(20)


def test_a_source_is_never_touched(tmp_path: Path) -> None:
    source, other = tmp_path / "source", tmp_path / "other name"
    source.write_bytes(os.urandom(3_000_000))
    os.link(source, other)
    source.chmod(0o440)
    os.utime(source, ns=(1_600_000_000_000_000_001, 1_600_000_000_000_000_002))

    def look() -> tuple[object, ...]:
        status = os.stat(source)
        return (
            status.st_ino,
            status.st_mode,
            status.st_nlink,
            status.st_uid,
            status.st_gid,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            os.listxattr(source),
            sorted(os.listdir(tmp_path)),
        )

    before = look()
    store = Store(tmp_path.parent / "the store")
    for _ in range(2):
        hash_, _ = store.add_file(source)
        store.link(source)
        store.hash_file(source)
        plain.add_file(store.root / "plain", source)
    found = store.find(hash_)
    assert found is not None
    with open(found.path, "r+b") as file:
        file.write(b"the store's copy is another file")
    list(store.verify())
    store.clean(0)
    assert look() == before
    assert source.samefile(other)


def test_two_processes_that_store_and_link_the_same(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 400_000)
    code = """
import sys
from kachery.store import Store
for number in range(30):
    store = Store()
    store.add_file(f"{sys.argv[1]}/{number}")
    store.link(f"{sys.argv[1]}/{number}")
    store.mutables.set("@a/b", str(number) * 1000)
    store.add_bytes(b"large" * 300_000)
"""
    children = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(4)]
    assert [child.wait(100) for child in children] == [0] * 4

    store = Store()
    for number in range(30):
        found = store.find(hashlib.sha1(bytes([number]) * 400_000).hexdigest())
        assert found is not None
        assert found.kind == "blob"
    assert store.mutables.get("@a/b") == "29" * 1000
    assert list((store.root / "tmp").iterdir()) == []
    assert all("Problem" not in type(item).__name__ for item in store.verify())


MEASURE = """
import re, sys
import kachery
from kachery.store import Store, plain
path, way = sys.argv[1:]
if way == "store":
    kachery.store_file(path, local=True)
elif way == "link":
    kachery.load_file(kachery.link_file(path), dest=path + ".copy")
elif way == "verify":
    assert [type(item).__name__ for item in Store().verify()] == ["Entry"]
elif way == "plain":
    plain.add_file(path + ".plain", path)
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.parametrize("way", ["store", "link", "plain"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, way: str) -> None:
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.truncate(2 * 1024**3)
    for step in (way, *(["verify"] if way == "store" else [])):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(source), step], check=True, capture_output=True, text=True
        )
        assert int(done.stdout) < 150 * 1024, step
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.unlink()


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_cannot_be_read_or_is_none(way: str) -> None:
    # both are regular files of no bytes for who asks; of the first the beginning cannot be read, the second has content
    for name in ("/proc/self/mem", "/proc/cpuinfo"):
        with pytest.raises(KacheryError):
            WAYS[way](Store(), Path(name))
    assert [path for path in Store().root.rglob("*") if path.is_file()] == []
