"""A disk that is full, read-only or forbidden: one clear error, and nothing lost or left half-written."""

from __future__ import annotations

import hashlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

import kachery
from kachery import http
from kachery.errors import NotAllowed, StorageFull
from kachery.store import Store, keys
from rigs import disk, everybody
from rigs.disk import READ_ONLY, REMOUNT, SIZE, fill, mount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEPT = b"kept\n" * 1000


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of its own with room for 8 MiB, which holds the store directory."""
    with disk.small() as place:
        monkeypatch.setenv("KACHERY_CLOUD_DIR", str(place / "store"))
        yield place


def everything(directory: Path) -> set[Path]:
    return {path for path in directory.rglob("*") if path.is_file()}


def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    kept = kachery.store_text(KEPT.decode(), local=True)
    for name, size in (("small", 5_000), ("middle", 300_000), ("large", 3_000_000)):
        (tmp_path / name).write_bytes(os.urandom(size))
    ballast = fill(small_disk)
    before = everything(small_disk)

    for use in (
        lambda: kachery.store_text("x" * 5_000, local=True),
        lambda: kachery.store_text("x" * 2_000_000, local=True),
        lambda: kachery.store_file(tmp_path / "small", local=True),
        lambda: kachery.store_file(tmp_path / "middle", local=True),
        lambda: kachery.store_file(tmp_path / "large", local=True),
        lambda: kachery.link_file(tmp_path / "small"),
        lambda: Store().mutables.set("@a/b", "x" * 10_000),
        lambda: Store().receive("0" * 40, 3_000_000),
        keys.load_or_create,
    ):
        with pytest.raises(StorageFull, match=r"No space left|room for fewer") as caught:
            use()
        assert "make room" in (caught.value.hint or "")
    assert {path for path in everything(small_disk) - before if path.stat().st_size} == set()
    assert kachery.load_text(kept) == KEPT.decode()

    ballast.unlink()
    assert kachery.load_file(kachery.store_file(tmp_path / "large", local=True))
    keys.load_or_create()


def test_a_disk_that_fills_up_on_the_way(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(3_000_000))
    fill(small_disk, leave=1_500_000)
    with pytest.raises(StorageFull):
        kachery.store_file(tmp_path / "large", local=True)
    assert [path for path in everything(small_disk) if path.name != "ballast"] == []


def test_a_download_that_finds_the_disk_full_continues_later(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rigs.cloud import Cloud

    monkeypatch.setattr(http, "pause", lambda *_: None)
    data = os.urandom(3_000_000)
    with Cloud() as cloud:
        monkeypatch.setenv("KACHERY_GATEWAY_URL", cloud.url)
        uri = f"sha1://{cloud.add(data)}"
        ballast = fill(small_disk, leave=3_200_000)

        def while_it_fills(exchange: object) -> None:
            cloud.lies.clear()
            fill_up = small_disk / "more"
            fill_up.write_bytes(b"\0" * 2_000_000)
            exchange.file(data)  # type: ignore[attr-defined]

        cloud.lies["GET"] = while_it_fills
        with pytest.raises(StorageFull):
            kachery.load_file(uri)
        left = {path.name for path in everything(small_disk)} - {"ballast", "more"}
        assert left <= {f"sha1.{uri[7:]}.part", f"sha1.{uri[7:]}.part.ranges"}

        ballast.unlink()
        with open(kachery.load_file(uri), "rb") as file:
            assert file.read() == data


def test_a_read_only_disk_still_serves(small_disk: Path, tmp_path: Path) -> None:
    small, large = b"small", os.urandom(2_000_000)
    (tmp_path / "large").write_bytes(large)
    uris = [kachery.store_text("small", local=True), kachery.store_file(tmp_path / "large", local=True)]
    (tmp_path / "linked").write_bytes(b"linked")
    uris.append(kachery.link_file(tmp_path / "linked"))
    os.utime(tmp_path / "linked", (1, 1))
    mount(small_disk, REMOUNT | READ_ONLY, f"size={SIZE}")

    contents = []
    for uri in uris:
        with open(kachery.load_file(uri), "rb") as file:
            contents.append(file.read())
    assert contents == [small, large, b"linked"]
    for use in (
        lambda: kachery.store_text("new", local=True),
        lambda: kachery.store_file(__file__, local=True),
        lambda: kachery.link_file(__file__),
        lambda: Store().mutables.set("a", "b"),
        lambda: Store().receive("0" * 40, 10),
        keys.load_or_create,
    ):
        with pytest.raises(NotAllowed, match="Read-only file system") as caught:
            use()
        assert "read-only" in (caught.value.hint or "")
    assert len([item for item in Store().verify() if type(item).__name__ == "Entry"]) == 3


def test_a_damaged_blob_on_a_read_only_disk_is_not_handed_out(small_disk: Path) -> None:
    hash_ = Store().add_bytes(b"right")
    with open(Store().layout.blob(hash_), "wb") as file:
        file.write(b"wrong")
    mount(small_disk, REMOUNT | READ_ONLY, f"size={SIZE}")

    reasons: list[str] = []
    assert Store().find(hash_, reasons=reasons) is None
    assert "damaged" in reasons[0]


AS_NOBODY = """
import sys
import kachery
from kachery.errors import NotAllowed
for path in sys.argv[1:]:
    for use in (lambda: kachery.store_file(path, local=True), lambda: kachery.link_file(path)):
        try:
            use()
        except NotAllowed as error:
            assert "Permission denied" in str(error) and "owner" in str(error), error
        else:
            raise AssertionError(path)
"""


def test_a_source_that_may_not_be_read(small_disk: Path) -> None:
    small_disk.chmod(0o777)
    (small_disk / "secret").write_bytes(b"secret")
    (small_disk / "secret").chmod(0o600)
    (small_disk / "closed").mkdir(mode=0o700)
    (small_disk / "closed" / "file").write_bytes(b"x")
    paths = [str(small_disk / "secret"), str(small_disk / "closed" / "file")]
    python, variables = everybody.python()
    subprocess.run(
        [python, "-c", AS_NOBODY, *paths],
        env={**os.environ, **variables},
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
        check=True,
    )
    assert hashlib.sha1(b"secret").hexdigest() not in {path.name for path in everything(small_disk)}
