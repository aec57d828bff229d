"""A relay that says what a test tells it to, and a daemon of ours that runs beside the test.

The relay is a real server of HTTP and web sockets on loopback. It knows neither protocol: each connection of a daemon
is handed to the test as a `Line`, on which it hears and says texts.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rigs.relay import PATIENCE, Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kachery.node.daemon import Daemon

_CLOSED = object()


class Line:
    """One connection of a daemon.

    Args:
        path: The path and query that it asked for.
        do: Does something in the server's thread.
        send: Takes messages of ASGI.
    """

    def __init__(self, path: str, do: Callable[[Any], None], send: Any) -> None:
        self.path = path
        self._do = do
        self._send = send
        self.frames: queue.Queue[Any] = queue.Queue()

    def hear_text(self) -> str:
        """The next frame as it came."""
        frame = self.frames.get(timeout=PATIENCE)
        assert frame is not _CLOSED, "the daemon closed the connection"
        return str(frame)

    def hear(self) -> dict[str, Any]:
        """The next message."""
        message = json.loads(self.hear_text())
        assert isinstance(message, dict)
        return message

    def say_text(self, text: str) -> None:
        """Send a frame as it is."""
        self._do(self._send({"type": "websocket.send", "text": text}))

    def say(self, **message: Any) -> None:
        """Send a message."""
        self.say_text(json.dumps(message, separators=(",", ":")))

    def hang_up(self) -> None:
        """Close the connection."""
        self._do(self._send({"type": "websocket.close", "code": 1000}))

    def wait_until_closed(self) -> None:
        """Wait until the daemon has closed the connection, whatever it says before."""
        while self.frames.get(timeout=PATIENCE) is not _CLOSED:
            pass


@dataclass(frozen=True)
class Received:
    """A `PUT` that arrived, whole or not."""

    path: str
    content_range: str
    body: bytes
    whole: bool


class ScriptedRelay(Running):
    """A server that a test speaks through.

    Args:
        ours: Whether it says that it speaks our protocol.
    """

    def __init__(self, *, ours: bool) -> None:
        self._ours = ours
        self.lines: queue.Queue[Line] = queue.Queue()
        self.received: queue.Queue[Received] = queue.Queue()
        self.put_status = 200
        #: Called when the first bytes of a `PUT` have come, before more are taken.
        self.on_put: Callable[[], None] = lambda: None

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await self._answer(scope, receive, send)

        super().__init__(application)

    def line(self) -> Line:
        """The next connection of a daemon."""
        return self.lines.get(timeout=PATIENCE)

    def put(self) -> Received:
        """The next range that came."""
        return self.received.get(timeout=PATIENCE)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
        elif scope["type"] == "websocket":
            await self._take_line(scope, receive, send)
        elif scope["method"] == "PUT":
            await self._take_range(scope, receive, send)
        elif scope["path"] == "/api/v1/relay" and self._ours:
            await _reply(send, 200, b'{"kachery": "relay", "versions": [1]}')
        else:
            await _reply(send, 404, b"<html>Cannot GET</html>")

    async def _take_line(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        loop = asyncio.get_running_loop()

        def do(action: Any) -> None:
            asyncio.run_coroutine_threadsafe(action, loop).result(PATIENCE)

        line = Line(_address(scope), do, send)
        self.lines.put(line)
        while (message := await receive())["type"] == "websocket.receive":
            line.frames.put(message["text"])
        line.frames.put(_CLOSED)

    async def _take_range(self, scope: Any, receive: Any, send: Any) -> None:
        body, whole = bytearray(), False
        while not whole:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            if message["body"] and not body:
                await asyncio.to_thread(self.on_put)
            body += message["body"]
            whole = not message.get("more_body")
        wanted = dict(scope["headers"]).get(b"content-range", b"").decode()
        self.received.put(Received(_address(scope), wanted, bytes(body), whole))
        if whole:
            await _reply(send, self.put_status, b"")


def _address(scope: Any) -> str:
    query = scope["query_string"].decode()
    return scope["path"] + (f"?{query}" if query else "")


async def _reply(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def running(daemon: Daemon) -> Iterator[None]:
    """A daemon in a thread of this process, ended as by a signal."""
    tasks: queue.Queue[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = queue.Queue()

    async def run() -> None:
        task = asyncio.ensure_future(daemon.run())
        tasks.put((asyncio.get_running_loop(), task))
        await asyncio.wait([task])

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    loop, task = tasks.get(timeout=PATIENCE)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the daemon does not end"
