"""The classic protocol: signatures, answers, quotas, attacks."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from kachery.errors import InvalidInput, StorageFull
from kachery.gateway import channels as traffic
from kachery.gateway.config import GatewayConfig
from kachery.gateway.dialects import classic
from kachery.gateway.logs import make_log
from kachery.gateway.runtime import open_gateway
from kachery.gateway.services import accounts, aliases, channels, files, usage, zones
from rigs.asgi import BASE, Driver, Reply, sha1

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HELLO = b"hello\n"
HASH = "f572d396fae9206628714fb2ce00f72e94f2258f"
MD5 = "b1946ac92492d2347c6235b4d2611184"
SMALL = {
    "name": "small",
    "maxFileSize": 1000,
    "maxSimultaneous": 2,
    "maxNumFilesPerDay": 3,
    "maxNumBytesPerDay": 1e3,
}
LARGE = {"name": "large", "maxFileSize": 1e9, "maxSimultaneous": 2}


def channel(name: str, password: str = "secret", **changes: Any) -> dict[str, Any]:
    return {"name": name, "password": password, "downloadQuotas": [LARGE], "uploadQuotas": [LARGE], **changes}


CHANNELS = [
    channel("lab"),
    channel("public", "public", uploadQuotas=[]),
    channel("small", downloadQuotas=[SMALL], uploadQuotas=[SMALL]),
    channel("closed", "other", zone="unpublished"),
    channel("umlaut", "pässword"),
    channel("tls", tlsOnly=True),
    channel("slow", maxRequestsPerMinute=3),
    channel("one", uploadQuotas=[{"maxFileSize": 1e9, "maxSimultaneous": 1}]),
    channel("never", uploadQuotas=[{"maxFileSize": 1e9}]),
]


@pytest.fixture
def make(tmp_path: Path, database_url: str | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Driver]]:
    """Starts a gateway with classic channels on one and the same data directory."""
    monkeypatch.setattr(classic, "_DELAY", 0.0)
    running: list[Driver] = []

    def prepare(connection: Any) -> None:
        if accounts.find_user(connection, "owner") is None:
            accounts.add_user(connection, "owner", 1)
            zones.create(connection, "lab", "owner", 1, private=False, public_upload=False)
            zones.create(connection, "unpublished", "owner", 1, private=True, public_upload=False)

    def start() -> Driver:
        parsed = channels.parse({"channels": CHANNELS}, "lab")
        config = GatewayConfig(data=tmp_path / "gateway", database_url=database_url, channels=parsed)
        gateway = open_gateway(config, make_log("error"))
        gateway.database.write_now(prepare)
        running.append(Driver(gateway))
        return running[-1]

    yield start
    for driver in running:
        driver.close()


@pytest.fixture
def driver(make: Callable[[], Driver]) -> Driver:
    return make()


def url(endpoint: str, hash_: str, algorithm: str = "sha1", name: str = "lab", **query: str) -> str:
    password = next((item["password"] for item in CHANNELS if item["name"] == name), "?")
    operation = {"check": "check", "get": "download", "set": "upload"}[endpoint]
    signed = classic.signatures(algorithm, hash_, operation, password)[0]
    fields = {"channel": name, "signature": signed, **query}
    return f"{BASE}/classic/{endpoint}/{algorithm}/{hash_}?{urlencode(fields)}"


def store(driver: Driver, content: bytes, algorithm: str = "sha1", name: str = "lab", **headers: str) -> Reply:
    hash_ = hashlib.new(algorithm, content).hexdigest()
    given = {"content-length": str(len(content)), **headers}
    return driver.request("POST", url("set", hash_, algorithm, name), content, given)


def refused(reply: Reply) -> str:
    assert reply.status == 500
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    return reply.text


# -- signatures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "password", "signature"),
    [
        ("check", "public", "90be08716d6fcd8040ec839046da61be507f3b7c"),
        ("download", "public", "2ef4bf0c97e554388c3d6f07b03afd3c78f07d89"),
        ("upload", "public", "eead31340e798a5dc28553435ff270ba40164c24"),
        ("check", "secret", "947770afdb71b013c2db7fdb0f26aa073e667c32"),
        ("download", "secret", "15cec0f813d986c88ae01ddac2463bb727ef369d"),
        ("upload", "secret", "690a20923f61017cd9fc9afaafff8337c149c0ae"),
        ("check", 'a"b\\c/d', "9c914dd5bf49daf8cb65e40f08a51fc2e325e0fc"),
        ("check", "pässword", "a04dfb0241a385e1f285a8633366d2116eae2f86"),
        ("check", "pässword", "42733b88db557a8c33bd1e057b7a446dffc96bd9"),
    ],
)
def test_signatures(name: str, password: str, signature: str) -> None:
    assert signature in classic.signatures("sha1", HASH, name, password)


def test_a_signature_with_md5() -> None:
    assert "714e726664211b2977e4b3de646150cb2644c546" in classic.signatures("md5", MD5, "download", "public")


def test_both_spellings_of_a_password_are_accepted(driver: Driver) -> None:
    for signature in classic.signatures("sha1", HASH, "check", "pässword"):
        reply = driver.request("GET", url("check", HASH, name="umlaut", signature=signature))
        assert reply.json() == {"success": True, "found": False}
    wrong = driver.request("GET", url("check", HASH, name="umlaut", signature="ä" * 40))
    assert refused(wrong) == "incorrect or missing signature"


def test_a_signature_is_for_one_operation_and_one_hash(driver: Driver) -> None:
    store(driver, HELLO)
    signature = classic.signatures("sha1", HASH, "check", "secret")[0]
    for endpoint, hash_ in (("get", HASH), ("check", "0" * 40), ("set", HASH)):
        method = "POST" if endpoint == "set" else "GET"
        reply = driver.request(method, url(endpoint, hash_, signature=signature))
        assert refused(reply) == "incorrect or missing signature"
    for left_out in ("signature", "channel"):
        fields = {"signature": signature, "channel": "lab"}
        del fields[left_out]
        reply = driver.request("GET", f"{BASE}/classic/check/sha1/{HASH}?{urlencode(fields)}")
        expected = (
            "incorrect or missing signature" if left_out == "signature" else "Channel not found in config: undefined"
        )
        assert refused(reply) == expected


# -- files ------------------------------------------------------------------------------------------------------------


def test_probe(driver: Driver) -> None:
    reply = driver.request("GET", f"{BASE}/classic/probe")
    assert (reply.status, reply.body) == (200, b'{\n    "success": true\n}')


@pytest.mark.parametrize("algorithm", ["sha1", "md5"])
@pytest.mark.parametrize("content", [b"", HELLO, b"x" * 3_000_000])
def test_a_file_goes_in_and_comes_out(driver: Driver, algorithm: str, content: bytes) -> None:
    hash_ = hashlib.new(algorithm, content).hexdigest()
    absent = driver.request("GET", url("check", hash_, algorithm))
    assert absent.body == b'{\n    "success": true,\n    "found": false\n}'
    assert refused(driver.request("GET", url("get", hash_, algorithm))) == "Not found."

    assert store(driver, content, algorithm).json() == {"success": True}
    assert store(driver, content, algorithm).json() == {"success": True}
    assert driver.request("GET", url("check", hash_, algorithm)).json() == {
        "success": True,
        "found": True,
        "size": len(content),
    }
    got = driver.request("GET", url("get", hash_, algorithm))
    assert (got.status, got.body) == (200, content)
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["accept-ranges"] == "bytes"
    assert {"etag", "last-modified", "cache-control"} <= set(got.headers)
    head = driver.request("HEAD", url("get", hash_, algorithm))
    assert (head.status, head.headers["content-length"]) == (200, str(len(content)))
    # nothing of an upload is left
    assert driver.read(files.all_uploads) == []
    assert list(driver.gateway.bucket.staged()) == []
    # by its SHA-1 it is the same file
    assert driver.request("GET", url("check", sha1(content))).json()["found"] is True


def test_ranges(driver: Driver) -> None:
    store(driver, HELLO)

    def get(**headers: str) -> Reply:
        return driver.request("GET", url("get", HASH), headers=headers)

    some = get(Range="bytes=1-3")
    assert (some.status, some.body, some.headers["content-range"]) == (206, b"ell", "bytes 1-3/6")
    assert get(Range="bytes=-2").body == b"o\n"
    assert get(Range="bytes=4-").body == b"o\n"
    several = get(Range="bytes=0-1,3-4")
    assert (several.status, several.body) == (200, HELLO)
    beyond = get(Range="bytes=6-")
    assert (beyond.text, beyond.headers["content-range"]) == (
        "Error downloading file: Range Not Satisfiable",
        "bytes */6",
    )
    assert beyond.status == 500
    etag = some.headers["etag"]
    assert get(**{"If-None-Match": etag}).status == 304
    assert get(**{"Range": "bytes=0-0", "If-Range": '"other"'}).status == 200


def test_what_is_not_what_it_claims_gets_an_answer_and_leaves_nothing(driver: Driver) -> None:
    for algorithm, hash_ in (("sha1", HASH), ("md5", MD5)):
        for content in (b"Hello\n", b"", b"hello\n\n"):
            reply = driver.request("POST", url("set", hash_, algorithm), content, {"content-length": str(len(content))})
            assert reply.status == 422, reply.text
            assert driver.request("GET", url("check", hash_, algorithm)).json()["found"] is False
    # also where the right content is already
    store(driver, HELLO)
    for content in (b"Hello\n", b"hello\n\n"):
        reply = driver.request("POST", url("set", HASH), content, {"content-length": str(len(content))})
        assert reply.status == 422
    assert driver.request("GET", url("get", HASH)).body == HELLO
    assert driver.read(files.all_uploads) == []
    assert list(driver.gateway.bucket.staged()) == []


def test_json_is_content_like_any_other(driver: Driver) -> None:
    assert store(driver, b'{"a": 1}', **{"content-type": "application/json"}).status == 200


def test_a_length_is_needed(driver: Driver) -> None:
    for length in ({}, {"content-length": "-1"}, {"content-length": "6.0"}, {"content-length": "9" * 30}):
        reply = driver.request("POST", url("set", HASH), [HELLO], dict(length))
        assert refused(reply) == "Missing or invalid content-length in request header"


def test_a_sender_that_goes_away(driver: Driver) -> None:
    for algorithm, hash_ in (("sha1", HASH), ("md5", MD5)):
        headers = {"content-length": "6"}
        reply = driver.request("POST", url("set", hash_, algorithm), [b"hel"], headers, hang_up=True)
        assert reply.status == 0
    assert driver.read(files.all_uploads) == []
    assert list(driver.gateway.bucket.staged()) == []
    assert store(driver, HELLO).status == 200


def test_channels_have_zones(driver: Driver) -> None:
    store(driver, HELLO, name="closed")
    assert driver.request("GET", url("check", HASH, name="closed")).json()["found"] is True
    assert driver.request("GET", url("check", HASH, name="lab")).json()["found"] is False
    assert refused(driver.request("GET", url("get", HASH, name="lab"))) == "Not found."


def test_other_hashes_reveal_no_other_zone(driver: Driver) -> None:
    store(driver, HELLO, "md5", name="closed")
    sha256 = hashlib.sha256(HELLO).hexdigest()
    for zone, there in (("unpublished", True), ("lab", False)):
        for algorithm, hash_ in (("md5", MD5), ("sha256", sha256), ("sha1", HASH)):
            found = driver.read(aliases.resolve, zone, algorithm, hash_)
            assert (found is not None) is there
            assert found is None or (found.sha1, found.size) == (HASH, 6)
    assert driver.request("GET", url("check", MD5, "md5", "lab")).json()["found"] is False
    assert driver.read(aliases.resolve, "unpublished", "md5", MD5.upper()) is None
    assert driver.read(aliases.resolve, "unpublished", "crc", "0") is None


def test_two_contents_with_one_md5(driver: Driver) -> None:
    store(driver, HELLO, "md5")
    # as if the first had been another content with this MD5
    other = sha1(b"other")
    store(driver, b"other")
    driver.write(aliases.record, "md5", hashlib.md5(b"third").hexdigest(), other, 1)
    reply = store(driver, b"third", "md5")
    assert (reply.status, reply.headers["kachery-error"]) == (409, "collision")
    assert driver.request("GET", url("check", sha1(b"third"))).json()["found"] is False


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nothing", "constructor", "__proto__", "toString", "", "<b>"])
def test_channels_that_there_are_not(driver: Driver, name: str) -> None:
    reply = driver.request("GET", url("check", HASH, name=name))
    assert refused(reply) == f"Channel not found in config: {name}"
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("algorithm", "hash_"),
    [
        ("sha1", HASH.upper()),
        ("sha1", HASH[:-1]),
        ("sha1", MD5),
        ("sha1", "..%2f" * 8),
        ("sha1", "g" * 40),
        ("md5", HASH),
        ("sha256", "0" * 64),
        ("constructor", HASH),
    ],
)
def test_hashes_that_are_none(driver: Driver, algorithm: str, hash_: str) -> None:
    for method, endpoint in (("GET", "check"), ("GET", "get"), ("POST", "set")):
        reply = driver.request(method, url(endpoint, hash_, algorithm), headers={"content-length": "0"})
        assert refused(reply) == f"Invalid {algorithm} string"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/log"),
        ("POST", "/log/write/x"),
        ("DELETE", "/probe"),
        ("GET", "/set/sha1/x"),
        ("GET", "/a/b/c/d"),
    ],
)
def test_other_addresses(driver: Driver, method: str, path: str) -> None:
    assert driver.request(method, f"{BASE}/classic{path}").status == 404


def test_nothing_is_said_about_files_without_a_signature(driver: Driver) -> None:
    store(driver, HELLO)
    there = driver.request("GET", url("get", HASH, signature="0" * 40))
    absent = driver.request("GET", url("get", "0" * 40, signature="0" * 40))
    assert refused(there) == refused(absent) == "incorrect or missing signature"


def test_tls_only(driver: Driver) -> None:
    address = url("check", HASH, name="tls")
    assert driver.request("GET", address).status == 403
    assert driver.request("GET", address, headers={"X-Forwarded-Proto": "http"}).status == 403
    assert driver.request("GET", address, headers={"X-Forwarded-Proto": "https"}).status == 200


def test_rates(driver: Driver) -> None:
    right, wrong = url("check", HASH, name="slow"), url("check", HASH, name="slow", signature="x")
    assert [driver.request("GET", address).status for address in (right, wrong, right)] == [200, 500, 200]
    late = driver.request("GET", right)
    assert late.status == 429
    assert "try again in" in late.text
    assert driver.request("GET", url("check", HASH)).status == 200, "another channel"


# -- quotas -----------------------------------------------------------------------------------------------------------


def used(driver: Driver, direction: str, name: str = "small") -> tuple[int, int]:
    driver.run(driver.application.flush())
    return driver.read(channels.count, (name, direction, "small", time.strftime("%Y-%m-%d")))


def test_a_quota_is_charged_once_for_what_is_stored(driver: Driver) -> None:
    assert store(driver, b"1" * 500, name="small").status == 200
    assert store(driver, b"1" * 500, name="small").status == 200
    bad = driver.request("POST", url("set", HASH, name="small"), b"Hello\n", {"content-length": "6"})
    assert bad.status == 422
    assert used(driver, "upload") == (1, 500)
    assert refused(store(driver, b"2" * 501, name="small")) == "Exceeded number of bytes per day for this quota."
    assert store(driver, b"3", name="small").status == 200
    assert store(driver, b"4", name="small").status == 200
    assert refused(store(driver, b"5", name="small")) == "Exceeded number of files per day for this quota."
    assert store(driver, b"3", name="small").status == 200, "what is there is not charged"
    assert store(driver, b"5", name="lab").status == 200
    assert store(driver, b"5", name="small").status == 200, "somebody else's bytes"
    assert used(driver, "upload") == (3, 502)
    driver.run(driver.application.flush())
    (line,) = [line for line in driver.read(usage.read, "lab") if line.client == "channel:small"]
    assert (line.uploads, line.upload_bytes) == (3, 502)


def test_quotas_survive_a_restart(make: Callable[[], Driver], tmp_path: Path) -> None:
    first = make()
    for content in (b"1", b"2", b"3"):
        assert store(first, content, name="small").status == 200
    first.request("GET", url("get", sha1(b"1"), name="small"))
    # an upload is written down at once, a download within seconds
    assert used(first, "download") == (1, 1)
    second = make()
    assert refused(store(second, b"4", name="small")) == "Exceeded number of files per day for this quota."
    assert used(second, "download") == (1, 1)


def test_what_cannot_be_written_down_is_not_forgotten(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise StorageFull("no room")

    with monkeypatch.context() as patched:
        patched.setattr(channels, "add_counts", refuse)
        for content in (b"1", b"2", b"3"):
            assert store(driver, content, name="small").status == 200
        assert refused(store(driver, b"4", name="small")) == "Exceeded number of files per day for this quota."
    assert used(driver, "upload") == (3, 3)


def test_days_end(driver: Driver) -> None:
    day = ["2026-11-25"]
    driver.gateway.traffic._today = lambda: day[0]
    for content in (b"1", b"2", b"3"):
        assert store(driver, content, name="small").status == 200
    assert store(driver, b"4", name="small").status == 500
    day[0] = "2026-11-26"
    assert store(driver, b"4", name="small").status == 200
    driver.run(driver.application.flush())
    assert driver.read(channels.count, ("small", "upload", "small", "2026-11-25")) == (0, 0)
    assert driver.read(channels.count, ("small", "upload", "small", "2026-11-26")) == (1, 1)


def test_downloads_are_counted(driver: Driver) -> None:
    store(driver, b"x" * 400)
    address = url("get", sha1(b"x" * 400), name="small")
    assert driver.request("HEAD", address).status == 200
    assert used(driver, "download") == (0, 0)
    assert driver.request("GET", address, headers={"Range": "bytes=0-99"}).status == 206
    assert used(driver, "download") == (1, 100)
    assert driver.request("GET", address).status == 200
    assert used(driver, "download") == (2, 500)
    assert driver.request("GET", address).status == 200
    assert refused(driver.request("GET", address)) == "Exceeded number of files per day for this quota."
    assert driver.request("HEAD", address).status == 500
    assert used(driver, "download") == (3, 900)


def test_files_for_which_there_is_no_quota(driver: Driver) -> None:
    assert refused(store(driver, b"x" * 1001, name="small")) == "No relevant upload quota found"
    assert refused(store(driver, HELLO, name="public")) == "No relevant upload quota found"
    store(driver, b"x" * 1001)
    reply = driver.request("GET", url("get", sha1(b"x" * 1001), name="small"))
    assert refused(reply) == "No relevant download quota found"


def test_one_after_the_other(driver: Driver) -> None:
    """A second transfer waits for the first, and goes on when it has ended."""
    replies: list[Reply] = []
    threads = [
        threading.Thread(target=lambda content=content: replies.append(store(driver, content, name="one")))
        for content in (b"1", b"2", b"3", b"4")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reply.status for reply in replies] == [200] * 4


def test_two_who_send_the_same_at_once_are_charged_once(driver: Driver) -> None:
    content = b"x" * 300
    replies: list[Reply] = []
    senders = [
        threading.Thread(target=lambda algorithm=algorithm: replies.append(store(driver, content, algorithm, "small")))
        for algorithm in ("sha1", "sha1", "md5", "md5", "sha1")
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert [reply.status for reply in replies] == [200] * 5, [reply.text for reply in replies]
    assert used(driver, "upload") == (1, 300)
    assert driver.read(files.all_uploads) == []
    assert list(driver.gateway.bucket.staged()) == []


def test_nobody_waits_for_ever(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "WAIT", 0.05)
    reply = store(driver, HELLO, name="never")
    assert reply.status == 503
    monkeypatch.setattr(traffic, "MOST_WAITING", 0)
    assert store(driver, HELLO, name="never").status == 503


def test_places_are_given_back(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives up waiting leaves neither a place taken nor one lost."""
    monkeypatch.setattr(traffic, "WAIT", 0.1)
    parsed = channels.parse(
        {"channels": [channel("one", uploadQuotas=[{"maxFileSize": 9, "maxSimultaneous": 1}])]}, "lab"
    )
    only = parsed.channels["one"]
    meter = driver.gateway.traffic

    async def play() -> list[str]:
        said: list[str] = []

        async def take(seconds: float) -> None:
            try:
                async with meter.transfer(only, "upload", 1, size=1):
                    await asyncio.sleep(seconds)
                    said.append("done")
            except traffic.TooBusy:
                said.append("busy")

        await asyncio.gather(take(0.3), take(0.0), take(0.0))
        waiting = asyncio.create_task(take(0.0))
        holding = asyncio.create_task(take(0.05))
        await asyncio.sleep(0)
        cancelled = asyncio.create_task(take(0.0))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(waiting, holding)
        await take(0.0)
        return said

    assert driver.run(play()) == ["busy", "busy", "done", "done", "done", "done"]


# -- kachery.json -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"channels": {}},
        {"channels": [], "chanels": []},
        {"channels": [], "port": "80"},
        {"channels": [1]},
        {"channels": [{"name": "a"}]},
        {"channels": [channel("a", "")]},
        {"channels": [{**channel("a"), "password": None}]},
        {"channels": [channel("a", "\ud800")]},
        {"channels": [channel("a"), channel("a")]},
        {"channels": [channel("a" * 41)]},
        {"channels": [channel("a\n")]},
        {"channels": [channel("a", tlsonly=True)]},
        {"channels": [channel("a", tlsOnly=1)]},
        {"channels": [channel("a", maxRequestsPerMinute=0)]},
        {"channels": [channel("a", zone=None)]},
        {"channels": [channel("a", downloadQuotas=None)]},
        {"channels": [channel("a", uploadQuotas=[{"maxFileSize": -1}])]},
        {"channels": [channel("a", uploadQuotas=[{"maxFileSize": True}])]},
        {"channels": [channel("a", uploadQuotas=[{"maxfilesize": 1}])]},
    ],
)
def test_what_is_not_understood_is_refused(document: Any) -> None:
    with pytest.raises(InvalidInput):
        channels.parse(document, "lab")


def test_passwords_are_not_shown() -> None:
    config = GatewayConfig(data=Path("/x"), channels=channels.parse({"channels": CHANNELS}, "lab"))
    assert "secret" not in repr(config)


def test_the_first_quota_that_fits_is_taken() -> None:
    quotas = [{"name": "none"}, SMALL, SMALL, LARGE]
    parsed = channels.parse({"channels": [channel("a", uploadQuotas=quotas)], "zone": "z", "port": 0}, "lab")
    only = parsed.channels["a"]
    assert (only.zone, parsed.port) == ("z", 0)
    names = [quota.name for quota in only.uploads]
    assert names == ["none", "small", "small#2", "large"]
    assert [(q.name if (q := only.quota("upload", size)) else None) for size in (0, 1000, 1001, 10**9 + 1)] == [
        "small",
        "small",
        "large",
        None,
    ]
