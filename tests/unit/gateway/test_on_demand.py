"""Our wire: files that a connected daemon brings while they are read."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from kachery import signing
from kachery.gateway.app import Application
from kachery.gateway.config import GatewayConfig
from kachery.gateway.logs import make_log
from kachery.gateway.relay.delivery import PIECE
from kachery.gateway.runtime import open_gateway
from kachery.gateway.services import accounts, identity, resources, zones
from kachery.signing import ClientKeys
from rigs.asgi import sha1
from rigs.relay import Running, ScriptedDaemon, http_request, post_json, receive, socket_to, until

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
