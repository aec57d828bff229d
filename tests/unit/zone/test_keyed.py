"""A zone client with an API key, against a gateway of kachery 2.x in miniature."""

from __future__ import annotations

import hashlib
import logging
import random
from typing import TYPE_CHECKING, Any

import pytest

import kachery
from kachery import files, http
from kachery.cli import main
from kachery.errors import (
    BadReply,
    InvalidInput,
    InvalidName,
    NotAllowed,
    NotConfigured,
    NotFound,
    NotSupported,
    TooLarge,
    Unreachable,
    WrongContent,
)
from kachery.store import Store, keys
from kachery.zone import Zone
from kachery.zone.keyed import KeyedZone, work_token
from rigs.liar import Exchange, Liar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HASH = "37aa63c77398d954473262e1a0057c1e632eda77"
KEY = "k" * 32
LARGE = random.Random(3).randbytes(2 * 1024 * 1024)


class Second(Liar):
    """A gateway of kachery 2.x as it was released: it verifies nothing but keys and work."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.files: dict[str, bytes] = {}
        self.lies: dict[str, Callable[[Exchange], None]] = {}
        self.staged: dict[str, bytes] = {}

    def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        name = request.target.rpartition("/")[2]
        if request.method == "PUT":
            self.staged[name] = request.body
            exchange.reply(200, b"")
        elif request.method == "GET":
            exchange.file(self.files[name])
        elif name in self.lies:
            self.lies[name](exchange)
        else:
            self._call(exchange, name, request.json, request.headers.get("authorization"))

    def _call(self, exchange: Exchange, name: str, asked: dict[str, Any], authorization: str | None) -> None:
        known = {"type", "hashAlg", "hash", "zoneName"}
        if name != "findFile":
            known |= (
                {"size", "workToken", "allowPublicZones"} if name == "initiateFileUpload" else {"size", "objectKey"}
            )
        if not set(asked) <= known or asked["type"] != f"{name}Request":
            exchange.json(400, {"error": "Invalid request"})
        elif authorization not in (None, f"Bearer {KEY}"):
            exchange.json(401, {"error": "Unauthorized - no user for token"})
        elif name == "findFile":
            found = self.files.get(asked["hash"])
            has = {} if found is None else {"url": f"{self.url}/{asked['hash']}", "size": len(found), "bucketUri": "b"}
            exchange.json(200, {"type": "findFileResponse", "found": found is not None, **has})
        elif authorization is None and asked["zoneName"] != "scratch":
            exchange.json(400, {"error": f"User API token must be provided for zone {asked['zoneName']}"})
        elif name == "initiateFileUpload":
            work = hashlib.sha1((asked["hash"] + asked["workToken"]).encode()).hexdigest()
            assert work < "0008"
            there = asked["hash"] in self.files
            place = {} if there else {"signedUploadUrl": f"{self.url}/{asked['hash']}", "objectKey": "key"}
            exchange.json(
                200,
                {"type": "initiateFileUploadResponse", "alreadyExists": there, "alreadyPending": False, **place},
            )
        else:
            self.files[asked["hash"]] = self.staged[asked["hash"]]
            exchange.json(200, {"type": "finalizeFileUploadResponse", "success": True})


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> Iterator[Second]:
    monkeypatch.setattr(http, "pause", lambda *_: None)
    monkeypatch.setenv("KACHERY_TIMEOUT", "1")
    with Second() as running:
        monkeypatch.setenv("KACHERY_BASE_URL", running.url)
        monkeypatch.setenv("KACHERY_API_KEY", KEY)
        monkeypatch.setenv("KACHERY_ZONE", "lab")
        yield running


@pytest.mark.parametrize(
    ("hash_", "token"),
    [
        ("f572d396fae9206628714fb2ce00f72e94f2258f", "00000000000040f8"),
        ("b971c6ef19b1d70ae8f0feb989b106c319b36230", "0000000000002792"),
        ("da39a3ee5e6b4b0d3255bfef95601890afd80709", "00000000000051ae"),
    ],
)
def test_proofs_of_work_of_the_vectors(hash_: str, token: str) -> None:
    assert work_token(hash_) == token


@pytest.mark.parametrize("data", [b"", b"some text", LARGE])
def test_files_go_there_and_come_back_verified(
    second: Second, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a b").write_bytes(data)
    hash_ = hashlib.sha1(data).hexdigest()
    assert kachery.store_file(tmp_path / "a b", uri_type=2, label="a b") == f"kachery:lab:sha1:{hash_}:a%20b"
    assert second.files == {hash_: data}
    assert second.asked("PUT")[0].headers["content-length"] == str(len(data))
    kachery.store_file(tmp_path / "a b")
    assert len(second.asked("PUT")) == 1
    assert Store().find(hash_) is None
    assert kachery.load_bytes(f"kachery:lab:sha1:{hash_}") == data
    assert kachery.info(f"sha1://{hash_}").size == len(data)
    told = kachery.load_file_info(f"sha1://{hash_}")
    assert told == {"type": "findFileResponse", "found": True, "size": len(data), "bucketUri": "b"}
    monkeypatch.setenv("KACHERY_ALLOW_PUBLIC_ZONES", "1")
    kachery.store_text("public", zone="default")
    assert second.asked("POST")[-2].json["allowPublicZones"] is True


def test_what_it_hands_out_is_verified(second: Second) -> None:
    second.files[HASH] = b"some lies"
    with pytest.raises(WrongContent):
        kachery.load_text(f"sha1://{HASH}")
    assert Store().find(HASH) is None


def test_a_stale_key_is_no_reason_not_to_load_what_is_public(
    second: Second, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    second.files[HASH] = b"some text"
    monkeypatch.setenv("KACHERY_API_KEY", "stale-and-private")
    assert kachery.load_text(f"sha1://{HASH}") == "some text"
    assert "does not know KACHERY_API_KEY" in caplog.text
    with pytest.raises(NotAllowed) as caught:
        kachery.store_text("more")
    assert "stale-and-private" not in caplog.text + str(caught.value)


def test_without_a_key_nobody_is_asked_for_one(second: Second, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KACHERY_API_KEY")
    second.files[HASH] = b"some text"
    assert kachery.load_text(f"sha1://{HASH}") == "some text"
    asked = len(second.requests)
    with pytest.raises(NotConfigured, match="KACHERY_API_KEY environment variable is not set"):
        kachery.store_text("more")
    assert len(second.requests) == asked
    assert kachery.store_text("more", zone="scratch", uri_type=2).startswith("kachery:scratch:")


def test_who_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotConfigured):
        files.open_zone()
    base, gateway = "http://127.0.0.1:1", "http://127.0.0.1:2"
    for variables, own_keys, kind, url in [
        ({"KACHERY_BASE_URL": base}, False, KeyedZone, base),
        ({"KACHERY_BASE_URL": base + "/", "KACHERY_API_KEY": KEY}, True, KeyedZone, base),
        ({"KACHERY_BASE_URL": base, "KACHERY_API_KEY": KEY, "KACHERY_GATEWAY_URL": gateway}, False, KeyedZone, base),
        ({"KACHERY_BASE_URL": base, "KACHERY_API_KEY": KEY, "KACHERY_GATEWAY_URL": gateway}, True, Zone, gateway),
        ({"KACHERY_BASE_URL": base, "KACHERY_GATEWAY_URL": gateway}, False, Zone, gateway),
        ({"KACHERY_API_KEY": KEY, "KACHERY_GATEWAY_URL": gateway}, False, KeyedZone, gateway),
        ({"KACHERY_API_KEY": KEY, "KACHERY_GATEWAY_URL": gateway}, True, Zone, gateway),
    ]:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setattr(keys, "load", keys.ClientKeys.generate if own_keys else lambda: None)
            zone = files.open_zone("lab")
            assert type(zone) is kind, variables
            assert zone.gateway_url == url
    monkeypatch.setenv("KACHERY_BASE_URL", "kachery.lab.org")
    with pytest.raises(InvalidInput, match="http"):
        files.open_zone()
    monkeypatch.setenv("KACHERY_BASE_URL", base)
    with pytest.raises(InvalidName):
        files.open_zone("a/b")


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, "Zone not found: lab", NotFound),
        (400, "User email not set for user: github|x", NotAllowed),
        (401, "This user is not allowed to upload files to this zone", NotAllowed),
        (500, "File size exceeds maximum for zone: 9 > 1", TooLarge),
        (400, "Invalid request", InvalidInput),
        (500, "Credentials not set for zone: lab", Unreachable),
        (503, "later", Unreachable),
    ],
)
def test_refusals(second: Second, status: int, text: str, kind: type[Exception]) -> None:
    second.lies["initiateFileUpload"] = lambda exchange: exchange.json(status, {"error": text})
    with pytest.raises(kind):
        kachery.store_text("x")
    assert second.asked("PUT") == []


def test_lies(second: Second) -> None:
    for answer in (
        lambda exchange: exchange.json(200, {"type": "somethingElse"}),
        lambda exchange: exchange.reply(404, b"<html>no such page</html>"),
        lambda exchange: exchange.json(500, {"message": "x"}),
        lambda exchange: exchange.json(200, {"type": "findFileResponse", "found": True}),
        lambda exchange: exchange.json(200, {"type": "findFileResponse", "found": True, "size": 1, "url": "file:///x"}),
    ):
        second.lies["findFile"] = answer
        with pytest.raises(BadReply):
            kachery.load_text(f"sha1://{HASH}")
    second.lies["initiateFileUpload"] = lambda exchange: exchange.json(
        200, {"type": "initiateFileUploadResponse", "alreadyPending": True}
    )
    with pytest.raises(Unreachable, match="somebody else"):
        kachery.store_text("x")
    second.lies["initiateFileUpload"] = lambda exchange: exchange.json(200, {"type": "initiateFileUploadResponse"})
    with pytest.raises(BadReply, match="no address"):
        kachery.store_text("x")


def test_status_tells_that_a_key_is_used(
    second: Second, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # the command line speaks for the library from now on, and not in the next test
    logger = logging.getLogger("kachery")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logger.level)
    assert main.run(["status"]) == 0
    shown = capsys.readouterr().out
    assert f"{second.url} (answers)" in shown
    assert "KACHERY_API_KEY" in shown
    assert KEY not in shown
    monkeypatch.delenv("KACHERY_API_KEY")
    assert main.run(["status"]) == NotConfigured.exit_code
    assert "KACHERY_API_KEY environment variable is not set" in capsys.readouterr().err
    second.lies["findFile"] = lambda exchange: exchange.hang_up()
    assert main.run(["status", "--json"]) == Unreachable.exit_code
    assert '"gateway_answers": false' in capsys.readouterr().out


def test_what_a_gateway_of_ours_brings_on_demand(second: Second) -> None:
    data = b"brought by a resource"
    hash_ = hashlib.sha1(data).hexdigest()
    with pytest.raises(NotFound, match="does not have it"):
        kachery.load_bytes(f"sha1://{hash_}")

    def bring(exchange: Exchange) -> None:
        assert exchange.request.json["payload"]["hash"] == hash_
        second.files[hash_] = data
        reply = {"found": True, "size": len(data), "url": f"{second.url}/{hash_}", "resource": "lab"}
        exchange.json(200, reply)

    second.lies["requests"] = bring
    assert kachery.load_bytes(f"sha1://{hash_}") == data
    other = "sha1://" + "0" * 40
    second.lies["requests"] = lambda exchange: exchange.json(
        403, {"error": {"code": "not_allowed", "message": "members only"}}
    )
    with pytest.raises(NotFound, match="members only"):
        kachery.load_bytes(other)


def test_what_a_key_cannot_do(second: Second) -> None:
    zone = files.open_zone()
    for use in (lambda: zone.delete(HASH), lambda: zone.record_alias(HASH, "md5")):
        with pytest.raises(NotSupported):
            use()
    assert zone.client_info() is None
    with pytest.raises(NotFound):
        kachery.load_text("sha256://" + "0" * 64)
