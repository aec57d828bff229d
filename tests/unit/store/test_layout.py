"""The layout on disk, byte for byte: upstream's programs work in the same directory."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from kachery.errors import NotAllowed
from kachery.signing import ClientKeys
from kachery.store import Store, keys

if TYPE_CHECKING:
    from pathlib import Path

HASH = "b971c6ef19b1d70ae8f0feb989b106c319b36230"
LARGE = b"large\n" * 200_000


def everything(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_looking_makes_nothing(own_environment: Path) -> None:
    store = Store()

    assert store.find(HASH) is None
    assert list(store.entries()) == []
    assert store.clean() == []
    assert store.mutables.get("@a/b") is None
    assert keys.load() is None
    assert not own_environment.exists()


def test_a_blob_lies_under_its_hash(own_environment: Path, tmp_path: Path) -> None:
    source = tmp_path / "test.txt"
    source.write_bytes(b"test-content\n")

    assert Store().add_file(source) == (HASH, 13)

    assert everything(own_environment) == {f"sha1/b9/71/c6/{HASH}"}
    assert (own_environment / "sha1/b9/71/c6" / HASH).read_bytes() == b"test-content\n"


def test_bytes_lie_under_their_hash(own_environment: Path) -> None:
    assert Store().add_bytes(b"test-content\n") == HASH
    assert everything(own_environment) == {f"sha1/b9/71/c6/{HASH}"}


def test_a_link_is_upstreams_record(own_environment: Path, tmp_path: Path) -> None:
    source = tmp_path / "ü.txt"
    source.write_bytes(b"test-content\n")
    os.utime(source, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))

    assert Store().link(source) == (HASH, 13)

    assert everything(own_environment) == {f"linked_files/sha1/b9/71/c6/{HASH}"}
    text = (own_environment / "linked_files/sha1/b9/71/c6" / HASH).read_text()
    mtime = os.stat(source).st_mtime
    assert text == json.dumps({"path": str(source), "size": 13, "mtime": mtime, "sha1": HASH})
    assert text.startswith('{"path": "/')
    assert f'"size": 13, "mtime": {mtime!r}, "sha1": "{HASH}"}}' in text


def test_a_large_files_hash_is_kept_where_upstream_keeps_it(own_environment: Path, tmp_path: Path) -> None:
    from kachery import digest

    source = tmp_path / "large"
    source.write_bytes(LARGE)
    hash_, size = Store().hash_file(source)

    record = own_environment / "mutables/@compute_sha1_cache" / digest.of_bytes(os.fsencode(source))
    assert json.loads(record.read_text()) == {
        "path": str(source),
        "size": size,
        "mtime": os.stat(source).st_mtime,
        "sha1": hash_,
    }


def test_a_small_files_hash_is_not_kept(own_environment: Path, tmp_path: Path) -> None:
    source = tmp_path / "small"
    source.write_bytes(b"x" * 1_000_000)
    Store().hash_file(source)

    assert not own_environment.exists()


def test_mutables_are_plain_files(own_environment: Path) -> None:
    Store().mutables.set("@a/@b/c", "válue\r\n")

    assert (own_environment / "mutables/@a/@b/c").read_bytes() == "válue\r\n".encode()
    assert everything(own_environment) == {"mutables/@a/@b/c"}


def test_key_files_are_upstreams(own_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda count: bytes(range(count)))
    keys.load_or_create()

    private, public = own_environment / "private.pem", own_environment / "public.pem"
    assert private.read_bytes() == (
        b"-----BEGIN PRIVATE KEY-----\n"
        b"MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"
        b"-----END PRIVATE KEY-----"
    )
    assert public.read_bytes() == (
        b"-----BEGIN PUBLIC KEY-----\n"
        b"MCowBQYDK2VwAyEAA6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=\n"
        b"-----END PUBLIC KEY-----"
    )
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert everything(own_environment) == {"private.pem", "public.pem"}
    assert keys.load() == ClientKeys.from_seed(bytes(range(32)))


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_modes_follow_the_umask(own_environment: Path, umask: int, file_mode: int, folder_mode: int) -> None:
    before = os.umask(umask)
    try:
        store = Store()
        store.add_bytes(b"test-content\n")
        store.mutables.set("@a/b", "c")
    finally:
        os.umask(before)

    for path in own_environment.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (file_mode if path.is_file() else folder_mode), path


def test_a_file_in_the_stores_place_is_said_to_be_one(own_environment: Path) -> None:
    own_environment.write_text("not a directory")

    for use in (
        lambda: Store().add_bytes(b"x"),
        lambda: Store().find(HASH),
        lambda: Store().link(__file__),
        lambda: Store().add_file(__file__),
    ):
        with pytest.raises(NotAllowed, match="not a directory"):
            use()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    source = tmp_path / "source"
    source.write_bytes(LARGE)
    store = Store()
    hash_, size = store.add_file(source)
    store.mutables.set("a", "b")
    os.unlink(store.layout.blob(hash_))
    with store.receive(hash_, size) as incoming:
        incoming.write(0, LARGE)
        incoming.mark(0, size)
        incoming.finish()
    assert store.find(hash_) is not None
    assert store.clean() == []


def test_names_that_are_no_text_can_be_stored_and_linked(tmp_path: Path) -> None:
    source = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"\xff\xfe.dat"))
    with open(source, "wb") as file:
        file.write(LARGE)
    store = Store()
    hash_, _ = store.link(source)
    found = store.find(hash_)
    assert found is not None
    assert found.path == source
    assert store.add_file(source) == (hash_, len(LARGE))
    assert {entry.path for entry in store.entries()} == {source, store.layout.blob(hash_)}


def test_a_relative_store_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("here")
    hash_ = store.add_bytes(b"x")
    monkeypatch.chdir("/")
    assert store.find(hash_) is not None
    assert store.root == tmp_path / "here"
