"""A gateway behind a real socket of 127.0.0.1, in this process, and peers of its relay that do what a test says."""

from __future__ import annotations

import http.client
import json
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import uvicorn
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from kachery.gateway.server import SERVER_OPTIONS, listen
from rigs.asgi import sha1

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp

#: Seconds that anything may take here; a test that comes near has failed.
PATIENCE = 30.0


class Running:
    """An ASGI application behind a socket, in a thread of its own.

    Args:
        application: What answers.
        port: Where; 0 for any.
        listener: A socket that listens already.
    """

    def __init__(self, application: ASGIApp, port: int = 0, *, listener: socket.socket | None = None) -> None:
        self._listener = listener or listen("127.0.0.1", port)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = uvicorn.Server(uvicorn.Config(application, **{**SERVER_OPTIONS, "timeout_graceful_shutdown": 1}))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self._thread.start()
        until(lambda: self._server.started)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE)
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def until(condition: Callable[[], Any]) -> Any:
    """What a condition gives once it holds."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.005)
    raise AssertionError("it did not happen in time")


def http_request(
    method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One request over a connection of its own: status, headers by lower-case name, body as far as it came."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        connection.request(method, parts.path, body, headers or {})
        reply = connection.getresponse()
        try:
            content = reply.read()
        except http.client.IncompleteRead as error:
            content = error.partial
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, content
    finally:
        connection.close()


def post_json(url: str, value: Any) -> tuple[int, Any]:
    """Send a JSON value; status, and the reply's JSON value, or its text where it is none."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    status, _, content = http_request("POST", url, body, {"Content-Type": "application/json"})
    try:
        return status, json.loads(content)
    except ValueError:
        return status, content.decode()


@contextmanager
def socket_to(url: str, path: str = "/") -> Iterator[ClientConnection]:
    """A web socket to a server at an http address."""
    with connect(url.replace("http", "ws", 1) + path, compression=None, open_timeout=PATIENCE) as connection:
        yield connection


def receive(connection: ClientConnection) -> Any:
    """The next message's JSON value."""
    return json.loads(connection.recv(PATIENCE))


class ScriptedDaemon:
    """A daemon of our wire that has some files, and does with each range what `on_send` says.

    Args:
        url: The gateway's address.
        files: What it has.
        hello: What its `hello` says; a callable is given the challenge.
        on_send: Called with the message and the content; returns whether to send as asked.
    """

    def __init__(
        self,
        url: str,
        files: list[bytes],
        hello: dict[str, Any] | Callable[[str], dict[str, Any]],
        on_send: Callable[[ScriptedDaemon, dict[str, Any], bytes], bool] = lambda daemon, message, content: True,
    ) -> None:
        self.files = {sha1(content): content for content in files}
        self.offers: list[dict[str, Any]] = []
        self.sent: list[tuple[str, int, int]] = []
        self.problems: list[BaseException] = []
        self.answers_pings = True
        self._url = url
        self._on_send = on_send
        self._stack = ExitStack()
        self.connection = self._stack.enter_context(socket_to(url, "/api/v1/resource"))
        challenge = receive(self.connection)
        given = hello(challenge["challenge"]) if callable(hello) else hello
        self.connection.send(json.dumps(given))
        self.welcome = receive(self.connection)
        self._threads: list[threading.Thread] = []
        if self.welcome["type"] == "welcome":
            self._start(self._listen)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        try:
            while True:
                message = json.loads(self.connection.recv())
                if message["type"] == "offer":
                    self.offers.append(message)
                    content = self.files.get(message["hash"])
                    answer: dict[str, Any] = {"type": "offered", "id": message["id"], "found": content is not None}
                    answer.update({"reason": "there is no such file"} if content is None else {"size": len(content)})
                    self.connection.send(json.dumps(answer))
                elif message["type"] == "ping" and self.answers_pings:
                    self.connection.send(json.dumps({"type": "pong"}))
                elif message["type"] == "send":
                    self._start(self._send, message)
        except ConnectionClosed:
            pass

    def _send(self, message: dict[str, Any]) -> None:
        content = self.files[message["hash"]]
        self.sent.append((message["hash"], message["start"], message["end"]))
        try:
            if self._on_send(self, message, content):
                self.put(message, content)
        except (ConnectionClosed, OSError) as error:
            self.problems.append(error)

    def put(self, message: dict[str, Any], content: bytes) -> int:
        start, end = message["start"], message["end"]
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}
        return http_request("PUT", message["url"], content[start:end], headers)[0]

    def say(self, **message: Any) -> None:
        self.connection.send(json.dumps(message))

    def close(self) -> None:
        self._stack.close()
        for thread in self._threads:
            thread.join(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
