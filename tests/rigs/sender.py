"""A client of a gateway process, written with nothing but the protocol: signs, sends, loads."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kachery.signing import ClientKeys

if TYPE_CHECKING:
    from collections.abc import Callable

    from rigs.gateway import Gateway

_BLOCK = bytes(1_000_000)


class Sender:
    """A registered client.

    Args:
        gateway: The gateway.
        zone: The zone it is registered in.
        owner: Who owns it; the gateway's administrator by default.
    """

    def __init__(self, gateway: Gateway, zone: str, owner: str | None = None) -> None:
        self._gateway = gateway
        self.zone = zone
        self.keys = ClientKeys.generate()
        self.last_signature = ""
        if owner is None:
            owner = next(user["name"] for user in json.loads(gateway.admin("user", "list", "--json")))
        gateway.admin("client", "add", self.keys.client_id, "--owner", owner, "--zone", zone, "--label", "sender")

    @staticmethod
    def sha1(content: bytes) -> str:
        """The hash of some bytes."""
        return hashlib.sha1(content, usedforsecurity=False).hexdigest()

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self._gateway.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def call(self, kind: str, headers: dict[str, str] | None = None, **payload: Any) -> tuple[int, Any]:
        """A signed request; its status, and what it says."""
        signed = {"type": kind, "zone": self.zone, "timestamp": int(time.time() * 1000), **payload}
        self.last_signature = self.keys.sign(signed)
        envelope = {"payload": signed, "fromClientId": self.keys.client_id, "signature": self.last_signature}
        status, body = self.request("POST", "/api/gateway", json.dumps(envelope), headers)
        return status, json.loads(body) if status == 200 else body.decode()

    def _initiate(self, sha1: str, size: int, *, parts: bool) -> str:
        headers = {"Kachery-Accept": "parts"} if parts else {}
        status, reply = self.call("initiateFileUpload", headers, hashAlg="sha1", hash=sha1, size=size)
        assert status == 200, reply
        return "" if reply["alreadyExists"] else str(reply["signedUploadUrl"])

    def begin(self, content: bytes, *, parts: bool = False) -> str:
        """The address to send a file to; empty if the zone has it."""
        return self._initiate(self.sha1(content), len(content), parts=parts)

    def put(self, url: str, content: bytes, headers: dict[str, str] | None = None) -> int:
        """Send a body; the status."""
        return self.request("PUT", urlsplit(url).path, content, headers)[0]

    def part(self, url: str, content: bytes, start: int, end: int) -> int:
        """Send a part; the status."""
        return self.put(url, content[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"})

    def get_json(self, url: str) -> Any:
        """What is at an address."""
        return json.loads(self.request("GET", urlsplit(url).path)[1])

    def finalize(self, content: bytes) -> int:
        """End an upload; the status."""
        return self.finalize_size(self.sha1(content), len(content))

    def finalize_size(self, sha1: str, size: int) -> int:
        """End an upload; the status."""
        key = f"sha1/{sha1[:2]}/{sha1[2:4]}/{sha1[4:6]}/{sha1}"
        if self.zone != "default":
            key = f"zones/{self.zone}/{key}"
        return self.call("finalizeFileUpload", hashAlg="sha1", hash=sha1, size=size, objectKey=key)[0]

    def store(self, content: bytes) -> str:
        """Store a file; its hash, once the gateway has acknowledged it."""
        url = self.begin(content)
        if url:
            assert self.put(url, content) == 200
            assert self.finalize(content) == 200
        return self.sha1(content)

    def load(self, sha1: str) -> bytes | None:
        """A file, or `None`."""
        status, found = self.call("findFile", hashAlg="sha1", hash=sha1)
        assert status == 200, found
        if not found["found"]:
            return None
        status, content = self.request("GET", urlsplit(found["url"]).path)
        assert status == 200, content
        return content

    def begin_zeros(self, size: int) -> tuple[str, str]:
        """Begin to store a file of zeros, of a multiple of 1,000,000 bytes; its hash and address."""
        digest = hashlib.sha1(usedforsecurity=False)
        for _ in range(size // len(_BLOCK)):
            digest.update(_BLOCK)
        return digest.hexdigest(), self._initiate(digest.hexdigest(), size, parts=False)

    def put_zeros(self, url: str, size: int) -> None:
        """Send the file of zeros."""
        blocks = (_BLOCK for _ in range(size // len(_BLOCK)))
        assert self.request("PUT", urlsplit(url).path, blocks, {"Content-Length": str(size)})[0] == 200

    def discard(self, sha1: str) -> int:
        """Load a file to nowhere; its size."""
        status, found = self.call("findFile", hashAlg="sha1", hash=sha1)
        assert status == 200
        connection = http.client.HTTPConnection("127.0.0.1", self._gateway.port, timeout=60)
        try:
            connection.request("GET", urlsplit(found["url"]).path)
            reply = connection.getresponse()
            count = 0
            while block := reply.read(1_000_000):
                count += len(block)
            return count
        finally:
            connection.close()

    @staticmethod
    def wait_until(condition: Callable[[], bool]) -> None:
        """Return when something has become true; it must within half a minute."""
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end, "it did not become true"
            time.sleep(0.02)
