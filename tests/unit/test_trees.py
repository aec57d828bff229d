"""Directories: stored in one walk, in a zone or on this machine; read, loaded whole or not at all, or file by file."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import kachery
from kachery import files, http, manifests
from kachery.errors import (
    Conflict,
    InvalidInput,
    InvalidName,
    InvalidURI,
    KacheryError,
    NotFound,
    NotSupported,
    SourceChanged,
    StorageFull,
    TooLarge,
    WrongContent,
)
from kachery.files import appearing, parallel, walking
from kachery.store import Store, keys
from rigs.cloud import Cloud

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NEST = "sha1dir://dc0f3393b67605198b7f8dcde564af98809acdd5.nest"
HELLO = "f572d396fae9206628714fb2ce00f72e94f2258f"
LARGE = random.Random(4).randbytes(1_300_000)


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def make(directory: Path, content: dict[str, Any]) -> Path:
    """Make a directory with texts, bytes and directories."""
    directory.mkdir(parents=True)
    for name, value in content.items():
        if isinstance(value, dict):
            make(directory / name, value)
        else:
            (directory / name).write_bytes(value if isinstance(value, bytes) else value.encode())
    return directory


def content_of(directory: Path) -> dict[str, Any]:
    """The reverse."""
    return {
        path.name: content_of(path) if path.is_dir() else path.read_bytes().decode("latin-1")
        for path in directory.iterdir()
    }


def around(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


@pytest.fixture
def nest(tmp_path: Path) -> Path:
    return make(tmp_path / "nest", {"a.txt": "hello\n", "sub": {"b.txt": "world\n"}})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_TIMEOUT", "0.5")
    monkeypatch.setattr(http, "pause", lambda *_: None)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with Cloud() as server:
        monkeypatch.setenv("KACHERY_GATEWAY_URL", server.url)
        keys.load_or_create()
        yield server


@pytest.fixture
def elsewhere(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From then on, another machine."""

    def move() -> None:
        monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / "other machine"))
        cloud.requests.clear()

    return move


# --- storing


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, "948c5416e254671a99a7b594ca9998b48cefd549"),
        ({"a.txt": "hello\n"}, "63702fd6cf0ea3234dae25f0fa8b047ac3ceb3a5"),
        ({"a.txt": "hello\n", "sub": {"b.txt": "world\n"}}, "dc0f3393b67605198b7f8dcde564af98809acdd5"),
        ({"é?.txt": "hello\n"}, "04e8d27f97be291360875865b6cb4c5cca2bf014"),
        ({"c.txt": "c.txt", "b.txt": "b.txt", "a.txt": "a.txt"}, "a75b20119289b9126066694e55e40e7e2de19e1b"),
        (
            {
                "file1.txt": "alpha\n",
                "file2.csv": "a,b\n1,2\n",
                "empty.bin": "",
                "emptydir": {},
                "subdir1": {"other_file1.txt": "Content of other_file1.txt\n"},
            },
            "d7692f526786b5f9c8d305c1f331c7409266a711",
        ),
    ],
)
def test_the_uris_of_directories_are_upstreams(content: dict[str, Any], expected: str, tmp_path: Path) -> None:
    directory = make(tmp_path / "d", content)
    assert kachery.store_dir(directory, local=True) == f"sha1dir://{expected}.d"
    assert kachery.store_dir(f"{directory}/", local=True, label="x y") == f"sha1dir://{expected}.x%20y"
    assert kachery.store_dir(directory, local=True, label="") == f"sha1dir://{expected}"


def test_a_directory_by_md5(tmp_path: Path) -> None:
    one = make(tmp_path / "one", {"a.txt": "hello\n", "large": LARGE})
    (one / "large").rename(tmp_path / "large")
    stored = files.store_dir(one, local=True, algorithm="md5")
    uri = stored.uri("one")
    assert uri == "md5dir://890dbb8ca27fdbf49f3d4547d9890ff8.one"
    assert kachery.load_text(f"{uri}/a.txt", local_only=True) == "hello\n"
    (tmp_path / "large").rename(one / "large")
    uri = files.store_dir(one, local=True, algorithm="md5").uri("one")
    assert kachery.load_bytes(f"{uri}/large", local_only=True) == LARGE
    with pytest.raises(InvalidInput, match="sha256"):
        files.store_dir(one, local=True, algorithm="sha256")


def test_a_directory_goes_to_the_zone_its_manifest_last(cloud: Cloud, nest: Path, tmp_path: Path) -> None:
    assert kachery.store_dir(nest) == NEST
    assert cloud.files.keys() == {HELLO, sha1(b"world\n"), NEST[10:50]}
    assert cloud.asked("PUT")[-1].body == cloud.files[NEST[10:50]]
    assert Store().find(HELLO) is None


def test_what_the_zone_has_of_a_directory_is_not_sent_again(cloud: Cloud, nest: Path) -> None:
    kachery.store_dir(nest)
    (nest / "c.txt").write_text("new")
    cloud.requests.clear()
    kachery.store_dir(nest)
    assert sorted(request.body for request in cloud.asked("PUT"))[0] == b"new"
    assert len(cloud.asked("PUT")) == 2


def test_when_a_file_does_not_arrive_the_manifest_is_not_sent(cloud: Cloud, nest: Path) -> None:
    answer = cloud.lies.setdefault

    def refuse_world(exchange: Any) -> None:
        if exchange.request.body == b"world\n":
            exchange.reply(403, b"no")
        else:
            cloud._move(exchange)

    answer("PUT", refuse_world)
    with pytest.raises(KacheryError):
        kachery.store_dir(nest)
    assert NEST[10:50] not in cloud.files


def test_a_copy_of_a_directory_is_kept_when_it_is_asked_for(cloud: Cloud, nest: Path, tmp_path: Path) -> None:
    (nest / "large").write_bytes(LARGE)
    uri = kachery.store_dir(nest, cache_locally=True)
    asked = len(cloud.requests)
    kachery.load_dir(uri, tmp_path / "copy", local_only=True)
    assert content_of(tmp_path / "copy") == content_of(nest)
    assert len(cloud.requests) == asked


def test_large_files_that_were_hashed_before_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make(tmp_path / "d", {"large": LARGE, "small": "x"})
    os.utime(directory / "large", (1, 1))
    # what changed just now might change again without showing it
    monkeypatch.setattr("kachery.store.verified._TICK", -1e9)
    uri = kachery.store_dir(directory, local=True)
    (directory / "other").write_bytes(b"more")

    def read_again(*_: object) -> str:
        raise AssertionError("the large file was read again")

    monkeypatch.setattr("kachery.store.hashing.copy_and_digest", read_again)
    assert kachery.store_dir(directory, local=True) != uri
    assert kachery.read_dir(directory) is not None


def test_labels_that_a_uri_cannot_hold_are_escaped_and_shortened(nest: Path) -> None:
    for label in ("what?", "a/b", "x" * 500, "日本" * 40, " blank "):
        uri = kachery.store_dir(nest, local=True, label=label)
        assert len(uri) <= 200
        assert kachery.load_text(f"{uri}/a.txt", local_only=True) == "hello\n"


# --- what is in a directory


def test_links_are_followed(nest: Path, tmp_path: Path) -> None:
    outside = make(tmp_path / "outside", {"c.txt": "outside\n"})
    (nest / "file").symlink_to(outside / "c.txt")
    (nest / "directory").symlink_to(outside)
    found = kachery.read_dir(kachery.store_dir(nest, local=True), local_only=True)
    assert found is not None
    assert found["files"]["file"] == {"size": 8, "sha1": sha1(b"outside\n")}
    assert found["dirs"]["directory"]["files"]["c.txt"] == found["files"]["file"]


def test_what_is_neither_file_nor_directory_is_left_out_and_said(
    nest: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(nest / "pipe")
    (nest / "nowhere").symlink_to("does-not-exist")
    (nest / "loop").symlink_to("loop")
    (nest / "null").symlink_to("/dev/null")
    monkeypatch.chdir(nest)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert kachery.store_dir(nest, local=True) == NEST
    said = " ".join(record.getMessage() for record in caplog.records)
    for name in ("pipe", "nowhere", "loop", "null", "socket"):
        assert f"left out: {nest}/{name}" in said


def test_of_very_many_that_are_left_out_a_few_are_named(nest: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(20):
        (nest / f"nowhere{number}").symlink_to("does-not-exist")
    assert kachery.store_dir(nest, local=True) == NEST
    assert len(caplog.records) == 6
    assert "15 more" in caplog.records[-1].getMessage()


@pytest.mark.parametrize("target", [".", "..", "../sub", "../../nest"])
def test_a_link_back_into_the_directory_is_an_error(nest: Path, target: str) -> None:
    (nest / "sub" / "again").symlink_to(target)
    with pytest.raises(InvalidInput, match="again is a link to a directory that it is in"):
        kachery.store_dir(nest, local=True)


def test_two_links_to_one_directory_are_no_circle(nest: Path) -> None:
    (nest / "also").symlink_to("sub")
    (nest / "too").symlink_to("sub")
    found = kachery.read_dir(kachery.store_dir(nest, local=True), local_only=True)
    assert found is not None
    assert found["dirs"]["also"] == found["dirs"]["too"] == found["dirs"]["sub"]


def annex(directory: Path, name: str, key: str) -> None:
    target = directory / ".git" / "annex" / "objects" / "wx" / "yz" / key
    target.mkdir(parents=True, exist_ok=True)
    (directory / name).symlink_to(f".git/annex/objects/wx/yz/{key}/{key}")


def test_git_annex_files_are_taken_from_their_links(tmp_path: Path) -> None:
    directory = make(tmp_path / "d", {"plain.txt": "plain\n", ".datalad": {"config": "x"}})
    annex(directory, "f.txt", "MD5E-s6--b1946ac92492d2347c6235b4d2611184.txt")
    uri = kachery.store_dir(directory, local=True, git_annex_mode=True)
    assert uri == "sha1dir://fa4a47eadfdc8461509c01887dc6bfe5a43cac01.d"
    assert kachery.read_dir(str(directory), git_annex_mode=True) == kachery.read_dir(uri)
    # its content was stored in another way
    Store().add_bytes(b"hello\n", "md5")
    assert kachery.load_text(f"{uri}/f.txt", local_only=True) == "hello\n"


@pytest.mark.parametrize("key", ["SHA256E-s6--" + "0" * 64 + ".txt", "MD5-s6--" + "0" * 32, "MD5E-s6--xyz", "MD5E--"])
def test_git_annex_files_without_an_md5_are_an_error(tmp_path: Path, key: str) -> None:
    directory = make(tmp_path / "d", {})
    annex(directory, "f.txt", key)
    with pytest.raises(InvalidInput, match="holds no MD5"):
        kachery.store_dir(directory, local=True, git_annex_mode=True)


def test_names_that_cannot_be_loaded_together_again_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = make(tmp_path / "d", {"README": "1", "readme": "2", "sub": {"new\nline": "3"}})
    uri = kachery.store_dir(directory, local=True)
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "'README' and 'readme'" in said
    assert "control characters" in said
    assert kachery.load_text(f"{uri}/readme", local_only=True) == "2"
    with pytest.raises(InvalidName):
        kachery.load_dir(uri, tmp_path / "copy")


def test_a_name_that_is_no_text_is_kept_in_the_manifest(tmp_path: Path) -> None:
    directory = make(tmp_path / "d", {})
    with open(os.fsencode(directory) + b"/\xff.txt", "wb") as file:
        file.write(b"x")
    found = kachery.read_dir(kachery.store_dir(directory, local=True), local_only=True)
    assert found is not None
    assert list(found["files"]) == ["\udcff.txt"]


def test_too_much_or_too_deep_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make(tmp_path / "d", {str(number): "" for number in range(5)})
    with monkeypatch.context() as patch:
        patch.setattr(manifests, "MOST_ENTRIES", 4)
        with pytest.raises(TooLarge, match="more than 4"):
            kachery.store_dir(directory, local=True)
    deep = tmp_path / "deep"
    (deep / "/".join("x" * manifests.DEEPEST)).mkdir(parents=True)
    with pytest.raises(TooLarge, match="directories deep"):
        kachery.store_dir(deep, local=True)


@pytest.mark.parametrize(
    ("path", "error"), [("missing", NotFound), ("nest/a.txt", InvalidInput), ("x\0y", InvalidInput)]
)
def test_what_is_no_directory(nest: Path, tmp_path: Path, path: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        kachery.store_dir(tmp_path / path, local=True)


def test_a_plain_directory_takes_no_directories(nest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_STORE_FILE_DIR", str(tmp_path / "plain"))
    with pytest.raises(NotSupported, match="KACHERY_STORE_FILE_DIR"):
        kachery.store_dir(nest)
    assert kachery.store_dir(nest, local=True) == NEST


# --- directories that change


def during_the_walk(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    real = walking.walk

    def walk(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        change()
        return found

    monkeypatch.setattr(walking, "walk", walk)


@pytest.mark.parametrize("zone", [False, True])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda nest: (nest / "sub" / "b.txt").write_text("changed"), "sub/b.txt"),
        (lambda nest: (nest / "sub" / "b.txt").write_text("World\n"), "sub/b.txt"),
        (lambda nest: (nest / "a.txt").unlink(), "a.txt"),
        (lambda nest: (nest / "sub" / "b.txt").chmod(0o640), "sub/b.txt"),
        (lambda nest: (nest / "sub" / "new").write_text("new"), "nest/sub"),
        (lambda nest: (nest / "a.txt").rename(nest / "sub" / "a.txt"), "a.txt"),
        (lambda nest: (nest / "sub").rename(nest / "other"), "b.txt"),
    ],
)
def test_what_changes_meanwhile_is_an_error_that_names_it(
    cloud: Cloud,
    nest: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], object],
    named: str,
    zone: bool,
) -> None:
    during_the_walk(monkeypatch, lambda: change(nest))
    with pytest.raises((SourceChanged, NotFound), match=named):
        kachery.store_dir(nest, local=not zone)
    assert NEST[10:50] not in cloud.files
    assert Store().find(NEST[10:50]) is None


def test_what_changes_while_it_is_sent_is_an_error_that_names_it(cloud: Cloud, nest: Path) -> None:
    def write_meanwhile(exchange: Any) -> None:
        (nest / "a.txt").write_text("Hello\n")
        cloud._move(exchange)

    cloud.lies["PUT"] = write_meanwhile
    with pytest.raises(SourceChanged, match=r"a\.txt"):
        kachery.store_dir(nest)
    assert NEST[10:50] not in cloud.files


def test_the_first_error_ends_it(nest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    def work(number: int) -> None:
        done.append(number)
        if number == 3:
            raise StorageFull("full")

    with pytest.raises(StorageFull):
        parallel.each(range(1000), work, 4)
    assert len(done) < 1000
    done.clear()
    parallel.each(range(1000), lambda number: done.append(number), 4)
    assert sorted(done) == list(range(1000))


# --- reading


def test_one_file_of_a_directory_moves_that_file_only(
    cloud: Cloud, nest: Path, elsewhere: Callable[[], None], tmp_path: Path
) -> None:
    (nest / "large").write_bytes(LARGE)
    uri = kachery.store_dir(nest)
    elsewhere()
    assert kachery.load_text(f"{uri}/sub/b.txt") == "world\n"
    fetched = [request.target for request in cloud.requests if request.method == "GET"]
    assert len(fetched) == 2
    assert sha1(b"world\n") in fetched[1]
    assert kachery.load_file(f"{uri}/a.txt", dest=tmp_path / "copy") == str(tmp_path / "copy")
    with kachery.open(f"{uri}/large") as file:
        file.seek(-4, os.SEEK_END)
        assert file.read() == LARGE[-4:]
    assert kachery.load_bytes(f"{uri}/large", 5, 9) == LARGE[5:9]
    info = kachery.info(f"{uri}/large")
    assert (info.hash, info.size, info.label, info.zone) == (sha1(LARGE), len(LARGE), "large", "default")  # type: ignore[union-attr]
    assert Store().find(sha1(LARGE)) is None


def test_names_with_escapes(tmp_path: Path) -> None:
    directory = make(tmp_path / "d", {"what?": "1", "50%25": "2", "a b": "3", "50%": "4"})
    uri = kachery.store_dir(directory, local=True)
    for path, expected in (
        ("what%3F", "1"),
        ("50%25", "2"),
        ("a b", "3"),
        ("a%20b", "3"),
        ("50%", "4"),
        ("50%2525", "2"),
    ):
        assert kachery.load_text(f"{uri}/{path}", local_only=True) == expected, path


def test_what_a_directory_is(nest: Path) -> None:
    uri = kachery.store_dir(nest, local=True)
    assert kachery.info(uri) == kachery.TreeInfo(NEST[10:50], "sha1", "nest", files=2, dirs=1, size=12)
    assert kachery.info(f"{uri}/sub") == kachery.TreeInfo(NEST[10:50], "sha1", "sub", files=1, dirs=0, size=6)
    whole = kachery.read_dir(uri)
    assert whole == kachery.read_dir(nest) == kachery.read_dir(str(nest))
    assert kachery.read_dir(f"{uri}/sub") == whole["dirs"]["sub"]  # type: ignore[index]
    assert kachery.read_dir(f"{uri}/sub/") == whole["dirs"]["sub"]  # type: ignore[index]
    assert kachery.read_dir(uri, recursive=False) == {"files": whole["files"], "dirs": {"sub": {}}}  # type: ignore[index]
    assert Store().find(sha1(b"world\n")) is not None


def test_reading_a_directory_of_this_machine_stores_nothing(nest: Path, own_environment: Path) -> None:
    assert kachery.read_dir(nest)
    assert not (own_environment / "sha1").exists()


def test_a_directory_that_is_nowhere(cloud: Cloud, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri = "sha1dir://" + "0" * 40 + ".gone"
    assert kachery.read_dir(uri) is None
    assert "was not found" in caplog.records[-1].getMessage()
    for use in (
        lambda: kachery.load_dir(uri, tmp_path / "copy"),
        lambda: kachery.load_text(f"{uri}/x"),
        lambda: kachery.info(uri),
        lambda: kachery.info(f"{uri}/x"),
    ):
        with pytest.raises(NotFound):
            use()
    assert not (tmp_path / "copy").exists()


def test_files_are_no_directories_and_directories_no_files(nest: Path, tmp_path: Path) -> None:
    uri = kachery.store_dir(nest, local=True)
    for use in (kachery.load_file, kachery.load_text, kachery.load_bytes, kachery.open, kachery.load_json):
        for directory in (uri, f"{uri}/sub", f"{uri}/sub/"):
            with pytest.raises(InvalidInput, match="is a directory"):
                use(directory)
    for file in (f"{uri}/a.txt", f"sha1://{HELLO}/a.txt"):
        with pytest.raises(InvalidInput, match=r"is a file|Not a directory"):
            kachery.read_dir(file)
        with pytest.raises(InvalidInput, match=r"is a file|Not a directory"):
            kachery.load_dir(file, tmp_path / "copy")
    for missing in ("b.txt", "sub/a.txt", "a.txt/b", "sub/b.txt/c"):
        with pytest.raises(NotFound):
            kachery.load_text(f"{uri}/{missing}")
    for bad in ("../x", "sub/../a.txt", "sub//b.txt", "./a.txt", "nul\0"):
        with pytest.raises(InvalidURI):
            kachery.load_text(f"{uri}/{bad}")


# --- loading a whole directory


@pytest.mark.parametrize("content", [{}, {"a": {}, "b": {"c": {}}}, {"empty": "", "l": LARGE, "s": {"t": {"x": "1"}}}])
def test_a_directory_comes_back_elsewhere(
    cloud: Cloud, elsewhere: Callable[[], None], tmp_path: Path, content: dict[str, Any]
) -> None:
    directory = make(tmp_path / "d", content)
    uri = kachery.store_dir(directory)
    elsewhere()
    kachery.load_dir(uri, tmp_path / "new" / "copy")
    assert content_of(tmp_path / "new" / "copy") == content_of(directory)
    assert around(tmp_path / "new") == ["copy"]


def test_the_zone_that_a_uri_names_is_asked_for_the_files_too(
    cloud: Cloud, nest: Path, elsewhere: Callable[[], None], tmp_path: Path
) -> None:
    uri = kachery.store_dir(nest).replace("sha1dir://", "kachery://lab.other/sha1dir/")
    elsewhere()
    assert kachery.load_text(f"{uri}/a.txt") == "hello\n"
    kachery.load_dir(uri, tmp_path / "copy")
    asked = {request.json["payload"]["zone"] for request in cloud.requests if request.method == "POST"}
    assert asked == {"lab.other"}


def test_a_directory_inside_a_directory_is_loaded(nest: Path, tmp_path: Path) -> None:
    kachery.load_dir(kachery.store_dir(nest, local=True) + "/sub", tmp_path / "copy")
    assert content_of(tmp_path / "copy") == {"b.txt": "world\n"}


def test_linked_files_are_copied_when_they_are_what_they_were(nest: Path, tmp_path: Path) -> None:
    uri = kachery.store_dir(nest, local=True)
    os.unlink(Store().layout.blob(HELLO))
    kachery.link_file(nest / "a.txt")
    kachery.load_dir(uri, tmp_path / "copy", local_only=True)
    assert (tmp_path / "copy" / "a.txt").read_text() == "hello\n"
    (nest / "a.txt").write_text("Hello\n")
    with pytest.raises(NotFound, match=r"^a\.txt: "):
        kachery.load_dir(uri, tmp_path / "second", local_only=True)


def test_a_linked_manifest_that_changes_while_it_is_read_is_an_error(
    nest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = kachery.store_dir(nest, local=True)
    linked = tmp_path / "manifest"
    linked.write_bytes(Path(Store().layout.blob(NEST[10:50])).read_bytes())
    os.unlink(Store().layout.blob(NEST[10:50]))
    kachery.link_file(linked)
    assert kachery.load_text(f"{uri}/a.txt", local_only=True) == "hello\n"
    real = files.loading.load_content

    def change(*args: Any, **kwargs: Any) -> str:
        path = real(*args, **kwargs)
        linked.write_bytes(linked.read_bytes().replace(b'"size": 6', b'"size": 7'))
        return path

    monkeypatch.setattr(files.loading, "load_content", change)
    with pytest.raises(SourceChanged, match="manifest changed"):
        kachery.read_dir(uri, local_only=True)


def test_what_is_loaded_may_be_written_to(nest: Path, tmp_path: Path) -> None:
    uri = kachery.store_dir(nest, local=True)
    kachery.load_dir(uri, tmp_path / "copy")
    (tmp_path / "copy" / "a.txt").write_text("mine")
    assert kachery.load_text(f"{uri}/a.txt") == "hello\n"


@pytest.mark.parametrize("kind", ["directory", "file", "link"])
def test_what_is_there_stays(nest: Path, tmp_path: Path, kind: str) -> None:
    uri = kachery.store_dir(nest, local=True)
    dest = tmp_path / "dest"
    {"directory": dest.mkdir, "file": dest.touch, "link": lambda: dest.symlink_to("nowhere")}[kind]()
    with pytest.raises(Conflict, match="Destination directory already exists"):
        kachery.load_dir(uri, dest)
    assert not dest.is_dir() or around(dest) == []


def test_what_appears_meanwhile_stays(nest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = kachery.store_dir(nest, local=True)
    monkeypatch.setattr(appearing, "require_room", lambda *_: make(tmp_path / "dest", {"theirs": "x"}))
    with pytest.raises(Conflict, match="meanwhile"):
        kachery.load_dir(uri, tmp_path / "dest")
    assert around(tmp_path / "dest") == ["theirs"]
    assert not [name for name in around(tmp_path) if "kachery-" in name and name.startswith(".")]


def test_a_missing_member_is_an_error_that_names_it_and_nothing_appears(
    cloud: Cloud, nest: Path, elsewhere: Callable[[], None], tmp_path: Path
) -> None:
    uri = kachery.store_dir(nest)
    del cloud.files[sha1(b"world\n")]
    elsewhere()
    (tmp_path / "place").mkdir()
    with pytest.raises(NotFound, match=r"^sub/b\.txt: "):
        kachery.load_dir(uri, tmp_path / "place" / "copy")
    assert around(tmp_path / "place") == []


def test_damaged_members_are_an_error_and_nothing_appears(
    cloud: Cloud, nest: Path, elsewhere: Callable[[], None], tmp_path: Path
) -> None:
    uri = kachery.store_dir(nest)
    elsewhere()

    def damage(exchange: Any) -> None:
        if sha1(b"world\n") in exchange.request.target:
            exchange.file(b"wORLD\n")
        else:
            cloud._move(exchange)

    cloud.lies["GET"] = damage
    with pytest.raises(WrongContent, match=r"^sub/b\.txt: "):
        kachery.load_dir(uri, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_size_that_is_not_the_files_is_an_error(tmp_path: Path) -> None:
    Store().add_bytes(b"hello\n")
    hash_ = Store().add_bytes(json.dumps({"files": {"a": {"size": 7, "sha1": HELLO}}, "dirs": {}}).encode())
    with pytest.raises(WrongContent, match="6 bytes, and 7"):
        kachery.load_dir(f"sha1dir://{hash_}", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_more_than_there_is_room_for_is_refused_first(tmp_path: Path) -> None:
    Store().add_bytes(b"hello\n")
    hash_ = Store().add_bytes(json.dumps({"files": {"a": {"size": 2**62, "sha1": HELLO}}, "dirs": {}}).encode())
    with pytest.raises(StorageFull, match="room for fewer"):
        kachery.load_dir(f"sha1dir://{hash_}", tmp_path / "copy")


ENTRY = {"size": 6, "sha1": HELLO}


@pytest.mark.parametrize(
    "content",
    [
        {"files": {"../../escaped": ENTRY}, "dirs": {}},
        {"files": {}, "dirs": {"..": {"files": {"escaped": ENTRY}, "dirs": {}}}},
        {"files": {}, "dirs": {"/tmp/escaped": {"files": {}, "dirs": {}}}},
        {"files": {"ok": ENTRY, "nul\0": ENTRY}, "dirs": {}},
        {"files": {"ok": ENTRY, "Ok": ENTRY}, "dirs": {}},
        {"files": {"ok": ENTRY}, "dirs": {"OK": {"files": {}, "dirs": {}}}},
        {"files": {"caf\u00e9": ENTRY, "cafe\u0301": ENTRY}, "dirs": {}},
        {"files": {"ok": ENTRY, "con": ENTRY}, "dirs": {}},
        {"files": {"ok": ENTRY, "link": {"symlink": "/etc/passwd"}}, "dirs": {}},
        {"files": {"ok": ENTRY, "x": {"size": 6, "sha1": "../" * 13 + "x"}}, "dirs": {}},
        {"files": {"ok": ENTRY}, "dirs": {"a" * 200: {"files": {}, "dirs": {"b" * 256: {"files": {}, "dirs": {}}}}}},
        ["ok"],
    ],
)
def test_nothing_of_a_hostile_directory_is_written(tmp_path: Path, content: Any) -> None:
    Store().add_bytes(b"hello\n")
    uri = "sha1dir://" + Store().add_bytes(json.dumps(content).encode())
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    with pytest.raises((InvalidName, WrongContent)):
        kachery.load_dir(uri, place / "copy")
    assert around(place) == []
    assert around(tmp_path / "a") == ["b"]


def test_a_file_that_is_no_manifest_is_no_directory(tmp_path: Path) -> None:
    hash_ = Store().add_bytes(b"hello\n")
    for use in (kachery.read_dir, kachery.info, lambda uri: kachery.load_text(f"{uri}/x")):
        with pytest.raises(WrongContent, match=f"sha1dir://{hash_} is not a manifest"):
            use(f"sha1dir://{hash_}")


def test_a_file_too_large_for_a_manifest_is_not_even_read(monkeypatch: pytest.MonkeyPatch) -> None:
    hash_ = Store().add_bytes(b"x" * 100)
    monkeypatch.setattr(manifests, "LARGEST", 99)
    with pytest.raises(TooLarge, match="too large for a directory"):
        kachery.read_dir(f"sha1dir://{hash_}")


def test_what_a_killed_process_left_beside_the_destination_goes(nest: Path, tmp_path: Path) -> None:
    uri = kachery.store_dir(nest, local=True)
    abandoned = make(tmp_path / ".copy.kachery-01234567", {"half": "x"})
    others = [
        make(tmp_path / name, {}) for name in (".copy2.kachery-01234567", ".copy.kachery-0", "copy.kachery-01234567")
    ]
    with appearing.at(str(tmp_path / "copy")) as held:
        kachery.load_dir(uri, tmp_path / "copy")
        assert os.path.isdir(held)
        (tmp_path / "copy").rename(tmp_path / "moved")
    assert not abandoned.exists()
    assert all(path.exists() for path in others)


def test_a_name_as_long_as_names_may_be(nest: Path, tmp_path: Path) -> None:
    uri = kachery.store_dir(nest, local=True)
    for name in ("x" * 255, "é" * 127, "x" * 199 + "é"):
        kachery.load_dir(uri, tmp_path / name)
        assert content_of(tmp_path / name) == content_of(nest)


def test_durable_directories_are_synced(nest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_DURABILITY", "sync")
    uri = kachery.store_dir(nest, local=True)
    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd)))
    kachery.load_dir(uri, tmp_path / "copy")
    assert {os.path.basename(path) for path in synced} >= {"a.txt", "b.txt", "sub", tmp_path.name}


def test_progress_is_told_of_every_byte(nest: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[int] = []

    class Told:
        def advance(self, count: int) -> None:
            told.append(count)

        def say(self, state: str) -> None:
            pass

    from contextlib import contextmanager

    @contextmanager
    def bar(total: int | None, label: str) -> Iterator[Told]:
        told.append(-(total or 0))
        yield Told()

    (nest / "large").write_bytes(LARGE)
    monkeypatch.setattr("kachery.progress.bar", bar)
    uri = kachery.store_dir(nest, local=True)
    assert told[0] == -(len(LARGE) + 12)
    assert sum(told) == 0
    kachery.load_dir(uri, tmp_path / "copy")
    assert sum(told) == 0


def test_warnings_are_logged_by_the_library(nest: Path, caplog: pytest.LogCaptureFixture) -> None:
    (nest / "nowhere").symlink_to("does-not-exist")
    kachery.store_dir(nest, local=True)
    assert caplog.records[0].levelno == logging.WARNING
    assert caplog.records[0].name == "kachery.files.walking"


def test_the_zone_of_the_uri_is_asked(cloud: Cloud, nest: Path, elsewhere: Callable[[], None], tmp_path: Path) -> None:
    uri = kachery.store_dir(nest).replace("sha1dir://", "kachery://lab.public/sha1dir/")
    for ask in (
        lambda: kachery.read_dir(uri),
        lambda: kachery.load_file(f"{uri}/sub/b.txt"),
        lambda: kachery.load_dir(uri, tmp_path / "copy"),
        lambda: kachery.info(f"{uri}/a.txt"),
    ):
        elsewhere()
        cloud.requests.clear()
        assert ask() is not False
        zones = {request.json["payload"]["zone"] for request in cloud.requests if request.method == "POST"}
        assert zones == {"lab.public"}
