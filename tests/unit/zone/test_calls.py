"""Calls to a gateway: what is sent, and what its answers mean."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from kachery import http, signing
from kachery.errors import (
    BadReply,
    Collision,
    InvalidInput,
    InvalidName,
    KacheryError,
    NotAllowed,
    NotConfigured,
    NotFound,
    NotRegistered,
    TooLarge,
    Unreachable,
)
from kachery.signing import ClientKeys
from kachery.zone import Zone, gateway_calls
from rigs.cloud import Cloud

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = ClientKeys.from_seed(bytes(range(32)))
HASH = "b971c6ef19b1d70ae8f0feb989b106c319b36230"


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with Cloud() as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_TIMEOUT", "0.5")
    monkeypatch.setattr(http, "pause", lambda *_: None)
    monkeypatch.setattr(gateway_calls, "_ahead", {})


def zone(cloud: Cloud, keys: ClientKeys | None = KEYS) -> Zone:
    return Zone("lab", cloud.url + "/", keys)


def test_what_is_sent(cloud: Cloud) -> None:
    before = int(time.time() * 1000)
    assert zone(cloud).find(HASH) is None

    (request,) = cloud.requests
    assert (request.method, request.target) == ("POST", "/api/gateway")
    assert request.headers["content-type"] == "application/json"
    envelope = request.json
    assert list(envelope) == ["payload", "fromClientId", "signature"]
    payload = envelope["payload"]
    assert before <= payload.pop("timestamp") <= int(time.time() * 1000)
    assert payload == {"type": "findFile", "hashAlg": "sha1", "hash": HASH, "zone": "lab"}
    assert signing.verify(KEYS.client_id, request.json["payload"], envelope["signature"])


def test_without_keys_nothing_is_signed(cloud: Cloud) -> None:
    zone(cloud, None).find(HASH)

    assert list(cloud.requests[0].json) == ["payload"]


def test_what_is_found(cloud: Cloud) -> None:
    hash_ = cloud.add(b"test-content\n")
    found = zone(cloud).find(hash_)

    assert found is not None
    assert (found.hash, found.size) == (HASH, 13)
    assert found.url not in repr(found)
    assert "url" not in found.reply
    assert zone(cloud).fetch_small(found) == b"test-content\n"
    with pytest.raises(NotFound, match="does not have"):
        zone(cloud).require("0" * 40)


@pytest.mark.parametrize(
    "lie",
    [
        {"size": -1},
        {"size": "13"},
        {"size": None},
        {"size": 1.5},
        {"url": None},
        {"url": 7},
        {"url": "file:///etc/passwd"},
        {"url": "/relative"},
    ],
)
def test_a_gateway_that_says_nonsense_about_a_file(cloud: Cloud, lie: dict[str, Any]) -> None:
    truth = {"type": "findFile", "found": True, "size": 13, "url": cloud.url}
    cloud.lies["findFile"] = lambda exchange: exchange.json(200, {**truth, **lie})
    with pytest.raises(BadReply, match="size and address"):
        zone(cloud).find(HASH)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (500, "Error: Client not registered", NotRegistered),
        (500, "Error: client not found in zone", NotRegistered),
        (500, "Error: User is not authorized to upload", NotAllowed),
        (500, "Error: Invalid signature", NotAllowed),
        (500, "Error: S3 failure", Unreachable),
        (500, "", Unreachable),
        (400, 'Invalid request: {"payload":{"timestamp":1700000000000}}', InvalidInput),
        (404, "Not found", BadReply),
        (500, "<html>oops</html>", BadReply),
        (405, "<!doctype html>", BadReply),
        (301, "", BadReply),
        (200, "<html>a page</html>", BadReply),
        (200, "[]", BadReply),
        (200, '{"type": "somethingElse"}', BadReply),
        (200, "{}", BadReply),
        (503, "", http.Busy),
    ],
)
def test_what_a_gateways_answer_means(cloud: Cloud, status: int, text: str, kind: type[KacheryError]) -> None:
    cloud.lies["findFile"] = lambda exchange: exchange.reply(status, text.encode())
    with pytest.raises(KacheryError) as caught:
        zone(cloud).find(HASH)
    assert type(caught.value) is kind
    assert caught.value.hint or kind is InvalidInput
    assert len(cloud.requests) == (http.ATTEMPTS if issubclass(kind, Unreachable) and kind is not BadReply else 1)


@pytest.mark.parametrize(
    ("code", "kind"), [("collision", Collision), ("too_large", TooLarge), ("not_allowed", NotAllowed)]
)
def test_a_gateway_of_ours_names_the_error(cloud: Cloud, code: str, kind: type[KacheryError]) -> None:
    cloud.lies["findFile"] = lambda exchange: exchange.reply(500, b"Error: no (ask Anna)", {"Kachery-Error": code})
    with pytest.raises(kind) as caught:
        zone(cloud).find(HASH)
    assert type(caught.value) is kind
    assert caught.value.hint == "ask Anna"


@pytest.mark.parametrize("ahead", [4000.0, -90_000.0 * 3])
def test_a_clock_that_is_off_is_put_right(cloud: Cloud, ahead: float, caplog: pytest.LogCaptureFixture) -> None:
    cloud.ahead = ahead
    hash_ = cloud.add(b"x")

    assert zone(cloud).find(hash_) is not None
    assert zone(cloud).find(hash_) is not None
    assert len(cloud.requests) == 3
    assert "clock differs" in caplog.text


def test_a_clock_that_cannot_be_put_right(cloud: Cloud) -> None:
    for headers in ({}, {"Date": "yesterday"}, {"Date": "Wed, 21 Oct 2099 07:28:00 GMT"}):
        cloud.lies["findFile"] = lambda exchange, headers=headers: exchange.reply(500, b"Error: bad timestamp", headers)  # type: ignore[misc]
        cloud.requests.clear()
        with pytest.raises(NotAllowed, match="timestamp") as caught:
            zone(cloud).find(HASH)
        assert "clock" in (caught.value.hint or "")
        assert len(cloud.requests) == 2


def test_a_request_that_is_not_understood_is_no_matter_of_clocks(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    text = 'Invalid request: {"payload": {"type": "findFile", "timestamp": 1}}'
    cloud.lies["findFile"] = lambda exchange: exchange.reply(
        400, text.encode(), {"Date": "Wed, 21 Oct 2026 07:28:00 GMT"}
    )
    with pytest.raises(InvalidInput):
        zone(cloud).find(HASH)
    assert caplog.text == ""


def test_a_clock_is_learnt_by_our_own_requests_and_never_without_end(cloud: Cloud) -> None:
    def wrong_clock(exchange: Any) -> None:
        exchange.json(403, {"error": {"code": "not_allowed", "message": "the timestamp is off", "hint": "h"}})

    cloud.lies["register"] = wrong_clock
    with pytest.raises(NotAllowed, match="timestamp"):
        zone(cloud).begin_registration("lab")
    assert len(cloud.requests) == 2


def test_the_page_of_a_registration(cloud: Cloud) -> None:
    link = zone(cloud).registration_link("my lab & co")

    parts = urlsplit(link)
    assert parts.path == f"/registerClient/{KEYS.client_id}"
    query = parse_qs(parts.query)
    assert query["signature"][0].startswith("a07d6de5")
    assert query["signature"][0].endswith("8703")
    assert (query["zone"], query["label"]) == (["lab"], ["my lab & co"])
    assert link.endswith("&zone=lab&label=my%20lab%20%26%20co")
    # a gateway that is not one of ours knows no other
    assert zone(cloud).begin_registration("my lab & co") == link


def test_client_info(cloud: Cloud) -> None:
    found = zone(cloud).client_info()
    assert found is not None
    assert found["ownerId"] == "anna"
    cloud.members = set()
    assert zone(cloud).client_info() is None
    assert zone(cloud, None).client_info("0" * 64) is None


def test_what_needs_keys_says_so(cloud: Cloud) -> None:
    anonymous = zone(cloud, None)
    for use in (
        anonymous.require_keys,
        anonymous.client_info,
        anonymous.registration_link,
        lambda: anonymous.delete(HASH),
    ):
        with pytest.raises(NotConfigured, match="no client keys"):
            use()
    assert cloud.requests == []


def test_names_of_zones_are_checked(cloud: Cloud) -> None:
    for name in ("../x", "a b", "é"):
        with pytest.raises(InvalidName):
            Zone(name, cloud.url)


def test_only_ascii_and_integers_are_signed(cloud: Cloud) -> None:
    cloud.add(b"x")
    zone(cloud).find(HASH)
    zone(cloud).client_info()
    for request in cloud.requests:
        assert request.body.isascii()
        assert not any(isinstance(value, float) for value in request.json["payload"].values())
        assert json.dumps(request.json["payload"], sort_keys=True, separators=(",", ":")) == signing.javascript_json(
            request.json["payload"]
        )
