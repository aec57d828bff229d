"""Killing a gateway at any moment, and filling its disk: what was acknowledged stays, what was not leaves nothing."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import sqlite3
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rigs.gateway import Gateway
from rigs.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 8
SENDERS = 3


def objects(gateway: Gateway) -> dict[str, Path]:
    """What is in the bucket, staging and trash left out, by hash."""
    root = gateway.data / "buckets" / "default"
    found = {}
    for directory, subdirectories, names in os.walk(root):
        if Path(directory) == root:
            subdirectories[:] = [name for name in subdirectories if name not in ("staging", "trash")]
        for name in names:
            found[name] = Path(directory) / name
    return found


def rows(gateway: Gateway, query: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(gateway.data / "kachery.sqlite")) as connection:
        return connection.execute(query).fetchall()


def staging(gateway: Gateway) -> set[str]:
    return {path.name for path in (gateway.data / "buckets" / "default" / "staging").iterdir()}


def store_until_it_dies(sender: Sender, acknowledged: dict[str, bytes], seed: int) -> None:
    """Store files of all sizes, whole and in parts, until the gateway is gone."""
    chance = random.Random(seed)
    # what a gateway that dies answers, or does not
    with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
        while True:
            content = chance.randbytes(chance.choice([0, 10, 5000, 300_000, 1_500_000, 4_000_000]))
            if chance.random() < 0.5 and len(content) > 1000:
                url = sender.begin(content, parts=True)
                middle = len(content) // 3
                if url:
                    assert sender.part(url, content, middle, len(content)) == 200
                    assert sender.part(url, content, 0, middle) == 200
                    assert sender.finalize(content) == 200
                hash_ = sender.sha1(content)
            else:
                hash_ = sender.store(content)
            acknowledged[hash_] = content


def test_killing_it_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "gateway")
    gateway.start()
    senders = [Sender(gateway, gateway.zone) for _ in range(SENDERS)]
    acknowledged: dict[str, bytes] = {}
    chance = random.Random(20261122)
    try:
        for turn in range(ROUNDS):
            threads = [
                threading.Thread(target=store_until_it_dies, args=(sender, acknowledged, 100 * turn + index))
                for index, sender in enumerate(senders)
            ]
            before = len(acknowledged)
            for thread in threads:
                thread.start()
            # somewhere in the middle of the work of this turn
            until = before + chance.randrange(1, 12)
            Sender.wait_until(lambda until=until: len(acknowledged) >= until)
            time.sleep(chance.random() * 0.05)
            gateway.kill()
            for thread in threads:
                thread.join()
            gateway.start()

            known = {str(sha1) for (sha1,) in rows(gateway, "SELECT sha1 FROM files")}
            assert acknowledged.keys() <= known
            assert objects(gateway).keys() == known, "an object without a file, or a file without an object"
            unfinished = {str(name) for (name,) in rows(gateway, "SELECT coalesce(staging, id) FROM uploads")}
            assert staging(gateway) <= unfinished
        for hash_, content in acknowledged.items():
            assert senders[0].load(hash_) == content
        for path in objects(gateway).values():
            assert Sender.sha1(path.read_bytes()) == path.name
            assert path.stat().st_nlink == 1
    finally:
        gateway.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "kachery-test", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="only root can mount a small file system")
def test_a_full_disk(small_disk: Path) -> None:
    with Gateway(small_disk / "gateway") as gateway:
        sender = Sender(gateway, gateway.zone)
        kept = os.urandom(3_000_000)
        sender.store(kept)
        content = os.urandom(14_000_000)

        # refused before a byte is sent
        status, text = sender.call("initiateFileUpload", hashAlg="sha1", hash="0" * 40, size=30_000_000)
        assert status == 500
        assert "room for" in text

        # and when the room goes while it is sent, by whole files and by parts
        whole, parts = sender.begin(content), sender.begin(content, parts=True)
        filler = small_disk / "filler"
        filler.write_bytes(bytes(8_000_000))
        assert sender.put(whole, content) == 507
        assert sender.part(parts, content, 0, len(content)) == 507

        # nothing else suffers
        assert sender.load(sender.sha1(kept)) == kept
        filler.unlink()
        received = sender.get_json(parts)["received"]
        for start, end in holes(received, len(content)):
            assert sender.part(parts, content, start, end) == 200
        assert sender.finalize(content) == 200
        assert sender.load(sender.sha1(content)) == content
        assert "Traceback" not in gateway.log.read_text()


def holes(received: list[list[int]], size: int) -> list[tuple[int, int]]:
    position, found = 0, []
    for start, end in [*received, [size, size]]:
        if start > position:
            found.append((position, start))
        position = max(position, end)
    return found


@pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="only root can mount a small file system")
def test_a_disk_without_room_for_the_database(small_disk: Path) -> None:
    with Gateway(small_disk / "gateway") as gateway:
        sender = Sender(gateway, gateway.zone)
        hash_ = sender.store(b"before")
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as stream:
            for size in (1_000_000, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        stream.write(bytes(size))
        # until the log of the database has no room either
        replies = [sender.call("initiateFileUpload", hashAlg="sha1", hash=f"{n:040x}", size=0) for n in range(400)]
        refused = [text for status, text in replies if status == 500]
        assert refused, "the disk was not full"
        assert all(text.startswith("Error: ") for text in refused)

        assert sender.load(hash_) == b"before", "reading needs no room"
        filler.unlink()
        assert sender.load(sender.store(b"after")) == b"after"
        assert "Traceback" not in gateway.log.read_text()


def test_files_that_vanish_or_cannot_be_read(tmp_path: Path) -> None:
    with Gateway(tmp_path / "gateway") as gateway:
        sender = Sender(gateway, gateway.zone)
        content = os.urandom(100_000)
        hash_ = sender.store(content)
        (path,) = objects(gateway).values()
        status, found = sender.call("findFile", hashAlg="sha1", hash=hash_)
        assert status == 200

        path.rename(path.with_suffix(".away"))
        path.mkdir()
        answer, text = sender.request("GET", found["url"].split(str(gateway.port))[1])
        assert answer in (404, 500)
        assert text
        path.rmdir()
        path.with_suffix(".away").rename(path)
        assert sender.load(hash_) == content
        assert "Traceback" not in gateway.log.read_text()
