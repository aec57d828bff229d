"""Moving the bytes of one file over HTTP: by ranges, in parallel where that helps, resumed, retried, never unbounded.

From a server nearby one connection moves bytes as fast as both machines can; more would only get in each other's way,
and each request costs a pause, so it is one request for all that is missing. From further away a file comes in pieces,
and where the first connection is slow others join in, up to the setting.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from . import http, settings
from .errors import BadReply, KacheryError, NotAllowed, NotFound, TimedOut, Unreachable, by_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .progress import Progress

#: What one request asks for, in bytes: at least so much,
SEGMENT = 16 * 1024 * 1024
#: and of a large file more, since each request costs a pause, but at most so much, so that there is work to share.
_LARGEST_SEGMENT = 8 * SEGMENT
_SEGMENTS = 16

#: A single connection that is faster than this, in bytes per second, gets no help.
FAST_ENOUGH = 150 * 1024 * 1024

# how often the speed is looked at, in seconds
_LOOK = 0.25

# how much may be lost when the process ends, in bytes
_MARK_EVERY = 4 * 1024 * 1024

_BUFFER = 256 * 1024

# what a server says about a refusal is read up to here, in bytes
_LONGEST_REASON = 64 * 1024

# less than this, in bytes, is no progress: it would take for ever
_PROGRESS = 64 * 1024

# a connection that is slower than this for as long as a silent one may be silent is given up, in bytes per second
_CRAWL = 1024


class Expired(KacheryError):
    """An address that was given out for a while no longer works; a new one may."""


class Sink(Protocol):
    """What takes the bytes of a file."""

    size: int

    def missing(self, step: int) -> list[tuple[int, int]]:
        """The ranges that are not there yet, in pieces of at most `step` bytes."""

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put some bytes in their place."""

    def mark(self, start: int, end: int) -> None:
        """Say that a whole range is there."""


def download(address: Callable[[bool], str], sink: Sink, progress: Progress, *, connections: int | None = None) -> None:
    """Fetch what a sink is missing.

    Args:
        address: Gives an address to fetch from; called with `True` when the last one no longer works.
        sink: Takes the bytes; it verifies them.
        progress: Told of every step.
        connections: How many to use at most; by default the setting.

    Raises:
        NotFound, NotAllowed, BadReply, TimedOut, Unreachable: When the server does not deliver.
        StorageFull, NotAllowed: When the sink cannot take it.
    """
    addresses = _Addresses(address)

    def fetch(start: int, end: int, moved: Callable[[int], None]) -> None:
        _fetch(addresses, sink, start, end, moved, whole=False)

    def fetch_to_the_end(start: int, end: int, moved: Callable[[int], None]) -> None:
        _fetch(addresses, sink, start, end, moved, whole=True)

    try:
        if connections is None and http.is_near(addresses.current()):
            _spread(deque(sink.missing(max(1, sink.size))), fetch, progress, 1)
        else:
            step = max(SEGMENT, min(sink.size // _SEGMENTS, _LARGEST_SEGMENT))
            _spread(deque(sink.missing(step)), fetch, progress, connections)
    except _NoRanges:
        # piece by piece it would send the beginning again for each
        missing = sink.missing(sink.size)
        start, end = missing[0][0], missing[-1][1]
        progress.advance(sum(one - other for other, one in missing) - (end - start))
        _persist(fetch_to_the_end, start, end, progress.advance)


def upload_parts(
    missing: list[tuple[int, int]],
    send: Callable[[int, int, Callable[[int], None]], None],
    progress: Progress,
    *,
    connections: int | None = None,
) -> None:
    """Send what a server is missing of a file.

    Args:
        missing: The ranges to send, each with one request.
        send: Sends one range, telling how many bytes have moved; it may be called again for the same range.
        progress: Told of every step.
        connections: How many to use at most; by default the setting.
    """
    _spread(deque(missing), send, progress, connections)


def pieces(fd: int, start: int, end: int, moved: Callable[[int], None]) -> Iterator[memoryview]:
    """The bytes of a range of a file, for a request's body.

    Raises:
        EOFError: If the file ends before the range does.
    """
    import os

    view = memoryview(bytearray(_BUFFER))
    position = start
    while position < end:
        count = os.preadv(fd, [view[: min(_BUFFER, end - position)]], position)
        if count == 0:
            raise EOFError(f"the file ends at {position}")
        yield view[:count]
        position += count
        moved(count)


class _Addresses:
    """One address for all workers, renewed once for all of them when it expires."""

    def __init__(self, give: Callable[[bool], str]) -> None:
        self._give = give
        self._lock = threading.Lock()
        self._current: str | None = None

    def current(self) -> str:
        with self._lock:
            if self._current is None:
                self._current = self._give(False)
            return self._current

    def renew(self, expired: str) -> str:
        with self._lock:
            if self._current == expired:
                self._current = self._give(True)
            assert self._current is not None
            return self._current


def _spread(
    work: deque[tuple[int, int]],
    move: Callable[[int, int, Callable[[int], None]], None],
    progress: Progress,
    connections: int | None,
) -> None:
    most = settings.transfers() if connections is None else connections
    if len(work) <= 1 or most == 1:
        for start, end in work:
            _persist(move, start, end, progress.advance)
        return
    crew = _Crew(work, move, progress)
    crew.run(most)


class _Crew:
    """Workers that share a list of ranges."""

    def __init__(
        self, work: deque[tuple[int, int]], move: Callable[[int, int, Callable[[int], None]], None], progress: Progress
    ) -> None:
        self._work = work
        self._move = move
        self._progress = progress
        self._lock = threading.Condition()
        self._moved = 0
        self._active = 0
        self._failure: BaseException | None = None

    def run(self, most: int) -> None:
        self._hire()
        workers = 1
        looked, seen = time.monotonic(), 0
        with self._lock:
            try:
                while self._active and self._failure is None:
                    self._lock.wait(_LOOK)
                    now = time.monotonic()
                    if now - looked >= _LOOK:
                        slow = (self._moved - seen) / (now - looked) < FAST_ENOUGH
                        looked, seen = now, self._moved
                        if slow and workers < most and self._work:
                            self._hire()
                            workers += 1
            except BaseException as error:
                self._failure = error
            while self._active:
                # each worker looks at the failure after every piece it moves, and no wait of its own is unbounded
                self._lock.wait()
        if self._failure is not None:
            raise self._failure

    def _hire(self) -> None:
        self._active += 1
        threading.Thread(target=self._labour, name="kachery-transfer", daemon=True).start()

    def _labour(self) -> None:
        try:
            while self._failure is None:
                try:
                    start, end = self._work.popleft()
                except IndexError:
                    return
                _persist(self._move, start, end, self._count)
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error
        finally:
            with self._lock:
                self._active -= 1
                self._lock.notify()

    def _count(self, count: int) -> None:
        with self._lock:
            self._moved += count
            self._progress.advance(count)
        if self._failure is not None:
            raise self._failure


def _persist(
    move: Callable[[int, int, Callable[[int], None]], None], start: int, end: int, moved: Callable[[int], None]
) -> None:
    """Move one range, again where it broke off, as long as there is some progress now and then."""
    failures = 0
    while True:
        done = 0

        def count(step: int) -> None:
            nonlocal done
            done += step
            moved(step)

        try:
            move(start, end, count)
            return
        except BadReply:
            raise
        except _Interrupted as error:
            start += done
            if start == end:
                return
            failures = 1 if done >= _PROGRESS else failures + 1
            if failures >= http.ATTEMPTS:
                raise error.reason from None
            http.pause(failures, error.reason)
        except Unreachable as error:
            # what was sent of a part does not count before its end
            moved(-done)
            failures += 1
            if failures >= http.ATTEMPTS:
                raise
            http.pause(failures, error)


class _NoRanges(Exception):
    """A server was asked for a part and sends the whole."""


class _Interrupted(Exception):
    """A download broke off; what came before is kept."""

    def __init__(self, reason: Unreachable) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _fetch(
    addresses: _Addresses, sink: Sink, start: int, end: int, moved: Callable[[int], None], *, whole: bool
) -> None:
    url = addresses.current()
    try:
        response = _open_range(url, start, end, sink.size)
    except Expired:
        url = addresses.renew(url)
        try:
            response = _open_range(url, start, end, sink.size)
        except Expired as error:
            raise NotAllowed(error.message, hint=error.hint) from error
    except BadReply:
        raise
    except Unreachable as error:
        raise _Interrupted(error) from error
    host = http.peer(url)
    position = marked = start
    if response.status == 200 and (start, end) != (0, sink.size) and not whole:
        response.close()
        raise _NoRanges
    # a server that does not know ranges sends the file from its beginning
    to_skip = start if response.status == 200 else 0
    patience = settings.timeout()
    looked, arrived, seen = time.monotonic(), 0, 0
    # one buffer for all of it: new memory for each piece costs more than the copy
    buffer = memoryview(bytearray(min(_BUFFER, max(1, to_skip + end - start))))
    try:
        with response:
            while position < end:
                count = response.readinto(buffer[: to_skip + end - position])
                if not count:
                    raise Unreachable(f"the connection to {host} broke {end - position} bytes before the end")
                arrived += count
                if time.monotonic() - looked > patience:
                    if arrived - seen < _CRAWL * patience:
                        raise TimedOut(
                            f"{host} sends hardly anything: {arrived - seen} bytes in {patience:.0f} s",
                            hint="try again later",
                        )
                    looked, seen = time.monotonic(), arrived
                drop = min(to_skip, count)
                to_skip -= drop
                if count > drop:
                    sink.write(position, buffer[drop:count])
                    position += count - drop
                    moved(count - drop)
                    if position - marked >= _MARK_EVERY:
                        sink.mark(marked, position)
                        marked = position
            if (response.status == 206 or end == sink.size) and response.read(1):
                raise BadReply(f"{host} sends more than the {end - start} bytes it was asked for")
    except BadReply:
        raise
    except Unreachable as error:
        raise _Interrupted(error) from error
    finally:
        if position > marked:
            sink.mark(marked, position)


def _open_range(url: str, start: int, end: int, size: int) -> http.Response:
    headers = {} if (start, end) == (0, size) else {"Range": f"bytes={start}-{end - 1}"}
    response = http.request("GET", url, headers=headers, follow=True)
    try:
        _raise_if_told(response, http.peer(url))
        _check_range(response.status, response.headers, http.peer(url), start, end, size)
    except BaseException:
        response.close()
        raise
    return response


def _raise_if_told(response: http.Response, host: str) -> None:
    """Raise what a gateway of ours says, but for what a new address may mend."""
    kind = by_code(response.headers.get("kachery-error", ""))
    if kind is None or response.status in (200, 206, 400, 401, 403, 410):
        return
    text = http.read_all(response, host, _LONGEST_REASON).decode("utf-8", "replace")
    raise kind(f"{host} says: {' '.join(text.split())[:500]}")


def _check_range(status: int, headers: Mapping[str, str], host: str, start: int, end: int, size: int) -> None:
    http.raise_if_busy(status, headers, host)
    if status == 206:
        given = headers.get("content-range", "")
        if given != f"bytes {start}-{end - 1}/{size}":
            raise BadReply(f"{host} was asked for bytes {start}-{end - 1} of {size} and sends {given or 'no range'}")
    elif status == 200:
        length = headers.get("content-length")
        if length is not None and length != str(size):
            raise BadReply(
                f"{host} sends {length} bytes of a file that should have {size}", hint="nothing of it was kept"
            )
    elif status == 404:
        raise NotFound(f"{host} does not have the file that it should have (HTTP 404)")
    elif status in (400, 401, 403, 410):
        raise Expired(f"{host} refuses to hand out the file (HTTP {status})")
    elif status == 416:
        raise BadReply(f"{host} says the file is shorter than {size} bytes (HTTP 416)")
    elif status >= 500:
        raise Unreachable(f"{host} failed (HTTP {status})")
    else:
        raise BadReply(f"{host} answered HTTP {status} where a file was expected")
