"""A wire between a client and a server that counts the bytes on it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Wire:
    """Listens on a port of 127.0.0.1 and passes everything on to another one.

    Args:
        port: Where the server listens.

    Attributes:
        url: Where to connect.
        received: Bytes from the server so far, with all that HTTP adds.
        sent: Bytes to the server so far.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self.received = self.sent = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._sockets:
            end.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server))
            self._sockets += [client, server]
            threading.Thread(target=self._pass_on, args=(client, server, "sent"), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(server, client, "received"), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, count: str) -> None:
        with suppress(OSError):
            while data := source.recv(256 * 1024):
                with self._lock:
                    setattr(self, count, getattr(self, count) + len(data))
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
