"""The story of a file, against a gateway in miniature: where it is found, where it goes, why it is not there."""

from __future__ import annotations

import hashlib
import os
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

import kachery
from kachery import files, http, web
from kachery.errors import (
    BadReply,
    InvalidInput,
    InvalidURI,
    NotConfigured,
    NotFound,
    NotRegistered,
    NotSupported,
    SourceChanged,
    TimedOut,
    Unreachable,
    WrongContent,
)
from kachery.store import Store, keys
from kachery.store.verified import SMALL
from kachery.zone import gateway_calls
from rigs.cloud import Cloud
from rigs.liar import Exchange, Liar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TEXT = b"test-content\n"
HASH = "b971c6ef19b1d70ae8f0feb989b106c319b36230"
LARGE = random.Random(5).randbytes(3 * 1024 * 1024 + 77)


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def left_over(directory: Path) -> set[str]:
    """What lies in a store besides blobs and records."""
    return {path.name for path in directory.glob("tmp/*")} | {path.name for path in directory.glob("sha1/**/*.*")}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_TIMEOUT", "0.5")
    monkeypatch.setattr(http, "pause", lambda *_: None)
    monkeypatch.setattr(gateway_calls, "_ahead", {})
    monkeypatch.setattr(files.loading, "_RESOURCE_PAUSE", 0.01)
    monkeypatch.setattr(files.loading, "_RESOURCE_NEWS", 0.1)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with Cloud() as server:
        monkeypatch.setenv("KACHERY_GATEWAY_URL", server.url)
        keys.load_or_create()
        yield server


# --- storing


@pytest.mark.parametrize("data", [b"", TEXT, LARGE])
def test_a_file_goes_to_the_zone_and_comes_back_elsewhere(
    cloud: Cloud, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "a b.dat"
    source.write_bytes(data)

    uri = kachery.store_file(source)

    assert uri == f"sha1://{sha1(data)}/a%20b.dat"
    assert cloud.files == {sha1(data): data}
    put = cloud.asked("PUT")[0]
    assert put.headers["content-length"] == str(len(data))
    assert "transfer-encoding" not in put.headers
    assert Store().find(sha1(data)) is None

    monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / "other machine"))
    path = kachery.load_file(uri)
    assert read(path) == data
    assert path == Store().layout.blob(sha1(data))
    asked = len(cloud.requests)
    assert kachery.load_file(uri) == path
    assert len(cloud.requests) == asked
    assert left_over(tmp_path / "other machine") == set()


def test_what_the_zone_has_is_not_sent_again(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(TEXT)
    assert kachery.store_file(tmp_path / "x") == kachery.store_file(tmp_path / "x")
    assert len(cloud.asked("PUT")) == 1


def test_a_copy_is_kept_when_it_is_asked_for(cloud: Cloud, tmp_path: Path) -> None:
    source = tmp_path / "x"
    source.write_bytes(TEXT)
    before = os.stat(source)
    for known in (False, True):
        kachery.store_file(source, cache_locally=True)
        found = Store().find(HASH)
        assert found is not None, known
        assert found.kind == "blob"
        os.unlink(found.path)
    kachery.store_text("test-content\n", cache_locally=True)
    assert Store().find(HASH) is not None
    after = os.stat(source)
    assert (before.st_ino, before.st_mode, before.st_nlink) == (after.st_ino, after.st_mode, after.st_nlink)


def test_local_storing_asks_nobody(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(TEXT)
    uri = kachery.store_file(tmp_path / "x", local=True)
    assert read(kachery.load_file(uri, local_only=True)) == TEXT
    assert cloud.requests == []


def test_without_keys_nothing_is_sent(cloud: Cloud, tmp_path: Path, own_environment: Path) -> None:
    (own_environment / "private.pem").unlink()
    (tmp_path / "x").write_bytes(TEXT)
    with pytest.raises(NotConfigured, match="no client keys"):
        kachery.store_file(tmp_path / "x")
    assert cloud.requests == []
    # and what is public can be loaded all the same
    assert kachery.load_text("sha1://" + cloud.add(TEXT)) == TEXT.decode()


def test_without_a_gateway_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(TEXT)
    with pytest.raises(NotConfigured, match="no gateway"):
        kachery.store_file(tmp_path / "x", zone="lab")
    with pytest.raises(NotConfigured, match="no gateway"):
        files.store_file(tmp_path / "x")
    with monkeypatch.context() as patch:
        patch.setenv("KACHERY_ZONE", "lab")
        with pytest.raises(NotConfigured, match="no gateway"):
            kachery.store_text("x")
    with pytest.raises(NotFound, match="no gateway is configured"):
        kachery.load_file(f"sha1://{HASH}")


def test_without_anything_configured_files_stay_here_and_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files.opening, "_said", False)
    caplog.set_level("INFO", "kachery")
    (tmp_path / "x").write_bytes(TEXT)
    assert kachery.store_file(tmp_path / "x") == f"sha1://{HASH}/x"
    assert kachery.store_text("test-content\n") == f"sha1://{HASH}/file.txt"
    assert Store().find(HASH) is not None
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1
    assert "on this machine only" in caplog.records[0].message


def test_who_may_not_store_is_told_so(cloud: Cloud, tmp_path: Path) -> None:
    cloud.members = set()
    (tmp_path / "x").write_bytes(TEXT)
    with pytest.raises(NotRegistered, match="not registered") as caught:
        kachery.store_file(tmp_path / "x")
    assert "kachery init" in str(caught.value)
    assert cloud.files == {}


@pytest.mark.parametrize("name", ["nothing", "directory", "a\x00b"])
def test_what_cannot_be_read_is_not_announced(cloud: Cloud, tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    for keep in (False, True):
        with pytest.raises((NotFound, InvalidInput)):
            kachery.store_file(str(tmp_path / name), cache_locally=keep)
    assert cloud.asked("PUT") == []


def test_the_upload_address_is_in_no_error(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(TEXT)
    for status in (400, 403, 413, 422, 500, 503, 507):
        cloud.lies["PUT"] = lambda exchange, status=status: exchange.reply(status, b"no")  # type: ignore[misc]
        with pytest.raises(OSError) as caught:  # noqa: PT011 — every one of ours is one
            kachery.store_file(tmp_path / "x")
        assert "secret" not in str(caught.value)
        assert "127.0.0.1" in str(caught.value)
    assert cloud.files == {}


def test_a_plain_directory_takes_the_place_of_the_zone(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test_content.txt").write_bytes(TEXT)
    monkeypatch.setenv("KACHERY_STORE_FILE_DIR", str(tmp_path / "plain"))
    assert kachery.store_file(tmp_path / "test_content.txt") == f"sha1://{HASH}/test_content.txt"
    monkeypatch.setenv("KACHERY_STORE_FILE_PREFIX", "https://x.org/base")
    assert kachery.store_file(tmp_path / "test_content.txt") == f"https://x.org/base/sha1/{HASH}"
    labelled = kachery.store_file(tmp_path / "test_content.txt", label="test_content.txt")
    assert labelled == f"https://x.org/base/sha1/{HASH}?label=test_content.txt"
    assert kachery.store_text("test-content\n", label="") == f"https://x.org/base/sha1/{HASH}"
    assert (tmp_path / "plain" / "sha1" / HASH).read_bytes() == TEXT
    assert cloud.requests == []


# --- finding


@pytest.mark.parametrize(
    "spelling",
    [
        "sha1://{h}",
        "sha1://{h}/name.txt",
        "sha1://{h}.txt",
        "sha1://{h}?label=a%20b",
        "sha1://{h}?anything",
        "kachery:lab:sha1:{h}:label",
        "kachery::sha1:{h}",
    ],
)
def test_every_spelling_loads(cloud: Cloud, spelling: str) -> None:
    uri = spelling.format(h=cloud.add(TEXT))
    assert kachery.load_text(uri) == TEXT.decode()
    assert cloud.requests[0].json["payload"]["zone"] == ("lab" if ":lab:" in uri else "default")


def test_the_zone_given_wins(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_ZONE", "from.environment")
    hash_ = cloud.add(TEXT)
    kachery.info(f"sha1://{hash_}")
    kachery.info(f"kachery:from.uri:sha1:{hash_}")
    kachery.info(f"kachery:from.uri:sha1:{hash_}", zone="given")
    assert [request.json["payload"]["zone"] for request in cloud.requests] == ["from.environment", "from.uri", "given"]


@pytest.mark.parametrize(
    "uri",
    [
        "sha1-enc://00ff.ag_abcdefghij",
        "kachery-feed://abcdefghijkl",
        "ipfs://bafy",
        "jot://x",
    ],
)
def test_what_comes_later_or_is_gone_says_so(cloud: Cloud, uri: str) -> None:
    for use in (kachery.load_file, kachery.load_text, kachery.load_bytes, kachery.open):
        with pytest.raises(NotSupported):
            use(uri)
    with pytest.raises(InvalidURI):
        kachery.info(uri)
    assert cloud.requests == []


def test_what_is_no_uri_is_refused(cloud: Cloud) -> None:
    for uri in ("", "nonsense", "sha1://x", "file:///etc/passwd", "http://[bad/"):
        for use in (kachery.load_file, kachery.load_json, kachery.load_bytes, kachery.open, kachery.info):
            with pytest.raises(InvalidURI):
                use(uri)
    assert cloud.requests == []


def test_an_absolute_path_is_the_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(TEXT)
    assert kachery.load_file(str(tmp_path / "x")) == str(tmp_path / "x")
    assert kachery.load_file(str(tmp_path / "x"), dest=tmp_path / "y") == str(tmp_path / "y")
    assert (tmp_path / "y").read_bytes() == TEXT
    with pytest.raises(NotFound):
        kachery.load_file(str(tmp_path / "z"))


def test_the_local_ways_come_before_the_zone(cloud: Cloud, tmp_path: Path) -> None:
    source = tmp_path / "x"
    source.write_bytes(TEXT)
    assert kachery.load_file(f"sha1://{HASH}?location={source}") == str(source)
    uri = kachery.link_file(source)
    assert uri == f"sha1://{HASH}/x"
    assert kachery.load_file(uri) == str(source)
    assert cloud.requests == []


def test_a_link_that_changed_falls_through_to_the_zone(cloud: Cloud, tmp_path: Path) -> None:
    source = tmp_path / "x"
    source.write_bytes(TEXT)
    uri = kachery.link_file(source)
    source.write_bytes(TEXT[::-1])
    with pytest.raises(NotFound, match="no longer what was linked"):
        kachery.load_file(uri)
    cloud.add(TEXT)
    assert kachery.load_text(uri) == TEXT.decode()


def test_a_damaged_copy_is_loaded_again(cloud: Cloud) -> None:
    for data in (TEXT, LARGE):
        uri = f"sha1://{cloud.add(data)}"
        path = kachery.load_file(uri)
        with open(path, "r+b") as file:
            file.write(b"?")
        assert read(kachery.load_file(uri)) == data


def test_dest(cloud: Cloud, tmp_path: Path) -> None:
    hash_ = cloud.add(LARGE)
    dest = tmp_path / "new" / "deep" / "copy.dat"
    assert kachery.load_file(f"sha1://{hash_}", dest=dest) == str(dest)
    assert dest.read_bytes() == LARGE
    dest.write_bytes(b"old")
    assert kachery.load_file(f"sha1://{hash_}", dest=str(dest)) == str(dest)
    assert dest.read_bytes() == LARGE
    assert [path.name for path in dest.parent.iterdir()] == ["copy.dat"]
    assert os.stat(dest).st_ino != os.stat(kachery.load_file(f"sha1://{hash_}")).st_ino
    with pytest.raises(InvalidInput, match="is a directory"):
        kachery.load_file(f"sha1://{hash_}", dest=tmp_path)
    for bad in ("a\x00b", str(dest / "below a file")):
        with pytest.raises((InvalidInput, OSError)):
            kachery.load_file(f"sha1://{hash_}", dest=bad)


def test_a_linked_file_that_changes_while_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "x"
    source.write_bytes(LARGE)
    uri = kachery.link_file(source)
    find = Store.find

    def find_and_change(self: Store, *arguments: Any, **options: Any) -> Any:
        found = find(self, *arguments, **options)
        with source.open("r+b") as file:
            file.write(b"?")
        return found

    monkeypatch.setattr(Store, "find", find_and_change)
    with pytest.raises(SourceChanged):
        kachery.load_file(uri, dest=tmp_path / "y")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["x"]


# --- four different answers


def test_nobody_has_it(cloud: Cloud) -> None:
    for use in (kachery.load_file, kachery.load_json, kachery.load_bytes, kachery.open, kachery.info):
        with pytest.raises(NotFound, match="the zone default does not have it"):
            use(f"sha1://{HASH}")


def test_only_this_machine_was_asked(cloud: Cloud) -> None:
    cloud.add(TEXT)
    with pytest.raises(NotFound, match="only this machine was asked"):
        kachery.load_text(f"sha1://{HASH}", local_only=True)
    assert cloud.requests == []


def test_somebody_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with Cloud() as cloud:
        monkeypatch.setenv("KACHERY_GATEWAY_URL", cloud.url)
    for use in (kachery.load_file, kachery.load_bytes, kachery.open, kachery.info):
        with pytest.raises(Unreachable, match="cannot be reached"):
            use(f"sha1://{HASH}")


def test_somebody_says_nothing(cloud: Cloud) -> None:
    cloud.lies["findFile"] = Exchange.silence
    with pytest.raises(TimedOut):
        kachery.load_file(f"sha1://{HASH}")


def test_somebody_is_no_gateway(cloud: Cloud) -> None:
    cloud.lies["findFile"] = lambda exchange: exchange.reply(200, b"<html>Welcome</html>")
    with pytest.raises(BadReply, match="HTML page"):
        kachery.load_file(f"sha1://{HASH}")


def lying(change: Callable[[bytes], bytes]) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.file(change(TEXT if HASH in exchange.request.target else LARGE))


@pytest.mark.parametrize("data", [TEXT, LARGE])
def test_it_is_not_what_it_claims_to_be(cloud: Cloud, data: bytes, own_environment: Path) -> None:
    uri = f"sha1://{cloud.add(data)}"
    cloud.lies["GET"] = lying(lambda content: content[:-1] + b"?")
    with pytest.raises(WrongContent, match=r"has the (hash|SHA-1)"):
        kachery.load_file(uri)
    assert left_over(own_environment) == set()
    assert Store().find(sha1(data)) is None
    # it was tried once more, and no oftener
    assert cloud.calls().count("GET") in (2, 2 * len(LARGE) // (16 * 1024 * 1024) + 2)


def test_an_accident_on_the_way_is_made_good(cloud: Cloud) -> None:
    uri = f"sha1://{cloud.add(LARGE)}"

    def once(exchange: Exchange) -> None:
        cloud.lies.clear()
        exchange.file(LARGE[:-1] + b"?")

    cloud.lies["GET"] = once
    assert read(kachery.load_file(uri)) == LARGE


@pytest.mark.parametrize("size", [0, 5, 10**6, 10**9, 10**15, 10**30])
def test_a_size_that_is_not_true(cloud: Cloud, size: int, own_environment: Path) -> None:
    cloud.add(TEXT)
    answer = {"type": "findFile", "found": True, "size": size, "url": f"{cloud.url}/bucket/{HASH}"}
    cloud.lies["findFile"] = lambda exchange: exchange.json(200, answer)
    with pytest.raises(OSError) as caught:  # noqa: PT011 — which one depends on the lie
        kachery.load_file(f"sha1://{HASH}")
    assert isinstance(caught.value, kachery.KacheryError)
    assert left_over(own_environment) <= {f"sha1.{HASH}.part", f"sha1.{HASH}.part.ranges"}


def test_a_file_that_the_zone_only_says_it_has(cloud: Cloud) -> None:
    cloud.add(TEXT)
    cloud.lies["GET"] = lambda exchange: exchange.reply(404, b"")
    with pytest.raises(NotFound, match="should have"):
        kachery.load_file(f"sha1://{HASH}")


# --- a resource


@pytest.fixture
def resource(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Liar]:
    """A proxy with a resource that brings the file when it is asked for the third time."""

    def behave(exchange: Exchange) -> None:
        count = len(proxy.requests)
        status: dict[str, Any] = {"status": ("queued", "running", "completed")[min(count, 3) - 1]}
        if count >= 3:
            cloud.add(TEXT)
        elif count == 2:
            status |= {"bytesUploaded": 5, "size": 13}
        exchange.json(200, {"type": "responseToClient", "response": {"type": "fileUpload", "status": status}})

    with Liar(behave) as proxy:
        monkeypatch.setenv("KACHERY_RESOURCE_URL", f"{proxy.url}/r/lab")
        yield proxy


def test_a_resource_brings_what_the_zone_lacks(cloud: Cloud, resource: Liar) -> None:
    assert kachery.load_text(f"sha1://{HASH}?label=x") == TEXT.decode()
    request = resource.requests[0].json
    assert request["type"] == "requestFromClient"
    assert (request["resourceName"], request["zone"]) == ("lab", "default")
    assert request["request"]["uri"] == f"sha1://{HASH}"
    assert len(resource.requests) == 3
    # the zone's own resources are asked before
    assert cloud.calls() == ["findFile", "requestFile", "findFile", "GET"]


def test_a_resource_of_the_gateway_that_is_away_is_not_asked(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"found": False, "reasons": [], "offline": ["lab public"], "elsewhere": []}
    cloud.lies["requestFile"] = lambda exchange: exchange.json(200, absent)
    monkeypatch.setenv("KACHERY_RESOURCE_URL", f"{cloud.url}/r/lab%20public")
    with pytest.raises(Unreachable, match="the resource lab public of this zone is not connected"):
        kachery.load_text(f"sha1://{HASH}")
    assert cloud.calls() == ["findFile", "requestFile"]


@pytest.mark.parametrize(
    ("status", "reply", "kind", "match"),
    [
        (200, {"type": "fileUpload", "status": {"status": "not-found"}}, NotFound, "resource does not have it"),
        (200, {"type": "fileUpload", "status": {"status": "error", "error": "disk"}}, Unreachable, "disk"),
        (200, {"type": "fileUpload", "status": {"status": "completed"}}, NotFound, "said it brought"),
        (404, {}, Unreachable, "not connected"),
        (500, {"message": "zone mismatch"}, Unreachable, "zone mismatch"),
        (504, {}, TimedOut, "in time"),
        (200, {"type": "other"}, BadReply, "not understood"),
        (200, {"type": "fileUpload", "status": "completed"}, BadReply, "not understood"),
    ],
)
def test_a_resource_that_does_not(
    cloud: Cloud, resource: Liar, status: int, reply: Any, kind: type[Exception], match: str
) -> None:
    resource.behave = lambda exchange: exchange.json(status, reply)
    with pytest.raises(kind, match=match):
        kachery.load_file(f"sha1://{HASH}")


def test_a_resource_without_progress_is_given_up(resource: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.loading, "_RESOURCE_PATIENCE", 0.1)
    answer = {"type": "fileUpload", "status": {"status": "queued"}}
    resource.behave = lambda exchange: exchange.json(200, answer)
    with pytest.raises(TimedOut, match="without progress"):
        kachery.load_file(f"sha1://{HASH}")


def test_a_resource_is_asked_when_the_zones_copy_is_gone(cloud: Cloud, resource: Liar) -> None:
    cloud.add(TEXT)

    def gone(exchange: Exchange) -> None:
        if len(resource.requests) >= 3:
            cloud.lies.clear()
            exchange.file(TEXT)
        else:
            exchange.reply(404, b"")

    cloud.lies["GET"] = gone
    assert kachery.load_text(f"sha1://{HASH}") == TEXT.decode()


# --- reading parts


def test_reading_ranges_moves_little(cloud: Cloud) -> None:
    uri = f"sha1://{cloud.add(LARGE)}"
    with kachery.open(uri) as file:
        assert file.seek(0, os.SEEK_END) == len(LARGE)
        file.seek(1_000_000)
        assert file.read(1000) == LARGE[1_000_000:1_001_000]
        assert file.seek(-10, os.SEEK_END) == len(LARGE) - 10
        assert file.read() == LARGE[-10:]
        assert file.read(5) == b""
        with pytest.raises(ValueError, match="negative"):
            file.seek(-1)
    moved = sum(end - start for request in cloud.asked() if (asked := request.range) for start, end in [asked])
    assert moved < 1_200_000
    assert Store().find(sha1(LARGE)) is None
    assert kachery.load_bytes(uri, 5, 17) == LARGE[5:17]


def test_reading_at_random_gives_the_files_bytes(cloud: Cloud) -> None:
    choice = random.Random(1)
    with kachery.open(f"sha1://{cloud.add(LARGE)}") as file:
        for _ in range(60):
            start = choice.randrange(len(LARGE))
            count = choice.choice([1, 100, 70_000, 600_000])
            file.seek(start)
            assert file.read(count) == LARGE[start : start + count]
        file.seek(0)
        assert file.read() == LARGE


def test_an_address_that_expires_while_one_reads_is_renewed_once(cloud: Cloud) -> None:
    uri = f"sha1://{cloud.add(LARGE)}"
    with kachery.open(uri) as file:
        assert file.read(10) == LARGE[:10]
        asked = len(cloud.requests)

        def old(exchange: Exchange) -> None:
            exchange.reply(403, b"expired") if "new" not in exchange.request.target else exchange.file(LARGE)

        def renewed(exchange: Exchange) -> None:
            answer = {"type": "findFile", "found": True, "size": len(LARGE), "url": f"{cloud.url}/new"}
            exchange.json(200, answer)

        cloud.lies.update({"GET": old, "findFile": renewed})
        for start in (1_000_000, 2_000_000, 3_000_000):
            file.seek(start)
            assert file.read(10) == LARGE[start : start + 10]
        assert cloud.calls()[asked:] == ["GET", "findFile", "GET", "GET", "GET"]


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 4), (0, 14), (14, None), (14, 14)])
def test_ranges_outside_the_file(cloud: Cloud, start: int, end: int | None) -> None:
    uri = f"sha1://{cloud.add(TEXT)}"
    with pytest.raises(InvalidInput, match="not within a file of 13 bytes"):
        kachery.load_bytes(uri, start, end)


def test_ranges_within_the_file(cloud: Cloud) -> None:
    uri = f"sha1://{cloud.add(TEXT)}"
    for start, end in ((None, None), (0, 13), (None, 4), (4, None), (5, 5), (13, 13)):
        assert kachery.load_bytes(uri, start, end) == TEXT[start:end]


def test_reading_a_range_from_a_server_without_ranges(cloud: Cloud) -> None:
    uri = f"sha1://{cloud.add(LARGE)}"
    cloud.lies["GET"] = lambda exchange: exchange.reply(200, LARGE)
    assert kachery.load_bytes(uri, 2_000_000, 2_000_100) == LARGE[2_000_000:2_000_100]


def test_info(cloud: Cloud, tmp_path: Path) -> None:
    hash_ = cloud.add(TEXT)
    info = kachery.info(f"sha1://{hash_}/x.txt")
    assert (info.hash, info.algorithm, info.label, info.size, info.local, info.zone) == (
        HASH, "sha1", "x.txt", 13, None, "default",
    )  # fmt: skip
    assert "url" not in info.reply
    assert info.reply["objectKey"] == f"sha1/{hash_}"
    kachery.store_text("test-content\n", local=True)
    cloud.files.clear()
    info = kachery.info(f"sha1://{hash_}")
    assert info.local is not None
    assert (info.local.kind, info.size, info.zone, info.reply) == ("blob", 13, None, {})


# --- web addresses


@pytest.fixture
def site() -> Iterator[Liar]:
    with Liar(lambda exchange: exchange.file(LARGE if "large" in exchange.request.target else TEXT)) as server:
        yield server


def test_files_at_web_addresses(site: Liar, tmp_path: Path, own_environment: Path) -> None:
    assert read(kachery.load_file(f"{site.url}/large?x=1", dest=tmp_path / "y")) == LARGE
    assert kachery.load_text(f"{site.url}/x") == TEXT.decode()
    assert kachery.load_bytes(f"{site.url}/x", 0, 4) == b"test"
    assert Store().find(HASH) is not None
    assert left_over(own_environment) == set()


def test_an_address_that_names_a_hash_is_checked_and_kept(site: Liar) -> None:
    uri = f"{site.url}/base/sha1/{HASH}?label=x"
    assert kachery.load_text(uri) == kachery.load_text(uri) == TEXT.decode()
    assert len(site.requests) == 1
    with pytest.raises(WrongContent):
        kachery.load_file(f"{site.url}/base/sha1/{'0' * 40}")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, NotFound), (410, NotFound), (403, PermissionError), (500, Unreachable), (503, Unreachable)],
)
def test_web_addresses_that_give_nothing(site: Liar, status: int, kind: type[Exception], own_environment: Path) -> None:
    site.behave = lambda exchange: exchange.reply(status, b"no")
    with pytest.raises(kind):
        kachery.load_file(f"{site.url}/x")
    assert left_over(own_environment) == set()
    with pytest.raises(NotFound, match="nobody else was asked"):
        kachery.load_file(f"{site.url}/x", local_only=True)


def test_a_web_address_that_breaks_off(site: Liar, own_environment: Path) -> None:
    def half(exchange: Exchange) -> None:
        exchange.head(200, {"Content-Length": "100"})
        exchange.send(b"half")
        exchange.hang_up()

    site.behave = half
    with pytest.raises(Unreachable):
        kachery.load_file(f"{site.url}/x")
    assert left_over(own_environment) == set()
    assert list(Store().entries()) == []


def test_addresses_of_public_repositories() -> None:
    from kachery import uri

    reference = uri.parse("gh://user/repo/main/dir/a b#c.json")
    assert isinstance(reference, uri.GithubRef)
    assert web.address(reference) == "https://raw.githubusercontent.com/user/repo/main/dir/a%20b%23c.json"


def test_addresses_of_zenodo_records(site: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    from kachery import uri

    record = {
        "files": [
            None,
            {"key": "other", "links": {"self": "https://x/other"}},
            {"key": "data/a.bin", "links": {"self": "https://x/new"}},
            {"filename": "b.bin", "links": {"download": "https://x/old", "self": "https://x/no"}},
            {"key": "nowhere", "links": None},
        ]
    }
    site.behave = lambda exchange: exchange.json(200, record)
    monkeypatch.setattr(web, "ZENODO", {False: site.url, True: site.url})
    for text, expected in [("zenodo://12/data/a.bin", "https://x/new"), ("zenodo-sandbox://12/b.bin", "https://x/old")]:
        reference = uri.parse(text)
        assert isinstance(reference, uri.ZenodoRef)
        assert web.address(reference) == expected
    assert site.requests[0].target == "/api/records/12"
    for name, kind in [("missing", NotFound), ("nowhere", BadReply)]:
        with pytest.raises(kind):
            kachery.load_file(f"zenodo://12/{name}")
    site.behave = lambda exchange: exchange.reply(404, b"{}")
    with pytest.raises(NotFound, match="no record 12"):
        kachery.load_file("zenodo://12/x")


# --- what a stream gives


def test_streams(cloud: Cloud, own_environment: Path) -> None:
    import io

    stored = files.store_stream(io.BytesIO(LARGE), label="x", keep=True)
    assert (stored.hash, stored.size, stored.zone) == (sha1(LARGE), len(LARGE), "default")
    assert cloud.files[sha1(LARGE)] == LARGE
    assert Store().find(sha1(LARGE)) is not None
    assert left_over(own_environment) == set()


def test_large_files_are_not_verified_twice(cloud: Cloud) -> None:
    assert len(LARGE) > SMALL
    uri = f"sha1://{cloud.add(LARGE)}"
    path = kachery.load_file(uri)
    time.sleep(0.15)
    assert Store()._verified.knows(sha1(LARGE), os.stat(path))
