"""One request and its answer over a connection, as an ASGI application sees them.

Beside `receive` and `send` the application gets the exchange itself, as `scope["extensions"]["kachery.direct"]`: a
thread can then read a large body from the socket, or write one to it (`Direct`).
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from .direct import Direct

if TYPE_CHECKING:
    from .connection import Connection

# Bytes of a body that wait for the application before the sender has to
_WAITING_BODY = 256 * 1024

# Answers up to this size, in bytes, are copied behind their head
_TOGETHER = 64 * 1024

STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus if status >= 200
}

_logger = logging.getLogger("uvicorn.error")


class Exchange:
    """One request and its answer.

    Args:
        connection: Over which it goes.
        head_only: Whether the answer has no body.
        keep: Whether the connection serves for another request.
    """

    def __init__(self, connection: Connection, head_only: bool, keep: bool) -> None:
        self.scope: dict[str, Any] = {}
        self.keep = keep
        self.expects_continue = False
        # bytes of the body that the parser has not given; `None` when it has no length
        self.coming: int | None = None
        self.chunked_body = False
        self.complete_body = False
        self.ended = False
        self._connection = connection
        self._head_only = head_only
        self._pieces: list[bytes] = []
        self._size = 0
        self._told_end = False
        self._lost = False
        self._changed = asyncio.Event()
        self._direct: Direct | None = None
        # the head of the answer, until something follows it
        self._head: list[bytes] = []
        self._started = False
        self._chunked = False
        self._left = 0

    # -- from the connection ------------------------------------------------------------------------------------------

    def take(self, body: bytes) -> None:
        """Some of the body has come."""
        if self.coming is not None:
            self.coming -= len(body)
        if self.ended:
            return
        self._pieces.append(body)
        self._size += len(body)
        if self._size > _WAITING_BODY:
            self._connection.pause_reading()
        self._changed.set()

    def complete(self) -> None:
        """All of the body has come."""
        self.complete_body = True
        self._changed.set()

    def lose(self) -> None:
        """The peer is gone."""
        self._lost = True
        self._changed.set()
        if self._direct is not None:
            self._direct.abort()

    async def run(self, application: Any) -> None:
        """Have the application answer."""
        try:
            await application(self.scope, self.receive, self.send)
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                _logger.error("Exception in ASGI application", exc_info=error)
            if self._started or self._lost:
                self._connection.transport.close()
            else:
                await self._fail()
        else:
            if not self.ended and not self._lost:
                if self._started:
                    # the peer knows that bytes are missing
                    self._connection.transport.close()
                else:
                    await self._fail()

    async def _fail(self) -> None:
        self.keep = False
        text = b"Internal Server Error"
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": text})

    # -- for the application ------------------------------------------------------------------------------------------

    async def receive(self) -> dict[str, Any]:
        """The next piece of the request."""
        self._agree()
        while not self.is_ready:
            self._changed.clear()
            self._connection.resume_reading()
            await self._changed.wait()
        if self._lost or self.ended:
            return {"type": "http.disconnect"}
        body = self._taken()
        self._told_end = self.complete_body
        return {"type": "http.request", "body": body, "more_body": not self.complete_body}

    async def send(self, message: Any) -> None:
        """The next piece of the answer."""
        connection = self._connection
        if connection.is_full and not self._lost:
            await connection.drained()
        if self._lost:
            return
        if message["type"] == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
            return
        if not self._started or self.ended:
            raise RuntimeError(f"{message['type']} is out of turn")
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._head_only:
            body = b""
        elif self._chunked:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body = framed if more else framed + b"0\r\n\r\n"
        else:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the answer has another length than it said")
        self._write(body)
        if not more:
            self.ended = True
            self._changed.set()
            if not self.keep:
                connection.transport.close()
            connection.end(self)

    def direct_body(self) -> Direct | None:
        """The rest of the request's body, for a thread; `None` when it has to come piece by piece.

        `give_back` must follow.
        """
        if self.chunked_body or self.coming is None or self.complete_body or self._lost or self._direct is not None:
            return None
        descriptor = self._connection.detach_body(self)
        if descriptor is None:
            return None
        self._agree()
        self._direct = Direct(descriptor, self._taken(), self.coming)
        return self._direct

    @property
    def coming_in_all(self) -> int | None:
        """How many bytes of the body nobody has taken yet; `None` when that is not known."""
        return None if self.coming is None or self.chunked_body else self.coming + self._size

    @property
    def is_ready(self) -> bool:
        """Whether `receive` has something without waiting."""
        return bool(self._pieces) or self._lost or self.ended or (self.complete_body and not self._told_end)

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self._lost or (self.complete_body and not self._pieces)

    def give_back(self) -> None:
        """End `direct_body`; what was not read comes piece by piece."""
        direct, self._direct = self._direct, None
        assert direct is not None
        rest, self.coming = direct.rest(), direct.left
        direct.close()
        if not self._lost:
            self.coming += len(rest)
            self._connection.attach_body(self, rest, direct.left)

    def direct_answer(self, count: int) -> Direct | None:
        """The socket for a thread that sends the next bytes of the answer; `None` when it has to go by `send`.

        `sent` must follow.

        Args:
            count: How many bytes it will send.
        """
        if self._head_only or self._chunked or count > self._left or self._lost or self._direct is not None:
            return None
        self._write(b"")
        descriptor = self._connection.descriptor()
        if descriptor is None:
            return None
        self._direct = Direct(descriptor)
        return self._direct

    def sent(self, count: int) -> None:
        """End `direct_answer`; so many bytes were sent."""
        direct, self._direct = self._direct, None
        assert direct is not None
        direct.close()
        self._left -= count

    # -- inside -------------------------------------------------------------------------------------------------------

    def _agree(self) -> None:
        if self.expects_continue and not self._started and not self._lost:
            self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.expects_continue = False

    def _taken(self) -> bytes:
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return body

    def _start(self, status: int, headers: Any) -> None:
        if self._started:
            raise RuntimeError("the answer has begun already")
        length: int | None = None
        head = [STATUS_LINES[status]]
        for name, value in (*self._connection.date(), *headers):
            if b"\n" in value or b"\r" in value or b"\0" in value or b"\n" in name or b"\r" in name:
                raise RuntimeError("a header field holds the end of a line")
            if name == b"content-length":
                length = int(value)
            elif name == b"connection" and b"close" in value.lower():
                self.keep = False
                continue
            head += (name, b": ", value, b"\r\n")
        if not self.keep:
            head.append(b"connection: close\r\n")
        if length is None and not self._head_only and status not in (204, 304):
            self._chunked = True
            head.append(b"transfer-encoding: chunked\r\n")
        head.append(b"\r\n")
        self._started, self.expects_continue = True, False
        self._left = length or 0
        self._head_only = self._head_only or status in (204, 304)
        self._head = head

    def _write(self, body: bytes) -> None:
        transport = self._connection.transport
        if self._head:
            self._head.append(body if len(body) <= _TOGETHER else b"")
            transport.write(b"".join(self._head))
            self._head = []
            if len(body) <= _TOGETHER:
                return
        if body:
            transport.write(body)
