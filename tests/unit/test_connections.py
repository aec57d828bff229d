"""Replies of every form that RFC 9112 allows, and of some that it does not."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from kachery import http
from kachery.errors import BadReply, InvalidInput, TimedOut, Unreachable
from rigs.liar import Exchange, Liar

if TYPE_CHECKING:
    from collections.abc import Iterator

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_TIMEOUT", "0.4")
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def liar() -> Iterator[Liar]:
    with Liar(Exchange.silence) as server:
        yield server


def says(liar: Liar, *pieces: bytes, closes: bool = False) -> None:
    """Have the server answer with these bytes, each piece a packet."""

    def answer(exchange: Exchange) -> None:
        for number, piece in enumerate(pieces):
            if number:
                time.sleep(0.02)
            exchange.send(piece)
        if closes:
            exchange.hang_up()

    liar.behave = answer


def get(liar: Liar, method: str = "GET") -> http.Reply:
    return http.exchange(method, liar.url)


@pytest.mark.parametrize(
    "reply",
    [
        OK + b"Content-Length: 5\r\n\r\nhello",
        OK + b"content-length:5\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"Content-Length: 5, 5\r\n\r\nhello",
        b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
        OK + b"X-Folded: one\r\n two\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: Chunked\r\n\r\n2;x=y\r\nhe\r\n3 \r\nllo\r\n0\r\nTrailer: x\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 99\r\n\r\n00005\r\nhello\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_reply_of_any_form_is_read_to_its_end_and_the_connection_kept(liar: Liar, reply: bytes, size: int) -> None:
    if size == 1 and len(reply) > 120:
        size = 11
    says(
        liar, *[reply[start : start + size] for start in range(0, min(len(reply), 12 * size), size)], reply[12 * size :]
    )
    for _ in range(2):
        got = get(liar)
        assert (got.status, got.body) == (200, b"hello")
    assert liar.connections == 1


@pytest.mark.parametrize(
    "reply",
    [
        OK + b"\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
def test_a_connection_that_ends_with_its_reply_is_not_used_again(liar: Liar, reply: bytes) -> None:
    says(liar, reply, closes=True)
    assert get(liar).body == b"hello"
    assert get(liar).body == b"hello"
    assert liar.connections == 2


@pytest.mark.parametrize(
    ("method", "reply"),
    [
        ("HEAD", OK + b"Content-Length: 5\r\n\r\n"),
        ("HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 None\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n"),
        ("GET", OK + b"Content-Length: 0\r\n\r\n"),
    ],
)
def test_a_reply_without_a_body(liar: Liar, method: str, reply: bytes) -> None:
    says(liar, reply)
    assert get(liar, method).body == b""
    assert get(liar, method).body == b""
    assert liar.connections == 1


@pytest.mark.parametrize(
    "reply",
    [
        b"\x15\x03\x01\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"Bad Name: x\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        OK + b"Content-Length: -5\r\n\r\n",
        OK + b"Content-Length: 5x\r\n\r\nhello",
        OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nhello",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nfive\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
        OK + b"X: " + b"x" * 70_000,
    ],
)
def test_what_is_no_reply(liar: Liar, reply: bytes) -> None:
    says(liar, reply)
    with pytest.raises(Unreachable, match="broke"):
        get(liar)
    says(liar, OK + b"Content-Length: 0\r\n\r\n")
    assert get(liar).status == 200


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        OK,
        OK + b"Content-Length: 5\r\n\r\nhell",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ],
)
def test_a_reply_that_ends_early(liar: Liar, reply: bytes) -> None:
    says(liar, reply, closes=True)
    with pytest.raises(Unreachable, match="broke"):
        get(liar)


def test_a_head_that_trickles_for_ever(liar: Liar) -> None:
    def trickle(exchange: Exchange) -> None:
        exchange.send(OK)
        while not exchange.over.wait(0.05):
            exchange.send(b"X: x\r\n")

    liar.behave = trickle
    with pytest.raises(TimedOut):
        get(liar)


def test_what_a_server_says_out_of_turn_is_no_reply(liar: Liar) -> None:
    def twice(exchange: Exchange) -> None:
        exchange.reply(200, b"first")
        exchange.send(OK + b"Content-Length: 4\r\n\r\nevil")

    liar.behave = twice
    assert get(liar).body == b"first"
    time.sleep(0.05)
    liar.behave = lambda exchange: exchange.reply(200, b"second")
    assert get(liar).body == b"second"
    assert liar.connections == 2


def test_a_reply_that_was_not_read_to_its_end_is_not_taken_for_the_next(liar: Liar) -> None:
    says(liar, OK + b"Content-Length: 10\r\n\r\nhelloHTTP/")
    with http.request("GET", liar.url) as response:
        assert response.read(5) == b"hello"
    assert get(liar).body == b"helloHTTP/"
    assert liar.connections == 2


def test_a_server_that_has_had_enough_of_a_body_is_heard(liar: Liar) -> None:
    def refuse(exchange: Exchange) -> None:
        exchange.reply(413, b"too much", {"Connection": "close"})
        exchange.hang_up()

    with Liar(refuse) as server:
        body = (b"x" * 1024 for _ in range(8))
        reply = http.exchange("PUT", server.url, body=body, headers={"Content-Length": "8192"})
    assert (reply.status, reply.text) == (413, "too much")


def test_a_buffer_takes_a_body_as_it_comes(liar: Liar) -> None:
    content = os.urandom(3_000_000)
    liar.behave = lambda exchange: exchange.reply(200, content)
    buffer, got = memoryview(bytearray(100_000)), bytearray()
    with http.request("GET", liar.url) as response:
        while count := response.readinto(buffer):
            got += buffer[:count]
        assert response.readinto(buffer) == 0
    assert got == content


@pytest.mark.parametrize("header", [{"X": "a\r\nEvil: yes"}, {"X\r\nEvil": "yes"}, {"X": "a\nb"}, {"X": "\0"}])
def test_a_header_holds_one_line(liar: Liar, header: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        http.exchange("GET", liar.url, headers=header)
    assert liar.requests == []


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/a b", "/a%20b"),
        ("/é?q=ü", "/%C3%A9?q=%C3%BC"),
        ("/a%2Fb?x=1&y=%20#part", "/a%2Fb?x=1&y=%20"),
        ("", "/"),
        ("?q", "/?q"),
    ],
)
def test_what_an_address_may_hold(liar: Liar, path: str, sent: str) -> None:
    liar.behave = lambda exchange: exchange.reply(200, b"")
    assert http.exchange("GET", liar.url + path).status == 200
    assert liar.requests[0].target == sent


def test_a_redirect_to_nonsense(liar: Liar) -> None:
    liar.behave = lambda exchange: exchange.reply(302, b"", {"Location": "http://[bad/"})
    with pytest.raises((BadReply, InvalidInput)):
        http.exchange("GET", liar.url, follow=True)


def test_what_was_sent_is_not_sent_to_where_one_is_redirected(liar: Liar) -> None:
    liar.behave = lambda exchange: exchange.reply(307, b"", {"Location": "/elsewhere"})
    assert http.exchange("POST", liar.url, body=b"x", follow=True).status == 307
    assert len(liar.requests) == 1


def test_a_secret_is_not_told_to_another_server(liar: Liar) -> None:
    with Liar(lambda exchange: exchange.reply(200, b"")) as other:
        liar.behave = lambda exchange: exchange.reply(302, b"", {"Location": other.url})
        http.exchange("GET", liar.url, headers={"Authorization": "Bearer x", "Range": "bytes=0-1"}, follow=True)
    assert "authorization" in liar.requests[0].headers
    assert "authorization" not in other.requests[0].headers
    assert other.requests[0].headers["range"] == "bytes=0-1"
