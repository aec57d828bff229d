"""A file that comes in parts.

A byte that has been written is never written again: a part claims its range before it is received, and whatever was
written of it stays claimed. So the digests can follow the beginning while it grows without holes, and nobody can swap
what was digested.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ..errors import Conflict
from .streams import receive

if TYPE_CHECKING:
    from collections.abc import Callable

    from .buckets.contract import Staging
    from .streams import Body


class Assembly:
    """The parts of one file, as this process knows them.

    Args:
        staging: Where they are written.
        parts: Ranges that are there already, [start, end).
    """

    def __init__(self, staging: Staging, parts: list[tuple[int, int]]) -> None:
        self.staging = staging
        self._lock = threading.Lock()
        self._done = merge(parts)
        # range claimed by a connection: start → (end, position reached)
        self._active: dict[int, tuple[int, int]] = {}
        self._sealed = False
        self._touched = time.monotonic()

    def has(self, start: int, end: int) -> bool:
        """Whether all of a range is there."""
        with self._lock:
            return any(first <= start and end <= last for first, last in self._done)

    def claim(self, start: int, end: int) -> None:
        """Reserve a range for one connection.

        Raises:
            Conflict: If some of it is there, or is reserved, or the upload is being ended.
        """
        with self._lock:
            if self._sealed:
                raise Conflict("this upload is being ended", hint="wait for the answer")
            for first, last in self._done:
                if first < end and start < last:
                    raise Conflict(f"bytes {first} to {last} are there already", hint="ask which are missing with GET")
            for first, (last, _) in self._active.items():
                if first < end and start < last:
                    raise Conflict(
                        f"bytes {first} to {last} are coming over another connection", hint="wait, then ask with GET"
                    )
            self._active[start] = (end, start)
            self._touched = time.monotonic()

    def written(self, start: int, position: int) -> None:
        """Say how far the connection that claimed a range has come; any thread."""
        with self._lock:
            end, _ = self._active[start]
            self._active[start] = (end, position)
            self._touched = time.monotonic()
            reached = [(first, upto) for first, (_, upto) in self._active.items() if upto > first]
            merged = merge(self._done + reached)
        if merged and merged[0][0] == 0:
            self.staging.advance(merged[0][1])

    def release(self, start: int) -> None:
        """End a claim; what was written of it stays."""
        with self._lock:
            _, position = self._active.pop(start)
            if position > start:
                self._done = merge([*self._done, (start, position)])
            self._touched = time.monotonic()

    def ranges(self) -> list[tuple[int, int]]:
        """The ranges that are there, merged."""
        with self._lock:
            return list(self._done)

    def reached(self) -> list[tuple[int, int]]:
        """As `ranges`, with what has been written of those that are coming."""
        with self._lock:
            return merge(self._done + [(start, upto) for start, (_, upto) in self._active.items() if upto > start])

    def reach(self, position: int) -> int:
        """How far the bytes from a position on are there: the first byte that is not."""
        return next((end for start, end in self.reached() if start <= position < end), position)

    def claimed(self) -> list[tuple[int, int]]:
        """The ranges that are coming."""
        with self._lock:
            return merge([(start, end) for start, (end, _) in self._active.items()])

    def seal(self) -> None:
        """Take no more parts.

        Raises:
            Conflict: If it is sealed, or parts are still coming.
        """
        with self._lock:
            if self._sealed or self._active:
                raise Conflict(
                    "parts of this upload are still coming, or it is being ended", hint="try again in a moment"
                )
            self._sealed = True

    def unseal(self) -> None:
        """Take parts again."""
        with self._lock:
            self._sealed = False

    def idle_for(self) -> float:
        """For how many seconds nothing has come; 0 while a connection is open."""
        with self._lock:
            return 0.0 if self._active or self._sealed else time.monotonic() - self._touched

    def close(self) -> None:
        """Let go of the staging object."""
        self.staging.close()


async def receive_range(
    assembly: Assembly, start: int, end: int, body: Body, on_written: Callable[[int], None] | None = None
) -> None:
    """Receive bytes `start` to `end` of a file. What was written before an interruption counts.

    Args:
        assembly: The file.
        start: The first byte.
        end: The byte after the last one.
        body: The content.
        on_written: Told, in a thread, the position up to which everything is written.

    Raises:
        WrongContent: If the body is shorter or longer.
        Conflict: If some of these bytes are there already, or are just coming over another connection.
        StorageFull: If there is no room.
        Unreachable: If the sender went away.
    """

    def written(position: int) -> None:
        assembly.written(start, position)
        if on_written is not None:
            on_written(position)

    assembly.claim(start, end)
    try:
        await receive(body, assembly.staging, start, end - start, written, "part")
    finally:
        assembly.release(start)


def missing(ranges: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """What ranges in order leave out of [0, size)."""
    holes = []
    position = 0
    for start, end in [*ranges, (size, size)]:
        if start > position:
            holes.append((position, start))
        position = max(position, end)
    return holes


def merge(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges [start, end) in order, those that touch made one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
