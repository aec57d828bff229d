"""Direct connections to HTTP/1.1 servers, kept between requests, with as little work as a request can take.

A request for a small file is answered in less time than most libraries need to put one together and to take the answer
apart, and a large file loses a third of its speed in their copies (`benchmarks/experiments/http_clients.py`). So what
RFC 9112 asks of a client that sends one request at a time is here, and nothing else:

| part of a reply | taken as |
|---|---|
| status line | `HTTP/1.0` or `HTTP/1.1`, three digits; interim replies (1xx) are passed over |
| header fields | up to 64 KiB; by lower-case name, repeated ones joined with `, ` |
| body | none for HEAD, 204, 304; else `Transfer-Encoding: chunked`; else `Content-Length`; else until the end |

A connection is used again when the reply was read to its end and neither side wants it closed. Errors are those of the
system (`OSError`) and `BrokenReply`; `kachery.http` says them in our words.
"""

from __future__ import annotations

import re
import select
import socket
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

# what is read at once where nobody gives a buffer, in bytes
_BLOCK = 256 * 1024

# the longest head of a reply, in bytes
_LONGEST_HEAD = 64 * 1024

# the longest line with the length of a chunk, in bytes
_LONGEST_LINE = 4096

# bodies up to this size leave together with the head: one packet, and the server wakes up once
_TOGETHER = 64 * 1024

# connections that are kept to one server
_KEPT = 32

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", re.DOTALL)
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_END_OF_LINE = re.compile(rb"\r?\n")


class BrokenReply(Exception):
    """What came is not HTTP, or ended before it was complete."""


class Response:
    """The head of a reply, and its body while it comes. A context that lets go of the connection.

    Attributes:
        status: The HTTP status.
        headers: By lower-case name.
    """

    def __init__(self, connection: _Connection, method: str) -> None:
        self._connection = connection
        self._chunked = False
        # bytes left of the body, or of the chunk; `None`: until the connection ends
        self._left: int | None = 0
        self._ended = False
        version, self.status, self.headers = connection.head()
        tokens = self.headers.get("connection", "").lower()
        self._keep = "close" not in tokens and (version == 1 or "keep-alive" in tokens)
        coding = self.headers.get("transfer-encoding")
        if method == "HEAD" or self.status in (204, 304):
            pass
        elif coding is not None:
            if coding.strip().lower() != "chunked":
                raise BrokenReply(f"a transfer encoding that was not asked for: {coding[:40]!r}")
            self._chunked = True
            self._left = self._next_chunk()
        elif "content-length" in self.headers:
            self._left = _length(self.headers["content-length"])
        else:
            self._left = None
        if self._left == 0:
            self._end()

    def readinto(self, view: memoryview) -> int:
        """Put what has come of the body into a buffer; waits for something; 0 at the end."""
        if self._ended or not len(view):
            return 0
        if self._left is not None and self._left < len(view):
            view = view[: self._left]
        count = self._connection.readinto(view)
        self._moved(count)
        return count

    def read(self, limit: int = _BLOCK) -> bytes:
        """What has come of the body, up to a limit; waits for something; empty at the end."""
        if self._ended:
            return b""
        data = self._connection.read(limit if self._left is None else min(limit, self._left))
        self._moved(len(data))
        return data

    def _moved(self, count: int) -> None:
        if count == 0:
            if self._left is not None:
                raise BrokenReply(f"it ended {self._left} bytes before the end of the reply")
            self._keep = False
            self._end()
        elif self._left is not None:
            self._left -= count
            if self._left == 0:
                if self._chunked:
                    self._connection.end_chunk()
                    self._left = self._next_chunk()
                if self._left == 0:
                    self._end()

    def close(self) -> None:
        """Let go of the connection; with something left in it, it is of no use to the next request."""
        if not self._ended:
            self._ended = True
            self._connection.close()

    def _next_chunk(self) -> int:
        length = self._connection.chunk()
        if length == 0:
            self._connection.trailer()
        return length

    def _end(self) -> None:
        self._ended = True
        if self._keep:
            self._connection.keep()
        else:
            self._connection.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Pool:
    """Connections by server, kept while nobody uses them; any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str, int], list[_Connection]] = {}
        self._trust: ssl.SSLContext | None = None

    def request(
        self,
        method: str,
        server: tuple[str, str, int],
        head: bytes,
        body: bytes | Iterable[bytes | memoryview] | None,
        connect_timeout: float,
        timeout: float,
    ) -> Response:
        """Send one request, and read the head of its reply.

        Args:
            method: As in HTTP.
            server: Scheme, host and port.
            head: The request's head, complete.
            body: What follows it.
            connect_timeout: How long to wait for a connection, in seconds.
            timeout: How long to wait for a peer that says nothing, in seconds.

        Raises:
            NoConnection: If there is none.
            OSError, BrokenReply: If there is no reply.
        """
        connection = self._kept(server) or self._connect(server, connect_timeout)
        try:
            connection.settimeout(timeout)
            connection.send(head, body)
            return Response(connection, method)
        except BaseException:
            connection.close()
            raise

    def _kept(self, server: tuple[str, str, int]) -> _Connection | None:
        while True:
            with self._lock:
                idle = self._idle.get(server)
                if not idle:
                    return None
                connection = idle.pop()
            if connection.is_usable():
                return connection
            connection.close()

    def _connect(self, server: tuple[str, str, int], timeout: float) -> _Connection:
        scheme, host, port = server
        try:
            stream = socket.create_connection((host, port), timeout)
        except (OSError, UnicodeError) as error:
            raise NoConnection(error) from error
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if scheme == "https":
                stream = self._context().wrap_socket(stream, server_hostname=host)
        except BaseException:
            stream.close()
            raise
        return _Connection(self, server, stream)

    def _context(self) -> ssl.SSLContext:
        import ssl

        with self._lock:
            if self._trust is None:
                # with the certificates that the system trusts, or those of SSL_CERT_FILE
                self._trust = ssl.create_default_context()
                self._trust.set_alpn_protocols(["http/1.1"])
            return self._trust

    def keep(self, connection: _Connection) -> None:
        """Take a connection back that is ready for another request."""
        with self._lock:
            idle = self._idle.setdefault(connection.server, [])
            if len(idle) < _KEPT:
                idle.append(connection)
                return
        connection.close()


class NoConnection(Exception):
    """A server cannot be reached.

    Attributes:
        cause: Why.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Connection:
    """One connection, and what came over it that nobody has read yet."""

    def __init__(self, pool: Pool, server: tuple[str, str, int], stream: socket.socket) -> None:
        self.server = server
        self._pool = pool
        self._stream = stream
        self._timeout: float | None = None
        # what came together with a head or the length of a chunk
        self._held = b""
        self._broken_send: OSError | None = None

    def settimeout(self, seconds: float) -> None:
        if seconds != self._timeout:
            self._stream.settimeout(seconds)
            self._timeout = seconds

    def is_usable(self) -> bool:
        """Whether the server has said nothing since; it would be its good-bye."""
        if self._held:
            return False
        poll = select.poll()
        poll.register(self._stream, select.POLLIN)
        return not poll.poll(0)

    def keep(self) -> None:
        self._pool.keep(self)

    def close(self) -> None:
        self._stream.close()

    def __del__(self) -> None:
        # kept until the process ends, as it should be
        self._stream.close()

    def send(self, head: bytes, body: bytes | Iterable[bytes | memoryview] | None) -> None:
        try:
            if body is None:
                self._stream.sendall(head)
            elif isinstance(body, bytes):
                if len(body) <= _TOGETHER:
                    self._stream.sendall(head + body)
                else:
                    self._stream.sendall(head)
                    self._stream.sendall(body)
            else:
                self._stream.sendall(head)
                for piece in body:
                    self._stream.sendall(piece)
        except (BrokenPipeError, ConnectionResetError) as error:
            # a server that has had enough of a body may have said why before it closed
            self._broken_send = error

    def head(self) -> tuple[int, int, dict[str, str]]:
        """The minor version, status and header fields of the reply."""
        while True:
            try:
                text = self._until(_END_OF_HEAD, _LONGEST_HEAD)
            except (BrokenReply, OSError):
                if self._broken_send is not None:
                    raise self._broken_send from None
                raise
            first, *lines = _END_OF_LINE.split(text)
            match = _STATUS_LINE.fullmatch(first)
            if match is None:
                raise BrokenReply(f"it does not speak HTTP: {first[:40]!r}")
            status = int(match[2])
            if status == 101:
                raise BrokenReply("it changed the protocol without being asked")
            if status >= 200:
                break
        headers: dict[str, str] = {}
        for line in lines:
            field = _FIELD.fullmatch(line)
            if field is None:
                # the continuation of a field belongs to nothing that is looked at here
                if line[:1] in (b" ", b"\t") and headers:
                    continue
                raise BrokenReply(f"a header field that is none: {line[:40]!r}")
            name, value = field[1].decode("ascii").lower(), field[2].decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if self._broken_send is not None:
            headers["connection"] = "close"
        return int(match[1]), status, headers

    def chunk(self) -> int:
        """The length of the next chunk; 0 for the last one."""
        text = self._until(_END_OF_LINE, _LONGEST_LINE).partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,16}", text):
            raise BrokenReply(f"a chunk without a length: {text[:40]!r}")
        return int(text, 16)

    def end_chunk(self) -> None:
        if self._until(_END_OF_LINE, _LONGEST_LINE):
            raise BrokenReply("a chunk is longer than it said")

    def trailer(self) -> None:
        """Pass over what may follow the last chunk."""
        while self._until(_END_OF_LINE, _LONGEST_LINE):
            pass

    def readinto(self, view: memoryview) -> int:
        """Put what has come into a buffer; waits for something; 0 at the end of the connection."""
        held = self._held
        if held:
            count = min(len(view), len(held))
            view[:count] = held[:count]
            self._held = held[count:]
            return count
        return self._stream.recv_into(view)

    def read(self, limit: int) -> bytes:
        """What has come, up to a limit; waits for something; empty at the end of the connection."""
        held = self._held
        if held:
            self._held = held[limit:]
            return held[:limit]
        return self._stream.recv(limit)

    def _until(self, end: re.Pattern[bytes], limit: int) -> bytes:
        """What comes before a pattern, which is passed over; all of it within the time for one wait."""
        text = self._held
        deadline = None
        while True:
            match = end.search(text)
            if match is not None:
                self._held = text[match.end() :]
                return text[: match.start()]
            if len(text) > limit:
                raise BrokenReply(f"it sends more than {limit} bytes where it should come to the point")
            if deadline is None:
                deadline = time.monotonic() + (self._timeout or 0.0)
            elif time.monotonic() > deadline:
                raise TimeoutError
            more = self._stream.recv(_LONGEST_HEAD)
            if not more:
                raise BrokenReply("it ended before the reply" if not text else "it ended within the reply's head")
            text += more


def _length(text: str) -> int:
    # a field that came twice may say the same twice
    values = {value.strip() for value in text.split(",")}
    value = values.pop()
    if values or not (value.isascii() and value.isdigit()) or len(value) > 19:
        raise BrokenReply(f"not the length of a reply: {text[:40]!r}")
    return int(value)
