"""Files asked of a zone by their SHA-256 and their MD5, and verified by what was asked for."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import pytest

import kachery
from kachery import files, http
from kachery.errors import NotFound, NotSupported, SourceChanged, WrongContent
from kachery.store import Store, keys
from kachery.zone import Zone, gateway_calls
from rigs.cloud import Cloud

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = b"test-content\n"
LARGE = random.Random(5).randbytes(3 * 1024 * 1024 + 77)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("KACHERY_TIMEOUT", "0.5")
    monkeypatch.setattr(http, "pause", lambda *_: None)
    monkeypatch.setattr(gateway_calls, "_ahead", {})
    with Cloud() as server:
        monkeypatch.setenv("KACHERY_GATEWAY_URL", server.url)
        server.knows_other_hashes = True
        keys.load_or_create()
        yield server


def uri_of(algorithm: str, content: bytes) -> str:
    return f"{algorithm}://{hashlib.new(algorithm, content).hexdigest()}"


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
@pytest.mark.parametrize("content", [b"", TEXT, LARGE])
def test_a_file_comes_by_another_hash_and_is_then_on_this_machine(cloud: Cloud, algorithm: str, content: bytes) -> None:
    cloud.add(content)
    text = uri_of(algorithm, content)
    with open(kachery.load_file(text), "rb") as file:
        assert file.read() == content
    asked = len(cloud.requests)
    assert kachery.load_file(text, local_only=True) == kachery.load_file(text)
    assert len(cloud.requests) == asked


def test_it_is_verified_by_what_was_asked_for(cloud: Cloud) -> None:
    for content in (TEXT, LARGE):
        text = uri_of("sha256", content)
        other = cloud.add(b"x" + content[1:])
        # the zone says that it is that file, and sends another
        cloud.lies["findFile"] = lambda exchange, other=other, content=content: exchange.json(
            200,
            {
                "type": "findFile",
                "found": True,
                "size": len(content),
                "url": f"{cloud.url}/bucket/{other}",
                "sha1": other,
            },
        )
        with pytest.raises(WrongContent):
            kachery.load_file(text)
        assert Store().find(text.partition("//")[2], algorithm="sha256") is None


def test_what_a_zone_does_not_have_or_does_not_know(cloud: Cloud) -> None:
    with pytest.raises(NotFound, match="the zone default does not have it"):
        kachery.load_file(uri_of("md5", TEXT))
    cloud.add(TEXT)
    cloud.knows_other_hashes = False
    with pytest.raises(NotFound, match="the zone default does not have it"):
        kachery.load_file(uri_of("md5", TEXT))
    with pytest.raises(NotSupported, match="SHA-1 alone"):
        Zone(keys=keys.load_or_create()).record_alias(hashlib.sha1(TEXT).hexdigest(), "md5")


@pytest.mark.parametrize("content", [b"", TEXT, LARGE])
def test_a_file_is_stored_by_its_md5(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    (tmp_path / "x").write_bytes(content)
    sha1, md5 = hashlib.sha1(content).hexdigest(), hashlib.md5(content).hexdigest()
    recorded: list[tuple[str, str]] = []

    def record(zone: Zone, hash_: str, algorithm: str) -> str:
        assert hash_ in cloud.files
        recorded.append((hash_, algorithm))
        return md5

    monkeypatch.setattr(Zone, "record_alias", record)
    uri = kachery.store_file(tmp_path / "x", algorithm="md5", cache_locally=True)
    assert uri == f"md5://{md5}/x"
    with open(kachery.load_file(uri, local_only=True), "rb") as file:
        assert file.read() == content
    assert files.store_bytes(content, algorithm="md5").hash == md5
    assert recorded == [(sha1, "md5")] * 2


def test_an_md5_that_is_not_the_gateways(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(TEXT)
    with pytest.raises(NotSupported, match="SHA-1 alone"):
        kachery.store_file(tmp_path / "x", algorithm="md5")
    monkeypatch.setattr(Zone, "record_alias", lambda *_: "0" * 32)
    with pytest.raises(SourceChanged):
        kachery.store_file(tmp_path / "x", algorithm="md5")
