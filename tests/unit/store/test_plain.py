"""A plain directory of files under their hashes."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from kachery.errors import NotAllowed, NotFound, SourceChanged
from kachery.store import hashing, plain

if TYPE_CHECKING:
    from pathlib import Path


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", [0, 13, 2_000_000])
def test_files_lie_flat_under_their_hash(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    hash_ = hashlib.sha1(data).hexdigest()
    (tmp_path / "source").write_bytes(data)
    directory = tmp_path / "plain"

    assert plain.add_file(directory, tmp_path / "source") == (hash_, size)
    assert plain.add_bytes(directory, data) == hash_

    assert files(directory) == {f"sha1/{hash_}"}
    assert (directory / "sha1" / hash_).read_bytes() == data


def test_failures_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "plain"
    with pytest.raises(NotFound):
        plain.add_file(directory, tmp_path / "nothing")
    source = tmp_path / "source"
    source.write_bytes(b"x" * 2_000_000)
    copy_some = hashing.copy_some

    def copy_and_touch(one: int, other: int, count: int) -> int:
        os.utime(source)
        return copy_some(one, other, count)

    monkeypatch.setattr(hashing, "copy_some", copy_and_touch)
    with pytest.raises(SourceChanged):
        plain.add_file(directory, source)
    assert files(directory) == set()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    directory = tmp_path / "plain"
    plain.add_bytes(directory, b"one")
    (directory / ".incoming" / "0123456789").write_bytes(b"half")
    os.utime(directory / ".incoming" / "0123456789", (1, 1))
    plain.add_bytes(directory, b"other")

    assert len(files(directory)) == 2


def test_a_file_in_the_directorys_place(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    with pytest.raises(NotAllowed, match="not a directory"):
        plain.add_bytes(tmp_path / "plain", b"x")
