"""A classic server in miniature, with one password for each channel, that can be told to lie about anything."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from .liar import Exchange, Liar

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATIONS = {"check": "check", "get": "download", "set": "upload"}


class ClassicServer(Liar):
    """The server.

    Attributes:
        files: Content by algorithm and hash.
        channels: Passwords by channel; a channel with `None` has none.
        read_only: Channels that nothing can be uploaded to.
        lies: What answers instead of the truth, by `check`, `get` and `set`.
    """

    def __init__(self, prefix: str = "") -> None:
        super().__init__(self._answer)
        self.prefix = prefix
        self.files: dict[tuple[str, str], bytes] = {}
        self.channels: dict[str, str | None] = {"public": "public", "members": "secret"}
        self.read_only = {"public"}
        self.lies: dict[str, Callable[[Exchange], None]] = {}

    @property
    def address(self) -> str:
        """Where it is, its prefix included."""
        return self.url + self.prefix

    def add(self, content: bytes, algorithm: str = "sha1") -> str:
        """Put a file there; gives its hash."""
        hash_ = hashlib.new(algorithm, content).hexdigest()
        self.files[algorithm, hash_] = content
        return hash_

    def operations(self) -> list[str]:
        """What was asked for, in order."""
        return [urlsplit(request.target).path.removeprefix(self.prefix).split("/")[1] for request in self.requests]

    def _answer(self, exchange: Exchange) -> None:
        parts = urlsplit(exchange.request.target)
        asked = unquote(parts.path.removeprefix(self.prefix)).split("/")
        if not parts.path.startswith(f"{self.prefix}/") or len(asked) != 4:
            exchange.reply(404, b"<html>Cannot GET</html>")
            return
        _, operation, algorithm, hash_ = asked
        query = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=True).items()}
        lie = self.lies.get(operation)
        refusal = self._refusal(operation, algorithm, hash_, query)
        if lie is not None:
            lie(exchange)
        elif refusal is not None:
            refuse(exchange, refusal)
        elif operation == "check":
            found = self.files.get((algorithm, hash_))
            size = {} if found is None else {"size": len(found)}
            exchange.json(200, {"success": True, "found": found is not None, **size})
        elif operation == "get":
            exchange.file(self.files[algorithm, hash_])
        else:
            self._take(exchange, algorithm, hash_)

    def _take(self, exchange: Exchange, algorithm: str, hash_: str) -> None:
        body = exchange.request.body
        if "content-length" not in exchange.request.headers:
            refuse(exchange, "Missing or invalid content-length in request header")
        elif hashlib.new(algorithm, body).hexdigest() == hash_:
            self.files[algorithm, hash_] = body
            exchange.json(200, {"success": True})
        else:
            exchange.reset()

    def _refusal(self, operation: str, algorithm: str, hash_: str, query: dict[str, str]) -> str | None:
        if operation == "get" and (algorithm, hash_) not in self.files:
            return "Not found."
        if query["channel"] not in self.channels:
            return f"Channel not found in config: {query['channel']}"
        signed: dict[str, str] = {"algorithm": algorithm, "hash": hash_, "name": OPERATIONS[operation]}
        password = self.channels[query["channel"]]
        if password is not None:
            signed["password"] = password
        # as JavaScript writes it
        text = json.dumps(signed, separators=(",", ":"), ensure_ascii=False)
        if query["signature"] != hashlib.sha1(text.encode()).hexdigest():
            return "incorrect or missing signature"
        if operation == "set" and query["channel"] in self.read_only:
            return "No relevant upload quota found"
        return None


def refuse(exchange: Exchange, text: str) -> None:
    """Refuse as the server does: HTTP 500 and a text."""
    exchange.reply(500, text.encode(), {"Content-Type": "text/html; charset=utf-8", "Connection": "close"})
