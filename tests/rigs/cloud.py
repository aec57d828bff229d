"""A gateway in miniature, as upstream's clients know it, that can be told to lie about anything."""

from __future__ import annotations

import hashlib
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from kachery import signing

from .liar import Exchange, Liar

if TYPE_CHECKING:
    from collections.abc import Callable


class Cloud(Liar):
    """The gateway. `files` is what its zone has, by SHA-1.

    Attributes:
        files: Content by SHA-1.
        lies: What answers instead of the truth, by `type` of a request, or `GET` and `PUT`.
        ahead: How far its clock is ahead of ours, in seconds.
        members: Who may upload; everybody when it is `None`.
        knows_other_hashes: Whether it finds files by other hashes than their SHA-1, as gateways of ours do.
    """

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.files: dict[str, bytes] = {}
        self.lies: dict[str, Callable[[Exchange], None]] = {}
        self.ahead = 0.0
        self.members: set[str] | None = None
        self.knows_other_hashes = False
        self._staged: dict[str, bytes] = {}

    def add(self, content: bytes) -> str:
        """Put a file into the zone; gives its SHA-1."""
        hash_ = hashlib.sha1(content).hexdigest()
        self.files[hash_] = content
        return hash_

    def calls(self) -> list[str]:
        """What was asked for, in order."""
        return [_kind(request) for request in self.requests]

    def _answer(self, exchange: Exchange) -> None:
        lie = self.lies.get(_kind(exchange.request))
        if lie is not None:
            lie(exchange)
        elif exchange.request.method == "POST":
            self.tell_truth(exchange)
        else:
            self._move(exchange)

    def _move(self, exchange: Exchange) -> None:
        hash_ = exchange.request.target.partition("?")[0].rpartition("/")[2]
        if exchange.request.method == "PUT":
            self._staged[hash_] = exchange.request.body
            exchange.reply(200, b"")
        elif hash_ in self.files:
            exchange.file(self.files[hash_])
        else:
            exchange.reply(404, b"")

    def tell_truth(self, exchange: Exchange) -> None:
        """Answer a request as it deserves."""
        if exchange.request.target != "/api/gateway":
            exchange.reply(404, b"<html>no such page</html>")
            return
        envelope = exchange.request.json
        payload = envelope["payload"]
        now = time.time() + self.ahead
        if abs(payload["timestamp"] / 1000 - now) > 125:
            exchange.reply(500, b"Error: Invalid timestamp", {"Date": formatdate(now, usegmt=True)})
            return
        if "fromClientId" in envelope and not signing.verify(envelope["fromClientId"], payload, envelope["signature"]):
            exchange.reply(500, b"Error: Invalid signature")
            return
        getattr(self, "_" + payload["type"])(exchange, payload, envelope.get("fromClientId"))

    def _findFile(self, exchange: Exchange, payload: dict[str, Any], _: str | None) -> None:  # noqa: N802
        algorithm = payload["hashAlg"]
        if algorithm != "sha1" and not self.knows_other_hashes:
            exchange.reply(400, b"Invalid request: " + exchange.request.body)
            return
        known = {hashlib.new(algorithm, content).hexdigest(): sha1 for sha1, content in self.files.items()}
        # what it says to have under a hash need not have it
        sha1 = payload["hash"] if payload["hash"] in self.files else known.get(payload["hash"])
        if sha1 is None:
            exchange.json(200, {"type": "findFile", "found": False})
            return
        content = self.files[sha1]
        exchange.json(
            200,
            {
                "type": "findFile",
                "found": True,
                "size": len(content),
                "bucketUri": "r2://bucket",
                "objectKey": f"sha1/{sha1}",
                "url": f"{self.url}/bucket/{sha1}?token=secret",
                "cacheHit": False,
            },
        )

    def _initiateFileUpload(self, exchange: Exchange, payload: dict[str, Any], client: str | None) -> None:  # noqa: N802
        if client is None or (self.members is not None and client not in self.members):
            exchange.reply(500, b"Error: Client not registered")
        elif payload["hash"] in self.files:
            exchange.json(200, {"type": "initiateFileUpload", "alreadyExists": True})
        else:
            answer = {"alreadyExists": False, "objectKey": payload["hash"]}
            url = f"{self.url}/staging/{payload['hash']}?token=secret"
            exchange.json(200, {"type": "initiateFileUpload", "signedUploadUrl": url, **answer})

    def _finalizeFileUpload(self, exchange: Exchange, payload: dict[str, Any], _: str | None) -> None:  # noqa: N802
        content = self._staged.pop(payload["objectKey"], None)
        if content is None or len(content) != payload["size"]:
            exchange.reply(500, b"Error: Wrong size")
            return
        self.files[payload["hash"]] = content
        exchange.json(200, {"type": "finalizeFileUpload"})

    def _getClientInfo(self, exchange: Exchange, payload: dict[str, Any], _: str | None) -> None:  # noqa: N802
        found = self.members is None or payload["clientId"] in self.members
        client = {"clientId": payload["clientId"], "ownerId": "anna", "timestampCreated": 1, "label": "lab"}
        exchange.json(200, {"type": "getClientInfo", "found": found, **({"client": client} if found else {})})


def _kind(request: Any) -> str:
    return str(request.json["payload"]["type"]) if request.method == "POST" and request.body else str(request.method)
