"""Several processes of one gateway: whatever a request needs, each of them answers it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from kachery.gateway import peers as peers_module
from kachery.gateway.app import Application
from kachery.gateway.bus.process import Hub, ProcessBus
from kachery.gateway.config import GatewayConfig
from kachery.gateway.logs import make_log
from kachery.gateway.relay import connected
from kachery.gateway.relay.delivery import PIECE
from kachery.gateway.runtime import open_gateway
from kachery.gateway.seals import HEADER, Seals
from kachery.gateway.server import internal_address, listen
from kachery.gateway.services import accounts, identity, zones
from kachery.signing import ClientKeys
from rigs.asgi import sha1
from rigs.relay import Running, ScriptedDaemon, http_request, post_json, receive, socket_to, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = b"spike times\n" * 100
LARGE = bytes(range(256)) * (3 * PIECE // 256) + b"the end"


class Process:
    """One process of the gateway."""

    def __init__(self, data: Path, hub: Hub, *, prepare: bool = False) -> None:
        listener = listen("127.0.0.1", 0)
        log = make_log("error")
        self.gateway = open_gateway(GatewayConfig(data=data), log, ProcessBus(hub, log), internal_address(listener))
        if prepare:
            self.gateway.database.write_now(_prepare)
        assert self.gateway.others is not None
        self.others = self.gateway.others
        self.name = self.others.peers.process
        self.running = Running(Application(self.gateway), listener=listener)
        self.url = self.running.url

    def daemon(
        self, files: list[bytes], on_send: Any = None, *, name: str = "rig", zone: str = "lab"
    ) -> ScriptedDaemon:
        options = {} if on_send is None else {"on_send": on_send}
        hello = {
            "type": "hello",
            "version": 1,
            "resource": name,
            "zone": zone,
            "maxConcurrentUploads": 2,
            "proxySecret": self.gateway.proxy_secret,
        }
        return ScriptedDaemon(self.url, files, hello, **options)

    def request(self, content: bytes, zone: str = "lab") -> Any:
        payload = {"type": "requestFile", "zone": zone, "hash": sha1(content), "timestamp": _now()}
        status, reply = post_json(f"{self.url}/api/v1/requests", {"payload": payload})
        assert status == 200, reply
        return reply

    def address(self, content: bytes, zone: str = "lab") -> str:
        reply = self.request(content, zone)
        assert reply["found"], reply
        return str(reply["url"])

    def find(self, content: bytes, zone: str = "lab") -> Any:
        payload = {"type": "findFile", "hashAlg": "sha1", "hash": sha1(content), "zone": zone, "timestamp": _now()}
        return post_json(f"{self.url}/api/gateway", {"payload": payload})[1]

    def knows(self, name: str = "rig") -> bool:
        return bool(self.others.peers.named(name))

    def at(self, url: str) -> str:
        """An address that another process gave, as a proxy in front might bring it here."""
        return self.url + urlsplit(url).path


def _now() -> int:
    return time.time_ns() // 1_000_000


KEYS = ClientKeys.generate()


def _prepare(connection: Any) -> None:
    for name in ("owner", "alice"):
        accounts.add_user(connection, name, 1)
    zones.create(connection, "lab", "owner", 1, private=False, public_upload=False)
    zones.create(connection, "passing", "owner", 1, private=False, public_upload=False, keep_on_demand=False)
    zones.create(connection, "closed", "owner", 1, private=True, public_upload=False)
    identity.register_client(connection, "closed", KEYS.client_id, "owner", "a machine", 1)
    identity.register_client(connection, "lab", KEYS.client_id, "owner", "a machine", 1)


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def pair(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Process, Process]]:
    monkeypatch.setattr(peers_module, "BEAT", 0.05)
    first = Process(tmp_path / "gateway", hub, prepare=True)
    second = Process(tmp_path / "gateway", hub)
    until(lambda: first.others.peers.address_of(second.name) and second.others.peers.address_of(first.name))
    yield first, second
    for process in (first, second):
        process.running.close()


# -- files on demand --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
def test_a_file_of_a_daemon_at_the_other_process(pair: tuple[Process, Process], content: bytes) -> None:
    first, second = pair
    with first.daemon([content]) as daemon:
        until(second.knows)
        reply = second.request(content)
        assert (reply["found"], reply["size"], reply["resource"]) == (True, len(content), "rig")
        assert reply["url"].startswith(second.url)
        status, headers, body = http_request("GET", reply["url"])
        assert (status, body == content) == (200, True)
        assert headers["content-length"] == str(len(content))
        # kept, and so found by both
        until(lambda: first.find(content)["found"] and second.find(content)["found"])
        assert sum(end - start for _, start, end in daemon.sent) == len(content)
    assert daemon.problems == []


def test_ranges_and_heads(pair: tuple[Process, Process]) -> None:
    first, second = pair
    with first.daemon([LARGE]) as daemon:
        until(second.knows)
        url = second.address(LARGE)
        status, headers, body = http_request("HEAD", url)
        assert (status, headers["content-length"], body) == (200, str(len(LARGE)), b"")
        status, headers, body = http_request("GET", url, headers={"Range": "bytes=1000-1999"})
        assert (status, body) == (206, LARGE[1000:2000])
        assert headers["content-range"] == f"bytes 1000-1999/{len(LARGE)}"
        assert http_request("GET", url, headers={"Range": f"bytes={len(LARGE)}-"})[0] == 416
        assert sum(end - start for _, start, end in daemon.sent) < len(LARGE)
        # an address is good at every process
        assert http_request("GET", first.at(url))[2] == LARGE


def test_a_daemon_whose_bytes_come_in_at_the_other_process(pair: tuple[Process, Process]) -> None:
    first, second = pair

    def on_send(daemon: ScriptedDaemon, message: dict[str, Any], content: bytes) -> bool:
        # a proxy in front gives the PUT to whom it likes
        message["url"] = second.at(message["url"])
        assert daemon.put(message, content) == 200
        assert daemon.put(message, content) == 404
        return False

    with first.daemon([LARGE], on_send) as daemon:
        assert http_request("GET", first.address(LARGE))[2] == LARGE
    assert daemon.problems == []


def test_what_a_process_that_has_ended_told_is_over(pair: tuple[Process, Process]) -> None:
    headers = {"Content-Range": "bytes 0-0/1"}
    for told in (f"{'0' * 16}-{'1' * 32}", f"{pair[0].name}-{'1' * 32}", "1" * 32):
        assert http_request("PUT", f"{pair[1].url}/transfer/s/{told}", b"x", headers)[0] == 404


def test_a_zone_that_keeps_nothing(pair: tuple[Process, Process]) -> None:
    first, second = pair
    with first.daemon([SMALL], zone="passing"):
        until(second.knows)
        assert http_request("GET", second.address(SMALL, "passing"))[2] == SMALL
        until(lambda: first.find(SMALL, "passing")["found"])
        found = second.find(SMALL, "passing")
        assert (found["found"], found["size"]) == (True, len(SMALL))
        assert http_request("GET", found["url"])[2] == SMALL


def test_reasons_come_from_all(pair: tuple[Process, Process]) -> None:
    first, second = pair
    with first.daemon([], name="one"), second.daemon([], name="two"):
        until(lambda: second.knows("one") and first.knows("two"))
        for process in pair:
            reply = process.request(SMALL)
            assert not reply["found"]
            assert sorted(reason.split(" says")[0] for reason in reply["reasons"]) == [
                "the resource one",
                "the resource two",
            ]
            assert reply["offline"] == []
    until(lambda: not second.knows("one") and not first.knows("two"))
    assert second.request(SMALL)["offline"] == ["one", "two"]


def test_a_file_that_does_not_come_is_said(pair: tuple[Process, Process]) -> None:
    first, second = pair

    def on_send(daemon: ScriptedDaemon, message: dict[str, Any], content: bytes) -> bool:
        daemon.say(type="failed", id=message["id"], reason="it changed")
        return False

    with first.daemon([SMALL], on_send):
        until(second.knows)
        status, headers, body = http_request("GET", second.address(SMALL))
        assert (status, headers["kachery-error"]) == (409, "source_changed")
        assert b"it changed" in body


def test_a_released_client_asks_the_other_process(pair: tuple[Process, Process]) -> None:
    first, second = pair
    inner = {"type": "fileUpload", "uri": f"sha1://{sha1(SMALL)}", "timeoutMsec": 5000}
    asked = {"type": "requestFromClient", "resourceName": "rig", "zone": "lab", "timeoutMsec": 10_000, "request": inner}
    with first.daemon([SMALL]):
        until(second.knows)
        status, reply = post_json(f"{second.url}/r/rig", asked)
        assert (status, reply["response"]["status"]["status"]) == (200, "completed")
        assert second.find(SMALL)["found"]


def test_a_released_client_of_a_closed_zone_asks_one_and_then_the_other(pair: tuple[Process, Process]) -> None:
    first, second = pair
    inner = {"type": "fileUpload", "uri": f"sha1://{sha1(SMALL)}", "timeoutMsec": 5000}
    asked = {"type": "requestFromClient", "resourceName": "rig", "zone": "closed", "timeoutMsec": 10_000}
    asked["request"] = inner
    with first.daemon([SMALL], zone="closed"):
        until(second.knows)
        assert post_json(f"{first.url}/r/rig", asked)[0] == 403
        payload = {"type": "findFile", "hashAlg": "sha1", "hash": sha1(SMALL), "zone": "closed", "timestamp": _now()}
        envelope = {"payload": payload, "fromClientId": KEYS.client_id, "signature": KEYS.sign(payload)}
        assert post_json(f"{second.url}/api/gateway", envelope)[1]["found"] is False
        until(lambda: post_json(f"{first.url}/r/rig", asked)[0] == 200)
        status, reply = post_json(f"{second.url}/r/rig", asked)
        assert (status, reply["response"]["status"]["status"]) == (200, "completed")


# -- names ------------------------------------------------------------------------------------------------------------


def test_a_name_is_taken_once_for_all(pair: tuple[Process, Process]) -> None:
    first, second = pair
    with first.daemon([SMALL]) as daemon:
        until(second.knows)
        newcomer = second.daemon([SMALL])
        assert newcomer.welcome["type"] == "refused"
        assert "connected already" in newcomer.welcome["reason"]
        newcomer.close()
        assert http_request("GET", second.address(SMALL))[2] == SMALL
        daemon.say(type="ping")
    until(lambda: not second.knows())
    # it has left, so the other one may come at once
    with second.daemon([SMALL]) as newcomer:
        assert newcomer.welcome["type"] == "welcome"


def test_who_comes_while_nobody_hears_gives_way_to_who_was_first(
    pair: tuple[Process, Process], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    monkeypatch.setattr(hub, "send", lambda *_: None)
    with first.daemon([SMALL]) as elder:
        time.sleep(0.01)
        with second.daemon([SMALL]) as younger:
            assert (elder.welcome["type"], younger.welcome["type"]) == ("welcome", "welcome")
            monkeypatch.undo()
            until(second.knows)
            # told why, and cut off; the first one is not disturbed
            until(lambda: younger.connection.close_code is not None)
            assert "connected already" in (younger.connection.close_reason or "")
            elder.say(type="ping")
            assert elder.connection.close_code is None
            assert http_request("GET", second.address(SMALL))[2] == SMALL


def test_a_daemon_that_does_not_answer_makes_way(
    pair: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connected, "PRESENCE", 0.2)
    monkeypatch.setattr("kachery.gateway.dialects.on_demand.PRESENCE", 0.2)
    first, second = pair
    # a machine that lost its network: its connection is open, and nobody is behind it
    with first.daemon([SMALL]) as old:
        until(second.knows)
        old.answers_pings = False
        with second.daemon([SMALL]) as new:
            assert new.welcome["type"] == "welcome"
            until(first.knows)
            assert http_request("GET", first.address(SMALL))[2] == SMALL
        until(lambda: old.connection.close_code is not None)


# -- a process that dies ----------------------------------------------------------------------------------------------


def test_a_process_that_falls_silent_is_forgotten(
    pair: tuple[Process, Process], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    with first.daemon([SMALL]):
        until(second.knows)
        monkeypatch.setattr(peers_module, "LIFETIME", 0.3)
        monkeypatch.setattr(first.others.peers, "_tell", _say_nothing)
        until(lambda: not second.knows())
        assert second.others.peers.address_of(first.name) is None
        assert second.request(SMALL)["offline"] == ["rig"]


async def _say_nothing(*_: Any, **__: Any) -> None:
    pass


def test_a_process_that_takes_no_connections_is_forgotten_at_once(pair: tuple[Process, Process]) -> None:
    first, second = pair
    with first.daemon([SMALL]):
        until(second.knows)
        url = second.address(SMALL)
        second.others.peers._peers[first.name].address = "http://127.0.0.1:1"
        status, _, body = http_request("GET", url)
        assert status in (200, 503), body
        # it lives, and says so again
        until(second.knows)
        assert http_request("GET", url)[2] == SMALL


def test_uploads_are_received_by_one_process(pair: tuple[Process, Process]) -> None:
    content = LARGE + b"uploaded"
    follower, leader = sorted(pair, key=lambda process: process.others.peers.leads)
    assert (follower.others.peers.leads, leader.others.peers.leads) == (False, True)

    def call(process: Process, kind: str, **more: Any) -> tuple[int, Any]:
        payload = {"type": kind, "zone": "lab", "hashAlg": "sha1", "hash": sha1(content), "size": len(content), **more}
        payload["timestamp"] = _now()
        envelope = {"payload": payload, "fromClientId": KEYS.client_id, "signature": KEYS.sign(payload)}
        body = json.dumps(envelope).encode()
        headers = {"Content-Type": "application/json", "Kachery-Accept": "parts"}
        status, _, answer = http_request("POST", f"{process.url}/api/gateway", body, headers)
        return status, json.loads(answer) if status == 200 else answer.decode()

    status, begun = call(follower, "initiateFileUpload")
    assert (status, begun["parts"]) == (200, True)
    # each part at another process
    half = len(content) // 2
    for process, (start, end) in zip((follower, leader), ((0, half), (half, len(content))), strict=True):
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}
        url = process.at(begun["signedUploadUrl"])
        assert http_request("PUT", url, content[start:end], headers)[0] == 200
        if process is follower:
            refused = call(follower, "finalizeFileUpload", objectKey=begun["objectKey"])
            assert refused[0] == 500
            assert "have not arrived" in refused[1]
    shown = http_request("GET", follower.at(begun["signedUploadUrl"]))
    assert json.loads(shown[2]) == {"size": len(content), "received": [[0, len(content)]]}
    assert call(follower, "finalizeFileUpload", objectKey=begun["objectKey"])[0] == 200
    for process in pair:
        assert http_request("GET", process.find(content)["url"])[2] == content
    # the next one takes over when it ends
    leader.running.close()
    until(lambda: follower.others.peers.leads)
    assert call(follower, "initiateFileUpload") == (200, {"type": "initiateFileUpload", "alreadyExists": True})


# -- requests that nobody of ours made --------------------------------------------------------------------------------


def _internal(process: Process, what: str, body: bytes, seal: str | None) -> int:
    headers = {"Content-Type": "application/json"} | ({} if seal is None else {HEADER.decode(): seal})
    return http_request("POST", f"{process.url}/internal/v1/{what}", body, headers)[0]


def test_forged_and_repeated_requests_are_refused(pair: tuple[Process, Process]) -> None:
    first, second = pair
    body = json.dumps({"zone": "lab", "hash": sha1(SMALL)}).encode()
    target = "/internal/v1/find"
    ours = second.others.seals
    good = ours.request(first.name, "POST", target, body=body)
    assert _internal(first, "find", body, good) == 200
    # the same again, at the same place and at another one
    assert _internal(first, "find", body, good) == 403
    assert _internal(second, "find", body, good) == 403
    forger = Seals(b"x" * 32, second.name)
    for seal in (
        None,
        "",
        "x",
        "é.ö",
        forger.request(first.name, "POST", target, body=body),
        ours.request(first.name, "POST", "/internal/v1/held", body=body),
        ours.request(first.name, "GET", target, body=body),
        ours.request("0" * 16, "POST", target, body=body),
        ours.request(first.name, "POST", target, body=body + b" "),
        ours.request(first.name, "POST", target),
        ours.seal({"from": second.name, "to": first.name})["sealed"],
        good[:-1] + ("0" if good[-1] != "0" else "1"),
    ):
        assert _internal(first, "find", body, seal) == 403, seal
    # a wrong seal is no request of a caller either
    status = http_request("GET", f"{first.url}/probe", headers={HEADER.decode(): "x"})[0]
    assert status == 403


def test_an_old_request_is_refused(pair: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = pair
    body = b"{}"
    earlier = time.time_ns() - 61 * 10**9
    with monkeypatch.context() as patch:
        patch.setattr("kachery.gateway.seals.time.time_ns", lambda: earlier)
        seal = second.others.seals.request(first.name, "POST", "/internal/v1/has", body=body)
    assert _internal(first, "has", body, seal) == 403


def test_a_request_is_never_passed_on_twice(pair: tuple[Process, Process]) -> None:
    first, second = pair
    with first.daemon([SMALL]):
        until(second.knows)
        url = second.address(SMALL)
        target = urlsplit(url).path
        # as if the first one still believed that the second one brings it
        seal = first.others.seals.request(second.name, "GET", target)
        status, _, _ = http_request("GET", url, headers={HEADER.decode(): seal})
        assert status == 421


def test_messages_of_strangers_on_the_bus_change_nothing(pair: tuple[Process, Process], hub: Hub) -> None:
    first, second = pair
    here = {"type": "here", "process": "f" * 16, "number": 1, "at": _now(), "address": "http://127.0.0.1:1"}
    here |= {"leads": True, "resources": [["rig", "lab", True, 1]]}
    forged = Seals(b"x" * 32, "f" * 16).seal(here)
    kept: list[tuple[str, bytes]] = []
    plain = hub.send

    def record(topic: str, content: bytes) -> None:
        kept.append((topic, content))
        plain(topic, content)

    hub.send = record  # type: ignore[method-assign]
    with first.daemon([SMALL]):
        until(second.knows)
    until(lambda: not second.knows())
    for content in (json.dumps(forged).encode(), json.dumps(here).encode(), b"{", b"[]", b'{"sealed": 1}'):
        plain("peers", content)
    # what was said earlier, once more
    for topic, content in kept:
        plain(topic, content)
    with socket_to(second.url, "/api/v1/resource") as connection:
        assert receive(connection)["type"] == "challenge"
    assert second.others.peers.address_of("f" * 16) is None
    assert not second.knows()


def test_seals_are_remembered_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Seals(b"k" * 32, "a"), Seals(b"k" * 32, "b")
    monkeypatch.setattr("kachery.gateway.seals._MOST_REMEMBERED", 3)
    headers = [one.request("b", "GET", "/x").encode() for _ in range(4)]
    for header in headers[:3]:
        assert other.admit(header, "GET", "/x").sender == "a"
    with pytest.raises(PermissionError, match="came before"):
        other.admit(headers[3], "GET", "/x")
    later = time.time() + 121
    monkeypatch.setattr("kachery.gateway.seals.time.time", lambda: later)
    monkeypatch.setattr("kachery.gateway.seals.time.time_ns", lambda: int(later * 1e9))
    assert other.admit(one.request("b", "GET", "/x").encode(), "GET", "/x").sender == "a"
