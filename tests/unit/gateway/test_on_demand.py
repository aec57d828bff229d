"""Our wire: files that a connected daemon brings while they are read."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

import kachery
from kachery import files, signing
from kachery.errors import NotFound, SourceChanged, Unreachable, WrongContent
from kachery.gateway.app import Application
from kachery.gateway.config import GatewayConfig
from kachery.gateway.logs import make_log
from kachery.gateway.relay import delivery
from kachery.gateway.relay.delivery import PIECE
from kachery.gateway.runtime import open_gateway
from kachery.gateway.services import accounts, identity, resources, zones
from kachery.signing import ClientKeys
from rigs.asgi import sha1
from rigs.relay import PATIENCE, Running, ScriptedDaemon, http_request, post_json, receive, socket_to, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SMALL = b"spike times\n" * 100
LARGE = bytes(range(256)) * (3 * PIECE // 256) + b"the end"


class Lab:
    """A running gateway with zones, people and a daemon's way in."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.gateway = open_gateway(GatewayConfig(data=data), make_log("error"))
        self.running = Running(Application(self.gateway))
        self.url = self.running.url

    def restart(self) -> None:
        """End the gateway and start another one at the same address."""
        port = self.running.port
        self.running.close()
        self.gateway = open_gateway(GatewayConfig(data=self.data), make_log("error"))
        self.running = Running(Application(self.gateway), port)

    def hello(self, name: str = "rig", zone: str = "lab", slots: int = 2) -> dict[str, Any]:
        return {
            "type": "hello",
            "version": 1,
            "resource": name,
            "zone": zone,
            "maxConcurrentUploads": slots,
            "proxySecret": self.gateway.proxy_secret,
        }

    def daemon(self, files: list[bytes], on_send: Any = None, **hello: Any) -> ScriptedDaemon:
        options = {} if on_send is None else {"on_send": on_send}
        return ScriptedDaemon(self.url, files, self.hello(**hello), **options)

    def request(self, hash_: str, zone: str = "lab", keys: ClientKeys | None = None, **changes: Any) -> tuple[int, Any]:
        payload = {"type": "requestFile", "zone": zone, "hash": hash_, "timestamp": time.time_ns() // 1_000_000}
        envelope: dict[str, Any] = {"payload": {**payload, **changes}}
        if keys is not None:
            envelope.update(fromClientId=keys.client_id, signature=keys.sign(envelope["payload"]))
        return post_json(f"{self.url}/api/v1/requests", envelope)

    def address(self, content: bytes, zone: str = "lab") -> str:
        status, reply = self.request(sha1(content), zone)
        assert (status, reply["found"], reply["size"]) == (200, True, len(content)), reply
        return str(reply["url"])

    def in_zone(self, content: bytes, zone: str = "lab") -> bool:
        payload = {"type": "findFile", "hashAlg": "sha1", "hash": sha1(content), "zone": zone}
        payload["timestamp"] = time.time_ns() // 1_000_000  # type: ignore[assignment]
        status, reply = post_json(f"{self.url}/api/gateway", {"payload": payload})
        assert status == 200
        return bool(reply["found"])


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Zones `lab` (public), `unpublished` (private) and `passing` (keeps nothing), of `owner`; and the user `alice`."""
    lab = Lab(tmp_path / "gateway")

    def prepare(connection: Any) -> None:
        for name in ("owner", "alice"):
            accounts.add_user(connection, name, 1)
        zones.create(connection, "lab", "owner", 1, private=False, public_upload=False)
        zones.create(connection, "unpublished", "owner", 1, private=True, public_upload=False)
        zones.create(connection, "passing", "owner", 1, private=False, public_upload=False, keep_on_demand=False)

    lab.gateway.database.write_now(prepare)
    yield lab
    lab.running.close()


def staged(lab: Lab) -> list[str]:
    return [name for name, _ in lab.gateway.bucket.staged()]


@pytest.mark.parametrize("content", [b"", b"x", SMALL, LARGE], ids=["empty", "byte", "small", "large"])
def test_a_file_comes_and_stays(lab: Lab, content: bytes) -> None:
    with lab.daemon([content]) as daemon:
        assert daemon.welcome == {"type": "welcome", "gatewayKey": lab.gateway.relay_keys.client_id, "keep": True}

        status, headers, body = http_request("GET", lab.address(content))

        assert (status, body == content) == (200, True)
        assert headers["content-length"] == str(len(content))
        until(lambda: lab.in_zone(content))
        until(lambda: staged(lab) == [])
        # each byte was asked for once
        assert sum(end - start for _, start, end in daemon.sent) == len(content)
        asked = len(daemon.sent)
        assert http_request("GET", lab.address(content))[2] == content
        assert len(daemon.sent) == asked
    assert daemon.problems == []


def test_the_daemon_is_asked_with_a_signature(lab: Lab) -> None:
    with lab.daemon([SMALL]) as daemon:
        lab.address(SMALL)
        offer = daemon.offers[0]
        request = offer["request"]
        assert {key: request[key] for key in ("type", "zone", "resource", "hash")} == {
            "type": "offer",
            "zone": "lab",
            "resource": "rig",
            "hash": sha1(SMALL),
        }
        assert set(request) == {"type", "zone", "resource", "hash", "timestamp", "nonce"}
        assert signing.verify(daemon.welcome["gatewayKey"], request, offer["signature"])


def test_a_range_moves_no_more_than_the_range(lab: Lab) -> None:
    with lab.daemon([LARGE]) as daemon:
        url = lab.address(LARGE)
        status, headers, body = http_request("GET", url, headers={"Range": "bytes=10000000-10999999"})
        assert (status, body) == (206, LARGE[10_000_000:11_000_000])
        assert headers["content-range"] == f"bytes 10000000-10999999/{len(LARGE)}"
        assert daemon.sent == [(sha1(LARGE), 10_000_000, 11_000_000)]
        assert not lab.in_zone(LARGE)
        # straight on: the next range is asked for ahead
        http_request("GET", url, headers={"Range": "bytes=11000000-11999999"})
        until(lambda: sum(end - start for _, start, end in daemon.sent) == 3_000_000)
        # what is there is not asked for again
        http_request("GET", url, headers={"Range": "bytes=10500000-11500000"})
        assert sum(end - start for _, start, end in daemon.sent) == 3_000_000
        status, _, body = http_request("GET", url)
        assert (status, body == LARGE) == (200, True)
        assert sum(end - start for _, start, end in daemon.sent) == len(LARGE)
        until(lambda: lab.in_zone(LARGE))


def test_many_clients_cost_one_transfer(lab: Lab) -> None:
    bodies: list[bytes] = []

    def load() -> None:
        bodies.append(http_request("GET", lab.address(LARGE))[2])

    with lab.daemon([LARGE]) as daemon:
        threads = [threading.Thread(target=load) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [body == LARGE for body in bodies] == [True] * 20
        assert sum(end - start for _, start, end in daemon.sent) == len(LARGE)
        assert len(daemon.offers) == 1


def test_what_the_relay_is(lab: Lab) -> None:
    status, headers, body = http_request("GET", f"{lab.url}/api/v1/relay")
    assert (status, headers["content-type"]) == (200, "application/json")
    key = lab.gateway.relay_keys.client_id
    assert json.loads(body) == {
        "kachery": "relay",
        "versions": [1],
        "socket": "/api/v1/resource",
        "gatewayKey": key,
    }
    assert post_json(f"{lab.url}/api/v1/relay", {})[0] == 405


def test_secrets_and_keys_stay_the_same(lab: Lab) -> None:
    before = lab.gateway.proxy_secret, lab.gateway.relay_keys.client_id
    lab.restart()
    assert (lab.gateway.proxy_secret, lab.gateway.relay_keys.client_id) == before
    assert len(before[0]) == 64


def test_a_resource_without_an_address_is_at_the_gateway(lab: Lab) -> None:
    lab.gateway.database.write_now(resources.add, "lab", "rig", "owner", "", 1)
    payload = {"type": "getResourceInfo", "resourceName": "rig", "zone": "lab"}
    payload["timestamp"] = time.time_ns() // 1_000_000  # type: ignore[assignment]
    _, reply = post_json(f"{lab.url}/api/gateway", {"payload": payload})
    assert reply["resource"]["proxyUrl"] == lab.url


# -- who may ----------------------------------------------------------------------------------------------------------


def test_a_private_zone_is_for_its_members(lab: Lab) -> None:
    member, stranger = ClientKeys.generate(), ClientKeys.generate()

    def register(connection: Any) -> None:
        zones.grant(connection, "unpublished", "alice", ["download"])
        identity.register_client(connection, "unpublished", member.client_id, "alice", "", 1)

    lab.gateway.database.write_now(register)
    with lab.daemon([SMALL], zone="unpublished") as daemon:
        for zone in ("unpublished", "nowhere"):
            for keys in (None, stranger):
                status, reply = lab.request(sha1(SMALL), zone, keys)
                assert (status, reply["error"]["code"]) == (403, "not_allowed" if keys is None else "not_registered")
        assert daemon.offers == []
        status, reply = lab.request(sha1(SMALL), "unpublished", member)
        assert (status, reply["found"], reply["resource"]) == (200, True, "rig")
        assert http_request("GET", reply["url"])[2] == SMALL
        # an address is for one file
        other = reply["url"].replace(sha1(SMALL), sha1(LARGE))
        assert http_request("GET", other)[0] == 403


@pytest.mark.parametrize(
    "envelope",
    [
        {},
        {"payload": {}},
        {"payload": {"type": "requestFile", "zone": "lab", "hash": "a" * 40}},
        {"payload": {"type": "requestFile", "zone": "lab", "hash": "A" * 40, "timestamp": 1}},
        {"payload": {"type": "requestFile", "zone": "lab", "hash": "a" * 40, "timestamp": 1, "more": 1}},
        {"payload": {"type": "requestFile", "zone": 5, "hash": "a" * 40, "timestamp": 1}},
        {"payload": {"type": "requestFile", "zone": "lab", "hash": "a" * 40, "timestamp": 1}, "fromClientId": 5},
    ],
)
def test_requests_of_another_form(lab: Lab, envelope: Any) -> None:
    status, reply = post_json(f"{lab.url}/api/v1/requests", envelope)
    assert (status, reply["error"]["code"]) == (400, "invalid_input")


def test_old_and_forged_requests(lab: Lab) -> None:
    assert lab.request(sha1(SMALL), timestamp=1)[0] == 403
    keys = ClientKeys.generate()
    payload = {"type": "requestFile", "zone": "lab", "hash": sha1(SMALL), "timestamp": time.time_ns() // 1_000_000}
    envelope = {"payload": payload, "fromClientId": keys.client_id, "signature": "0" * 128}
    assert post_json(f"{lab.url}/api/v1/requests", envelope)[0] == 403


def signed_hello(keys: ClientKeys, name: str = "rig", zone: str = "lab") -> Callable[[str], dict[str, Any]]:
    def hello(challenge: str) -> dict[str, Any]:
        signature = keys.sign({"type": "hello", "resource": name, "zone": zone, "challenge": challenge})
        proof = {"clientId": keys.client_id, "signature": signature}
        return {"type": "hello", "version": 1, "resource": name, "zone": zone, "maxConcurrentUploads": 2, **proof}

    return hello


def test_a_daemon_proves_its_key(lab: Lab) -> None:
    admin, sharer = ClientKeys.generate(), ClientKeys.generate()

    def prepare(connection: Any) -> None:
        identity.register_client(connection, "lab", admin.client_id, "owner", "", 1)
        identity.register_client(connection, "lab", sharer.client_id, "alice", "", 1)
        resources.add(connection, "lab", "alices", "alice", "", 1)

    lab.gateway.database.write_now(prepare)
    # a zone's administrator under any name, and the resource is known from then on
    with ScriptedDaemon(lab.url, [SMALL], signed_hello(admin, "rig")) as daemon:
        assert daemon.welcome["type"] == "welcome"
        assert http_request("GET", lab.address(SMALL))[2] == SMALL
    known = lab.gateway.database.write_now(resources.list_all, "lab")
    assert [(each.name, each.owner) for each in known] == [("alices", "alice"), ("rig", "owner")]
    # others under the name that an administrator gave them
    with ScriptedDaemon(lab.url, [], signed_hello(sharer, "alices")) as daemon:
        assert daemon.welcome["type"] == "welcome"
    for keys, name, zone in [
        (sharer, "rig", "lab"),
        (sharer, "new", "lab"),
        (admin, "rig", "nowhere"),
        (ClientKeys.generate(), "alices", "lab"),
    ]:
        with ScriptedDaemon(lab.url, [], signed_hello(keys, name, zone)) as daemon:
            assert daemon.welcome["type"] == "refused"
            assert "may not share" in daemon.welcome["reason"]


def test_a_greeting_that_was_signed_for_another_challenge(lab: Lab) -> None:
    admin = ClientKeys.generate()
    lab.gateway.database.write_now(identity.register_client, "lab", admin.client_id, "owner", "", 1)
    hello = signed_hello(admin)
    with ScriptedDaemon(lab.url, [], lambda challenge: hello("0" * 32)) as daemon:
        assert daemon.welcome == {"type": "refused", "reason": "invalid signature"}


@pytest.mark.parametrize(
    "changes",
    [
        {"proxySecret": "wrong"},
        {"zone": "nowhere"},
        {"version": 2},
        {"maxConcurrentUploads": "2"},
        {"resource": None},
        {"resource": ""},
        {"resource": "../up"},
        {"extra": "x"},
        {"type": "initialize"},
    ],
)
def test_a_greeting_that_is_refused(lab: Lab, changes: dict[str, Any]) -> None:
    with ScriptedDaemon(lab.url, [], {**lab.hello(), **changes}) as daemon:
        assert daemon.welcome["type"] == "refused"
    assert lab.gateway.registry.of_zone("lab") == []


def test_a_second_daemon_of_the_name_disturbs_nobody(lab: Lab) -> None:
    with lab.daemon([SMALL]) as first:
        with lab.daemon([]) as second:
            assert second.welcome["type"] == "refused"
            assert "connected already" in second.welcome["reason"]
        assert http_request("GET", lab.address(SMALL))[2] == SMALL
        assert len(first.sent) == 1


def test_what_nobody_was_told_to_send_is_not_taken(lab: Lab) -> None:
    answers: list[int] = []

    def on_send(daemon: ScriptedDaemon, message: dict[str, Any], content: bytes) -> bool:
        size = len(content)
        for url, span in [
            (message["url"][:-1] + "x", f"bytes 0-{size - 1}/{size}"),
            (message["url"], f"bytes 0-{size}/{size + 1}"),
            (message["url"], f"bytes 0-{size - 2}/{size}"),
            (message["url"], "0-5"),
        ]:
            answers.append(http_request("PUT", url, content, {"Content-Range": span})[0])
        answers.append(daemon.put(message, content))
        # once is enough
        answers.append(daemon.put(message, content))
        return False

    with lab.daemon([SMALL], on_send):
        assert http_request("GET", lab.address(SMALL))[2] == SMALL
        until(lambda: len(answers) == 6)
    assert answers == [404, 409, 409, 400, 200, 404]


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_nobody_has_it(lab: Lab) -> None:
    lab.gateway.database.write_now(resources.add, "lab", "elsewhere", "owner", "https://proxy.example.org/", 1)
    lab.gateway.database.write_now(resources.add, "lab", "asleep", "owner", "", 1)
    with lab.daemon([]):
        status, reply = lab.request(sha1(SMALL))
    assert (status, reply) == (
        200,
        {
            "found": False,
            "reasons": ["the resource rig says: there is no such file"],
            "offline": ["asleep"],
            "elsewhere": ["https://proxy.example.org/r/elsewhere"],
        },
    )


def test_a_changed_file_is_refused_with_the_reason(lab: Lab) -> None:
    def on_send(daemon: ScriptedDaemon, message: dict[str, Any], content: bytes) -> bool:
        daemon.say(type="failed", id=message["id"], reason="the file is not what was linked any more")
        return False

    with lab.daemon([SMALL], on_send):
        status, headers, body = http_request("GET", lab.address(SMALL))
        assert (status, headers["kachery-error"]) == (409, "source_changed")
        assert b"not what was linked any more" in body
        until(lambda: staged(lab) == [])


def test_wrong_bytes_are_not_kept(lab: Lab) -> None:
    def on_send(daemon: ScriptedDaemon, message: dict[str, Any], content: bytes) -> bool:
        daemon.put(message, content[:-1] + b"!")
        return False

    with lab.daemon([SMALL], on_send):
        http_request("GET", lab.address(SMALL))
        until(lambda: staged(lab) == [])
        assert not lab.in_zone(SMALL)


def test_a_daemon_that_dies_in_the_middle(lab: Lab) -> None:
    halfway = threading.Event()

    def half(daemon: ScriptedDaemon, message: dict[str, Any], content: bytes) -> bool:
        if message["start"] > 0:
            halfway.set()
            return False
        return True

    daemon = lab.daemon([LARGE], half, slots=1)
    url = lab.address(LARGE)
    bodies: list[bytes] = []
    reader = threading.Thread(target=lambda: bodies.append(http_request("GET", url)[2]))
    reader.start()
    assert halfway.wait(PATIENCE)
    daemon.close()
    reader.join(PATIENCE)
    # the reply broke off; what came is right
    assert bodies[0] == LARGE[: len(bodies[0])]
    assert len(bodies[0]) < len(LARGE)
    status, headers, _ = http_request("GET", url)
    assert (status, headers["kachery-error"]) == (503, "unreachable")
    until(lambda: lab.gateway.registry.of_zone("lab") == [])
    with lab.daemon([LARGE]) as again:
        assert http_request("GET", url)[2] == LARGE
        # what had come is not asked for again
        assert sum(end - start for _, start, end in again.sent) == len(LARGE) - PIECE


def test_a_connection_that_breaks_is_asked_again(lab: Lab) -> None:
    broken: list[int] = []

    def on_send(daemon: ScriptedDaemon, message: dict[str, Any], content: bytes) -> bool:
        if broken:
            return True
        broken.append(message["start"])
        parts = urlsplit(message["url"])
        with socket.create_connection((parts.hostname, parts.port)) as peer:
            span = f"bytes {message['start']}-{message['end'] - 1}/{len(content)}"
            peer.sendall(
                f"PUT {parts.path} HTTP/1.1\r\nHost: x\r\nContent-Range: {span}\r\n"
                f"Content-Length: {message['end'] - message['start']}\r\n\r\n".encode()
                + content[message["start"] : message["start"] + 1_000_000]
            )
        return False

    with lab.daemon([LARGE], on_send, slots=1) as daemon:
        assert http_request("GET", lab.address(LARGE))[2] == LARGE
        assert daemon.sent[0] == (sha1(LARGE), 0, PIECE)
        # the rest of it is asked for, from where it broke off
        _, start, end = daemon.sent[1]
        assert end == PIECE
        assert 0 <= start <= 1_000_000


def test_a_silent_daemon(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "SEND_PATIENCE", 0.1)
    monkeypatch.setattr(delivery, "READER_PATIENCE", 5.0)
    with lab.daemon([SMALL], lambda daemon, message, content: False) as daemon:
        status, headers, body = http_request("GET", lab.address(SMALL))
        assert (status, headers["kachery-error"]) == (504, "timed_out")
        assert b"rig sent nothing" in body
        assert len(daemon.sent) == 3


def test_a_daemon_that_answers_no_offer(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kachery.gateway.dialects.on_demand.OFFER_PATIENCE", 0.1)
    with socket_to(lab.url, "/api/v1/resource") as silent:
        receive(silent)
        silent.send(json.dumps(lab.hello("silent")))
        assert receive(silent)["type"] == "welcome"
        _, reply = lab.request(sha1(SMALL))
        assert "did not answer within" in reply["reasons"][0]
        assert reply["offline"] == ["silent"]
        # and holds up nobody else
        with lab.daemon([SMALL]):
            assert http_request("GET", lab.address(SMALL))[2] == SMALL


@pytest.mark.parametrize(
    "message",
    ["no json", "[]", "{}", '{"type":"offered","id":"x","found":true,"size":-1}', '{"type":"send"}', "x" * 70_000],
)
def test_a_daemon_that_breaks_the_rules_is_cut_off(lab: Lab, message: str) -> None:
    with lab.daemon([SMALL], name="other"):
        with lab.daemon([]) as rude:
            rude.connection.send(message)
            until(lambda: [each.name for each in lab.gateway.registry.of_zone("lab")] == ["other"])
        assert http_request("GET", lab.address(SMALL))[2] == SMALL


def test_what_it_says_of_things_past_is_ignored(lab: Lab) -> None:
    with lab.daemon([SMALL]) as daemon:
        daemon.say(type="offered", id="x", found=True, size=5)
        daemon.say(type="failed", id="x", reason="none")
        daemon.say(type="ping")
        assert http_request("GET", lab.address(SMALL))[2] == SMALL


def test_the_relay_is_restarted(lab: Lab) -> None:
    with lab.daemon([LARGE]):
        url = lab.address(LARGE)
        http_request("GET", url, headers={"Range": "bytes=0-99"})
        assert staged(lab) != []
    lab.restart()
    assert staged(lab) == []
    status, headers, _ = http_request("GET", url)
    assert (status, headers["kachery-error"]) == (503, "unreachable")
    with lab.daemon([LARGE]):
        assert http_request("GET", url)[2] == LARGE


def test_a_slow_reader_holds_up_nobody(lab: Lab) -> None:
    with lab.daemon([LARGE]) as daemon:
        parts = urlsplit(lab.address(LARGE))
        with socket.create_connection((parts.hostname, parts.port)) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert slow.recv(12) == b"HTTP/1.1 200"
            for _ in range(3):
                assert http_request("GET", lab.address(LARGE))[2] == LARGE
        assert sum(end - start for _, start, end in daemon.sent) == len(LARGE)


def test_files_are_sent_in_turn(lab: Lab) -> None:
    gate = threading.Event()

    def on_send(daemon: ScriptedDaemon, message: dict[str, Any], content: bytes) -> bool:
        assert gate.wait(PATIENCE)
        return True

    with lab.daemon([LARGE, SMALL], on_send, slots=1) as daemon:
        threads = []
        for content in (LARGE, SMALL):
            url = lab.address(content)
            threads.append(threading.Thread(target=http_request, args=("GET", url)))
            threads[-1].start()
            until(lambda: daemon.sent)
            until(lambda: any(each.readers for each in lab.gateway.on_demand._deliveries.values()))
        until(lambda: sum(each.readers for each in lab.gateway.on_demand._deliveries.values()) == 2)
        gate.set()
        for thread in threads:
            thread.join(PATIENCE)
        # the small file did not wait for the end of the large one
        assert [hash_ for hash_, _, _ in daemon.sent].index(sha1(SMALL)) <= 2


def test_a_zone_that_keeps_nothing(lab: Lab) -> None:
    with lab.daemon([SMALL], zone="passing") as daemon:
        assert daemon.welcome["keep"] is False
        assert http_request("GET", lab.address(SMALL, "passing"))[2] == SMALL
        # as long as it is held, it can be found as any file
        until(lambda: lab.in_zone(SMALL, "passing"))
        assert list(lab.gateway.bucket.keys()) == []
        assert http_request("GET", lab.address(SMALL, "passing"))[2] == SMALL
        assert len(daemon.sent) == 1
        run_in(lab, lab.gateway.on_demand.clean(older_than=0.0))
        assert not lab.in_zone(SMALL, "passing")
        until(lambda: staged(lab) == [])


def run_in(lab: Lab, coroutine: Any) -> Any:
    """Run a coroutine in the gateway's loop."""
    loop = next(iter(lab.gateway.on_demand._deliveries.values()))._loop
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(PATIENCE)


# -- released clients, and ours ---------------------------------------------------------------------------------------


def poll(lab: Lab, hash_: str, zone: str = "lab", milliseconds: int = 5000, name: str = "rig") -> tuple[int, Any]:
    inner = {"type": "fileUpload", "uri": f"sha1://{hash_}", "timeoutMsec": milliseconds}
    asked = {"type": "requestFromClient", "resourceName": name, "zone": zone, "request": inner}
    return post_json(f"{lab.url}/r/{name}", {**asked, "timeoutMsec": milliseconds + 5000})


@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
@pytest.mark.parametrize("zone", ["lab", "passing"])
def test_a_released_client_polls_for_a_file_of_our_daemon(lab: Lab, content: bytes, zone: str) -> None:
    with lab.daemon([content], zone=zone) as daemon:
        status, envelope = poll(lab, sha1(content), zone)
        assert status == 200
        assert set(envelope) == {"type", "requestId", "response"}
        told = envelope["response"]["status"]
        assert (told["status"], told["size"], told["bytesUploaded"]) == ("completed", len(content), len(content))
        assert lab.in_zone(content, zone)
        assert sum(end - start for _, start, end in daemon.sent) == len(content)


def test_progress_moves_and_asking_again_costs_nothing(lab: Lab) -> None:
    gate = threading.Event()

    def on_send(daemon: ScriptedDaemon, message: dict[str, Any], content: bytes) -> bool:
        return message["start"] == 0 or gate.wait(PATIENCE)

    with lab.daemon([LARGE], on_send, slots=1) as daemon:
        until(lambda: poll(lab, sha1(LARGE), milliseconds=10)[1]["response"]["status"]["bytesUploaded"] == PIECE)
        told = poll(lab, sha1(LARGE), milliseconds=10)[1]["response"]["status"]
        assert (told["status"], told["size"]) == ("running", len(LARGE))
        gate.set()
        until(lambda: poll(lab, sha1(LARGE))[1]["response"]["status"]["status"] == "completed")
        assert sum(end - start for _, start, end in daemon.sent) == len(LARGE)


def test_what_a_released_client_hears_when_there_is_no_file(lab: Lab) -> None:
    def on_send(daemon: ScriptedDaemon, message: dict[str, Any], content: bytes) -> bool:
        daemon.say(type="failed", id=message["id"], reason="it changed")
        return False

    with lab.daemon([SMALL], on_send):
        assert poll(lab, "0" * 40)[1]["response"]["status"] == {"status": "not-found"}
        told = poll(lab, sha1(SMALL))[1]["response"]["status"]
        assert told["status"] == "error"
        assert "it changed" in told["error"]
        assert poll(lab, "zz")[1]["error"] == "Error handling request: Invalid URI"
        asked = {"type": "requestFromClient", "resourceName": "rig", "zone": "lab", "timeoutMsec": 1000}
        status, envelope = post_json(f"{lab.url}/r/rig", {**asked, "request": {"type": "other"}})
        assert (status, envelope["response"], envelope["error"]) == (200, {}, "Invalid kachery resource request")
    until(lambda: lab.gateway.registry.of_zone("lab") == [])
    away = {"status": "error", "error": "the resource rig of this zone is not connected"}
    assert poll(lab, sha1(SMALL))[1]["response"]["status"] == away


def test_a_bucket_that_refuses(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from kachery.errors import StorageFull

    def refuse(*_: object) -> bool:
        raise StorageFull("could not publish: no space left")

    monkeypatch.setattr(lab.gateway.bucket, "publish", refuse)
    with lab.daemon([SMALL]):
        # who reads it gets it, and who wants it in the zone is told
        assert http_request("GET", lab.address(SMALL))[2] == SMALL
        told = poll(lab, sha1(SMALL))[1]["response"]["status"]
        assert (told["status"], told["error"]) == ("error", "could not publish: no space left")
        assert not lab.gateway.database.write_now(zones.sizes)


@pytest.fixture
def client(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The settings of a machine elsewhere."""
    monkeypatch.setenv("KACHERY_GATEWAY_URL", lab.url)
    monkeypatch.setenv("KACHERY_ZONE", "lab")
    monkeypatch.setattr("kachery.http._LONGEST_PAUSE", 0.05)
    return lab


@pytest.mark.parametrize("content", [b"", SMALL, LARGE * 2], ids=["empty", "small", "large"])
def test_our_client_loads(client: Lab, content: bytes) -> None:
    with client.daemon([content]) as daemon:
        with open(files.load_file(f"sha1://{sha1(content)}"), "rb") as file:
            assert file.read() == content
        assert sum(end - start for _, start, end in daemon.sent) == len(content)
        until(lambda: client.in_zone(content))


def test_our_client_reads_a_part(client: Lab) -> None:
    with client.daemon([LARGE]) as daemon:
        with kachery.open(f"sha1://{sha1(LARGE)}") as file:
            file.seek(9_000_000)
            assert file.read(1_000_000) == LARGE[9_000_000:10_000_000]
        moved = sum(end - start for _, start, end in daemon.sent)
        assert moved < 6_000_000
        assert not client.in_zone(LARGE)


def test_our_client_goes_on_when_the_daemon_comes_back(client: Lab) -> None:
    first = client.daemon([LARGE], lambda daemon, message, content: message["start"] == 0, slots=1)
    loaded: list[str] = []
    loading = threading.Thread(target=lambda: loaded.append(files.load_file(f"sha1://{sha1(LARGE)}")))
    loading.start()
    until(lambda: len(first.sent) == 2)
    first.close()
    until(lambda: client.gateway.registry.of_zone("lab") == [])
    with client.daemon([LARGE]):
        loading.join(PATIENCE)
    with open(loaded[0], "rb") as file:
        assert file.read() == LARGE


def test_our_client_says_why_there_is_no_file(client: Lab) -> None:
    def on_send(daemon: ScriptedDaemon, message: dict[str, Any], content: bytes) -> bool:
        if content == SMALL:
            daemon.say(type="failed", id=message["id"], reason="it changed since it was linked")
        else:
            daemon.put(message, content.swapcase())
        return False

    other = b"other bytes"
    with client.daemon([SMALL, other], on_send):
        with pytest.raises(SourceChanged, match="it changed since it was linked"):
            files.load_file(f"sha1://{sha1(SMALL)}")
        with pytest.raises(WrongContent):
            files.load_file(f"sha1://{sha1(other)}")
        with pytest.raises(NotFound, match="rig says: there is no such file"):
            files.load_file(f"sha1://{'0' * 40}")
    # who connected once, with the secret alone, is known to be away
    until(lambda: client.gateway.registry.of_zone("lab") == [])
    with pytest.raises(Unreachable, match="resource rig of this zone is not connected"):
        files.load_file(f"sha1://{'0' * 40}")
    # until somebody has it forgotten
    assert client.gateway.database.write_now(resources.remove, "lab", "rig")
    with pytest.raises(NotFound):
        files.load_file(f"sha1://{'0' * 40}")


def test_what_is_remembered_of_resources_has_an_end(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_MOST_REMEMBERED", 2)
    for name in ("nas", "nas", "../x", "rig", "one-too-many"):
        lab.gateway.database.write_now(resources.remember, "lab", name, 1)
    lab.gateway.database.write_now(resources.remember, "nowhere", "nas", 1)
    known = lab.gateway.database.write_now(resources.list_all, "lab")
    assert [(each.name, each.owner, each.proxy_url) for each in known] == [("nas", "owner", ""), ("rig", "owner", "")]
    # somebody else's stays theirs
    lab.gateway.database.write_now(resources.add, "lab", "own", "alice", "", 1)
    lab.gateway.database.write_now(resources.remember, "lab", "own", 1)
    found = lab.gateway.database.write_now(resources.find, "lab", "own")
    assert found is not None
    assert found.owner == "alice"


def test_our_client_and_a_published_daemon(client: Lab) -> None:
    greeting = {"type": "initialize", "resourceName": "old", "zone": "lab"}
    with socket_to(client.url) as connection:
        connection.send(json.dumps({**greeting, "proxySecret": client.gateway.proxy_secret}))
        assert receive(connection) == {"type": "acknowledge"}
        failures: list[Exception] = []

        def load() -> None:
            try:
                files.load_file(f"sha1://{sha1(SMALL)}")
            except NotFound as error:
                failures.append(error)

        loading = threading.Thread(target=load)
        loading.start()
        asked = receive(connection)
        assert asked["request"]["uri"] == f"sha1://{sha1(SMALL)}"
        response = {"type": "fileUpload", "status": {"status": "not-found"}}
        answer = {"type": "responseToClient", "requestId": asked["requestId"], "response": response}
        connection.send(json.dumps(answer))
        loading.join(PATIENCE)
        assert "the resource does not have it" in str(failures[0])
    until(lambda: client.gateway.registry.of_zone("lab") == [])
    with pytest.raises(Unreachable, match="resource old of this zone is not connected"):
        files.load_file(f"sha1://{sha1(SMALL)}")
