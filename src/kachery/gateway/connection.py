"""One connection of the HTTP server: httptools' parser on one side, an ASGI application on the other.

Runs under uvicorn in place of its own protocol (`uvicorn.Config(http=Connection)`), which has no limits for the head of
a request, sends head and body of an answer as two packets, and lets 64 KiB of a body wait. The differences:

| what | here |
|---|---|
| the head of a request | complete within `HEAD_PATIENCE`, at most `LONGEST_HEAD` bytes |
| a short answer | one packet, so that who waits for it wakes up once |
| a large body | a thread moves it between socket and disk, past the event loop (`exchange`) |
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import httptools

from .exchange import STATUS_LINES, Exchange
from .http import DIRECT

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

#: Seconds in which the head of a request must be complete, and how long it may be, in bytes.
HEAD_PATIENCE = 30.0
LONGEST_HEAD = 64 * 1024

# Requests that one connection may send ahead of their answers
_MOST_PIPELINED = 16


class Connection(asyncio.Protocol):
    """The protocol of one connection; the arguments are uvicorn's."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_event_loop()
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self._timer: asyncio.TimerHandle | None = None
        self._exchange: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        # of the request that comes
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_size = 0
        self._in_head = True
        # bytes of a body that came past the parser
        self._raw_left: int | None = None
        self._coming: Exchange | None = None
        self._reading = True
        self._writable: asyncio.Future[None] | None = None
        self._peers: dict[str, Any] = {}

    # -- from the transport -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer has connected."""
        self._state.connections.add(self)  # type: ignore[arg-type]
        self.transport = transport = cast(asyncio.Transport, transport)
        server, client = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        self._peers = {
            "server": (str(server[0]), int(server[1])) if isinstance(server, tuple) else None,
            "client": (str(client[0]), int(client[1])) if isinstance(client, tuple) else None,
            "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
        }
        self._start_timer(HEAD_PATIENCE)

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer went away, or we let it go."""
        self._state.connections.discard(self)
        self._stop_timer()
        self._parser = None
        for exchange in (self._exchange, self._coming, *self._waiting):
            if exchange is not None:
                exchange.lose()
        self._waiting.clear()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""
        if self._raw_left is not None:
            data = self._take_raw(data)
            if not data:
                return
        if self._in_head:
            if self._head_size == 0:
                self._start_timer(HEAD_PATIENCE)
            self._head_size += len(data)
        try:
            if self._parser is not None:
                self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
        except httptools.HttpParserError:
            self._refuse(400, b"Invalid HTTP request received.")
        else:
            if self._in_head and self._head_size > LONGEST_HEAD:
                self._refuse(431, b"The head of the request is too long.")

    def pause_writing(self) -> None:
        """The peer takes less than we send."""
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """The peer has taken most of what we sent."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def eof_received(self) -> None:
        """The peer sends nothing more; the transport closes."""

    def shutdown(self) -> None:
        """Called by the server when it ends: finish what is being answered, and nothing else."""
        if self._exchange is None or self._exchange.ended:
            self.transport.close()
        else:
            self._exchange.keep = False

    # -- from the parser ----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url = b""
        self._headers = []
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """Some of a request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is complete; the body may follow."""
        parser = self._parser
        assert parser is not None
        self._stop_timer()
        if self._is_upgrade(parser):
            return
        self._in_head, self._head_size = False, 0
        target = httptools.parse_url(self._url)
        path = target.path.decode("ascii")
        version = parser.get_http_version()
        exchange = Exchange(self, parser.get_method() == b"HEAD", version != "1.0" and parser.should_keep_alive())
        for name, value in self._headers:
            if name == b"expect" and value.lower() == b"100-continue":
                exchange.expects_continue = True
            elif name == b"content-length" and exchange.coming is None:
                exchange.coming = int(value)
            elif name == b"transfer-encoding":
                exchange.chunked_body = True
        if parser.should_upgrade():
            # to something that we do not speak; what comes next is not HTTP
            exchange.keep = False
        exchange.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            **self._peers,
            "method": parser.get_method().decode("ascii"),
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": target.path,
            "query_string": target.query or b"",
            "headers": self._headers,
            "state": self._app_state.copy(),
            "extensions": {DIRECT: exchange},
        }
        self._coming = exchange
        if self._exchange is None or self._exchange.ended:
            self._begin(exchange)
        else:
            # the answer to a request that was sent ahead has to wait
            self._waiting.append(exchange)
            self.pause_reading()
            if len(self._waiting) > _MOST_PIPELINED:
                self.transport.close()

    def on_body(self, body: bytes) -> None:
        """Some of a request's body."""
        if self._coming is not None:
            self._coming.take(body)

    def on_message_complete(self) -> None:
        """A request is complete."""
        if self._coming is not None:
            self._coming.complete()
            self._coming = None
        self._in_head = True

    # -- for an exchange ----------------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Let the sender wait."""
        if self._reading and not self.transport.is_closing():
            self._reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take more."""
        if not self._reading and not self._waiting and not self.transport.is_closing():
            self._reading = True
            self.transport.resume_reading()

    @property
    def is_full(self) -> bool:
        """Whether the peer has to take something before it gets more."""
        return self._writable is not None

    async def drained(self) -> None:
        """Wait until the peer takes more."""
        while self._writable is not None:
            await asyncio.shield(self._writable)

    def date(self) -> list[tuple[bytes, bytes]]:
        """The fields that all answers have."""
        return self._state.default_headers

    def detach_body(self, exchange: Exchange) -> int | None:
        """Stop reading a body, to be read from the socket by somebody else; gives its descriptor, `None` if not."""
        if self._coming is not exchange or self._peers["scheme"] != "http" or self.transport.is_closing():
            return None
        self.pause_reading()
        return self.descriptor()

    def descriptor(self) -> int | None:
        """The socket's, when nothing waits to be sent."""
        if self._peers["scheme"] != "http" or self.transport.get_write_buffer_size() or self.transport.is_closing():
            return None
        stream = self.transport.get_extra_info("socket")
        return None if stream is None else int(stream.fileno())

    def attach_body(self, exchange: Exchange, rest: bytes, left: int) -> None:
        """Take a body back, of which `rest` has come and `left` bytes have not."""
        if self._parser is None:
            return
        # the parser knows nothing of what it has not seen
        self._parser = httptools.HttpRequestParser(self)
        self._raw_left = len(rest) + left
        self._take_raw(rest)

    def end(self, exchange: Exchange) -> None:
        """An answer is complete."""
        self._state.total_requests += 1
        if self.transport.is_closing():
            return
        if self._waiting:
            self._begin(self._waiting.popleft())
        else:
            self._start_timer(self._config.timeout_keep_alive)
        self.resume_reading()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _begin(self, exchange: Exchange) -> None:
        self._exchange = exchange
        task = self._loop.create_task(exchange.run(self._config.loaded_app))
        task.add_done_callback(self._state.tasks.discard)
        self._state.tasks.add(task)

    def _take_raw(self, data: bytes) -> bytes:
        """Take what belongs to a body that the parser does not know of; gives what comes after it."""
        assert self._raw_left is not None
        body, data = data[: self._raw_left], data[self._raw_left :]
        self._raw_left -= len(body)
        if body and self._coming is not None:
            self._coming.take(body)
        if self._raw_left == 0:
            self._raw_left = None
            self.on_message_complete()
        return data

    def _is_upgrade(self, parser: httptools.HttpRequestParser) -> bool:
        if not parser.should_upgrade() or self._config.ws_protocol_class is None:
            return False
        fields = dict(self._headers)
        return (
            b"upgrade" in fields.get(b"connection", b"").lower() and fields.get(b"upgrade", b"").lower() == b"websocket"
        )

    def _upgrade(self) -> None:
        """Hand the connection over to the server's web sockets."""
        parser = self._parser
        if parser is None or not self._is_upgrade(parser):
            return
        if self._exchange is not None and not self._exchange.ended:
            self._refuse(400, b"Invalid HTTP request received.")
            return
        self._state.connections.discard(self)
        head = [parser.get_method(), b" ", self._url, b" HTTP/1.1\r\n"]
        for name, value in self._headers:
            head += [name, b": ", value, b"\r\n"]
        make: Any = self._config.ws_protocol_class
        protocol = make(
            config=self._config,
            server_state=self._state,
            app_state=self._app_state,
        )
        protocol.connection_made(self.transport)
        protocol.data_received(b"".join([*head, b"\r\n"]))
        self.transport.set_protocol(protocol)

    def _refuse(self, status: int, text: bytes) -> None:
        if self._exchange is None or self._exchange.ended:
            fields = b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
            length = b"content-length: %d\r\n\r\n" % len(text)
            self.transport.write(STATUS_LINES[status] + fields + length + text)
        self._parser = None
        self.transport.close()

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(seconds, self._expire)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
