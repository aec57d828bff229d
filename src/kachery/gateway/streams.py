"""Bytes on their way from a connection to a bucket.

The event loop only hands buffers over; a thread writes them, several at once. What waits in memory is bounded: who
sends faster than the disk writes has to wait.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from .buckets.contract import Staging

# Bytes that may wait for the disk, for each connection: enough that neither side waits for the other's wake-up
_HIGH_WATER = 4 * 1024 * 1024
_LOW_WATER = 1024 * 1024

# The thread is woken for at least this much, or at the end
_BATCH = 256 * 1024


class Body(Protocol):
    """The body of a request, in pieces."""

    async def chunk(self) -> bytes:
        """The next piece; empty at the end.

        Raises:
            Unreachable: If the sender went away, or sent nothing for too long.
        """


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
