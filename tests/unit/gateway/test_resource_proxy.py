"""Upstream's resource proxy, replayed: what published daemons and released clients say and must hear."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed

from kachery.gateway.app import Application
from kachery.gateway.config import GatewayConfig
from kachery.gateway.logs import make_log
from kachery.gateway.receiving import now
from kachery.gateway.relay.asked import LIFETIME, Asked
from kachery.gateway.relay.connected import WaitingRoom
from kachery.gateway.relay_alone import RelayAlone, key_from
from kachery.gateway.runtime import open_gateway, open_others
from kachery.gateway.server import internal_address, listen
from kachery.gateway.services import accounts, identity, zones
from kachery.signing import ClientKeys
from rigs.relay import PATIENCE, Running, http_request, post_json, receive, socket_to, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

SECRET = "s3cret"
URI = "sha1://" + "a" * 40
MEMBER = ClientKeys.generate()

# the dialogue as it was recorded between the published programs; what the proxy chooses is in capitals
INITIALIZE = '{"type":"initialize","resourceName":"res1","zone":"default","proxySecret":"s3cret"}'
ACKNOWLEDGE = '{"type":"acknowledge"}'
PING = '{"type":"ping"}'
POSTED = (
    '{"type":"requestFromClient","resourceName":"res1","zone":"default",'
    f'"request":{{"type":"fileUpload","uri":"{URI}","timeoutMsec":1000}},"timeoutMsec":2000}}'
)
FORWARDED = POSTED[:-1] + ',"requestId":"ID"}'
ANSWERED = (
    '{"type":"responseToClient","requestId":"ID","response":{"type":"fileUpload","status":{"status":"running",'
    '"size":50,"bytesUploaded":0,"timestampRequested":1795330954791,"timestampStarted":1795330954792}}}'
)
FAILED = '{"type":"responseToClient","requestId":"ID","response":{},"error":"Error handling request: Invalid URI"}'


@pytest.fixture
def relay() -> Iterator[Running]:
    """The relay alone."""
    with Running(RelayAlone(SECRET, make_log("error"))) as running:
        yield running


@contextmanager
def resource(relay: Running, name: str = "res1", zone: str = "default", path: str = "/") -> Iterator[ClientConnection]:
    """A published daemon that is connected."""
    with socket_to(relay.url, path) as connection:
        greeting = {"type": "initialize", "resourceName": name, "zone": zone, "proxySecret": SECRET}
        connection.send(json.dumps(greeting))
        assert connection.recv(PATIENCE) == ACKNOWLEDGE
        yield connection


def question(name: str = "res1", **changes: Any) -> dict[str, Any]:
    return {**json.loads(POSTED), "resourceName": name, **changes}


class Asking:
    """A client whose request is under way in a thread."""

    def __init__(self, url: str, value: Any) -> None:
        self.reply: tuple[int, Any] | None = None
        self._thread = threading.Thread(target=self._ask, args=(url, value))
        self._thread.start()

    def _ask(self, url: str, value: Any) -> None:
        self.reply = post_json(url, value)

    def result(self) -> tuple[int, Any]:
        self._thread.join(PATIENCE)
        assert self.reply is not None
        return self.reply


def closed(connection: ClientConnection) -> str:
    """Wait until the proxy closes, and give its reason."""
    with pytest.raises(ConnectionClosed):
        connection.recv(PATIENCE)
    return connection.close_reason or ""


def is_connected(relay: Running, name: str = "res1") -> bool:
    status, _ = post_json(f"{relay.url}/r/{name}", question(name, timeoutMsec=-1))
    return status == 504


# -- the recorded dialogue --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [ANSWERED, FAILED], ids=["status", "error"])
def test_the_recorded_dialogue_byte_for_byte(relay: Running, answer: str) -> None:
    with socket_to(relay.url) as connection:
        connection.send(INITIALIZE)
        assert connection.recv(PATIENCE) == ACKNOWLEDGE
        connection.send(PING)

        asking = Asking(f"{relay.url}/r/res1", POSTED.encode())
        heard = connection.recv(PATIENCE)
        request_id = json.loads(heard)["requestId"]

        assert heard == FORWARDED.replace("ID", request_id)
        assert len(request_id) == 10
        assert request_id.isascii()
        assert request_id.isalpha()
        connection.send(answer.replace("ID", request_id))
        # the whole envelope, as the released clients want it
        assert asking.result() == (200, json.loads(answer.replace("ID", request_id)))


@pytest.mark.parametrize("path", ["/", "/r/res1", "/any/where?with=query", "//"])
def test_a_socket_is_taken_at_any_path(relay: Running, path: str) -> None:
    with resource(relay, path=path):
        assert is_connected(relay)


def test_probe_and_nothing_else(relay: Running) -> None:
    assert http_request("GET", f"{relay.url}/probe")[::2] == (200, b"running.")
    for method, path in [("GET", "/r/res1"), ("POST", "/r"), ("POST", "/r/a/b"), ("POST", "/api"), ("GET", "/")]:
        status, headers, _ = http_request(method, relay.url + path)
        assert (status, headers["content-type"].split(";")[0]) == (404, "text/html"), path


# -- outcomes of a request, in the order tested -----------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"{", b"7", b'"x"', b'{"a":NaN}', b"\xff\xfe", b"[" * 50_000])
def test_what_is_not_json(relay: Running, body: bytes) -> None:
    status, headers, page = http_request("POST", f"{relay.url}/r/res1", body, {"Content-Type": "application/json"})
    assert (status, headers["content-type"].split(";")[0]) == (400, "text/html")
    assert b"Traceback" not in page


def test_what_is_too_large(relay: Running) -> None:
    body = json.dumps(question(request="x" * 100 * 1024)).encode()
    status, headers, _ = http_request("POST", f"{relay.url}/r/res1", body, {"Content-Type": "application/json"})
    assert (status, headers["content-type"].split(";")[0]) == (413, "text/html")


@pytest.mark.parametrize(
    "changed",
    [
        {"type": "other"},
        {"resourceName": 1},
        {"zone": None},
        {"timeoutMsec": "10"},
        {"timeoutMsec": True},
        {"extra": 1},
        {"requestId": 5},
    ],
)
def test_wrong_keys(relay: Running, changed: dict[str, Any]) -> None:
    assert post_json(f"{relay.url}/r/res1", question() | changed) == (400, {"message": "invalid request"})


@pytest.mark.parametrize("missing", ["type", "resourceName", "zone", "request", "timeoutMsec"])
def test_missing_keys(relay: Running, missing: str) -> None:
    value = question()
    del value[missing]
    assert post_json(f"{relay.url}/r/res1", value) == (400, {"message": "invalid request"})


def test_another_content_type_and_an_array(relay: Running) -> None:
    reply = http_request("POST", f"{relay.url}/r/res1", POSTED.encode(), {"Content-Type": "text/plain"})
    assert (reply[0], json.loads(reply[2])) == (400, {"message": "invalid request"})
    assert post_json(f"{relay.url}/r/res1", []) == (400, {"message": "invalid request"})


def test_names_that_differ(relay: Running) -> None:
    with resource(relay):
        reply = post_json(f"{relay.url}/r/other", question())
        assert reply == (500, {"message": "Resource name mismatch: res1 <> other"})


@pytest.mark.parametrize("name", ["nobody", "__proto__", "constructor", "toString"])
def test_nobody_of_the_name(relay: Running, name: str) -> None:
    assert post_json(f"{relay.url}/r/{name}", question(name)) == (404, {"message": f"resource not found: {name}"})


def test_another_zone(relay: Running) -> None:
    with resource(relay):
        reply = post_json(f"{relay.url}/r/res1", question(zone="lab"))
        assert reply == (500, {"message": "Zone mismatch: lab <> default"})


def test_a_request_id_of_the_caller(relay: Running) -> None:
    with resource(relay):
        reply = post_json(f"{relay.url}/r/res1", question(requestId="abcdefghij"))
        assert reply == (400, {"message": "requestId field not allowed"})


@pytest.mark.parametrize("milliseconds", [0, -1, -1e308, 1])
def test_no_answer_in_time(relay: Running, milliseconds: float) -> None:
    with resource(relay):
        reply = post_json(f"{relay.url}/r/res1", question(timeoutMsec=milliseconds))
        assert reply == (504, {"message": "timeout waiting for response"})


@pytest.mark.parametrize("milliseconds", [2**31, 1e300])
def test_a_long_wait_is_no_short_one(relay: Running, milliseconds: float) -> None:
    with resource(relay) as connection:
        asking = Asking(f"{relay.url}/r/res1", question(timeoutMsec=milliseconds))
        request_id = receive(connection)["requestId"]
        connection.send(json.dumps({"type": "responseToClient", "requestId": request_id, "response": [1]}))
        assert asking.result()[0] == 200


@pytest.mark.parametrize("response", [None, 0, "", False])
def test_an_answer_that_is_none(relay: Running, response: Any) -> None:
    with resource(relay) as connection:
        asking = Asking(f"{relay.url}/r/res1", question(timeoutMsec=60_000))
        request_id = receive(connection)["requestId"]
        connection.send(json.dumps({"type": "responseToClient", "requestId": request_id, "response": response}))
        assert asking.result() == (504, {"message": "timeout waiting for response"})


@pytest.mark.parametrize("response", [7, {}, [], True, "text", {"__proto__": {"a": 1}}])
def test_any_other_answer_is_passed_on(relay: Running, response: Any) -> None:
    with resource(relay) as connection:
        asking = Asking(f"{relay.url}/r/res1", question())
        envelope = {"type": "responseToClient", "requestId": receive(connection)["requestId"], "response": response}
        connection.send(json.dumps(envelope))
        assert asking.result() == (200, envelope)


def test_the_inner_request_is_not_looked_at(relay: Running) -> None:
    inner = {"é": ["\ud800", 1.5, None], "z": {"a": "b c$(x)"}}
    with resource(relay, "päth name") as connection:
        asking = Asking(f"{relay.url}/r/p%C3%A4th%20name", question("päth name", request=inner))
        heard = receive(connection)
        # half a pair of surrogates is no text of a frame
        assert heard["request"] == {**inner, "é": ["?", 1.5, None]}
        envelope = {"type": "responseToClient", "requestId": heard["requestId"], "response": 1}
        connection.send(json.dumps(envelope))
        assert asking.result() == (200, envelope)


def test_a_resource_that_leaves_is_not_waited_for(relay: Running) -> None:
    with resource(relay) as connection:
        asking = Asking(f"{relay.url}/r/res1", question(timeoutMsec=120_000))
        receive(connection)
        connection.close()
        assert asking.result() == (504, {"message": "resource disconnected: res1"})
    until(lambda: not is_connected(relay))
    with resource(relay):
        assert is_connected(relay)


# -- sessions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ("no json", "JSON"),
        ("[]", "JSON"),
        (b"\x00\x01", "JSON"),
        (PING, "Expected initialize"),
        ('{"type":"initialize","resourceName":"res1","proxySecret":"s3cret"}', "Expected initialize"),
        (INITIALIZE[:-1] + ',"more":"x"}', "Expected initialize"),
        (INITIALIZE.replace('"default"', "5"), "Expected initialize"),
        (INITIALIZE.replace("s3cret", "S3cret"), "Incorrect proxy secret"),
        (INITIALIZE.replace("s3cret", "ß" * 20), "Incorrect proxy secret"),
    ],
)
def test_a_first_message_that_is_refused(relay: Running, first: str | bytes, reason: str) -> None:
    with socket_to(relay.url) as connection:
        connection.send(first)
        assert reason in closed(connection)
    assert post_json(f"{relay.url}/r/res1", question())[0] == 404


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("no json", "JSON"),
        (INITIALIZE, "already initialized"),
        ('{"type":"responseToClient","response":{}}', "No requestId"),
        ('{"type":"responseToClient","requestId":"x","response":{},"extra":1}', "Unexpected message"),
        ('{"type":"responseToClient","requestId":5,"response":{}}', "Unexpected message"),
        ('{"type":"ping","extra":1}', "Unexpected message"),
        ('{"type":"acknowledge"}', "Unexpected message"),
        ("{}", "Unexpected message"),
    ],
)
def test_a_later_message_that_is_refused(relay: Running, message: str, reason: str) -> None:
    with resource(relay) as connection:
        connection.send(message)
        assert reason in closed(connection)
    until(lambda: not is_connected(relay))


def test_pings_and_late_answers_are_not_answered(relay: Running) -> None:
    with resource(relay) as connection:
        connection.send(PING)
        connection.send('{"type":"responseToClient","requestId":"abcdefghij","response":{}}')
        asking = Asking(f"{relay.url}/r/res1", question())
        # the first thing heard is the request
        heard = receive(connection)
        assert heard["type"] == "requestFromClient"
        answer = {"type": "responseToClient", "requestId": heard["requestId"], "response": 1}
        for _ in range(2):
            connection.send(json.dumps(answer))
        assert asking.result() == (200, answer)
        assert is_connected(relay)


def test_a_second_one_of_the_same_name_disturbs_nobody(relay: Running) -> None:
    with resource(relay) as first:
        for _ in range(3):
            with socket_to(relay.url) as second:
                second.send(INITIALIZE)
                assert closed(second) == "Resource already exists: res1"
        asking = Asking(f"{relay.url}/r/res1", question())
        request_id = receive(first)["requestId"]
        first.send(json.dumps({"type": "responseToClient", "requestId": request_id, "response": 1}))
        assert asking.result()[0] == 200


def test_the_same_name_in_two_zones(relay: Running) -> None:
    with resource(relay, zone="lab") as lab, resource(relay, zone="default"):
        asking = Asking(f"{relay.url}/r/res1", question(zone="lab"))
        request_id = receive(lab)["requestId"]
        lab.send(json.dumps({"type": "responseToClient", "requestId": request_id, "response": 1}))
        assert asking.result()[0] == 200


def raw_socket(relay: Running) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", relay.port), PATIENCE)
    peer.sendall(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += peer.recv(1)
    assert head.startswith(b"HTTP/1.1 101")
    return peer


@pytest.mark.parametrize(
    "frames",
    [
        # reserved bits, an unknown kind, an unmasked frame, a text that is not UTF-8, half a frame
        b"\xf1\x80\0\0\0\0",
        b"\x83\x80\0\0\0\0",
        b"\x81\x02{}",
        b"\x81\x82\0\0\0\0\xff\xfe",
        b"\x81\xfe",
        # a frame, and one in pieces, over the limit
        b"\x81\xff" + struct.pack("!Q", 1 << 40) + os.urandom(64),
        (b"\x01\xfe\xff\xff\0\0\0\0" + b"x" * 65535) + (b"\x00\xfe\xff\xff\0\0\0\0" + b"x" * 65535) * 2,
    ],
)
def test_malformed_frames_end_their_own_connection_only(relay: Running, frames: bytes) -> None:
    with resource(relay):
        peer = raw_socket(relay)
        with peer:
            try:
                peer.sendall(frames)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(4096):
                    pass
            except OSError:
                pass  # cut off before all was sent
        assert is_connected(relay)


def test_who_waits_is_bounded() -> None:
    room = WaitingRoom(most=3, each=2)
    with room.place("10.0.0.1"), room.place("10.0.0.1"):
        with pytest.raises(ConnectionError, match="2 requests from"), room.place("10.0.0.1"):
            pass
        with room.place("10.0.0.2"), pytest.raises(ConnectionError, match="3 requests"), room.place("10.0.0.3"):
            pass
    # those of a proxy in front are counted together only
    with room.place("127.0.0.1"), room.place("127.0.0.1"), room.place("127.0.0.1"):
        pass
    with room.place("10.0.0.1"):
        pass


# -- several processes ------------------------------------------------------------------------------------------------


def start_with_others(tmp_path: Path, key: bytes | None = None) -> Running:
    """A relay on the bus of a directory."""
    listener = listen("127.0.0.1", 0)
    log = make_log("error")
    others = open_others(key or key_from(SECRET), str(tmp_path / "bus"), internal_address(listener), log)
    return Running(RelayAlone(SECRET, log, others), listener=listener)


def test_relays_that_share_a_bus_act_as_one(tmp_path: Path) -> None:
    with start_with_others(tmp_path) as first, start_with_others(tmp_path) as second:
        with resource(first) as connection:
            # asked at the other one, as soon as it has heard
            until(lambda: is_connected(second))
            asking = Asking(f"{second.url}/r/res1", question())
            # those that timed out may have come as well
            came = until(lambda: [each for each in [receive(connection)] if each["timeoutMsec"] == 2000])
            request_id = came[0]["requestId"]
            connection.send(ANSWERED.replace("ID", request_id))
            assert asking.result() == (200, json.loads(ANSWERED.replace("ID", request_id)))
            # a name is taken once for all of them
            with socket_to(second.url) as newcomer:
                newcomer.send(INITIALIZE)
                assert closed(newcomer) == "Resource already exists: res1"
            assert is_connected(first)
            timed_out = post_json(f"{second.url}/r/res1", question(timeoutMsec=1))
            assert timed_out == (504, {"message": "timeout waiting for response"})
            asking = Asking(f"{second.url}/r/res1", question(timeoutMsec=60_000))
            # the one that timed out may have come as well
            until(lambda: receive(connection)["timeoutMsec"] == 60_000)
            connection.close()
            assert asking.result() == (504, {"message": "resource disconnected: res1"})
        until(lambda: post_json(f"{second.url}/r/res1", question())[0] == 404)
        with resource(second):
            until(lambda: post_json(f"{first.url}/r/res1", question(timeoutMsec=1))[0] == 504)
    assert list((tmp_path / "bus").iterdir()) == []


def test_relays_with_another_secret_are_strangers(tmp_path: Path) -> None:
    with start_with_others(tmp_path) as first, start_with_others(tmp_path, key_from("another")) as second:
        with resource(first), resource(second):
            assert is_connected(first)
            assert is_connected(second)
        with resource(first):
            assert post_json(f"{second.url}/r/res1", question())[0] == 404


# -- in front of a gateway --------------------------------------------------------------------------------------------


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A gateway with a public zone `default` and a private one, `unpublished`, where `member` has a client."""
    monkeypatch.setenv("PROXY_SECRET", SECRET)
    parts = open_gateway(GatewayConfig(data=tmp_path / "gateway"), make_log("error"))

    def prepare(connection: Any) -> None:
        accounts.add_user(connection, "owner", 1)
        zones.create(connection, "default", "owner", 1, private=False, public_upload=False)
        zones.create(connection, "unpublished", "owner", 1, private=True, public_upload=False)
        accounts.add_user(connection, "member", 1)
        zones.grant(connection, "unpublished", "member", ["download"])
        identity.register_client(connection, "unpublished", MEMBER.client_id, "member", "", 1)

    parts.database.write_now(prepare)
    with Running(Application(parts)) as running:
        yield running


def test_a_gateway_relays_for_its_public_zones(gateway: Running) -> None:
    with resource(gateway, path="/some/where") as connection:
        asking = Asking(f"{gateway.url}/r/res1", POSTED.encode())
        request_id = receive(connection)["requestId"]
        connection.send(ANSWERED.replace("ID", request_id))
        assert asking.result() == (200, json.loads(ANSWERED.replace("ID", request_id)))
        mismatch = post_json(f"{gateway.url}/r/res1", question(zone="unpublished"))
        assert mismatch == (500, {"message": "Zone mismatch: unpublished <> default"})


def test_a_private_zone_is_closed_to_who_proves_nothing(gateway: Running) -> None:
    with resource(gateway, zone="unpublished"):
        there = post_json(f"{gateway.url}/r/res1", question(zone="unpublished"))
        # the same whether it is there or not
        nowhere = post_json(f"{gateway.url}/r/res2", question("res2", zone="unpublished"))
        assert there == nowhere
        assert there[0] == 403
        assert post_json(f"{gateway.url}/r/res1", question()) == (404, {"message": "resource not found: res1"})


def test_a_gateway_says_that_a_resource_it_knows_is_away(gateway: Running) -> None:
    """With a status that released clients take for an answer."""

    def away(reason: str) -> tuple[int, Any]:
        status = {"status": "error", "error": reason}
        return 200, {"type": "responseToClient", "response": {"type": "fileUpload", "status": status}}

    assert post_json(f"{gateway.url}/r/res1", question()) == (404, {"message": "resource not found: res1"})
    with resource(gateway) as connection:
        timed_out = post_json(f"{gateway.url}/r/res1", question(timeoutMsec=1))
        assert timed_out == away("the resource res1 did not answer in time")
        asking = Asking(f"{gateway.url}/r/res1", question(timeoutMsec=60_000))
        until(lambda: receive(connection)["timeoutMsec"] == 60_000)
        connection.close()
        assert asking.result() == away("the resource res1 has disconnected")
    until(
        lambda: (
            post_json(f"{gateway.url}/r/res1", question()) == away("the resource res1 of this zone is not connected")
        )
    )


def test_a_member_of_a_private_zone_has_a_file_brought_that_it_asked_for(gateway: Running) -> None:
    def find(keys: ClientKeys) -> int:
        asked = {"type": "findFile", "timestamp": now(), "hashAlg": "sha1", "hash": "a" * 40, "zone": "unpublished"}
        envelope = {"payload": asked, "fromClientId": keys.client_id, "signature": keys.sign(asked)}
        return post_json(f"{gateway.url}/api/gateway", envelope)[0]

    def refused(**changes: Any) -> bool:
        return post_json(f"{gateway.url}/r/res1", question(zone="unpublished", **changes))[0] == 403

    with resource(gateway, zone="unpublished") as connection:
        assert find(ClientKeys.generate()) == 500
        assert refused()
        assert find(MEMBER) == 200
        asking = Asking(f"{gateway.url}/r/res1", question(zone="unpublished"))
        connection.send(ANSWERED.replace("ID", receive(connection)["requestId"]))
        assert asking.result()[0] == 200
        # nothing else was asked for
        for uri in ("sha1://" + "b" * 40, URI + "/name", 7):
            assert refused(request={"type": "fileUpload", "uri": uri, "timeoutMsec": 1})


def test_a_question_counts_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("kachery.gateway.relay.asked.time.monotonic", lambda: clock[0])
    asked = Asked()
    asked.note("lab", "a" * 40, "198.18.0.2")
    for _ in range(3):
        clock[0] += LIFETIME - 1
        assert asked.again("lab", "a" * 40, "198.18.0.2")
    assert not asked.again("lab", "a" * 40, "198.18.0.3")
    assert not asked.again("other", "a" * 40, "198.18.0.2")
    clock[0] += LIFETIME + 1
    assert not asked.again("lab", "a" * 40, "198.18.0.2")


def test_the_gateways_pages_stay_pages(gateway: Running) -> None:
    assert http_request("GET", f"{gateway.url}/")[0] in (200, 303)
    assert json.loads(http_request("GET", f"{gateway.url}/probe")[2])["kachery"] == "gateway"
    assert http_request("GET", f"{gateway.url}/r/res1")[0] == 404
