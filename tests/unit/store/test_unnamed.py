"""Small content that gets its name at the end; and the ways around it."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kachery import digest
from kachery.store import Store, unnamed

if TYPE_CHECKING:
    from pathlib import Path

DATA = os.urandom(4096)
HASH = digest.of_bytes(DATA)

DIE_BEFORE_THE_NAME = """
import os
from kachery.store import Store
os.link = lambda *_, **__: os.kill(os.getpid(), 9)
Store().add_bytes(b"x" * 4096)
"""


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if not path.is_dir()]


def test_a_name_is_given_once_and_the_umask_holds(tmp_path: Path) -> None:
    path = str(tmp_path / "name")
    before = os.umask(0o027)
    try:
        assert unnamed.put(str(tmp_path), path, DATA)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
        assert not unnamed.put(str(tmp_path), path, b"other")
        assert unnamed.put(str(tmp_path), f"{path} 2", DATA, permissions=0o060)
        assert stat.S_IMODE(os.stat(f"{path} 2").st_mode) == 0o660
    finally:
        os.umask(before)
    with open(path, "rb") as file:
        assert file.read() == DATA


def test_nothing_is_left_of_a_process_that_ends_before_the_name(own_environment: Path) -> None:
    done = subprocess.run([sys.executable, "-c", DIE_BEFORE_THE_NAME])

    assert done.returncode == -9
    assert files(own_environment) == []


@pytest.mark.parametrize("way", ["no such files", "no /proc", "written in part", "another system"])
def test_where_it_does_not_work_a_temporary_name_does(
    monkeypatch: pytest.MonkeyPatch, own_environment: Path, way: str
) -> None:
    named: list[str] = []
    os_open, os_write, os_replace = os.open, os.write, os.replace

    def refuse_unnamed(path: str, flags: int, *arguments: int, **options: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return os_open(path, flags, *arguments, **options)

    def refuse_link(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def replace(one: str, other: str) -> None:
        named.append(other)
        os_replace(one, other)

    if way == "no such files":
        monkeypatch.setattr(os, "open", refuse_unnamed)
    elif way == "no /proc":
        monkeypatch.setattr(os, "link", refuse_link)
    elif way == "written in part":
        monkeypatch.setattr(os, "write", lambda fd, data: os_write(fd, data[:1000]))
    else:
        monkeypatch.setattr(unnamed, "_KNOWN", False)
    monkeypatch.setattr(os, "replace", replace)

    store = Store()
    assert store.add_bytes(DATA) == HASH

    assert named == [store.layout.blob(HASH)]
    assert store.find(HASH) is not None
    assert files(own_environment) == [own_environment / "sha1" / HASH[:2] / HASH[2:4] / HASH[4:6] / HASH]


def test_what_lies_there_already_is_kept_when_it_is_right_and_replaced_when_it_is_not() -> None:
    store = Store()
    store.add_bytes(DATA)
    path = store.layout.blob(HASH)
    inode = os.stat(path).st_ino

    store.add_bytes(DATA)
    assert os.stat(path).st_ino == inode

    with open(path, "ab") as file:
        file.write(b"more")
    store.add_bytes(DATA)
    with open(path, "rb") as file:
        assert file.read() == DATA


def test_a_pipe_in_a_blobs_place_is_replaced() -> None:
    store = Store()
    store.add_bytes(DATA)
    path = store.layout.blob(HASH)
    os.unlink(path)
    os.mkfifo(path)

    store.add_bytes(DATA)

    with open(path, "rb") as file:
        assert file.read() == DATA
