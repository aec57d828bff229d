"""Blobs: private copies, hashed, whole or not there at all."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kachery import digest
from kachery.errors import InvalidInput, KacheryError, NotFound, SourceChanged, WrongContent
from kachery.store import Store, blobs, hashing
from kachery.store.verified import SMALL

if TYPE_CHECKING:
    from pathlib import Path

    from kachery.progress import Progress

SIZES = [0, 1, 262_143, 262_144, 262_145, SMALL, SMALL + 1, 1_048_576, 1_048_577, 3_000_000]


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def look(path: Path) -> tuple[int, ...]:
    status = os.stat(path)
    return (status.st_ino, status.st_mode, status.st_nlink, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def aged(path: Path, data: bytes) -> Path:
    """A file that nobody has touched for a while, as far as its times tell."""
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", SIZES)
def test_a_file_of_any_size_is_copied_and_found(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    source = tmp_path / "source"
    source.write_bytes(data)
    os.link(source, tmp_path / "other name")
    before = look(source)

    store = Store()
    hash_, stored = store.add_file(source)

    assert (hash_, stored) == (sha1(data), size)
    found = store.find(hash_)
    assert found is not None
    assert found.kind == "blob"
    with open(found.path, "rb") as file:
        assert file.read() == data
    assert os.stat(found.path).st_ino != before[0]
    assert look(source) == before
    assert [path for path in store.root.rglob("tmp/*") if path.is_file()] == []


@pytest.mark.parametrize("size", SIZES)
def test_bytes_of_any_size(size: int) -> None:
    data = os.urandom(size)
    store = Store()

    for _ in range(2):
        assert store.add_bytes(data) == sha1(data)
        found = store.find(sha1(data))
        assert found is not None
        with open(found.path, "rb") as file:
            assert file.read() == data


@pytest.mark.parametrize("size", [100, SMALL, SMALL + 1, 3_000_000])
def test_a_damaged_blob_is_never_handed_out(size: int, caplog: pytest.LogCaptureFixture) -> None:
    data = os.urandom(size)
    store = Store()
    hash_ = store.add_bytes(data)
    path = store.layout.blob(hash_)
    with open(path, "r+b") as file:
        file.seek(size // 2)
        file.write(bytes([data[size // 2] ^ 1]))

    reasons: list[str] = []
    assert store.find(hash_, reasons=reasons) is None
    assert "damaged" in reasons[0]
    assert "damaged" in caplog.text
    assert not os.path.exists(path)
    assert len(list((store.root / "quarantine").iterdir())) == 1

    assert store.add_bytes(data) == hash_
    assert store.find(hash_) is not None


@pytest.mark.parametrize("size", [100, 3_000_000])
def test_storing_again_puts_a_damaged_blob_right(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    source = aged(tmp_path / "source", data)
    store = Store()
    hash_, _ = store.add_file(source)
    for way in (lambda: store.add_file(source), lambda: store.add_bytes(data)):
        with open(store.layout.blob(hash_), "r+b") as file:
            file.truncate(size - 1)
        way()
        with open(store.layout.blob(hash_), "rb") as file:
            assert file.read() == data


def test_damage_that_keeps_size_and_mtime_is_seen() -> None:
    data = os.urandom(SMALL + 1)
    store = Store()
    hash_ = store.add_bytes(data)
    path = store.layout.blob(hash_)
    times = os.stat(path)
    with open(path, "r+b") as file:
        file.write(bytes([data[0] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert store.find(hash_) is None


def test_a_replaced_inode_is_hashed_again(tmp_path: Path) -> None:
    data = os.urandom(SMALL + 1)
    store = Store()
    hash_ = store.add_bytes(data)
    path = store.layout.blob(hash_)
    other = tmp_path / "other"
    other.write_bytes(data[::-1])
    times = os.stat(path)
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(other, path)

    assert store.find(hash_) is None


def test_a_verified_blob_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    hash_ = store.add_bytes(os.urandom(SMALL + 1))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it was read again")

    monkeypatch.setattr(digest, "of_stream", refuse)
    monkeypatch.setattr(digest, "of_bytes", refuse)
    assert Store().find(hash_) is not None


def test_a_good_blob_that_somebody_put_there_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"right\n" * 50
    store = Store()
    hash_ = store.add_bytes(data)
    path = store.layout.blob(hash_)
    with open(path, "wb") as file:
        file.write(b"wrong")
    digest_of = blobs._digest

    def slow_digest(fd: int, size: int, algorithm: str, told: Progress) -> str:
        found = digest_of(fd, size, algorithm, told)
        if found != hash_:
            # another process notices, too, and loads the file again before we move it away
            with open(f"{path}.new", "wb") as file:
                file.write(data)
            os.replace(f"{path}.new", path)
        return found

    monkeypatch.setattr(blobs, "_digest", slow_digest)

    found = store.find(hash_)

    assert found is not None
    with open(found.path, "rb") as file:
        assert file.read() == data
    assert list((store.root / "quarantine").iterdir()) == []


def test_what_is_not_a_file_in_a_blobs_place_holds_nobody_up() -> None:
    store = Store()
    hash_ = store.add_bytes(b"content")
    path = store.layout.blob(hash_)
    os.unlink(path)
    os.mkfifo(path)

    assert store.find(hash_) is None
    assert store.add_bytes(b"content") == hash_
    assert store.find(hash_) is not None


def test_a_blob_that_is_read_in_parts_is_not_taken_for_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    hash_ = store.add_bytes(os.urandom(5000))
    read = os.read
    monkeypatch.setattr(os, "read", lambda fd, count: read(fd, min(count, 1000)))

    assert store.blobs.find(hash_) is not None


def test_sources_that_are_no_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        store = Store()
        for name in (tmp_path, tmp_path / "pipe", tmp_path / "socket", "/dev/zero", "/dev/null"):
            for use in (store.add_file, store.link, store.hash_file):
                with pytest.raises(InvalidInput, match=r"is a directory|not a regular file"):
                    use(name)


def test_sources_that_cannot_be_are_refused(tmp_path: Path) -> None:
    os.symlink("loop", tmp_path / "loop")
    store = Store()
    for use in (store.add_file, store.link, store.hash_file):
        with pytest.raises(NotFound, match="no such file"):
            use(tmp_path / "nothing")
        for name in ("a\x00b", "\ud800", "x" * 300, tmp_path / "loop"):
            with pytest.raises(InvalidInput):
                use(name)


def test_a_source_that_changes_in_place_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    data = os.urandom(3_000_000)
    copy_some = hashing.copy_some
    for change in ("rewrite", "append", "truncate"):
        source.write_bytes(data)

        def copy_and_change(one: int, other: int, count: int, change: str = change) -> int:
            done = copy_some(one, other, count)
            with open(source, "r+b") as file:
                if change == "rewrite":
                    file.write(b"changed")
                elif change == "append":
                    file.seek(0, os.SEEK_END)
                    file.write(b"more")
                else:
                    file.truncate(100)
            return done

        monkeypatch.setattr(hashing, "copy_some", copy_and_change)
        with pytest.raises(SourceChanged):
            Store().add_file(source)
        assert list(Store().entries()) == []
        assert [path for path in Store().root.rglob("*") if path.is_file()] == []


def test_a_copy_that_says_it_is_at_the_end_too_early_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(700_000)
    source = tmp_path / "source"
    source.write_bytes(data)
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)

    assert Store().add_file(source)[0] == sha1(data)


def test_threads_that_store_the_same_content() -> None:
    data = os.urandom(2_000_000)
    store = Store()
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(store.add_bytes(data))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [sha1(data)] * 8
    assert [path.name for path in store.root.glob("sha1/**/*") if path.is_file()] == [sha1(data)]


def test_an_unreadable_blob_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    hash_ = store.add_bytes(b"content")
    path = store.layout.blob(hash_)
    os_open = os.open

    def refuse(name: str, *arguments: int) -> int:
        if name == path:
            raise PermissionError(13, "Permission denied")
        return os_open(name, *arguments)

    monkeypatch.setattr(os, "open", refuse)
    reasons: list[str] = []
    assert store.find(hash_, reasons=reasons) is None
    assert "could not read" in reasons[0]


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_other_algorithms_have_their_own_place(algorithm: str) -> None:
    store = Store()
    hash_ = store.blobs.add_bytes(b"x", algorithm)

    assert hash_ == hashlib.new(algorithm, b"x").hexdigest()
    found = store.find(hash_, algorithm=algorithm)
    assert found is not None
    assert f"/{algorithm}/" in found.path
    with open(found.path, "wb") as file:
        file.write(b"y")
    with pytest.raises(WrongContent):
        store.blobs.find(hash_, algorithm)


def test_durable_storing_gives_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KACHERY_DURABILITY", "sync")
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(stat.S_IFMT(os.fstat(fd).st_mode)), fsync(fd))[1])
    store = Store()
    for size in (10, 2_000_000):
        source = tmp_path / str(size)
        source.write_bytes(os.urandom(size))
        synced.clear()
        hash_, _ = store.add_file(source)
        assert store.find(hash_) is not None
        assert {stat.S_IFREG, stat.S_IFDIR} <= set(synced)


@hypothesis_settings(max_examples=50)
@given(st.binary(max_size=100), st.binary(max_size=100))
def test_content_decides_and_nothing_else(tmp_path_factory: pytest.TempPathFactory, one: bytes, other: bytes) -> None:
    store = Store(tmp_path_factory.mktemp("store"))

    assert (store.add_bytes(one) == store.add_bytes(other)) == (one == other)
    for data in (one, other):
        found = store.find(sha1(data))
        assert found is not None


def test_errors_of_the_source_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(2_000_000))

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(hashing, "copy_some", fail)
    with pytest.raises(KacheryError, match="could not copy"):
        Store().add_file(source)
    assert [path for path in Store().root.rglob("*") if path.is_file()] == []


def test_a_copy_of_a_dead_process_goes_soon_and_its_download_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    for name in ("incoming.0123456789", "sha1.0.part", "sha1.0.part.ranges"):
        (temporary / name).write_bytes(b"left")
        os.utime(temporary / name, (0, time.time() - 120))

    removed = blobs.remove_abandoned(store.layout, 24 * 3600)

    assert [os.path.basename(path) for path in removed] == ["incoming.0123456789"]
    assert sorted(os.listdir(temporary)) == ["sha1.0.part", "sha1.0.part.ranges"]
