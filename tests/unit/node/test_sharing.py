"""Which files are shared, and that they are what they were."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from kachery.errors import NotAllowed, NotFound, SourceChanged
from kachery.node.sharing import Sharing
from kachery.store import Store

if TYPE_CHECKING:
    from pathlib import Path

LARGE = 2_000_000


def linked(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return Store().link(path)[0]


def served(sharing: Sharing, hash_: str) -> bytes:
    shared = sharing.open(hash_)
    try:
        return os.pread(shared.fd, shared.size + 1, 0)
    finally:
        os.close(shared.fd)


def test_links_and_stored_copies_are_shared(tmp_path: Path) -> None:
    sharing = Sharing()
    assert served(sharing, linked(tmp_path / "a.dat", b"linked")) == b"linked"
    assert served(sharing, Store().add_bytes(b"stored")) == b"stored"


def test_links_of_2022_are_shared(tmp_path: Path) -> None:
    hash_ = linked(tmp_path / "a.dat", b"linked")
    store = Store()
    old = f"{store.layout.mutables()}/@linked_files/@sha1/{hash_}"
    os.makedirs(os.path.dirname(old))
    os.replace(store.layout.link(hash_), old)
    assert served(Sharing(), hash_) == b"linked"


def test_what_is_not_known_is_not_found() -> None:
    assert Sharing().look("a" * 40) is None
    with pytest.raises(NotFound):
        Sharing().open("a" * 40)


def test_a_file_beside_a_linked_one_is_not_shared(tmp_path: Path) -> None:
    from kachery import digest

    linked(tmp_path / "a.dat", b"linked")
    (tmp_path / "b.dat").write_bytes(b"not linked")
    with pytest.raises(NotFound):
        Sharing().open(digest.of_bytes(b"not linked"))


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("seen", [False, True])
def test_a_change_of_equal_size_and_time_is_noticed(tmp_path: Path, size: int, seen: bool) -> None:
    path = tmp_path / "a.dat"
    hash_ = linked(path, b"a" * size)
    before = path.stat()
    sharing = Sharing()
    if seen:
        served(sharing, hash_)
    path.write_bytes(b"b" * size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(SourceChanged):
        sharing.open(hash_)


def test_a_file_that_was_only_touched_is_shared(tmp_path: Path) -> None:
    hash_ = linked(tmp_path / "a.dat", b"a" * LARGE)
    os.utime(tmp_path / "a.dat", (1, 1))
    assert served(Sharing(), hash_) == b"a" * LARGE


@pytest.mark.parametrize("change", ["shorter", "gone", "directory", "pipe", "unreadable name"])
def test_what_is_no_longer_there_is_a_change(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.dat"
    hash_ = linked(path, b"linked")
    path.unlink()
    if change == "shorter":
        path.write_bytes(b"link")
    elif change == "directory":
        path.mkdir()
    elif change == "pipe":
        os.mkfifo(path)
    elif change == "unreadable name":
        store = Store()
        record = {"path": "/\0", "size": 6, "mtime": 0, "sha1": hash_}
        store.layout.replace(store.layout.link(hash_), json.dumps(record).encode())
    sharing = Sharing()
    with pytest.raises(SourceChanged):
        sharing.look(hash_)
    with pytest.raises(SourceChanged):
        sharing.open(hash_)


def test_only_what_really_lies_in_the_directories_is_shared(tmp_path: Path) -> None:
    inside = linked(tmp_path / "open" / "a.dat", b"inside")
    outside = linked(tmp_path / "open-not" / "b.dat", b"outside")
    (tmp_path / "open" / "way").symlink_to(tmp_path / "open-not")
    through = linked(tmp_path / "open" / "way" / "c.dat", b"through a link")
    stored = Store().add_bytes(b"stored")
    sharing = Sharing([str(tmp_path / "open")])
    assert served(sharing, inside) == b"inside"
    for hash_ in (outside, through, stored):
        with pytest.raises(NotAllowed):
            sharing.look(hash_)
        with pytest.raises(NotAllowed):
            sharing.open(hash_)


def test_a_link_that_is_turned_outwards_later_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "a.dat").write_bytes(b"inside")
    hash_ = linked(tmp_path / "open" / "a.dat", b"inside")
    sharing = Sharing([str(tmp_path / "open")])
    served(sharing, hash_)
    (tmp_path / "open" / "a.dat").unlink()
    (tmp_path / "open" / "a.dat").symlink_to(tmp_path / "closed" / "a.dat")
    with pytest.raises(NotAllowed):
        sharing.open(hash_)


def test_a_linked_file_is_shared_although_the_store_has_a_copy(tmp_path: Path) -> None:
    hash_ = linked(tmp_path / "open" / "a.dat", b"twice")
    Store().add_bytes(b"twice")
    shared = Sharing([str(tmp_path / "open")]).open(hash_)
    os.close(shared.fd)
    assert shared.path == str(tmp_path / "open" / "a.dat")


def test_the_other_copy_is_shared_when_one_is_damaged(tmp_path: Path) -> None:
    hash_ = linked(tmp_path / "a.dat", b"twice")
    Store().add_bytes(b"twice")
    with open(Store().layout.blob(hash_), "r+b") as blob:
        blob.write(b"T")
    assert served(Sharing(), hash_) == b"twice"


def test_of_many_who_ask_at_once_one_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kachery.store import links

    hash_ = linked(tmp_path / "a.dat", b"a" * LARGE)
    os.utime(tmp_path / "a.dat", (1, 1))
    looks: list[str] = []
    still_is = links.Links.still_is

    def counted(self: links.Links, path: str, *rest: object, **named: object) -> bool:
        looks.append(path)
        return still_is(self, path, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(links.Links, "still_is", counted)
    # however new the file is
    monkeypatch.setattr("kachery.node.sharing._TICK", -3600.0)
    sharing = Sharing()
    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(lambda _: served(sharing, hash_), range(20)))
    assert all(result == b"a" * LARGE for result in results)
    assert len(looks) == 1


def test_the_list_names_everything_and_reads_nothing(tmp_path: Path) -> None:
    inside = linked(tmp_path / "open" / "a.dat", b"inside")
    gone = linked(tmp_path / "open" / "b.dat", b"gone")
    outside = linked(tmp_path / "closed" / "c.dat", b"outside")
    (tmp_path / "open" / "b.dat").unlink()
    listed = {line.candidate.hash: line.refused for line in Sharing([str(tmp_path / "open")]).listing()}
    assert listed[inside] is None
    assert "removed" in str(listed[gone])
    assert "directory" in str(listed[outside])
