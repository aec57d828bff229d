"""Manifests of chunks: written when they are asked for, with upstream's hashes, and what they verify."""

from __future__ import annotations

import hashlib
import io
import os
import random
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kachery
from kachery import http, reading
from kachery.errors import InvalidInput, SourceChanged, WrongContent
from kachery.files import chunks as writing
from kachery.manifests import Chunk, Chunks
from kachery.store import Store, keys
from rigs.cloud import Cloud

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGE = random.Random(9).randbytes(12_000_000)


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("KACHERY_TIMEOUT", "0.5")
    monkeypatch.setattr(http, "pause", lambda *_: None)
    with Cloud() as server:
        monkeypatch.setenv("KACHERY_GATEWAY_URL", server.url)
        keys.load_or_create()
        yield server


@pytest.fixture
def far(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI, with a manifest, of a large file in the zone that is not on this machine."""
    (tmp_path / "large").write_bytes(LARGE)
    uri = kachery.store_file(tmp_path / "large", manifest=True)
    monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / "other machine"))
    return uri


# --- writing


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\0" * 4_000_000, "sha1://cfe78845826845c0f76837eafdd964b8dc2ab337/x"),
        (
            b"\0" * 4_000_001,
            "sha1://d8ae8b3dde7a0b19e26b94d4d893b8bee608e4b1/x?manifest=a4eecdbdaf0d02a917880194b341d24045bc9c9b",
        ),
        (
            bytes(range(256)) * 20_000,
            "sha1://dd018829685a3dded3026ce9bbc140e0ba8dcf76/x?manifest=9430fc7902606a05c36b9b5abae887bec14881ca",
        ),
        (
            bytes(range(256)) * 100_000,
            "sha1://cd26aba27d9dd2983c04e7e28719bba53028b2e2/x?manifest=5392764af92f88a9f4708c896c712679d2a61bec",
        ),
    ],
)
def test_the_uris_with_manifests_are_upstreams(data: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    assert kachery.store_file(tmp_path / "x", local=True, manifest=True) == expected
    assert kachery.load_bytes(expected, local_only=True) == data
    if "manifest" in expected:
        assert Store().find(expected[-40:]) is not None


def test_no_manifest_is_written_unless_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(LARGE)
    assert "manifest" not in kachery.store_file(tmp_path / "x", local=True)


def test_a_manifest_in_the_other_spellings_of_uris(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(LARGE)
    uri = kachery.store_file(tmp_path / "x", local=True, label="y", manifest=True, uri_type=1)
    assert f"sha1://{sha1(LARGE)}?label=y&manifest=" in uri


def test_a_file_known_by_its_md5_has_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(LARGE)
    with pytest.raises(InvalidInput, match="md5"):
        kachery.store_file(tmp_path / "x", local=True, manifest=True, algorithm="md5")


def test_a_file_that_changed_after_it_was_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(LARGE)
    monkeypatch.setattr(writing, "of_file", lambda path: Chunks(len(LARGE), "0" * 40, ()))
    with pytest.raises(SourceChanged, match="after it was stored"):
        kachery.store_file(tmp_path / "x", local=True, manifest=True)


# --- reading


def test_parts_of_a_file_are_verified(cloud: Cloud, far: str) -> None:
    cloud.requests.clear()
    assert kachery.load_bytes(far, 9_999_990, 10_000_010) == LARGE[9_999_990:10_000_010]
    with kachery.open(far) as file:
        file.seek(-7, os.SEEK_END)
        assert file.read() == LARGE[-7:]
        file.seek(3)
        assert file.read(5) == LARGE[3:8]
    assert Store().find(sha1(LARGE)) is None


@pytest.mark.parametrize("flipped", [0, 9_999_999, 10_000_000, 11_999_999])
def test_a_damaged_part_is_not_handed_out(cloud: Cloud, far: str, flipped: int) -> None:
    damaged = bytearray(LARGE)
    damaged[flipped] ^= 1
    cloud.lies["GET"] = lambda exchange: (
        exchange.file(bytes(damaged)) if sha1(LARGE) in exchange.request.target else cloud._move(exchange)
    )
    near, other = (5, 20_000) if flipped < 10_000_000 else (10_000_005, 10_000_020), 1_000
    with pytest.raises(WrongContent, match="not what its manifest says"):
        kachery.load_bytes(far, *near)
    # the other chunk is fine
    start = 10_500_000 if flipped < 10_000_000 else 500
    assert kachery.load_bytes(far, start, start + other) == LARGE[start : start + other]
    with kachery.open(far) as file:
        file.seek(near[0])
        with pytest.raises(WrongContent, match=f"bytes {0 if flipped < 10_000_000 else 10_000_000} to"):
            file.read(5)


def test_without_its_manifest_a_part_is_read_with_a_warning(
    cloud: Cloud, far: str, caplog: pytest.LogCaptureFixture
) -> None:
    del cloud.files[far[-40:]]
    assert kachery.load_bytes(far, 5, 9) == LARGE[5:9]
    assert "cannot be verified" in caplog.text


def test_a_manifest_of_another_file_is_refused(cloud: Cloud, far: str) -> None:
    parts = tuple(Chunk(start, start + 6_000_000, "0" * 40) for start in (0, 6_000_000))
    other = cloud.add(Chunks(len(LARGE), "0" * 40, parts).to_bytes())
    with pytest.raises(WrongContent, match="the manifest of another file"):
        kachery.load_bytes(far[:-40] + other, 5, 9)
    no_manifest = cloud.add(b"text")
    with pytest.raises(WrongContent, match="not a manifest"):
        kachery.load_bytes(far[:-40] + no_manifest, 5, 9)


def test_the_whole_file_needs_no_manifest(cloud: Cloud, far: str) -> None:
    cloud.requests.clear()
    assert kachery.load_bytes(far) == LARGE
    assert not [request for request in cloud.requests if far[-40:] in request.target + str(request.body)]


# --- the reader alone


@given(st.binary(min_size=1, max_size=60), st.lists(st.integers(1, 59), max_size=6), st.data())
def test_any_range_of_any_chunks(data: bytes, cuts: list[int], draws: st.DataObject) -> None:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    parts = tuple(Chunk(one, two, sha1(data[one:two])) for one, two in pairwise(edges))
    read = reading.Verified(lambda start, end: data[start:end], Chunks(len(data), sha1(data), parts), "it")
    for _ in range(3):
        start = draws.draw(st.integers(0, len(data)))
        end = draws.draw(st.integers(start, len(data)))
        assert read(start, end) == data[start:end]
    file = io.BufferedReader(reading.RangeReader(len(data), read, "it"))
    assert file.read() == data


def test_what_is_wrong_once_is_fetched_again() -> None:
    answers = [b"wrong", b"right"]
    part = Chunk(0, 5, sha1(b"right"))
    read = reading.Verified(lambda start, end: answers.pop(0), Chunks(5, part.sha1, (part,)), "it")
    assert read(1, 3) == b"ig"
    assert read(0, 5) == b"right"
