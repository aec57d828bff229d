"""Files on their way into the zone, for peers that speak upstream's protocol.

One job for a file, however many ask for it: they all hear how it stands. At most so many run at once as the resource
says, the others wait in the order in which they were asked for. What is done is remembered for a minute, so that who
asks again is answered at once; what failed is told to the next who asks, and after that tried anew.

    queued ──▶ running ──▶ completed      looked up, verified, sent, verified by the zone
                       └─▶ error          with a reason that may be shown to anybody
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import settings
from ..digest import is_hash
from ..errors import KacheryError, SourceChanged, WrongContent
from ..store import keys
from ..zone import Zone
from .sharing import CHANGED
from .threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from .sharing import Shared, Sharing

logger = logging.getLogger(__name__)

#: For how long it is remembered that a file was brought, in seconds.
KEPT = 60.0

#: Files that may wait; who asks for more is told so.
MOST_JOBS = 10_000


class Ended(KacheryError):
    """The daemon ends, and what it sends with it."""


@dataclass
class Job:
    """One file on its way; times in milliseconds since the epoch."""

    hash: str
    size: int
    requested: int
    state: str = "queued"
    uploaded: int = 0
    started: int | None = None
    completed: int | None = None
    error: str | None = None
    waiting: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def status(self) -> dict[str, Any]:
        """The job as upstream's peers are told of it."""
        told: dict[str, Any] = {
            "status": self.state,
            "size": self.size,
            "bytesUploaded": max(0, min(self.uploaded, self.size)),
            "timestampRequested": self.requested,
        }
        times = {"timestampStarted": self.started, "timestampCompleted": self.completed}
        told |= {key: value for key, value in times.items() if value is not None}
        if self.error is not None:
            told["error"] = self.error
        return told


class Jobs:
    """The jobs of one resource.

    Args:
        sharing: What may be brought.
        most: How many run at once.
        send: Sends one file and returns when the zone has it; called in a thread, told of every step.
    """

    def __init__(self, sharing: Sharing, most: int, send: Callable[[Shared, Counter], None]) -> None:
        self._sharing = sharing
        self._most = most
        self._send = send
        self._jobs: dict[str, Job] = {}
        self._queue: deque[Job] = deque()
        self._running: dict[asyncio.Task[None], Counter] = {}

    async def request(self, hash_: str, patience: float) -> dict[str, Any]:
        """Have a file brought, and hear how it stands.

        Args:
            hash_: Its SHA-1, in any spelling; only the canonical one is ever found.
            patience: How long to wait for its end, in seconds.

        Returns:
            `{"status": "not-found"}`, or the job's `status`, `size`, `bytesUploaded`, times and `error`.
        """
        job = self._jobs.get(hash_)
        if job is not None and job.state == "error":
            # told once; who asks after that wants another try
            del self._jobs[hash_]
            if not job.waiting:
                return job.status()
        if job is not None and job.completed is not None and _now() - job.completed > KEPT * 1000:
            del self._jobs[hash_]
        if hash_ not in self._jobs:
            refused = await self._begin(hash_)
            if refused is not None:
                return refused
        job = self._jobs[hash_]
        if not job.over.is_set():
            job.waiting += 1
            try:
                with suppress(TimeoutError):
                    await asyncio.wait_for(job.over.wait(), patience)
            finally:
                job.waiting -= 1
        if job.state == "error" and self._jobs.get(hash_) is job:
            del self._jobs[hash_]
        return job.status()

    async def close(self) -> None:
        """End what runs; what waits is forgotten."""
        self._queue.clear()
        for task, counter in self._running.items():
            counter.stop()
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _begin(self, hash_: str) -> dict[str, Any] | None:
        now = _now()
        if not is_hash("sha1", hash_):
            return {"status": "not-found"}
        try:
            found = await in_thread(self._sharing.look, hash_)
        except KacheryError as error:
            return {"status": "error", "size": 0, "bytesUploaded": 0, "timestampRequested": now, "error": _told(error)}
        if hash_ in self._jobs:
            # somebody else was faster
            return None
        if found is None:
            return {"status": "not-found"}
        self._forget_old()
        if len(self._jobs) >= MOST_JOBS:
            reason = f"{MOST_JOBS} files wait to be sent already; try again later"
            return {"status": "error", "size": 0, "bytesUploaded": 0, "timestampRequested": now, "error": reason}
        job = Job(hash_, found.size or 0, now)
        self._jobs[hash_] = job
        self._queue.append(job)
        self._start_next()
        return None

    def _start_next(self) -> None:
        while self._queue and len(self._running) < self._most:
            job = self._queue.popleft()
            job.state, job.started = "running", _now()
            counter = Counter(job)
            task = asyncio.get_running_loop().create_task(self._run(job, counter))
            self._running[task] = counter
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if not task.cancelled():
            self._start_next()

    async def _run(self, job: Job, counter: Counter) -> None:
        logger.info("sending sha1=%s size=%d", job.hash, job.size)
        try:
            await in_thread(self._bring, job, counter)
        except KacheryError as error:
            logger.warning("not sent sha1=%s: %s", job.hash, error)
            job.error, job.state = _told(error), "error"
        except Exception as error:
            logger.exception("not sent sha1=%s", job.hash)
            job.error, job.state = f"a mistake in kachery: {type(error).__name__}", "error"
        else:
            job.completed, job.uploaded, job.state = _now(), job.size, "completed"
            seconds = max(1, job.completed - (job.started or 0)) / 1000
            logger.info("sent sha1=%s size=%d seconds=%.1f", job.hash, job.size, seconds)
        finally:
            job.over.set()

    def _bring(self, job: Job, counter: Counter) -> None:
        shared = self._sharing.open(job.hash)
        try:
            job.size = shared.size
            try:
                self._send(shared, counter)
            except WrongContent:
                # the zone got something else; if the file is what it was, something on the way altered it
                shared.require_unchanged()
                raise
        finally:
            os.close(shared.fd)

    def _forget_old(self) -> None:
        limit = _now() - KEPT * 1000
        for hash_ in [key for key, job in self._jobs.items() if job.completed is not None and job.completed < limit]:
            del self._jobs[hash_]


class Counter:
    """A progress that a job shows, and by which it is stopped."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._stopped = False

    def advance(self, count: int) -> None:
        """Count, or end what counts."""
        self._job.uploaded += count
        if self._stopped:
            raise Ended("the daemon was ended")

    def say(self, state: str) -> None:
        """Nothing; the job has states of its own."""

    def stop(self) -> None:
        """End it at its next step."""
        self._stopped = True


def into_zone(zone: str) -> Callable[[Shared, Counter], None]:
    """What sends files to a zone of the configured gateway, as this machine's client."""

    def send(shared: Shared, counter: Counter) -> None:
        target = Zone(zone, settings.gateway_url(), keys.load())
        target.upload(shared.fd, shared.hash, shared.size, counter)

    return send


def _told(error: KacheryError) -> str:
    """What somebody elsewhere is told: the reason, and no path of this machine."""
    return CHANGED if isinstance(error, SourceChanged) else error.message


def _now() -> int:
    return int(time.time() * 1000)
