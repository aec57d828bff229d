"""Downloads from servers that lie, break off, forget and expire: only what is missing is asked for again."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from typing import TYPE_CHECKING

import pytest

from kachery import http, transfer
from kachery.errors import BadReply, NotAllowed, NotFound, TimedOut, Unreachable, WrongContent
from kachery.progress import Silent
from kachery.store import Store
from rigs.liar import Exchange, Liar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1024 * 1024
DATA = random.Random(11).randbytes(3 * MIB + 12_345)
HASH = hashlib.sha1(DATA).hexdigest()

Behaviour = "Callable[[Exchange], None]"


def honest(exchange: Exchange) -> None:
    exchange.file(DATA)


@pytest.fixture
def liar() -> Iterator[Liar]:
    with Liar(honest) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_TIMEOUT", "0.5")
    monkeypatch.setattr(http, "pause", lambda *_: None)
    monkeypatch.setattr(transfer, "SEGMENT", MIB)


class Told:
    def __init__(self) -> None:
        self.moved = 0

    def advance(self, count: int) -> None:
        self.moved += count

    def say(self, state: str) -> None:
        raise AssertionError(state)


def load(liar: Liar, *, addresses: Callable[[bool], str] | None = None, connections: int | None = None) -> Told:
    """Load the data and see that it is there, verified, and nothing else."""
    told = Told()
    store = Store()
    with store.receive(HASH, len(DATA)) as incoming:
        told.advance(incoming.held)
        transfer.download(addresses or (lambda _: f"{liar.url}/file"), incoming, told, connections=connections)
        incoming.finish()
    found = store.find(HASH)
    assert found is not None
    with open(found.path, "rb") as file:
        assert file.read() == DATA
    assert list((store.root / "tmp").iterdir()) == []
    return told


def fails(liar: Liar, kind: type[Exception], match: str) -> None:
    """See that a download fails like this and leaves nothing but what can be continued."""
    with pytest.raises(kind, match=match) as caught:
        load(liar)
    assert type(caught.value) in (kind, http.Busy)
    store = Store()
    assert store.find(HASH) is None
    left = {path.name for path in store.root.rglob("*") if path.is_file()}
    assert left <= {f"sha1.{HASH}.part", f"sha1.{HASH}.part.ranges"}


@pytest.mark.parametrize("connections", [1, 4])
def test_an_honest_server(liar: Liar, connections: int) -> None:
    told = load(liar, connections=connections)

    assert told.moved == len(DATA)
    ranges = sorted(request.range or (0, 0) for request in liar.requests)
    assert ranges == [(start, min(start + MIB, len(DATA))) for start in range(0, len(DATA), MIB)]
    if connections == 1:
        assert liar.connections == 1


def test_a_small_file_is_asked_for_whole(liar: Liar) -> None:
    data = b"test-content\n"
    liar.behave = lambda exchange: exchange.file(data)
    hash_ = hashlib.sha1(data).hexdigest()
    with Store().receive(hash_, len(data)) as incoming:
        transfer.download(lambda _: liar.url, incoming, Silent())
        incoming.finish()
    assert liar.requests[0].range is None


@pytest.mark.parametrize("how", ["reset", "hang_up"])
def test_a_connection_that_breaks_continues_where_it_broke(liar: Liar, how: str) -> None:
    broken: list[int] = []

    def break_once(exchange: Exchange) -> None:
        start, end = exchange.request.range or (0, len(DATA))
        if len(broken) < 3 and end - start > 400_000:
            broken.append(start + 400_000)
            exchange.head(
                206, {"Content-Length": str(end - start), "Content-Range": f"bytes {start}-{end - 1}/{len(DATA)}"}
            )
            exchange.send(DATA[start : start + 400_000])
            if how == "reset":
                # let what was sent arrive before the reset overtakes it
                exchange.over.wait(0.2)
            getattr(exchange, how)()
        honest(exchange)

    liar.behave = break_once
    told = load(liar, connections=1)

    assert told.moved == len(DATA)
    continued = [request.range[0] for request in liar.requests if request.range]
    assert set(broken) <= set(continued)
    assert len(liar.requests) == 4 + 3


def test_a_download_that_was_given_up_continues_in_the_next(liar: Liar) -> None:
    def only_the_first(exchange: Exchange) -> None:
        if (exchange.request.range or (0, 0))[0] == 0:
            honest(exchange)
        else:
            exchange.reset()

    liar.behave = only_the_first
    fails(liar, Unreachable, "broke")
    liar.requests.clear()
    liar.behave = honest
    told = load(liar, connections=1)

    assert told.moved == len(DATA)
    assert min(request.range[0] for request in liar.requests if request.range) == MIB


def test_a_silent_server(liar: Liar) -> None:
    liar.behave = Exchange.silence
    fails(liar, TimedOut, "did not answer in time")


def test_a_server_that_trickles(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_TIMEOUT", "0.2")

    def trickle(exchange: Exchange) -> None:
        start, end = exchange.request.range or (0, len(DATA))
        exchange.head(
            206, {"Content-Length": str(end - start), "Content-Range": f"bytes {start}-{end - 1}/{len(DATA)}"}
        )
        while not exchange.over.wait(0.05):
            exchange.send(DATA[start : start + 1])
            start += 1

    liar.behave = trickle
    fails(liar, TimedOut, "hardly anything")


def test_a_server_that_always_breaks_off_after_a_few_bytes(liar: Liar) -> None:
    def crumb(exchange: Exchange) -> None:
        start, end = exchange.request.range or (0, len(DATA))
        exchange.head(
            206, {"Content-Length": str(end - start), "Content-Range": f"bytes {start}-{end - 1}/{len(DATA)}"}
        )
        exchange.send(DATA[start : start + 10])
        exchange.hang_up()

    liar.behave = crumb
    fails(liar, Unreachable, "broke")
    assert len(liar.requests) <= 4 * http.ATTEMPTS


def test_a_server_that_is_gone() -> None:
    with Liar(honest) as liar:
        pass
    fails(liar, Unreachable, "cannot be reached")


def test_a_flipped_bit(liar: Liar) -> None:
    wrong = bytearray(DATA)
    wrong[2_000_000] ^= 4
    liar.behave = lambda exchange: exchange.file(bytes(wrong))
    fails(liar, WrongContent, "nothing of it was kept")
    assert [path for path in Store().root.rglob("*") if path.is_file()] == []


def test_another_file_of_the_same_size(liar: Liar) -> None:
    liar.behave = lambda exchange: exchange.file(DATA[::-1])
    fails(liar, WrongContent, "altered")


@pytest.mark.parametrize("content", [DATA[:-1], DATA + b"x", b"", b"<html><body>Please sign in</body></html>"])
def test_another_size(liar: Liar, content: bytes) -> None:
    liar.behave = lambda exchange: exchange.reply(200, content, {"Content-Type": "text/html"})
    fails(liar, BadReply, f"sends {len(content)} bytes of a file that should have {len(DATA)}")


def test_an_html_page_without_a_length(liar: Liar) -> None:
    def page(exchange: Exchange) -> None:
        exchange.head(200, {"Content-Type": "text/html", "Connection": "close"})
        exchange.send(b"<html><body>Please sign in</body></html>")
        exchange.hang_up()

    liar.behave = page
    fails(liar, Unreachable, "broke")


def test_more_than_was_asked_for(liar: Liar) -> None:
    def more(exchange: Exchange) -> None:
        start, end = exchange.request.range or (0, len(DATA))
        exchange.reply(206, DATA[start : end + 5], {"Content-Range": f"bytes {start}-{end - 1}/{len(DATA)}"})

    liar.behave = more
    fails(liar, BadReply, "more than the")


def test_chunks_instead_of_a_length(liar: Liar) -> None:
    def chunked(exchange: Exchange) -> None:
        start, end = exchange.request.range or (0, len(DATA))
        exchange.head(206, {"Transfer-Encoding": "chunked", "Content-Range": f"bytes {start}-{end - 1}/{len(DATA)}"})
        for position in range(start, end, 100_000):
            piece = DATA[position : min(position + 100_000, end)]
            exchange.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        exchange.send(b"0\r\n\r\n")

    liar.behave = chunked
    load(liar, connections=1)
    # nothing was left in the connection that would have spoiled it for the next range
    assert liar.connections == 1


@pytest.mark.parametrize(
    "given",
    ["", "bytes 0-9/10", "bytes 0-1048575/*", "bytes */3158073", "items 0-1048575/3158073", "bytes 1-1048576/3158073"],
)
def test_another_range_than_was_asked_for(liar: Liar, given: str) -> None:
    def wrong(exchange: Exchange) -> None:
        start, end = exchange.request.range or (0, len(DATA))
        exchange.reply(206, DATA[start:end], {"Content-Range": given})

    liar.behave = wrong
    fails(liar, BadReply, "was asked for bytes")


@pytest.mark.parametrize("connections", [1, 4])
def test_a_server_that_knows_no_ranges_sends_the_file_once(liar: Liar, connections: int) -> None:
    liar.behave = lambda exchange: exchange.reply(200, DATA)
    told = load(liar, connections=connections)

    assert told.moved == len(DATA)
    assert len(liar.requests) <= 1 + connections


def test_a_server_that_knows_no_ranges_and_breaks_off(liar: Liar) -> None:
    times = iter(range(1, 100))

    def some_of_it(exchange: Exchange) -> None:
        exchange.head(200, {"Content-Length": str(len(DATA))})
        exchange.send(DATA[: next(times) * MIB])
        exchange.hang_up()

    liar.behave = some_of_it
    load(liar)


def test_a_server_that_says_the_file_is_shorter(liar: Liar) -> None:
    liar.behave = lambda exchange: exchange.reply(416, b"", {"Content-Range": "bytes */10"})
    fails(liar, BadReply, "shorter than")


@pytest.mark.parametrize(
    ("status", "kind", "match"),
    [
        (404, NotFound, "does not have the file"),
        (403, NotAllowed, "refuses"),
        (401, NotAllowed, "refuses"),
        (204, BadReply, "HTTP 204"),
        (304, BadReply, "HTTP 304"),
        (418, BadReply, "HTTP 418"),
        (500, Unreachable, "HTTP 500"),
        (503, Unreachable, "busy"),
        (429, Unreachable, "busy"),
    ],
)
def test_other_answers(liar: Liar, status: int, kind: type[Exception], match: str) -> None:
    liar.behave = lambda exchange: exchange.reply(status, b"" if status in (204, 304) else b"no")
    fails(liar, kind, match)


def test_a_busy_server_is_waited_for(liar: Liar) -> None:
    def busy_at_first(exchange: Exchange) -> None:
        if len(liar.requests) <= 3:
            exchange.reply(503, b"", {"Retry-After": "1"})
        else:
            honest(exchange)

    liar.behave = busy_at_first
    load(liar)


def test_an_address_that_expires_is_renewed_once_for_all(liar: Liar) -> None:
    renewals: list[bool] = []

    def address(renew: bool) -> str:
        renewals.append(renew)
        return f"{liar.url}/{'new' if renew else 'old'}"

    def old_ones_expire(exchange: Exchange) -> None:
        if exchange.request.target == "/old" and len(liar.requests) > 1:
            exchange.reply(403, b"expired")
        else:
            honest(exchange)

    liar.behave = old_ones_expire
    load(liar, addresses=address)

    assert renewals == [False, True]


def test_redirects_to_where_the_file_is(liar: Liar) -> None:
    def redirect(exchange: Exchange) -> None:
        if exchange.request.target == "/file":
            exchange.reply(307, b"", {"Location": f"{liar.url}/bucket"})
        else:
            honest(exchange)

    liar.behave = redirect
    load(liar)


def test_redirects_without_end(liar: Liar) -> None:
    liar.behave = lambda exchange: exchange.reply(302, b"", {"Location": "/file"})
    fails(liar, BadReply, "from address to address")
    assert len(liar.requests) <= 4 * 10


def test_a_sink_that_is_full_ends_it(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    with store.receive(HASH, len(DATA)) as incoming:

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            transfer.download(lambda _: liar.url, incoming, Silent())
        monkeypatch.undo()


def test_an_interrupt_ends_it_and_keeps_what_came(liar: Liar) -> None:
    class Interrupting(Told):
        def advance(self, count: int) -> None:
            super().advance(count)
            if self.moved > 2 * MIB:
                raise KeyboardInterrupt

    store = Store()
    with store.receive(HASH, len(DATA)) as incoming, pytest.raises(KeyboardInterrupt):
        transfer.download(lambda _: liar.url, incoming, Interrupting())
    with store.receive(HASH, len(DATA)) as incoming:
        assert incoming.held >= MIB


def test_more_connections_join_when_one_is_slow(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_LOOK", 0.02)
    together = threading.Barrier(3)
    met: list[int] = []

    def wait_for_others(exchange: Exchange) -> None:
        if not met:
            # passes only when three connections are open at the same time
            together.wait(20)
            met.append(1)
        honest(exchange)

    monkeypatch.setenv("KACHERY_TIMEOUT", "20")
    liar.behave = wait_for_others
    load(liar, connections=3)
    assert liar.connections >= 3
