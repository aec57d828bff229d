"""A file that a resource brings, in the ranges that somebody wants.

    a reader waits at a position ──▶ wants ──▶ sends of the daemon, `maxConcurrentUploads` at once
              ▲                                        │
              └── reads from the staging object ◀── PUT of the range

A range is asked of the daemon once, however many want it. All read from the staging object, so nobody waits for a slow
reader. A daemon serves the files that are wanted of it in turn, so nobody waits for the end of a large one either.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ...errors import KacheryError, TimedOut, Unreachable
from ..assembly import Assembly, merge, missing, receive_range

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..buckets.contract import Digests, Reader, Staging
    from ..services.zones import Zone
    from ..streams import Body

#: What one request to a daemon asks for at most, in bytes, and how far ahead of a reader it is asked.
PIECE = 8 * 1024 * 1024
WINDOW = 16 * 1024 * 1024

#: Seconds without progress after which a send, and a reader who waits, give up.
SEND_PATIENCE = 30.0
READER_PATIENCE = 45.0

# How often a range is asked for again that came in part only
_ATTEMPTS = 3

# Ends of ranges that were read lately: who begins where one ended reads straight on
_ENDS = 64


class Sender(Protocol):
    """What a connected daemon of ours can be told."""

    name: str
    slots: int

    def tell_to_send(self, send: Send) -> None:
        """Have it send a range, without waiting.

        Args:
            send: The range; its `id` is part of the address.
        """


@dataclass
class Send:
    """One range that a daemon was told to send.

    Args:
        dispatcher: Whose daemon it is.
        delivery: The file.
        start: The first byte.
        end: The byte after the last one.
        attempt: How often it was asked for, this time included.
        id: Its name, from which other processes see whose it is.
    """

    dispatcher: Dispatcher
    delivery: Delivery
    start: int
    end: int
    attempt: int
    id: str
    begun: bool = False
    touched: float = field(default_factory=time.monotonic)


class Dispatcher:
    """What one daemon still has to send.

    Args:
        sender: The daemon.
        sends: Where sends under way are entered, by id; shared by all daemons.
        process: The name of this process, where there are several.
    """

    def __init__(self, sender: Sender, sends: dict[str, Send], process: str = "") -> None:
        self.sender = sender
        self._sends = sends
        self._prefix = f"{process}-" if process else ""
        self._waiting: deque[Delivery] = deque()
        self._under_way: dict[str, Send] = {}
        self.closed = False

    def want(self, delivery: Delivery) -> None:
        """Take note that a file has wants, and have the daemon send what it has hands for."""
        if delivery not in self._waiting:
            self._waiting.append(delivery)
        self._fill()

    def forget(self, delivery: Delivery) -> None:
        """Ask no more for a file; what is under way is not waited for."""
        if delivery in self._waiting:
            self._waiting.remove(delivery)
        for send in [send for send in self._under_way.values() if send.delivery is delivery and not send.begun]:
            self._end(send)
        self._fill()

    def over(self, send: Send) -> None:
        """Take note that a send has ended, however it did."""
        self._end(send)
        self._fill()

    def close(self) -> None:
        """The daemon is gone: nothing more is asked of it."""
        self.closed = True
        self._waiting.clear()
        for send in [send for send in self._under_way.values() if not send.begun]:
            self._end(send)

    def _end(self, send: Send) -> None:
        self._under_way.pop(send.id, None)
        self._sends.pop(send.id, None)

    def _fill(self) -> None:
        while not self.closed and self._waiting and len(self._under_way) < self.sender.slots:
            delivery = self._waiting.popleft()
            want = delivery.take_want()
            if want is None:
                continue
            send = Send(self, delivery, *want, id=self._prefix + secrets.token_hex(16))
            self._under_way[send.id] = self._sends[send.id] = send
            delivery.started = delivery.started or time.time_ns() // 1_000_000
            asyncio.get_running_loop().call_later(SEND_PATIENCE, self._look_after, send)
            self.sender.tell_to_send(send)
            # in turn with the other files
            self._waiting.append(delivery)

    def _look_after(self, send: Send) -> None:
        if send.id not in self._under_way:
            return
        idle = time.monotonic() - send.touched
        if idle < SEND_PATIENCE:
            asyncio.get_running_loop().call_later(SEND_PATIENCE - idle, self._look_after, send)
            return
        # a body that has begun ends by the patience of its connection
        if not send.begun:
            self._end(send)
            send.delivery.came(send, TimedOut(f"the resource {self.sender.name} sent nothing for {idle:.0f} s"))
            self._fill()


class Delivery:
    """One file of a zone, while it is brought and for as long as it is read.

    Args:
        zone: The zone.
        sha1: The file's hash.
        size: Its size in bytes.
        staging: Where it is put together.
    """

    def __init__(self, zone: Zone, sha1: str, size: int, staging: Staging) -> None:
        self.zone = zone
        self.sha1 = sha1
        self.size = size
        self.staging = staging
        self.assembly = Assembly(staging, [])
        self.requested = time.time_ns() // 1_000_000
        self.started = 0
        self.completed = 0
        self.readers = 0
        self.used = self.offered = time.monotonic()
        self.failure: KacheryError | None = None
        self.digests: Digests | None = None
        #: Why it was not published although it is right.
        self.not_kept: KacheryError | None = None
        self.over = asyncio.Event()
        #: Called once all bytes are there.
        self.on_complete: Callable[[Delivery], None] | None = None
        self._dispatcher: Dispatcher | None = None
        self._interruption: KacheryError | None = None
        self._wants: deque[tuple[int, int, int]] = deque()
        # wanted or under way, so not to be wanted again
        self._asked: list[tuple[int, int]] = []
        self._ends: deque[int] = deque(maxlen=_ENDS)
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._waking = False

    @property
    def attached(self) -> bool:
        """Whether somebody is connected who brings it."""
        return self._dispatcher is not None and not self._dispatcher.closed

    @property
    def complete(self) -> bool:
        """Whether all of it is there and verified."""
        return self.digests is not None

    def attach(self, dispatcher: Dispatcher) -> None:
        """Have it brought by a daemon."""
        self._dispatcher = dispatcher
        self._interruption = None

    @property
    def resource(self) -> str:
        """The name of the resource that brings it; empty when none does just now."""
        return self._dispatcher.sender.name if self._dispatcher is not None else ""

    def brought_by(self, dispatcher: Dispatcher | None) -> bool:
        """Whether a daemon is the one that brings it."""
        return dispatcher is not None and self._dispatcher is dispatcher

    def present(self) -> int:
        """How many bytes are there."""
        return sum(end - start for start, end in self.assembly.reached())

    def missing(self) -> bool:
        """Whether any byte is not there."""
        return bool(missing(self.assembly.ranges(), self.size))

    # -- reading ------------------------------------------------------------------------------------------------------

    def open(self) -> Reader:
        """What there is, for a reader, who says `close_reader` at the end."""
        reader = self.staging.reader()
        self.readers += 1
        return reader

    def close_reader(self, reader: Reader) -> None:
        """Take note that a reader has ended."""
        reader.close()
        self.readers -= 1
        self.used = time.monotonic()

    def follow(self, start: int, end: int) -> None:
        """Take note that a range is read, and ask for the next ones of somebody who reads straight on."""
        if start in self._ends and end < self.size:
            self.want(start, min(self.size, end + min(end - start, PIECE)))
        self._ends.append(end)

    async def available(self, position: int, end: int) -> int:
        """Wait until the byte at a position is there, and ask for what comes after it.

        Args:
            position: Where a reader is.
            end: How far they will read.

        Returns:
            The first byte after it that is not there, at most `end`.

        Raises:
            SourceChanged, WrongContent, …: If the file will not come.
            Unreachable: If the daemon is gone, or nothing comes.
        """
        deadline = self._loop.time() + READER_PATIENCE
        while True:
            if self.failure is not None:
                raise self.failure
            reach = self.assembly.reach(position)
            if not self.complete:
                edge = -(-(position + WINDOW) // PIECE) * PIECE
                self.want(position, min(end, edge))
            if reach > position:
                return min(reach, end)
            if self._interruption is not None:
                raise self._interruption
            changed = self._changed
            try:
                async with asyncio.timeout_at(deadline):
                    await changed.wait()
            except TimeoutError:
                raise TimedOut(f"nothing came of this file for {READER_PATIENCE:.0f} s") from None

    def want(self, start: int, end: int) -> None:
        """Ask for what is missing of a range and was not asked for, in pieces."""
        if self._dispatcher is None or self._dispatcher.closed or self.failure is not None:
            return
        new = _without(_without([(start, end)], self.assembly.ranges()), self._asked)
        for first, last in new:
            position = first
            while position < last:
                # ends lie on multiples of a piece, so that neighbours meet
                stop = min(last, (position // PIECE + 1) * PIECE)
                self._wants.append((position, stop, 1))
                position = stop
        if new:
            self._asked = merge([*self._asked, *new])
            self._dispatcher.want(self)

    def take_want(self) -> tuple[int, int, int] | None:
        """The next range to ask for, and how often it was asked for then; `None` if there is none."""
        return self._wants.popleft() if self._wants else None

    # -- receiving ----------------------------------------------------------------------------------------------------

    async def receive(self, send: Send, body: Body) -> None:
        """Receive a range that a daemon was told to send.

        Raises:
            WrongContent: If it is shorter or longer.
            StorageFull: If there is no room.
            Unreachable: If the sender went away.
        """
        send.begun = True

        def written(position: int) -> None:
            send.touched = time.monotonic()
            self._wake_from_thread()

        error: KacheryError | None = None
        try:
            await receive_range(self.assembly, send.start, send.end, body, written)
        except KacheryError as caught:
            error = caught
            raise
        finally:
            # before the daemon is given something else to do: what did not come is asked for first
            self.came(send, error)
            send.dispatcher.over(send)

    def came(self, send: Send, error: KacheryError | None) -> None:
        """Take note that a send has ended; ask again for what did not come."""
        self._asked = _without(self._asked, [(send.start, send.end)])
        left = _without([(send.start, send.end)], self.assembly.ranges())
        if left and self.failure is None:
            if error is not None and error.http_status == 507:
                self.fail(error)
            elif send.attempt >= _ATTEMPTS:
                self.interrupt(error or Unreachable("the resource sent less than it was asked for"))
            elif self.attached and self._dispatcher is not None:
                self._wants.extendleft((start, end, send.attempt + 1) for start, end in reversed(left))
                self._asked = merge([*self._asked, *left])
                self._dispatcher.want(self)
        self.wake()
        if not left and self.failure is None and not self.complete and not self.missing() and self.on_complete:
            self.on_complete(self)

    def fail(self, error: KacheryError) -> None:
        """Give the file up: everybody who waits is told why."""
        self.failure = self.failure or error
        self._give_up_wants()
        self.over.set()
        self.wake()

    def interrupt(self, error: KacheryError) -> None:
        """Tell everybody who waits that nothing comes now; what is there stays, and somebody may bring the rest."""
        self._interruption = error
        self._give_up_wants()
        self._dispatcher = None
        self.wake()

    def _give_up_wants(self) -> None:
        for start, end, _ in self._wants:
            self._asked = _without(self._asked, [(start, end)])
        self._wants.clear()
        if self._dispatcher is not None:
            self._dispatcher.forget(self)
        # what has begun to come is claimed until its connection ends
        self._asked = self.assembly.claimed()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        self._waking = False
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _wake_from_thread(self) -> None:
        if self._waking:
            return
        self._waking = True
        try:
            self._loop.call_soon_threadsafe(self.wake)
        except RuntimeError:
            pass  # the loop is closed, so nobody waits any more

    def close(self) -> None:
        """Let go of the staging object."""
        self.assembly.close()


def _without(ranges: list[tuple[int, int]], taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is left of some ranges without others; both in order."""
    left = []
    for first, last in ranges:
        position = first
        for start, end in taken:
            if end <= position or start >= last:
                continue
            if start > position:
                left.append((position, start))
            position = max(position, end)
        if position < last:
            left.append((position, last))
    return left
