"""What goes through classic channels: how much on a day, how much at once, how often.

A transfer takes its place under its quota before it begins, with all that it may move, so that many at once cannot
exceed a limit together. When it ends, what it really moved is charged. What was charged goes to the database: with an
upload at once, with downloads every few seconds. Of several processes each knows only its own transfers in progress.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import KacheryError, NotAllowed, TimedOut, TooLarge
from .services import channels

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from .databases.contract import Database
    from .services.channels import Channel, CountKey, Direction, Quota

#: Seconds that a transfer waits for others of its quota to end, and how many may wait.
WAIT = 60.0
MOST_WAITING = 100

# addresses whose requests are remembered
_MOST_ADDRESSES = 10_000


class TooBusy(TimedOut):
    """All places of a quota are taken."""

    http_status = 503


class TooMany(NotAllowed):
    """One address asks more often than its channel allows."""

    code = "too_many_requests"
    http_status = 429


class QuotaExceeded(TooLarge):
    """What a quota allows is used up, or none is for files of this size."""

    http_status = 500


@dataclass
class Transfer:
    """One transfer under a quota, and what it moved so far."""

    files: int = 0
    bytes: int = 0

    def charge(self, files: int, size: int) -> None:
        """Count files and bytes that went through."""
        self.files += files
        self.bytes += size


@dataclass
class _Use:
    """What is going on under one quota."""

    running: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    pending_files: int = 0
    pending_bytes: int = 0


class ChannelTraffic:
    """The traffic of all channels; used by one thread.

    Args:
        database: Where counts are kept.
        today: Gives the day, as in 2026-11-25; by default the machine's own calendar, as upstream's server uses.
    """

    def __init__(self, database: Database, today: Callable[[], str] | None = None) -> None:
        self._database = database
        self._today = today or (lambda: time.strftime("%Y-%m-%d"))
        # not yet in the database
        self._charged: dict[CountKey, tuple[int, int]] = {}
        self._flushing = asyncio.Lock()
        self._uses: dict[tuple[str, str, str], _Use] = {}
        self._requests: dict[tuple[str, str], deque[float]] = {}

    def require_rate(self, channel: Channel, address: str) -> None:
        """Count a request of an address.

        Raises:
            TooMany: If it made as many as the channel allows within the last minute.
        """
        if channel.max_requests is None:
            return
        now = time.monotonic()
        if len(self._requests) >= _MOST_ADDRESSES:
            self._requests = {key: times for key, times in self._requests.items() if times and times[-1] > now - 60}
        recent = self._requests.setdefault((channel.name, address), deque())
        while recent and recent[0] <= now - 60:
            recent.popleft()
        if len(recent) >= channel.max_requests:
            raise TooMany(
                f"more than {channel.max_requests} requests in a minute",
                hint=f"try again in {int(recent[0] + 60 - now) + 1} s",
            )
        recent.append(now)

    @asynccontextmanager
    async def transfer(
        self, channel: Channel, direction: Direction, file_size: int, *, files: int = 1, size: int
    ) -> AsyncIterator[Transfer]:
        """Take a place under the quota of a file, for as long as the context lasts.

        Args:
            channel: The channel.
            direction: `download` or `upload`.
            file_size: The file's size in bytes, which decides on the quota.
            files: How many files the transfer counts for.
            size: How many bytes it may move.

        Raises:
            QuotaExceeded: If there is no quota, or it is used up.
            TooBusy: If no place becomes free in time.
        """
        quota = channel.quota(direction, file_size)
        if quota is None:
            raise QuotaExceeded(f"No relevant {direction} quota found")
        use = self._uses.setdefault((channel.name, direction, quota.name), _Use())
        await self._take_place(use, quota)
        try:
            # what is just being written down would be seen twice
            async with self._flushing:
                self._require_left(channel, direction, quota, use, files, size)
                use.pending_files += files
                use.pending_bytes += size
            transfer = Transfer()
            try:
                yield transfer
            finally:
                use.pending_files -= files
                use.pending_bytes -= size
                if transfer.files or transfer.bytes:
                    key = (channel.name, direction, quota.name, self._today())
                    self._charge(key, transfer.files, transfer.bytes)
        finally:
            self._leave_place(use)
        if direction == "upload":
            # what is stored is stored; the next flush says what is wrong
            with suppress(KacheryError):
                await self.flush()

    async def _take_place(self, use: _Use, quota: Quota) -> None:
        most = quota.max_simultaneous or 0
        if use.running < most and not use.waiting:
            use.running += 1
            return
        if len(use.waiting) >= MOST_WAITING:
            raise TooBusy("too many transfers wait for this quota", hint="try again later")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        use.waiting.append(place)
        try:
            await asyncio.wait_for(asyncio.shield(place), WAIT)
        except BaseException as error:
            if place.done():
                # it became ours in the very moment in which we gave up
                self._leave_place(use)
            else:
                use.waiting.remove(place)
            if isinstance(error, TimeoutError):
                raise TooBusy(
                    f"no place for a transfer became free within {WAIT:.0f} s", hint="try again later"
                ) from None
            raise

    def _leave_place(self, use: _Use) -> None:
        if use.waiting:
            use.waiting.popleft().set_result(None)
        else:
            use.running -= 1

    def _require_left(
        self, channel: Channel, direction: Direction, quota: Quota, use: _Use, files: int, size: int
    ) -> None:
        key = (channel.name, direction, quota.name, self._today())
        stored, charged = self._database.read_now(channels.count, key), self._charged.get(key, (0, 0))
        used_files, used_bytes = stored[0] + charged[0], stored[1] + charged[1]
        # HEAD counts for nothing, and yet is refused where the limit is reached
        wanted = max(files, 1) if direction == "download" else files
        if wanted and quota.max_files is not None and used_files + use.pending_files + wanted > quota.max_files:
            raise QuotaExceeded("Exceeded number of files per day for this quota.")
        if size and quota.max_bytes is not None and used_bytes + use.pending_bytes + size > quota.max_bytes:
            raise QuotaExceeded("Exceeded number of bytes per day for this quota.")

    def _charge(self, key: CountKey, files: int, size: int) -> None:
        before = self._charged.get(key, (0, 0))
        self._charged[key] = (before[0] + files, before[1] + size)

    async def flush(self) -> None:
        """Write down what was charged.

        Raises:
            KacheryError: If it cannot be written; it is tried again the next time.
        """
        async with self._flushing:
            charged = dict(self._charged)
            if not charged:
                return
            await self._database.write(channels.add_counts, charged, self._today())
            # only now: what cannot be written stays here, and nobody looks meanwhile
            for key, (files, size) in charged.items():
                self._charge(key, -files, -size)
                if self._charged[key] == (0, 0):
                    del self._charged[key]
