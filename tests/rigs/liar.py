"""A small HTTP server that misbehaves as it is told, on a port of 127.0.0.1.

It speaks HTTP with bare sockets, since a proper server library would refuse most of what is wanted here.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable


@dataclass
class Request:
    """What a client sent.

    Args:
        method: As in HTTP.
        target: The path and query; a whole address when the client takes us for a proxy.
        headers: By lower-case name.
        body: As it came.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's JSON value."""
        return json.loads(self.body)

    @property
    def range(self) -> tuple[int, int] | None:
        """Start and end of the range asked for, or `None`."""
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        return (int(match[1]), int(match[2]) + 1) if match else None


class Exchange:
    """One request, and the means to answer it well or badly."""

    def __init__(self, request: Request, connection: socket.socket, over: threading.Event) -> None:
        self.request = request
        self.over = over
        self._connection = connection

    def send(self, data: bytes) -> None:
        """Put bytes on the line."""
        self._connection.sendall(data)

    def head(self, status: int, headers: dict[str, str]) -> None:
        """Send a status line and headers as they are given."""
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in headers.items())]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send a proper reply."""
        self.head(status, {"Content-Length": str(len(body)), **(headers or {})})
        self.send(body)

    def json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        """Send a JSON value."""
        self.reply(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def file(self, content: bytes) -> None:
        """Send a file as an honest server does, or the range asked for."""
        asked = self.request.range
        if asked is None:
            self.reply(200, content)
            return
        start, end = asked
        self.reply(206, content[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"})

    def silence(self) -> None:
        """Say nothing until the test is over."""
        self.over.wait()

    def hang_up(self) -> None:
        """Close the connection properly, whatever was promised."""
        raise _HangUp

    def reset(self) -> None:
        """Break the connection."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _HangUp


class _HangUp(Exception):
    pass


@dataclass
class Liar:
    """The server. A context; `behave` is called for each request and may be exchanged at any time.

    Args:
        behave: Answers a request.
        tls: What makes connections secret, for a server at an https address.
    """

    behave: Callable[[Exchange], None]
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                # the other side was faster
                pass
        for thread in self._threads:
            thread.join(20)

    def asked(self, method: str = "GET") -> list[Request]:
        """The requests with this method."""
        return [request for request in self.requests if request.method == method]

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as incoming:
                while (request := _read(incoming)) is not None:
                    self.requests.append(request)
                    self.behave(Exchange(request, connection, self._over))
        except (OSError, _HangUp):
            # clients of a liar hang up, too
            pass
        finally:
            self._open.discard(connection)


def _read(incoming: Any) -> Request | None:
    line = incoming.readline().decode("latin-1").split()
    if len(line) != 3:
        return None
    headers = {}
    while field_line := incoming.readline().strip():
        name, _, value = field_line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    body = incoming.read(int(headers.get("content-length", 0)))
    return Request(line[0], line[1], headers, body)
