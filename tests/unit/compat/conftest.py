"""A gateway, its bucket and a resource in this process, which can be told to misbehave."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from kachery.signing import verify

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT = b"test-content\n"
SHA1 = "b971c6ef19b1d70ae8f0feb989b106c319b36230"
URI = f"sha1://{SHA1}"
ELSEWHERE = "sha1://" + "0" * 40


@dataclass
class StandIn:
    """What the servers on loopback know and do.

    Args:
        url: The gateway's address.
        files: What the bucket holds, by SHA-1.
        owners: Who owns the registered clients, by client id.
        refuse: What every guarded call is refused with, or `None`.
        body: What every call is answered with instead of JSON, or `None`.
        alter: Changes what the bucket sends.
        resource: What the resource says, in turn; the last one for ever.
        wrap: Whether the proxy wraps the resource's answer, as its protocol says.
        calls: The payloads that came, in order.
        requests: Method, path and headers of everything that came to bucket and resource.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    refuse: str | None = None
    body: bytes | None = None
    alter: Any = None
    resource: list[dict[str, Any]] = field(default_factory=list)
    wrap: bool = True
    upload_status: int = 200
    calls: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def kinds(self) -> list[str]:
        return [call["type"] for call in self.calls]

    def answer(self, envelope: dict[str, Any]) -> dict[str, Any]:
        payload = envelope["payload"]
        self.calls.append(payload)
        client = envelope.get("fromClientId")
        if client is not None:
            assert verify(client, payload, envelope["signature"])
        kind = payload["type"]
        if kind == "getClientInfo":
            owner = self.owners.get(payload["clientId"])
            if owner is None:
                return {"type": kind, "found": False}
            client_info = {"clientId": payload["clientId"], "ownerId": owner, "timestampCreated": 1, "label": "rig"}
            return {"type": kind, "found": True, "client": client_info}
        if self.refuse is not None:
            raise PermissionError(self.refuse)
        hash_ = payload["hash"]
        key = f"sha1/{hash_[:2]}/{hash_[2:4]}/{hash_[4:6]}/{hash_}"
        if kind == "findFile":
            if hash_ not in self.files:
                return {"type": kind, "found": False}
            place = {"size": len(self.files[hash_]), "bucketUri": "r2://rig", "objectKey": key, "cacheHit": False}
            return {"type": kind, "found": True, **place, "url": f"{self.url}/bucket/{hash_}?secret"}
        if kind == "initiateFileUpload":
            if hash_ in self.files:
                return {"type": kind, "alreadyExists": True}
            upload = f"{self.url}/bucket/{hash_}?secret"
            return {"type": kind, "alreadyExists": False, "objectKey": key, "signedUploadUrl": upload}
        if kind == "deleteFile":
            return {"type": kind, "success": self.files.pop(hash_, None) is not None}
        assert kind == "finalizeFileUpload"
        assert hashlib.sha1(self.files[hash_], usedforsecurity=False).hexdigest() == hash_
        return {"type": kind}


def _handler(rig: StandIn) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _reply(self, body: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _note(self) -> None:
            rig.requests.append((self.command, self.path, {key.lower(): value for key, value in self.headers.items()}))

        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path.startswith("/r/"):
                self._note()
                status = rig.resource.pop(0) if len(rig.resource) > 1 else rig.resource[0]
                inner = {"type": "fileUpload", "status": status}
                answer = {"type": "responseToClient", "response": inner} if rig.wrap else inner
                self._reply(json.dumps(answer).encode())
            elif self.path.startswith("/api/v1/"):
                # upstream's gateway knows nothing of our own requests
                self._reply(b"<!DOCTYPE html>", 404)
            elif rig.body is not None:
                self._reply(rig.body)
            else:
                try:
                    self._reply(json.dumps(rig.answer(content)).encode())
                except PermissionError as error:
                    self._reply(f"Error: {error}".encode(), 500)

        def do_GET(self) -> None:
            self._note()
            data = rig.files[self.path.split("/")[-1].partition("?")[0]]
            if rig.alter is not None:
                data = rig.alter(data)
            part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if part:
                start, end = int(part[1]), min(int(part[2]) + 1, len(data))
                self._reply(data[start:end], 206, Content_Range=f"bytes {start}-{end - 1}/{len(data)}")
            else:
                self._reply(data)

        def do_PUT(self) -> None:
            self._note()
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if rig.upload_status == 200:
                rig.files[self.path.split("/")[-1].partition("?")[0]] = data
            self._reply(b"", rig.upload_status)

    return Handler


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # a client that hangs up is none of a server's troubles
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The servers, with `KACHERY_GATEWAY_URL` and `KACHERY_ZONE` set for them."""
    made = StandIn()
    with _Server(("127.0.0.1", 0), _handler(made)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        made.url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("KACHERY_GATEWAY_URL", made.url)
        monkeypatch.setenv("KACHERY_ZONE", "lab")
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway address where nothing listens, and no waiting between the attempts to reach it."""
    import socket

    from kachery import http as client

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("KACHERY_GATEWAY_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(client, "_LONGEST_PAUSE", 0.01)


@pytest.fixture(autouse=True)
def no_backend() -> Iterator[None]:
    """No custom storage backend outlives a test."""
    yield
    import kachery_cloud

    kachery_cloud.set_custom_storage_backend(None)
