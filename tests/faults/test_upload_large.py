"""Large files on their way to a real gateway: sent while they are hashed, in parts, interrupted, changed, altered."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

import kachery
from kachery import files, transfer
from kachery.errors import SourceChanged, Unreachable, WrongContent
from kachery.store import Store, keys
from kachery.zone import Zone, sending
from rigs.gateway import OPEN, Gateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kachery.progress import Progress

MIB = 1024 * 1024
SIZE = 12 * MIB + 345

# what the settings of a large file look like when it is not so large
SMALLER = (
    "from kachery import files, zone\n"
    "files.storing.IN_PARTS_ABOVE = zone.IN_PARTS_ABOVE = 1 << 20\n"
    "zone.sending.PART = 1 << 20\n"
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gateway")) as gateway:
        gateway.admin("user", "add", "ada")
        gateway.admin("grant", "ada", "--zone", OPEN, "upload")
        yield gateway


@pytest.fixture
def gateway(running: Gateway, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    monkeypatch.setenv("KACHERY_GATEWAY_URL", running.url)
    monkeypatch.setenv("KACHERY_ZONE", OPEN)
    monkeypatch.setenv("KACHERY_TIMEOUT", "20")
    monkeypatch.setattr("kachery.zone.IN_PARTS_ABOVE", MIB)
    monkeypatch.setattr(files.storing, "IN_PARTS_ABOVE", MIB)
    monkeypatch.setattr(sending, "PART", MIB)
    running.admin("client", "add", keys.load_or_create().client_id, "--owner", "ada", "--zone", OPEN)
    return running


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "recording.dat"
    # a size of its own, so that no other test's file has it
    path.write_bytes(random.randbytes(SIZE + random.randrange(MIB)))
    return path


def sha1(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


def loaded(uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bytes:
    """What another client gets."""
    monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / "elsewhere"))
    with open(kachery.load_file(uri), "rb") as file:
        return file.read()


def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all pieces that are sent from now on."""
    counts: list[int] = []
    pieces = transfer.pieces

    def counted(fd: int, start: int, end: int, moved: Callable[[int], None]) -> Iterator[memoryview]:
        for piece in pieces(fd, start, end, moved):
            counts.append(len(piece))
            yield piece

    monkeypatch.setattr(transfer, "pieces", counted)
    return counts


def staged_bytes(gateway: Gateway) -> int:
    """What the gateway has of everything that is on its way."""
    return sum(path.stat().st_size for path in (gateway.data / "buckets" / "default" / "staging").iterdir())


def test_it_is_sent_while_it_is_hashed(
    gateway: Gateway, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    order: list[str] = []
    hash_file = Store.hash_file

    def slow(self: Store, path: str, told: Progress | None = None) -> tuple[str, int]:
        deadline = time.monotonic() + 20
        while not order and time.monotonic() < deadline:
            time.sleep(0.01)
        order.append("hashed")
        return hash_file(self, path, told)

    put = sending._put

    def noted(*args: object) -> None:
        order.append("sent")
        put(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "hash_file", slow)
    monkeypatch.setattr(sending, "_put", noted)

    uri = kachery.store_file(source)

    assert uri == f"sha1://{sha1(source)}/recording.dat"
    assert order[0] == "sent"
    assert loaded(uri, monkeypatch, tmp_path) == source.read_bytes()


def test_what_the_zone_has_is_not_sent_again_by_anybody(
    gateway: Gateway, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = kachery.store_file(source)
    counts = sent(monkeypatch)

    assert kachery.store_file(source) == uri
    monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / "second"))
    gateway.admin("client", "add", keys.load_or_create().client_id, "--owner", "ada", "--zone", OPEN)
    assert kachery.store_file(source) == uri

    assert counts == []


def test_a_known_hash_is_not_taken_again(gateway: Gateway, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a file that was written this moment may change again without its times showing it
    time.sleep(0.3)
    kachery.link_file(source)
    monkeypatch.setattr(Zone, "begin_upload", lambda *_: pytest.fail("its hash is known"))

    assert kachery.store_file(source) == f"sha1://{sha1(source)}/recording.dat"


@pytest.mark.parametrize("near", [True, False])
def test_a_client_that_is_killed_continues(
    gateway: Gateway, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, near: bool
) -> None:
    distance = 60.0 if near else 0.0
    monkeypatch.setattr("kachery.http.NEAR", distance)
    slowly = (
        "import time\nfrom kachery import transfer\npieces = transfer.pieces\n"
        "def slow(*args):\n    for piece in pieces(*args):\n        time.sleep(0.05)\n        yield piece\n"
        f"transfer.pieces = slow\ntransfer.http.NEAR = {distance}\n"
    )
    store = f"import kachery\nprint(kachery.store_file({str(source)!r}))"
    environment = {**os.environ, "KACHERY_TRANSFERS": "1"}
    # what changed a moment ago is not remembered, and a client starts faster than that
    time.sleep(0.2)
    # the first one gets as far as to name what it sends, and is killed in the middle
    before = staged_bytes(gateway)
    child = subprocess.Popen([sys.executable, "-c", SMALLER + slowly + store], env=environment)
    deadline = time.monotonic() + 60
    while staged_bytes(gateway) < before + 4 * MIB and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    size = source.stat().st_size
    counts = sent(monkeypatch)

    uri = kachery.store_file(source)

    assert 0 < sum(counts) <= size - 4 * MIB
    assert loaded(uri, monkeypatch, tmp_path) == source.read_bytes()


def test_a_gateway_that_is_killed_meanwhile_is_waited_for(
    gateway: Gateway, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KACHERY_TRANSFERS", "1")
    pieces = transfer.pieces
    moments = iter(range(10_000))

    def interrupted(fd: int, start: int, end: int, moved: Callable[[int], None]) -> Iterator[memoryview]:
        for piece in pieces(fd, start, end, moved):
            if next(moments) == 20:
                gateway.kill()
                restart = threading.Timer(0.2, gateway.start)
                restart.start()
            yield piece

    monkeypatch.setattr(transfer, "pieces", interrupted)

    uri = kachery.store_file(source)

    assert loaded(uri, monkeypatch, tmp_path) == source.read_bytes()


def test_a_gateway_that_stays_away_is_one_clear_error(
    gateway: Gateway, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kachery.http.pause", lambda *_: None)
    pieces = transfer.pieces

    def interrupted(fd: int, start: int, end: int, moved: Callable[[int], None]) -> Iterator[memoryview]:
        gateway.kill()
        yield from pieces(fd, start, end, moved)

    monkeypatch.setattr(transfer, "pieces", interrupted)
    try:
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
            kachery.store_file(source)
    finally:
        gateway.start()


@pytest.mark.parametrize("moment", [1, 30])
def test_a_source_that_changes_meanwhile_publishes_nothing(
    gateway: Gateway, source: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    monkeypatch.setenv("KACHERY_TRANSFERS", "1")
    pieces = transfer.pieces
    moments = iter(range(10_000))

    def changing(fd: int, start: int, end: int, moved: Callable[[int], None]) -> Iterator[memoryview]:
        for piece in pieces(fd, start, end, moved):
            if next(moments) == moment:
                with source.open("r+b") as file:
                    file.seek(SIZE - 7)
                    file.write(b"changed")
            yield piece

    monkeypatch.setattr(transfer, "pieces", changing)

    with pytest.raises(SourceChanged, match="changed"):
        kachery.store_file(source)

    assert Zone(OPEN, gateway.url, keys.load()).find(sha1(source)) is None


def test_what_is_altered_on_the_way_is_sent_again(
    gateway: Gateway, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pieces = transfer.pieces
    moments = iter(range(10_000))

    def altered(fd: int, start: int, end: int, moved: Callable[[int], None]) -> Iterator[memoryview]:
        for piece in pieces(fd, start, end, moved):
            yield memoryview(b"!" + bytes(piece[1:])) if next(moments) == 5 else piece

    monkeypatch.setattr(transfer, "pieces", altered)

    uri = kachery.store_file(source)

    assert loaded(uri, monkeypatch, tmp_path) == source.read_bytes()


def test_what_is_altered_each_time_is_an_error(gateway: Gateway, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = transfer.pieces

    def altered(fd: int, start: int, end: int, moved: Callable[[int], None]) -> Iterator[memoryview]:
        for piece in pieces(fd, start, end, moved):
            yield memoryview(b"!" * len(piece))

    monkeypatch.setattr(transfer, "pieces", altered)

    with pytest.raises(WrongContent):
        kachery.store_file(source)
    assert Zone(OPEN, gateway.url, keys.load()).find(sha1(source)) is None


def test_a_source_that_cannot_be_hashed_stops_the_sending(
    gateway: Gateway, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise SourceChanged("it changed while it was read")

    monkeypatch.setattr(Store, "hash_file", fail)

    with pytest.raises(SourceChanged, match="while it was read"):
        kachery.store_file(source)
