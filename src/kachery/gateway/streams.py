"""Bytes on their way from a connection to a bucket.

Where the connection allows it, a thread reads them from the socket and writes them, and the event loop has nothing to
do with it (`benchmarks/experiments/moving_bodies.py`). Otherwise the event loop hands buffers over, and a thread writes
them, several at once. What waits in memory is bounded: who sends faster than the disk writes has to wait.
"""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from ..errors import WrongContent
from . import http

if TYPE_CHECKING:
    from collections.abc import Callable

    from .buckets.contract import Staging

T = TypeVar("T")

# Bytes that may wait for the disk, for each connection: enough that neither side waits for the other's wake-up
_HIGH_WATER = 4 * 1024 * 1024
_LOW_WATER = 1024 * 1024

# The thread is woken for at least this much, or at the end
_BATCH = 256 * 1024


# What one turn moves from the socket to the disk; larger buffers fall out of the cache in between
_PIECE = 256 * 1024


class Source(Protocol):
    """A socket, for a thread."""

    def readinto(self, view: memoryview, patience: float) -> int:
        """Put what has come into a buffer; waits for something; 0 at the end.

        Raises:
            TimedOut, Unreachable: If nothing comes, or the sender went away.
        """

    def abort(self) -> None:
        """Have whoever waits fail at once; any thread."""


class Body(Protocol):
    """The body of a request, in pieces."""

    def direct(self, count: int) -> Source | None:
        """The socket, when a thread may read the body from it and the body has so many bytes; `give_back` follows."""

    def give_back(self) -> None:
        """End `direct`."""

    async def chunk(self) -> bytes:
        """The next piece; empty at the end.

        Raises:
            Unreachable: If the sender went away, or sent nothing for too long.
        """


async def receive(
    body: Body, staging: Staging, start: int, count: int, on_written: Callable[[int], None], what: str
) -> None:
    """Write a body into a staging object.

    Args:
        body: The content.
        staging: Where to write.
        start: Where to begin, in bytes.
        count: How many bytes there must be.
        on_written: Called in a thread with the position up to which everything is written.
        what: What it is, for the error.

    Raises:
        WrongContent: If the body is shorter or longer.
        StorageFull: If there is no room.
        TimedOut, Unreachable: If the sender went away.
    """
    source = body.direct(count)
    if source is not None:
        try:
            await in_thread(partial(_move, source, staging, start, on_written), source.abort)
        finally:
            body.give_back()
        return
    writer = StreamWriter(staging, start, on_written)
    try:
        received = 0
        while chunk := await body.chunk():
            received += len(chunk)
            if received > count:
                raise WrongContent(f"the {what} has more than {count} bytes")
            await writer.feed(chunk)
        if received < count:
            raise WrongContent(f"the {what} has {received} bytes, not {count}")
        await writer.finish()
    finally:
        await writer.stop()


def _move(source: Source, staging: Staging, position: int, on_written: Callable[[int], None]) -> None:
    view = memoryview(bytearray(_PIECE))
    while count := source.readinto(view, http.PATIENCE):
        staging.write([view[:count]], position)
        position += count
        on_written(position)


async def in_thread(work: Callable[[], T], abort: Callable[[], None]) -> T:
    """What a function returns, which runs in a thread of its own; the threads of asyncio are few.

    Args:
        work: The function.
        abort: Makes it end soon; called when nobody wants the result any more. The thread is then waited for.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except Exception as error:
            failure = error
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:
            pass  # the loop is closed, so nobody waits any more

    threading.Thread(target=run, name="kachery-move", daemon=True).start()
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        abort()
        await asyncio.wait([done])
        done.exception()
        raise


class StreamWriter:
    """Writes what it is fed into a staging object, one piece after the other, in a thread of its own.

    Args:
        staging: Where to write.
        offset: Where to begin, in bytes.
        on_written: Called in the thread with the position up to which everything is written.
    """

    def __init__(self, staging: Staging, offset: int, on_written: Callable[[int], None]) -> None:
        self._staging = staging
        self.position = offset
        self._on_written = on_written
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._waiting: list[bytes] = []
        self._pending = 0
        self._ended = False
        self._failure: Exception | None = None
        self._drained = asyncio.Event()
        self._done = asyncio.Event()
        self._thread = threading.Thread(target=self._write, name="kachery-receive", daemon=True)
        self._thread.start()

    async def feed(self, chunk: bytes) -> None:
        """Take a piece; returns when there is room for the next.

        Raises:
            StorageFull: If an earlier piece found no room.
        """
        with self._changed:
            self._raise_failure()
            self._waiting.append(chunk)
            self._pending += len(chunk)
            if self._pending >= _BATCH:
                self._changed.notify()
            full = self._pending >= _HIGH_WATER
            if full:
                self._drained.clear()
        if full:
            await self._drained.wait()

    async def finish(self) -> None:
        """Return when everything is written.

        Raises:
            StorageFull: If it could not be.
        """
        await self.stop()
        self._raise_failure()

    async def stop(self) -> None:
        """As `finish`, when nobody wants to know about failures any more."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        await self._done.wait()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _write(self) -> None:
        try:
            while True:
                with self._changed:
                    while self._pending < _BATCH and not self._ended:
                        self._changed.wait()
                    batch, self._waiting = self._waiting, []
                    if not batch:
                        return
                count = sum(map(len, batch))
                self._staging.write(batch, self.position)
                self.position += count
                self._on_written(self.position)
                with self._changed:
                    self._pending -= count
                    if not self._drained.is_set() and self._pending <= _LOW_WATER:
                        self._wake(self._drained)
        except Exception as error:
            self._failure = error
        finally:
            self._wake(self._drained)
            self._wake(self._done)

    def _wake(self, event: asyncio.Event) -> None:
        try:
            self._loop.call_soon_threadsafe(event.set)
        except RuntimeError:
            pass  # the loop is closed, so nobody waits any more
