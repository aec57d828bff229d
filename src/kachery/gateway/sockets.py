"""The little that the dialects need of web sockets, straight on ASGI: JSON objects in text frames, bounded waits."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from ..errors import BadReply, TimedOut, Unreachable

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

#: The largest message that is taken, in bytes.
LARGEST_MESSAGE = 64 * 1024

#: Seconds that a peer may take to accept a message.
_PATIENCE = 30.0

# Status codes of web sockets: no reason to say, a rule was broken
NORMAL = 1000
REFUSED = 1008

# What fits into a close frame, in bytes
_LONGEST_REASON = 120


class Socket:
    """One accepted web socket.

    Args:
        scope: Of the connection.
        receive: Gives what the peer sends.
        send: Takes what the peer gets.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._closed = False

    async def accept(self) -> None:
        """Complete the handshake.

        Raises:
            Unreachable: If the peer went away.
        """
        if (await self._receive())["type"] != "websocket.connect":
            raise Unreachable("the peer went away")
        await self._send({"type": "websocket.accept"})

    async def receive(self, seconds: float | None = None) -> dict[str, Any]:
        """The next message.

        Args:
            seconds: How long to wait for it; without end by default.

        Raises:
            TimedOut: If none comes in time.
            BadReply: If it is not a JSON object in a text frame.
            Unreachable: If the peer went away.
        """
        try:
            async with asyncio.timeout(seconds):
                message = await self._receive()
        except TimeoutError:
            raise TimedOut(f"the peer said nothing for {seconds:.0f} s") from None
        if message["type"] != "websocket.receive":
            self._closed = True
            raise Unreachable("the peer went away")
        text = message.get("text")
        try:
            value = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise BadReply("a message is not a JSON object")
        return value

    async def send(self, value: dict[str, Any]) -> None:
        """Send a message.

        Raises:
            Unreachable: If the peer went away, or takes nothing any more.
        """
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        try:
            async with asyncio.timeout(_PATIENCE):
                # half a pair of surrogates is JSON, but no text of a frame
                await self._send({"type": "websocket.send", "text": text.encode("utf-8", "replace").decode()})
        except (OSError, RuntimeError, TimeoutError) as error:
            raise Unreachable("the peer takes no messages any more") from error

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close the connection, if the peer has not."""
        if self._closed:
            return
        self._closed = True
        short = reason.encode("utf-8", "replace")[:_LONGEST_REASON].decode("utf-8", "ignore")
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._send({"type": "websocket.close", "code": code, "reason": short})
        except (OSError, RuntimeError, TimeoutError):
            pass  # the peer was faster
