"""A gateway driven through its ASGI interface, without a socket, and clients that sign for it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kachery.gateway.app import Application
from kachery.gateway.services import identity
from kachery.signing import ClientKeys

if TYPE_CHECKING:
    from kachery.gateway.runtime import Gateway

HOST = "127.0.0.1:8471"
BASE = f"http://{HOST}"


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@dataclass
class Reply:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class Driver:
    """Sends requests to the application, which runs in a loop of its own."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.application = Application(gateway)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.run(self.application.start())

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def write(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        return self.run(self.gateway.database.write(function, *args, **kwargs))

    def read(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        return self.run(self.gateway.database.read(function, *args, **kwargs))

    def close(self) -> None:
        self.run(self.application.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def request(
        self,
        method: str,
        url: str,
        body: bytes | list[bytes] = b"",
        headers: dict[str, str] | None = None,
        *,
        hang_up: bool = False,
    ) -> Reply:
        """One request; a list as body comes in pieces; `hang_up` closes the connection instead of ending the body."""
        return self.run(self._request(method, url, body, headers or {}, hang_up))

    async def _request(
        self, method: str, url: str, body: bytes | list[bytes], headers: dict[str, str], hang_up: bool
    ) -> Reply:
        parts = urlsplit(url)
        pieces = list(body) if isinstance(body, list) else [body]
        given = {"host": HOST, **{name.lower(): value for name, value in headers.items()}}
        if isinstance(body, bytes) and body:
            given.setdefault("content-length", str(len(body)))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8471),
        }
        sent: list[dict[str, Any]] = []
        ended = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if pieces:
                piece = pieces.pop(0)
                return {"type": "http.request", "body": piece, "more_body": bool(pieces) or hang_up}
            if not hang_up:
                await ended.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.application(scope, receive, send)
        if not sent:
            return Reply(0, {}, b"")
        headers_out = {name.decode(): value.decode() for name, value in sent[0].get("headers", [])}
        return Reply(sent[0]["status"], headers_out, b"".join(message.get("body", b"") for message in sent[1:]))


@dataclass
class Client:
    """A client of a zone."""

    driver: Driver
    zone: str = "lab"
    keys: ClientKeys = field(default_factory=ClientKeys.generate)

    def register(self, owner: str) -> Client:
        self.driver.write(identity.register_client, self.zone, self.keys.client_id, owner, "a machine", 1)
        return self

    def envelope(self, kind: str, **payload: Any) -> dict[str, Any]:
        signed = {"type": kind, "zone": self.zone, "timestamp": int(time.time() * 1000), **payload}
        return {"payload": signed, "fromClientId": self.keys.client_id, "signature": self.keys.sign(signed)}

    def call(self, kind: str, **payload: Any) -> Reply:
        return post(self.driver, self.envelope(kind, **payload))

    def ok(self, kind: str, **payload: Any) -> Any:
        reply = self.call(kind, **payload)
        assert reply.status == 200, reply.text
        return reply.json()

    def find(self, hash_: str) -> Reply:
        return self.call("findFile", hashAlg="sha1", hash=hash_)

    def initiate(self, content: bytes, *, parts: bool = False) -> Any:
        envelope = self.envelope("initiateFileUpload", hashAlg="sha1", hash=sha1(content), size=len(content))
        reply = post(self.driver, envelope, {"Kachery-Accept": "parts"} if parts else {})
        assert reply.status == 200, reply.text
        return reply.json()

    def finalize(self, content: bytes, **changes: Any) -> Reply:
        hash_ = sha1(content)
        directory = "" if self.zone == "default" else f"zones/{self.zone}/"
        key = f"{directory}sha1/{hash_[:2]}/{hash_[2:4]}/{hash_[4:6]}/{hash_}"
        values = {"hashAlg": "sha1", "hash": hash_, "size": len(content), "objectKey": key, **changes}
        return self.call("finalizeFileUpload", **values)

    def put(self, url: str, body: bytes | list[bytes], **headers: str) -> Reply:
        return self.driver.request("PUT", url, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def part(self, url: str, content: bytes, start: int, end: int) -> Reply:
        return self.put(url, content[start:end], Content_Range=f"bytes {start}-{end - 1}/{len(content)}")

    def store(self, content: bytes) -> str:
        reply = self.initiate(content)
        if not reply["alreadyExists"]:
            assert self.put(reply["signedUploadUrl"], content).status == 200
            assert self.finalize(content).status == 200
        return sha1(content)

    def load(self, hash_: str) -> bytes:
        found = self.ok("findFile", hashAlg="sha1", hash=hash_)
        assert found["found"]
        reply = self.driver.request("GET", found["url"])
        assert reply.status == 200
        return reply.body


def post(driver: Driver, value: Any, headers: dict[str, str] | None = None) -> Reply:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return driver.request("POST", f"{BASE}/api/gateway", body, {"content-type": "application/json", **(headers or {})})
