"""What every bus promises, whatever carries it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from kachery.errors import InvalidInput, NotAllowed, TooLarge, Unreachable
from kachery.gateway.bus.address import make_bus
from kachery.gateway.bus.contract import LARGEST, Bus
from kachery.gateway.bus.directory import DirectoryBus
from kachery.gateway.bus.process import Hub, ProcessBus
from kachery.gateway.logs import make_log
from rigs.nats import Nats

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

PATIENCE = 30.0


class Kind:
    """A way to make buses that belong together, and what may happen to what carries them."""

    def __init__(self, make: Callable[[], Bus], lose: Callable[[], None], restore: Callable[[], None]) -> None:
        self.make = make
        self.lose = lose
        self.restore = restore


def nothing() -> None:
    pass


@pytest.fixture(params=["process", "directory", "nats", "postgresql"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    log = make_log("error")
    if request.param == "process":
        hub = Hub()
        yield Kind(lambda: ProcessBus(hub, log), nothing, nothing)
    elif request.param == "directory":
        path = tmp_path / "bus"
        yield Kind(lambda: make_bus(str(path), "space", log), lambda: shutil.rmtree(path), nothing)
    elif request.param == "nats":
        with Nats(tmp_path / "nats") as server:
            yield Kind(lambda: make_bus(server.url, "space", log), server.stop, server.start)
    else:
        postgres = request.getfixturevalue("postgres_server")
        address = postgres.new_database()
        yield Kind(lambda: make_bus(address, "space", log), postgres.stop, postgres.start)


class Listener:
    """One process on the bus."""

    def __init__(self, bus: Bus, topic: str = "news") -> None:
        self.bus = bus
        self.heard: list[Any] = []
        bus.subscribe(topic, lambda message: self.heard.append(message["n"]))

    async def say(self, number: Any, topic: str = "news") -> None:
        await self.bus.publish(topic, {"n": number})


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


def run(kind: Kind, story: Callable[[list[Listener]], Awaitable[None]], count: int = 2) -> None:
    async def main() -> None:
        listeners = [Listener(kind.make()) for _ in range(count)]
        for listener in listeners:
            await listener.bus.open()
        try:
            await story(listeners)
        finally:
            for listener in listeners:
                await listener.bus.close()

    asyncio.run(main())


def test_everybody_hears_a_message_once_the_sender_too(kind: Kind) -> None:
    async def story(listeners: list[Listener]) -> None:
        await listeners[0].say(1)
        await until(lambda: all(listener.heard for listener in listeners))
        await listeners[1].say(2)
        await until(lambda: all(len(listener.heard) == 2 for listener in listeners))
        assert [listener.heard for listener in listeners] == [[1, 2]] * 3

    run(kind, story, 3)


def test_the_order_of_one_sender_stays_in_a_burst(kind: Kind) -> None:
    async def story(listeners: list[Listener]) -> None:
        await asyncio.gather(*(listeners[0].say(number) for number in range(2000)))
        await until(lambda: all(len(listener.heard) == 2000 for listener in listeners))
        assert [listener.heard for listener in listeners] == [list(range(2000))] * 2

    run(kind, story)


def test_topics_are_apart(kind: Kind) -> None:
    async def story(listeners: list[Listener]) -> None:
        await listeners[0].say(1, "other")
        await listeners[0].say(2)
        await until(lambda: listeners[1].heard)
        assert listeners[1].heard == [2]

    run(kind, story)


def test_any_text_and_the_largest_message(kind: Kind) -> None:
    odd = 'ünï\n\x00"\\ 🧠 \ud800'
    filler = "x" * (LARGEST - len('{"n":""}'))

    async def story(listeners: list[Listener]) -> None:
        for value in (odd, filler, {"a": [1, None, 2.5]}):
            await listeners[0].say(value)
        await until(lambda: len(listeners[1].heard) == 3)
        assert listeners[1].heard == [odd, filler, {"a": [1, None, 2.5]}]
        with pytest.raises(TooLarge):
            await listeners[0].say(filler + "x")

    run(kind, story)


@pytest.mark.parametrize("topic", ["", "UPPER", "a.b", "a b", "x" * 21, "*", ">"])
def test_a_topic_is_a_word(kind: Kind, topic: str) -> None:
    async def story(listeners: list[Listener]) -> None:
        with pytest.raises(InvalidInput):
            await listeners[0].say(1, topic)
        with pytest.raises(InvalidInput):
            listeners[0].bus.subscribe(topic, lambda _: None)

    run(kind, story, 1)


def test_who_comes_later_hears_what_is_said_later(kind: Kind) -> None:
    async def story(listeners: list[Listener]) -> None:
        await listeners[0].say(1)
        await until(lambda: listeners[0].heard)
        late = Listener(kind.make())
        await late.bus.open()
        try:
            await listeners[0].say(2)
            await until(lambda: late.heard)
            assert late.heard == [2]
        finally:
            await late.bus.close()
        # and nothing after it has left
        await listeners[0].say(3)
        await until(lambda: listeners[0].heard == [1, 2, 3])
        assert late.heard == [2]
        assert not late.bus.connected
        with pytest.raises(Unreachable):
            await late.say(4)

    run(kind, story, 1)


def test_a_listener_that_fails_disturbs_no_other(kind: Kind) -> None:
    async def story(listeners: list[Listener]) -> None:
        def fail(message: dict[str, Any]) -> None:
            raise RuntimeError("a mistake")

        late = Listener(kind.make())
        late.bus.subscribe("first", fail)
        await late.bus.open()
        try:
            second = []
            late.bus.subscribe("first", second.append)
            await listeners[0].say(1, "first")
            await listeners[0].say(2)
            await until(lambda: late.heard)
            assert second == [{"n": 1}]
        finally:
            await late.bus.close()

    run(kind, story, 1)


def test_a_bus_that_goes_away_comes_back_by_itself(kind: Kind) -> None:
    async def story(listeners: list[Listener]) -> None:
        await listeners[0].say(1)
        await until(lambda: listeners[1].heard == [1])
        kind.lose()

        async def say(number: int) -> bool:
            try:
                await listeners[0].say(number)
            except Unreachable:
                return False
            return True

        # what is said meanwhile is lost, and said to be, sooner or later
        await say(2)
        kind.restore()
        number = 3

        async def arrives() -> None:
            nonlocal number
            while True:
                if await say(number):
                    await asyncio.sleep(0.05)
                    if number in listeners[1].heard:
                        return
                await asyncio.sleep(0.01)
                # a process whose place is gone takes it again when it next says something
                try:
                    await listeners[1].say(0)
                except Unreachable:
                    pass
                number += 1

        async with asyncio.timeout(PATIENCE):
            await arrives()
        assert all(listener.bus.connected for listener in listeners)
        rising = [number for number in listeners[1].heard if number]
        assert rising == sorted(set(rising))

    run(kind, story)


# -- what only some of them have ---------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kachery.gateway.bus.nats._FIRST", 0.1)
    server = Nats(tmp_path / "nats")
    bus = make_bus(server.url, "space", make_log("error"))

    async def story() -> None:
        listener = Listener(bus)
        await bus.open()
        assert not bus.connected
        with pytest.raises(Unreachable):
            await listener.say(1)
        server.start()
        await until(lambda: bus.connected)
        await listener.say(2)
        await until(lambda: listener.heard == [2])
        await bus.close()

    try:
        asyncio.run(story())
    finally:
        server.stop()


def test_two_gateways_on_one_server_do_not_hear_each_other(tmp_path: Path) -> None:
    async def story(url: str) -> None:
        one, other = (Listener(make_bus(url, space, make_log("error"))) for space in ("one", "other"))
        await one.bus.open()
        await other.bus.open()
        await one.say(1)
        await other.say(2)
        await until(lambda: one.heard and other.heard)
        assert (one.heard, other.heard) == ([1], [2])
        await one.bus.close()
        await other.bus.close()

    with Nats(tmp_path / "nats") as server:
        asyncio.run(story(server.url))


def test_a_process_that_was_killed_leaves_no_trace(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys, pathlib\n"
        "from kachery.gateway.bus.directory import DirectoryBus\n"
        "from kachery.gateway.logs import make_log\n"
        "async def main():\n"
        "    await DirectoryBus(pathlib.Path(sys.argv[1]), make_log('error')).open()\n"
        "    print('open', flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    path = tmp_path / "bus"
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"

        async def story() -> None:
            listener = Listener(DirectoryBus(path, make_log("error")))
            await listener.bus.open()
            assert len(list(path.iterdir())) == 2
            # one that is stopped takes some messages, and then holds up nobody for long
            process.send_signal(signal.SIGSTOP)
            for number in range(1000):
                await listener.say(number)
            await until(lambda: len(listener.heard) == 1000)
            process.kill()
            process.wait()
            await listener.say(1000)
            assert len(list(path.iterdir())) == 1
            await listener.bus.close()
            assert list(path.iterdir()) == []

        asyncio.run(story())
    finally:
        process.kill()
        process.communicate()


def test_what_is_no_bus(tmp_path: Path) -> None:
    log = make_log("error")
    with pytest.raises(InvalidInput, match="too long"):
        make_bus(str(tmp_path / ("x" * 100)), "space", log)
    (tmp_path / "file").touch()
    with pytest.raises((NotAllowed, OSError)):
        make_bus(str(tmp_path / "file"), "space", log)
    for address in ("redis://127.0.0.1", "nats://", "nats://127.0.0.1,http://x", "postgresql://127.0.0.1"):
        with pytest.raises(InvalidInput):
            make_bus(address, "space", log)
    made = make_bus(str(tmp_path / "bus"), "space", log)
    assert os.stat(tmp_path / "bus").st_mode & 0o777 == 0o700
    assert made.here == "127.0.0.1"
    assert make_bus("nats://127.0.0.1:4222", "space", log).here == "127.0.0.1"
