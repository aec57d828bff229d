"""Digests of bytes, of files, and of files that grow meanwhile."""

from __future__ import annotations

import hashlib
import io
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kachery import digest
from kachery.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path


def test_vectors() -> None:
    assert digest.of_bytes(b"") == "da39a3ee5e6b4b0d3255bfef95601890afd80709"
    assert digest.of_bytes(b"test-content\n") == "b971c6ef19b1d70ae8f0feb989b106c319b36230"
    assert digest.of_bytes(b"some text", "md5") == "552e21cd4cd9918678e3c1a0df491bc3"
    assert digest.of_bytes(b"", "sha256").startswith("e3b0c44298fc1c14")


@given(st.binary(max_size=2000), st.sampled_from(sorted(digest.HEX_LENGTHS)))
def test_all_ways_agree(data: bytes, algorithm: str) -> None:
    expected = hashlib.new(algorithm, data).hexdigest()

    assert digest.of_bytes(data, algorithm) == expected
    assert digest.of_bytes(memoryview(data), algorithm) == expected
    assert digest.of_stream(io.BytesIO(data), (algorithm,)) == {algorithm: expected}


def test_one_pass_gives_several(tmp_path: Path) -> None:
    data = os.urandom(3 * digest.BUFFER_SIZE + 17)
    path = tmp_path / "file"
    path.write_bytes(data)
    steps: list[int] = []

    found = digest.of_file(path, ("sha1", "sha256"), advance=steps.append)

    assert found == {"sha1": hashlib.sha1(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest()}
    assert sum(steps) == len(data)


@pytest.mark.parametrize(
    "text", ["", "b971", "B971C6EF19B1D70AE8F0FEB989B106C319B36230", "0" * 39 + "\n", "٠" * 40, "0" * 41]
)
def test_what_is_no_hash(text: str) -> None:
    assert not digest.is_hash("sha1", text)
    with pytest.raises(InvalidInput):
        digest.require_hash("sha1", text)


def test_unknown_algorithms_are_refused() -> None:
    assert not digest.is_hash("sha512", "0" * 128)
    for use in (
        lambda: digest.new("sha512"),
        lambda: digest.require_hash("crc", "0"),
        lambda: digest.of_bytes(b"", "x"),
    ):
        with pytest.raises(InvalidInput, match="unknown hash algorithm"):
            use()


@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=8), st.data())
def test_the_digest_of_a_growing_file(pieces: list[bytes], data: st.DataObject) -> None:
    fd = os.memfd_create("growing")
    try:
        follower = digest.FollowingDigest(fd)
        there = 0
        for piece in pieces:
            os.pwrite(fd, piece, there)
            there += len(piece)
            if data.draw(st.booleans()):
                follower.advance(there)

        assert follower.result(there) == hashlib.sha1(b"".join(pieces)).hexdigest()
    finally:
        os.close(fd)


def test_announcing_more_than_there_is_is_an_error() -> None:
    fd = os.memfd_create("short")
    follower = digest.FollowingDigest(fd)
    with pytest.raises(EOFError):
        follower.result(1)
    os.close(fd)


def test_giving_up_ends_the_thread() -> None:
    fd = os.memfd_create("given up")
    follower = digest.FollowingDigest(fd)
    follower.stop()
    follower.stop()
    os.close(fd)
