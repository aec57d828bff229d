"""What every bucket must do; an implementation is added to the list of `bucket`. Looked at with nothing of its own."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kachery.errors import NotFound, SourceChanged, WrongContent
from kachery.gateway.buckets.directory import DirectoryBucket
from kachery.gateway.buckets.objects import ObjectBucket

if TYPE_CHECKING:
    from kachery.gateway.buckets.contract import Bucket
    from rigs import objects as objects_rig

CONTENT = os.urandom(2_000_000)
KEY = "zones/lab/sha1/ab/cd/ef/abcdef"


@pytest.fixture(params=["directory", "objects"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    if request.param == "directory":
        return DirectoryBucket(tmp_path / "bucket")
    store: objects_rig.ObjectStore = request.getfixturevalue("object_store")
    return ObjectBucket(
        store.open("lab", prefix=tmp_path.name),
        "s3://lab",
        tmp_path / "spool",  # type: ignore[arg-type]
    )


def stage(bucket: Bucket, name: str, content: bytes = CONTENT) -> None:
    staging = bucket.stage(name)
    staging.write([content], 0)
    staging.sync()
    staging.close()


def read(bucket: Bucket, key: str = KEY) -> bytes:
    reader = bucket.open(key)
    try:
        return reader.read(0, reader.size)
    finally:
        reader.close()


def names(bucket: Bucket) -> list[str]:
    return sorted(name for name, _ in bucket.staged())


def test_publishing(bucket: Bucket) -> None:
    stage(bucket, "one")
    assert bucket.stat(KEY) is None
    with pytest.raises(NotFound):
        bucket.open(KEY)

    assert bucket.publish("one", KEY) is True
    bucket.discard("one")

    assert bucket.stat(KEY) == len(CONTENT)
    assert read(bucket) == CONTENT
    assert names(bucket) == []
    assert list(bucket.keys()) == [KEY]


def test_publishing_never_overwrites(bucket: Bucket) -> None:
    stage(bucket, "one")
    stage(bucket, "two", b"other")
    bucket.publish("one", KEY)

    assert bucket.publish("two", KEY) is False
    assert read(bucket) == CONTENT
    assert "two" in names(bucket)


def test_one_of_many_publishes(bucket: Bucket) -> None:
    for index in range(8):
        stage(bucket, f"s{index}", b"%d" % index)
    won: list[int] = []
    start = threading.Barrier(8)

    def publish(index: int) -> None:
        start.wait()
        if bucket.publish(f"s{index}", KEY):
            won.append(index)

    threads = [threading.Thread(target=publish, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert read(bucket) == b"%d" % won[0]


def test_withdrawing_takes_back_only_ones_own(bucket: Bucket) -> None:
    stage(bucket, "one")
    stage(bucket, "two", CONTENT)
    assert bucket.withdraw("one", KEY) is False
    bucket.publish("one", KEY)

    assert bucket.withdraw("two", KEY) is False
    assert bucket.withdraw("gone", KEY) is False
    assert read(bucket) == CONTENT
    assert bucket.withdraw("one", KEY) is True
    assert bucket.stat(KEY) is None
    assert "one" in names(bucket)


def test_replacing_damaged_content(bucket: Bucket) -> None:
    stage(bucket, "bad", b"bad")
    bucket.publish("bad", KEY)
    reader = bucket.open(KEY)
    stage(bucket, "good")

    bucket.replace("good", KEY)

    assert read(bucket) == CONTENT
    try:
        assert reader.read(0, 10) == b"bad"
    except SourceChanged:
        assert isinstance(bucket, ObjectBucket), "a reader lost what it was reading"
    reader.close()


def test_writing_in_any_order_and_going_on(bucket: Bucket) -> None:
    staging = bucket.stage("parts")
    staging.write([CONTENT[1_000_000:1_500_000], CONTENT[1_500_000:]], 1_000_000)
    staging.close()
    staging.close()
    staging = bucket.stage("parts")
    staging.write([CONTENT[:1], b"", CONTENT[1:1_000_000]], 0)

    digests = staging.digests(len(CONTENT))
    staging.close()

    assert digests.sha1 == hashlib.sha1(CONTENT, usedforsecurity=False).hexdigest()
    assert digests.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert digests.size == len(CONTENT)
    bucket.publish("parts", KEY)
    assert bucket.digests(KEY) == digests


def test_digests_follow_the_beginning(bucket: Bucket) -> None:
    staging = bucket.stage("growing")
    for start in range(0, len(CONTENT), 300_000):
        staging.write([CONTENT[start : start + 300_000]], start)
        staging.advance(min(start + 300_000, len(CONTENT)))

    assert staging.digests(len(CONTENT)).sha1 == hashlib.sha1(CONTENT, usedforsecurity=False).hexdigest()
    staging.close()


def test_digests_of_another_size(bucket: Bucket) -> None:
    stage(bucket, "one")
    staging = bucket.stage("one")
    for size in (0, len(CONTENT) - 1, len(CONTENT) + 1):
        with pytest.raises(WrongContent, match=f"has {len(CONTENT)} bytes, not {size}"):
            staging.digests(size)
    staging.close()


def test_many_buffers_at_once(bucket: Bucket) -> None:
    pieces = [b"%04d" % index for index in range(3000)]
    staging = bucket.stage("pieces")
    staging.write(pieces, 10)
    staging.write([b"0123456789"], 0)
    staging.close()
    bucket.publish("pieces", KEY)

    assert read(bucket) == b"0123456789" + b"".join(pieces)


def test_reading_ranges(bucket: Bucket) -> None:
    stage(bucket, "one")
    bucket.publish("one", KEY)
    reader = bucket.open(KEY)
    for start, count in ((0, 1), (1_999_999, 1), (1_999_999, 10), (5, 70_000)):
        expected = CONTENT[start : start + count]
        assert reader.read(start, count) == expected
        now = reader.read_now(start, count)
        assert now is None or (now and expected.startswith(now))
    assert reader.read(len(CONTENT), 5) == b""
    reader.close()
    reader.close()


def test_the_trash(bucket: Bucket) -> None:
    stage(bucket, "one")
    bucket.publish("one", KEY)

    assert bucket.trash(KEY) is True
    assert bucket.trash(KEY) is False

    assert bucket.stat(KEY) is None
    assert list(bucket.keys()) == []


def test_listing(bucket: Bucket) -> None:
    stage(bucket, "one")
    keys = ["sha1/aa/bb/cc/1", "sha1/aa/bb/cd/2", "zones/lab/sha1/aa/bb/cc/1", "zones/lab2/sha1/00/00/00/3"]
    for key in keys:
        bucket.publish("one", key)

    assert list(bucket.keys()) == keys
    assert list(bucket.keys("sha1/")) == keys[:2]
    assert list(bucket.keys("zones/lab/")) == keys[2:3]
    assert list(bucket.keys("nothing/")) == []


@pytest.mark.parametrize("key", ["/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", ""])
def test_keys_cannot_escape(bucket: Bucket, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        bucket.stat(key)
    with pytest.raises(ValueError, match="not a key"):
        bucket.open(key)


def test_nobody_else_reads_the_files(tmp_path: Path) -> None:
    bucket = DirectoryBucket(tmp_path / "bucket")
    stage(bucket, "one")
    bucket.publish("one", KEY)

    for directory, _, names_ in os.walk(tmp_path / "bucket"):
        for name in names_:
            assert (Path(directory) / name).stat().st_mode & 0o077 == 0
    assert (tmp_path / "bucket" / "staging").stat().st_mode & 0o077 == 0
