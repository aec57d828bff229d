"""One connection of the HTTP server: what comes in odd pieces, too slowly, too long, ahead of time, or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from kachery.errors import KacheryError, Unreachable
from kachery.gateway import connection, http, streams
from rigs.relay import Running, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Receive, Scope, Send

LARGE = os.urandom(5_000_000)


class Application:
    """Says what it was asked; or as the path wants it."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.cancelled = 0
        self.patience = 10.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"].removeprefix("lifespan.")
                await send({"type": f"lifespan.{kind}.complete"})
                if kind == "shutdown":
                    return
        body = http.RequestBody(receive, scope)
        try:
            await getattr(self, scope["path"][1:], self.echo)(scope, receive, send, body)
        except KacheryError as error:
            self.problems.append(error.message)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def echo(self, scope: Scope, receive: Receive, send: Send, body: http.RequestBody) -> None:
        content = b""
        while piece := await body.chunk():
            content += piece
        said = {
            "method": scope["method"],
            "path": scope["path"],
            "query": scope["query_string"].decode(),
            "length": len(content),
            "sha1": hashlib.sha1(content).hexdigest(),
            "headers": {name.decode(): value.decode() for name, value in scope["headers"]},
        }
        await http.send_json(send, 200, said)

    async def ignore(self, scope: Scope, receive: Receive, send: Send, body: http.RequestBody) -> None:
        await http.send_text(send, 404, "nothing here")

    async def direct(self, scope: Scope, receive: Receive, send: Send, body: http.RequestBody) -> None:
        """Read so many bytes of the body in a thread, as the query says, and the rest in pieces."""
        length = int(http.header(scope, b"content-length") or b"0")
        source = body.direct(length)
        content = bytearray()
        if source is not None:
            limit = int(scope["query_string"] or length)

            def read() -> None:
                view = memoryview(bytearray(70_000))
                while len(content) < limit and (count := source.readinto(view[: limit - len(content)], self.patience)):
                    content.extend(view[:count])

            try:
                await streams.in_thread(read, source.abort)
            finally:
                body.give_back()
        while piece := await body.chunk():
            content += piece
        digest = hashlib.sha1(content).hexdigest()
        await http.send_json(send, 200, {"direct": source is not None, "length": len(content), "sha1": digest})

    async def give(self, scope: Scope, receive: Receive, send: Send, body: http.RequestBody) -> None:
        """Send the large content, most of it in a thread."""
        length = (b"content-length", b"%d" % len(LARGE))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        exchange = scope["extensions"][http.DIRECT]
        direct = exchange.direct_answer(len(LARGE) - 10)
        if direct is None:
            await send({"type": "http.response.body", "body": LARGE})
            return
        sent = 0

        def work() -> None:
            nonlocal sent
            direct.write(memoryview(LARGE)[:-10], self.patience)
            sent = len(LARGE) - 10

        try:
            await streams.in_thread(work, direct.abort)
        finally:
            exchange.sent(sent)
        await send({"type": "http.response.body", "body": LARGE[-10:]})

    async def chunks(self, scope: Scope, receive: Receive, send: Send, body: http.RequestBody) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one", b"", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def fail(self, scope: Scope, receive: Receive, send: Send, body: http.RequestBody) -> None:
        if scope["query_string"]:
            length = (b"content-length", b"10")
            await send({"type": "http.response.start", "status": 200, "headers": [length]})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("a mistake")

    async def short(self, scope: Scope, receive: Receive, send: Send, body: http.RequestBody) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async def inject(self, scope: Scope, receive: Receive, send: Send, body: http.RequestBody) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"a\r\nevil: yes")]})

    async def wait(self, scope: Scope, receive: Receive, send: Send, body: http.RequestBody) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        raise Unreachable("the peer went away")


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def server(application: Application) -> Iterator[Running]:
    with Running(application) as running:  # type: ignore[arg-type]
        yield running


class Peer:
    """A raw connection."""

    def __init__(self, server: Running) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._held = b""

    def __del__(self) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        for number, piece in enumerate(pieces):
            if number:
                time.sleep(0.01)
            self.socket.sendall(piece)

    def reply(self, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        while b"\r\n\r\n" not in self._held:
            self._held += self._more()
        head, _, self._held = self._held.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        if first == "HTTP/1.1 100 Continue":
            return 100, headers, b""
        length = 0 if method == "HEAD" else int(headers.get("content-length", "0"))
        while len(self._held) < length:
            self._held += self._more()
        body, self._held = self._held[:length], self._held[length:]
        return int(first.split()[1]), headers, body

    def _more(self) -> bytes:
        data = self.socket.recv(1 << 20)
        assert data, "the server closed the connection"
        return data

    def rest(self) -> bytes:
        """All that comes until the server closes the connection."""
        data = self._held
        while more := self._read():
            data += more
        return data

    def _read(self) -> bytes:
        try:
            return self.socket.recv(1 << 20)
        except ConnectionResetError:
            return b""


@pytest.fixture
def peer(server: Running) -> Iterator[Peer]:
    made = Peer(server)
    yield made
    made.socket.close()


def post(path: str, content: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: lab", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


def digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


GET = b"GET /x%20y?a=b HTTP/1.1\r\nHost: lab\r\nX-Thing: one\r\n\r\n"


def test_a_short_answer_is_one_packet(peer: Peer) -> None:
    peer.send(GET)
    packet = peer.socket.recv(1 << 20)
    head, _, body = packet.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(body) == {
        "method": "GET",
        "path": "/x y",
        "query": "a=b",
        "length": 0,
        "sha1": digest(b""),
        "headers": {"host": "lab", "x-thing": "one"},
    }


@pytest.mark.parametrize("size", [1, 20, 100_000])
@pytest.mark.parametrize("length", [0, 1, 3000, 500_000])
def test_a_request_in_pieces(peer: Peer, size: int, length: int) -> None:
    content = LARGE[:length]
    request = post("/echo", content)
    head = len(request) - length + min(length, 5)
    pieces = [request[start : start + size] for start in range(0, head, size)]
    done = sum(map(len, pieces))
    for _ in range(2):
        peer.send(*pieces, request[done:])
        status, _, body = peer.reply()
        assert (status, json.loads(body)["sha1"]) == (200, digest(content))


def test_a_body_in_chunks(peer: Peer) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: lab\r\nTransfer-Encoding: chunked\r\n\r\n"
    peer.send(head + b"5\r\nhel", b"lo\r\n3;x=y\r\nyou\r\n0\r\n", b"\r\n")
    assert json.loads(peer.reply()[2])["sha1"] == digest(b"helloyou")
    peer.send(GET)
    assert peer.reply()[0] == 200


def test_requests_ahead_of_their_answers(peer: Peer) -> None:
    peer.send(post("/echo", b"one") + post("/direct", b"two") + post("/ignore", b"three") + GET)
    replies = [peer.reply() for _ in range(4)]
    assert [status for status, _, _ in replies] == [200, 200, 404, 200]
    assert json.loads(replies[0][2])["sha1"] == digest(b"one")
    assert json.loads(replies[1][2])["sha1"] == digest(b"two")
    assert json.loads(replies[3][2])["path"] == "/x y"


def test_requests_without_end_ahead_of_their_answers(server: Running, peer: Peer, application: Application) -> None:
    wait = b"GET /wait HTTP/1.1\r\nHost: lab\r\n\r\n"
    peer.send(wait * (connection._MOST_PIPELINED + 2))
    assert peer.rest() == b""
    until(lambda: application.problems == ["the peer went away"])


def test_an_answer_for_whoever_wants_only_its_head(peer: Peer) -> None:
    peer.send(b"HEAD /echo HTTP/1.1\r\nHost: lab\r\n\r\n")
    status, headers, _ = peer.reply("HEAD")
    assert (status, headers["content-length"] > "0") == (200, True)
    peer.send(GET)
    assert peer.reply()[0] == 200


def test_an_answer_in_chunks(peer: Peer) -> None:
    peer.send(b"GET /chunks HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
    answer = peer.rest()
    assert b"transfer-encoding: chunked" in answer
    assert answer.endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "request_", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n"]
)
def test_a_connection_that_is_for_one_request(peer: Peer, request_: bytes) -> None:
    peer.send(request_)
    assert b"connection: close" in peer.rest()


def test_who_waits_to_be_told_to_go_on(peer: Peer) -> None:
    for path in ("/echo", "/direct"):
        request = post(path, b"content", "Expect: 100-continue")
        peer.send(request[:-7])
        assert peer.reply()[0] == 100
        peer.send(b"content")
        assert json.loads(peer.reply()[2])["sha1"] == digest(b"content")
    peer.send(post("/ignore", b"content", "Expect: 100-continue")[:-7])
    assert peer.reply()[0] == 404


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: lab\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: lab\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    ],
)
def test_what_is_no_request(peer: Peer, nonsense: bytes) -> None:
    peer.send(nonsense)
    answer = peer.rest()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("line", [b"x" * 1000, b"X: " + b"x" * 1000 + b"\r\n"])
def test_a_head_without_end(peer: Peer, line: bytes) -> None:
    peer.send(b"GET / HTTP/1.1\r\n" if line.startswith(b"X") else b"GET /")
    peer.socket.settimeout(0.001)
    answer = b""
    for _ in range(10_000):
        try:
            peer.send(line)
            answer = peer.socket.recv(1000)
            break
        except TimeoutError:
            continue
        except OSError:
            # the server closed before we read
            break
    else:
        raise AssertionError("the server takes a head of ten megabytes")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("beginning", [b"", b"GET / HTTP/1.1\r\nX:"])
@pytest.mark.parametrize("first", [b"", GET])
def test_a_head_that_does_not_come(
    server: Running, beginning: bytes, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_PATIENCE", 0.2)
    peer = Peer(server)
    if first:
        peer.send(first)
        assert peer.reply()[0] == 200
        if not beginning:
            return  # a connection that nobody uses has longer
    peer.send(beginning)
    assert peer.rest() == b""


@pytest.mark.parametrize("taken", ["", "0", "1", "100000"])
@pytest.mark.parametrize("length", [1, 300_000, len(LARGE)])
@pytest.mark.parametrize("together", [True, False])
def test_a_body_for_a_thread(peer: Peer, taken: str, length: int, together: bool) -> None:
    content = LARGE[:length]
    for _ in range(2):
        request = post(f"/direct?{taken}", content)
        cut = len(request) if together else len(request) - length
        peer.send(request[:cut], *([request[cut : cut + 1], request[cut + 1 :]] if not together else []), GET)
        said = json.loads(peer.reply()[2])
        assert (said["length"], said["sha1"]) == (length, digest(content))
        if not together and length > 1:
            assert said["direct"]
        assert json.loads(peer.reply()[2])["path"] == "/x y"


def test_a_sender_who_goes_away_from_a_thread(server: Running, peer: Peer, application: Application) -> None:
    peer.send(post("/direct", LARGE)[:1_000_000])
    peer.socket.close()
    until(lambda: application.problems == ["the sender went away in the middle"])
    other = Peer(server)
    other.send(GET)
    assert other.reply()[0] == 200


def test_an_answer_from_a_thread(peer: Peer) -> None:
    for _ in range(3):
        peer.send(b"GET /give HTTP/1.1\r\nHost: lab\r\n\r\n")
        assert peer.reply() == (200, peer_headers(), LARGE)
        peer.send(b"HEAD /give HTTP/1.1\r\nHost: lab\r\n\r\n")
        assert peer.reply("HEAD")[1]["content-length"] == str(len(LARGE))


class peer_headers(dict[str, str]):  # noqa: N801
    """Equal to whatever headers."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict)


def test_a_reader_who_goes_away_from_a_thread(server: Running, peer: Peer, application: Application) -> None:
    peer.send(b"GET /give HTTP/1.1\r\nHost: lab\r\n\r\n")
    peer.socket.recv(1000)
    peer.socket.close()
    until(lambda: application.problems == ["the reader went away"])


def test_a_peer_that_a_thread_waits_for_in_vain(peer: Peer, server: Running, application: Application) -> None:
    application.patience = 0.1
    peer.send(post("/direct", LARGE)[:1_000_000])
    until(lambda: application.problems == ["the sender sent nothing for 0 s"])
    other = Peer(server)
    # the system takes some megabytes for a reader who does not read
    other.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    other.send(b"GET /give HTTP/1.1\r\nHost: lab\r\n\r\n")
    until(lambda: application.problems[1:] == ["the reader took nothing for 0 s"])


def test_a_server_that_ends_while_a_thread_waits(application: Application) -> None:
    with Running(application) as running:  # type: ignore[arg-type]
        receiving, sending = Peer(running), Peer(running)
        receiving.send(post("/direct", LARGE)[:1_000_000])
        sending.send(b"GET /give HTTP/1.1\r\nHost: lab\r\n\r\n")
        assert sending.socket.recv(1000)
        time.sleep(0.1)
    assert application.cancelled == 2
    receiving.socket.close()
    sending.socket.close()


@pytest.mark.parametrize("length", [10, 3_000_000])
def test_a_body_that_nobody_wants_is_not_taken_for_a_request(peer: Peer, length: int) -> None:
    evil = post("/echo", b"evil")
    content = (evil * (length // len(evil) + 1))[:length]
    peer.send(post("/ignore", content))
    assert peer.reply()[0] == 404
    peer.send(GET)
    assert json.loads(peer.reply()[2])["path"] == "/x y"


def test_mistakes_of_the_application(peer: Peer, server: Running) -> None:
    peer.send(b"GET /fail HTTP/1.1\r\nHost: lab\r\n\r\n")
    answer = peer.rest()
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"mistake" not in answer
    for path, status in (("/fail?late", b"200"), ("/short", b"200"), ("/inject", b"500")):
        other = Peer(server)
        other.send(f"GET {path} HTTP/1.1\r\nHost: lab\r\n\r\n".encode())
        answer = other.rest()
        assert answer.split()[1] == status
        assert b"evil" not in answer


def test_something_else_is_not_spoken(peer: Peer) -> None:
    peer.send(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    assert peer.rest().startswith(b"HTTP/1.1 200 ")
