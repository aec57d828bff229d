"""`kachery store`, `ls`, `load`, `cat` and `info` with directories, without any gateway."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kachery import files

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Done

HASH = "dc0f3393b67605198b7f8dcde564af98809acdd5"
URI = f"sha1dir://{HASH}.nest"


@pytest.fixture
def nest(kachery: Callable[..., Done]) -> Path:
    """A directory in the current one."""
    Path("nest/sub").mkdir(parents=True)
    Path("nest/a.txt").write_text("hello\n")
    Path("nest/sub/b.txt").write_text("world\n")
    return Path("nest")


@pytest.fixture
def stored(nest: Path) -> str:
    return files.store_dir(nest, local=True).uri("nest")


def test_storing_a_directory_prints_its_uri(kachery: Callable[..., Done], nest: Path) -> None:
    assert kachery("store", "--local", "nest") == kachery("store", "--local", "nest/")
    assert kachery("store", "--local", "nest").out == f"{URI}\n"
    assert kachery("store", "--local", "nest", "--label", "s 7").out == f"sha1dir://{HASH}.s%207\n"
    done = kachery("store", "--local", "--json", "nest", "nest/a.txt")
    assert done.document == [
        {"directory": "nest", "uri": URI, "hash": HASH, "size": 12, "files": 2, "zone": None},
        {
            "file": "nest/a.txt",
            "uri": "sha1://f572d396fae9206628714fb2ce00f72e94f2258f/a.txt",
            "hash": "f572d396fae9206628714fb2ce00f72e94f2258f",
            "size": 6,
            "zone": None,
        },
    ]


def test_the_directory_in_which_one_is_has_its_own_name(
    kachery: Callable[..., Done], nest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(nest)
    assert kachery("store", "--local", ".").out == f"{URI}\n"


def test_what_is_left_out_is_said(kachery: Callable[..., Done], nest: Path) -> None:
    (nest / "nowhere").symlink_to("does-not-exist")
    done = kachery("store", "--local", "nest")
    assert (done.code, done.out) == (0, f"{URI}\n")
    assert "warning: left out: " in done.err
    assert "nest/nowhere (a link to nothing)" in done.err


def test_git_annex_mode(kachery: Callable[..., Done], nest: Path) -> None:
    key = "MD5E-s6--b1946ac92492d2347c6235b4d2611184.txt"
    (nest / "annexed").symlink_to(f".git/annex/objects/{key}/{key}")
    done = kachery("store", "--local", "--git-annex-mode", "nest")
    assert kachery("ls", "-l", done.out.strip()).out == "           sub/\n       6 B a.txt\n       6 B annexed\n"


def test_listing(kachery: Callable[..., Done], stored: str) -> None:
    assert kachery("ls", stored).out == "sub/\na.txt\n"
    assert kachery("ls", f"{stored}/sub").out == "b.txt\n"
    assert kachery("ls", f"{stored}/sub/").out == "b.txt\n"
    assert kachery("ls", "--long", stored).out == "           sub/\n       6 B a.txt\n"
    assert kachery("ls", "--json", stored).document == [
        {"name": "sub", "type": "directory"},
        {"name": "a.txt", "type": "file", "size": 6, "sha1": "f572d396fae9206628714fb2ce00f72e94f2258f"},
    ]
    done = kachery("ls", f"{stored}/a.txt")
    assert (done.code, done.out) == (2, "")
    assert "is a file" in done.err


def test_listing_nothing(kachery: Callable[..., Done]) -> None:
    Path("void").mkdir()
    done = kachery("ls", kachery("store", "--local", "void").out.strip())
    assert (done.code, done.out) == (0, "")


def test_names_do_not_steer_the_terminal(kachery: Callable[..., Done], nest: Path) -> None:
    (nest / "new\nline").write_text("x")
    (nest / "\x1b[2J").mkdir()
    uri = kachery("store", "--local", "nest").out.strip()
    assert kachery("ls", uri).out == "\\x1b[2J/\nsub/\na.txt\nnew\\nline\n"
    assert {entry["name"] for entry in kachery("ls", "--json", uri).document} >= {"new\nline", "\x1b[2J"}


def test_one_file_of_a_directory(kachery: Callable[..., Done], stored: str) -> None:
    assert kachery("cat", f"{stored}/sub/b.txt").out == "world\n"
    assert kachery("cat", f"{stored}/sub/b.txt", "--start", "1", "--end", "3").out == "or"
    assert Path(kachery("load", f"{stored}/a.txt").out.strip()).read_text() == "hello\n"
    assert kachery("load", f"{stored}/a.txt", "--dest", "copy").out == "copy\n"
    assert Path("copy").read_text() == "hello\n"
    done = kachery("cat", f"{stored}/nothing")
    assert (done.code, done.out) == (3, "")
    assert "has no 'nothing'" in done.err


def test_loading_a_directory(kachery: Callable[..., Done], stored: str) -> None:
    assert kachery("load", stored, "--dest", "far/copy").out == "far/copy\n"
    assert sorted(path for _, _, names in os.walk("far/copy") for path in names) == ["a.txt", "b.txt"]
    assert kachery("load", f"{stored}/sub", "--dest", "sub", "--json").document == {
        "uri": f"{stored}/sub",
        "path": "sub",
    }
    assert os.listdir("sub") == ["b.txt"]
    done = kachery("load", stored, "--dest", "sub")
    assert (done.code, done.out) == (10, "")
    assert "already exists" in done.err
    done = kachery("load", stored)
    assert (done.code, done.out) == (2, "")
    assert "--dest" in done.err


def test_what_is_in_a_directory(kachery: Callable[..., Done], stored: str) -> None:
    out = kachery("info", stored).out
    assert f"sha1 {HASH}" in out
    assert "2" in out
    assert kachery("info", stored, "--json").document == {
        "uri": stored,
        "hash": HASH,
        "algorithm": "sha1",
        "name": "nest",
        "files": 2,
        "dirs": 1,
        "size": 12,
    }
    assert kachery("info", f"{stored}/a.txt", "--json").document["size"] == 6
