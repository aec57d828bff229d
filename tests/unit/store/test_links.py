"""Links and the hash cache: believed only as long as nothing about the file moved."""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from kachery import digest
from kachery.store import Store, hashing
from kachery.store.verified import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZES = [100, SMALL + 1]


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def settle() -> None:
    """Wait until times of files show a change again."""
    time.sleep(0.15)


@pytest.fixture(params=SIZES)
def linked(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(request.param))
    settle()
    return source, Store().link(source)[0]


def test_a_link_finds_the_file_where_it_lies(linked: tuple[Path, str]) -> None:
    source, hash_ = linked
    found = Store().find(hash_)

    assert found is not None
    assert (found.path, found.kind) == (str(source), "link")


def keep_times(source: Path, change: Callable[[], None]) -> None:
    times = os.stat(source)
    change()
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_other_content_of_the_same_size_and_time_is_seen(linked: tuple[Path, str]) -> None:
    source, hash_ = linked
    data = source.read_bytes()
    keep_times(source, lambda: [source.write_bytes(data[::-1])])  # type: ignore[arg-type,return-value]
    reasons: list[str] = []

    assert Store().find(hash_, reasons=reasons) is None
    assert "no longer what was linked" in reasons[0]


def test_a_replaced_file_of_the_same_size_and_time_is_seen(linked: tuple[Path, str], tmp_path: Path) -> None:
    source, hash_ = linked
    times = os.stat(source)
    other = tmp_path / "other"
    other.write_bytes(os.urandom(times.st_size))
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(other, source)

    assert Store().find(hash_) is None


def test_the_same_content_in_another_inode_is_found(linked: tuple[Path, str], tmp_path: Path) -> None:
    source, hash_ = linked
    other = tmp_path / "other"
    other.write_bytes(source.read_bytes())
    os.replace(other, source)

    assert Store().find(hash_) is not None


def test_another_size_is_seen(linked: tuple[Path, str]) -> None:
    source, hash_ = linked
    with source.open("ab") as file:
        file.write(b"more")

    assert Store().find(hash_) is None


def test_a_touched_file_is_found_and_its_record_kept_fresh(linked: tuple[Path, str]) -> None:
    source, hash_ = linked
    os.utime(source, (1, 2))
    store = Store()

    assert store.find(hash_) is not None
    with open(store.layout.link(hash_)) as file:
        assert json.load(file)["mtime"] == 2.0


def test_a_vanished_file_is_said_to_be_gone(linked: tuple[Path, str]) -> None:
    source, hash_ = linked
    source.unlink()
    reasons: list[str] = []

    assert Store().find(hash_, reasons=reasons) is None
    assert "no such file" in reasons[0]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_took_its_place_is_not_read(linked: tuple[Path, str], make: Callable[[Path], None]) -> None:
    source, hash_ = linked
    source.unlink()
    make(source)

    assert Store().find(hash_) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"path": 7}',
        '{"path": "relative"}',
        '{"size": 3}',
        '{"path": "/nul\\u0000", "size": 3}',
        '{"path": "/dev/zero", "size": 0}',
        '{"path": "/", "size": "x"}',
        "\udcff",
        "[" * 100_000,
    ],
)
def test_a_damaged_record_is_no_link(text: str) -> None:
    store = Store()
    path = store.layout.link("0" * 40)
    os.makedirs(os.path.dirname(path))
    with open(path, "w", errors="surrogateescape") as file:
        file.write(text)

    assert store.find("0" * 40) is None
    for entry in store.entries():
        assert entry.size == 0 or entry.path == "/"
    list(store.verify())
    store.usage()


def test_records_of_2022_are_read(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"old")
    store = Store()
    record = store.root / "mutables/@linked_files/@sha1" / sha1(b"old")
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"path": str(source), "size": 3, "mtime": 1.5, "sha1": sha1(b"old")}))

    found = store.find(sha1(b"old"))
    assert found is not None
    assert found.path == str(source)


def test_a_link_moves_to_where_the_content_is_now(tmp_path: Path) -> None:
    store = Store()
    for name in ("one", "other"):
        source = tmp_path / name
        source.write_bytes(b"same")
        store.link(source)
    found = store.find(sha1(b"same"))
    assert found is not None
    assert found.path.endswith("other")


# --- the hash cache


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one each time a stream is hashed."""
    calls: list[int] = []
    of_stream = digest.of_stream
    monkeypatch.setattr(digest, "of_stream", lambda *a, **k: (calls.append(1), of_stream(*a, **k))[1])
    return calls


def test_a_large_file_is_hashed_once(tmp_path: Path, counted: list[int]) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(SMALL + 1))
    settle()
    store = Store()

    assert store.hash_file(source) == store.hash_file(source) == Store().hash_file(source)
    assert len(counted) == 1


def test_a_file_that_was_just_written_is_hashed_again(tmp_path: Path, counted: list[int]) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(SMALL + 1))
    store = Store()
    store.hash_file(source)

    assert Store().hash_file(source)[0] == sha1(source.read_bytes())
    assert len(counted) == 2


def test_a_change_during_hashing_within_one_tick_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the clock of a file system is coarse: a second change may leave every time as it was
    source = tmp_path / "source"
    source.write_bytes(os.urandom(SMALL + 1))
    of_stream = digest.of_stream

    def slow(*arguments: object, **options: object) -> dict[str, str]:
        found = of_stream(*arguments, **options)  # type: ignore[arg-type]
        settle()
        return found

    monkeypatch.setattr(digest, "of_stream", slow)
    hash_, _ = Store().hash_file(source)

    assert not Store()._verified.knows(hash_, os.stat(source))


def test_upstreams_record_alone_is_not_believed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(SMALL + 1))
    settle()
    status = os.stat(source)
    store = Store()
    record = store.root / "mutables/@compute_sha1_cache" / digest.of_bytes(os.fsencode(source))
    record.parent.mkdir(parents=True)
    record.write_bytes(hashing.record_bytes(str(source), "0" * 40, status))

    assert store.hash_file(source)[0] == sha1(source.read_bytes())
    assert json.loads(record.read_bytes())["sha1"] == sha1(source.read_bytes())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"sha1": 7, "path": "x"}', b"\xff", b"[" * 100_000])
def test_a_damaged_cache_costs_time_and_nothing_else(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(SMALL + 1))
    settle()
    store = Store()
    hash_, _ = store.hash_file(source)
    for folder in ("mutables", "verified"):
        for path in (store.root / folder).rglob("*"):
            if path.is_file():
                path.write_bytes(content)

    assert store.hash_file(source)[0] == hash_
    assert store.recall_hash(str(source)) == hash_


def test_storing_a_known_file_reads_nothing(
    tmp_path: Path, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(SMALL + 1))
    settle()
    store = Store()
    first = store.add_file(source)
    monkeypatch.setattr(hashing, "copy_some", lambda *_: pytest.fail("it was copied again"))

    assert store.add_file(source) == first
    assert counted == []


# --- location=


def test_a_location_is_used_when_it_has_the_content(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")

    found = Store().find(sha1(b"content"), location=str(source))

    assert found is not None
    assert (found.path, found.kind) == (str(source), "location")
    assert Store().find(sha1(b"other"), location=str(source)) is None


def test_locations_that_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relative").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    empty = sha1(b"")
    for location in ("relative", str(tmp_path / "pipe"), "/dev/zero", "/dev/null", str(tmp_path), "/nowhere", ""):
        assert Store().find(empty, location=location) is None


def test_the_order_is_blob_location_link(tmp_path: Path) -> None:
    for name in ("linked", "located"):
        (tmp_path / name).write_bytes(b"content")
    store = Store()
    hash_, _ = store.link(tmp_path / "linked")
    kinds = []
    for step in (lambda: None, lambda: store.add_bytes(b"content")):
        step()
        for location in (None, str(tmp_path / "located")):
            found = store.find(hash_, location=location)
            assert found is not None
            kinds.append(found.kind)
    assert kinds == ["link", "location", "blob", "blob"]


def test_what_is_forgotten_is_not_found_and_stays_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(b"linked")
    hash_, _ = Store().link(path)
    assert Store().links.remove(hash_)
    assert Store().find(hash_) is None
    assert not Store().links.remove(hash_)
    assert path.read_bytes() == b"linked"
