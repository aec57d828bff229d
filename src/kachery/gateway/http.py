"""The little that the dialects need of HTTP, straight on ASGI: the paths that carry bytes go through nothing else."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput, TimedOut, TooLarge, Unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Receive, Scope, Send

    from .direct import Direct

Headers = list[tuple[bytes, bytes]]

#: Requests in JSON are small; nothing larger is read, in bytes.
LARGEST_JSON = 64 * 1024

#: The extension of ASGI through which a thread gets to the socket; see `exchange`.
DIRECT = "kachery.direct"

#: Seconds to wait for a peer that sends nothing, or takes nothing.
PATIENCE = 60.0

# What is still read of a body that was refused, in bytes and seconds, so that the sender gets to read the answer
_DRAIN_BYTES = 16 * 1024 * 1024
_DRAIN_SECONDS = 5.0


def header(scope: Scope, name: bytes) -> bytes | None:
    """A request header's value, by its lower-case name."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def host_of(scope: Scope) -> str:
    """The host and port that the caller used, as in `127.0.0.1:8471`."""
    given = header(scope, b"host")
    if given:
        return given.decode("latin-1")
    host, port = scope["server"] or ("127.0.0.1", 80)
    return f"{host}:{port}"


class RequestBody:
    """A request's body, in the pieces in which it comes, or past the event loop.

    Args:
        receive: Gives the pieces.
        scope: Of the request.
    """

    def __init__(self, receive: Receive, scope: Scope | None = None) -> None:
        self._receive = receive
        self._exchange = None if scope is None else (scope.get("extensions") or {}).get(DIRECT)
        self.ended = False

    def direct(self, count: int) -> Direct | None:
        """The socket for a thread that reads the whole body, when there is one, and the body has so many bytes.

        `give_back` must follow.
        """
        if self._exchange is None or self.ended or self._exchange.coming_in_all != count:
            return None
        direct: Direct | None = self._exchange.direct_body()
        return direct

    def give_back(self) -> None:
        """End `direct`; what was not read comes in pieces."""
        assert self._exchange is not None
        self._exchange.give_back()
        self.ended = self._exchange.is_over

    async def chunk(self) -> bytes:
        """The next piece; empty at the end.

        Raises:
            TimedOut: If the sender sends nothing for a minute.
            Unreachable: If the sender went away.
        """
        while not self.ended:
            if self._exchange is not None and self._exchange.is_ready:
                # most requests come whole; a clock for something that is there would cost more than the rest
                message = await self._receive()
            else:
                try:
                    async with asyncio.timeout(PATIENCE):
                        message = await self._receive()
                except TimeoutError:
                    raise TimedOut(f"the sender sent nothing for {PATIENCE:.0f} s") from None
            if message["type"] == "http.disconnect":
                self.ended = True
                raise Unreachable("the sender went away in the middle")
            self.ended = not message.get("more_body", False)
            body: bytes = message.get("body", b"")
            if body:
                return body
        return b""

    async def drain(self) -> bool:
        """Read what is left, if it is not much; says whether all was read."""
        left = _DRAIN_BYTES
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while left > 0 and (piece := await self.chunk()):
                    left -= len(piece)
        except (TimeoutError, Unreachable):
            return False
        return self.ended


async def read_json(receive: Receive, scope: Scope | None = None) -> Any:
    """A JSON body, parsed.

    Raises:
        InvalidInput: If it is not JSON; numbers that JSON does not have are refused.
        TooLarge: If it is larger than any request is.
    """
    body = RequestBody(receive, scope)
    content = await body.chunk()
    while not body.ended:
        content += await body.chunk()
        if len(content) > LARGEST_JSON:
            raise TooLarge(f"the request is larger than {LARGEST_JSON} bytes")
    try:
        return json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise InvalidInput("the body of the request is not JSON") from None


def _refuse_constant(text: str) -> None:
    raise ValueError(text)


async def send_bytes(
    send: Send, status: int, content: bytes, content_type: bytes, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """A whole answer at once."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", content_type),
                (b"content-length", b"%d" % len(content)),
                (b"x-content-type-options", b"nosniff"),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": content})


async def send_text(send: Send, status: int, text: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """A line of text."""
    await send_bytes(send, status, text.encode("utf-8", "replace"), b"text/plain; charset=utf-8", headers)


async def send_json(send: Send, status: int, value: Any, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """A JSON value."""
    await send_bytes(send, status, json.dumps(value, separators=(",", ":")).encode(), b"application/json", headers)
