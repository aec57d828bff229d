"""Content that arrives from elsewhere, piece by piece, under a hash that is known beforehand.

Pieces may come in any order and from several connections. Beside the file lies a list of the ranges that are in it, so
that an interrupted transfer continues with what is missing, in this process or another. A digest follows the part
that has no holes; only when it equals the expected hash does the file become a blob. When it does not, everything
received is thrown away, since nobody can tell which part was wrong.

One process at a time receives a file; others that want the same one wait for it, and find it done.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from .. import digest
from ..errors import StorageFull, TimedOut, WrongContent, explaining
from .blobs import PART, RANGES, publish
from .layout import Layout, lock, remove_if_there

if TYPE_CHECKING:
    from .verified import Verified

_POLL = 0.05

# in a shared directory somebody may have put a link to another file there
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Receiving:
    """A file that is being received. A context: when it ends without `finish`, what arrived is kept for the next time.

    Args:
        layout: Of the store directory.
        verified: Of the same.
        hash_: The hash that the content must have.
        size: Its size in bytes.
        algorithm: The hash's algorithm.
        patience: How long to wait for another process that receives the same file and makes no progress, in seconds.

    Raises:
        TimedOut: If that process makes no progress.
        StorageFull, NotAllowed: If the store cannot be written to.
    """

    def __init__(
        self,
        layout: Layout,
        verified: Verified,
        hash_: str,
        size: int,
        *,
        algorithm: str = "sha1",
        patience: float = 60.0,
    ) -> None:
        self.size = size
        self._layout = layout
        self._verified = verified
        self._hash = hash_
        self._algorithm = algorithm
        self._path = f"{layout.temporary()}/{algorithm}.{hash_}{PART}"
        self._lock = threading.Lock()
        self._fd = self._open(patience)
        try:
            self._ranges_fd = self._open_ranges()
            self._require_room()
        except BaseException:
            os.close(self._fd)
            raise
        self._held = _merge(self._read_ranges())
        # pieces in progress do not count until they are marked; the one at the frontier is digested as it grows
        self._frontier = self._held[0][1] if self._held and self._held[0][0] == 0 else 0
        self._follower: digest.FollowingDigest | None = None

    def _open(self, patience: float) -> int:
        deadline = time.monotonic() + patience
        seen = -1
        self._layout.make_directory(self._layout.temporary())
        while True:
            with explaining("write to", self._path):
                fd = os.open(self._path, _FLAGS, 0o666)
            if not lock(fd):
                status = os.fstat(fd)
                os.close(fd)
                if status.st_mtime_ns != seen:
                    seen, deadline = status.st_mtime_ns, time.monotonic() + patience
                elif time.monotonic() > deadline:
                    raise TimedOut(
                        f"another process has been receiving {self._hash} without progress for {patience:.0f} s",
                        hint="end that process, then try again",
                    ) from None
                time.sleep(_POLL)
                continue
            # the file may have been published or removed between opening and locking it
            if _is_at(fd, self._path):
                with explaining("write to", self._path):
                    self._layout.share(fd)
                return fd
            os.close(fd)

    def _open_ranges(self) -> int:
        with explaining("write to", f"{self._path}{RANGES}"):
            fd = os.open(f"{self._path}{RANGES}", _FLAGS | os.O_APPEND, 0o666)
            self._layout.share(fd)
        return fd

    def _require_room(self) -> None:
        # a size that cannot be true would otherwise only show when the disk is full
        system, status = os.fstatvfs(self._fd), os.fstat(self._fd)
        if self.size - status.st_blocks * 512 > system.f_bavail * system.f_frsize:
            raise StorageFull(
                f"{self.size} bytes are to be received, and {self._layout.root} has room for fewer",
                hint="make room on this file system, then try again; nothing was lost",
            )

    def missing(self, step: int) -> list[tuple[int, int]]:
        """The ranges that have not arrived, cut into pieces of at most `step` bytes; each `(start, end)`."""
        gaps = []
        position = 0
        for start, end in [*self._held, (self.size, self.size)]:
            while position < start:
                gaps.append((position, min(position + step, start)))
                position = gaps[-1][1]
            position = max(position, end)
        return gaps

    @property
    def held(self) -> int:
        """How many bytes have arrived already."""
        return sum(end - start for start, end in self._held)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put some bytes in their place.

        Raises:
            StorageFull, NotAllowed: As the file system says.
        """
        view = memoryview(data)
        # what was digested stays as it is, even if somebody sends it again
        digested = min(max(0, self._frontier - offset), len(view))
        view, offset = view[digested:], offset + digested
        start = offset
        with explaining("write to", self._path):
            while view:
                count = os.pwrite(self._fd, view, offset)
                view, offset = view[count:], offset + count
        with self._lock:
            if start == self._frontier:
                self._advance(offset)

    def mark(self, start: int, end: int) -> None:
        """Say that a whole range is in the file."""
        with self._lock:
            with explaining("write to", f"{self._path}{RANGES}"):
                os.write(self._ranges_fd, b"%d %d\n" % (start, end))
            self._held = _merge([*self._held, (start, end)])
            if self._held[0][0] == 0:
                self._advance(self._held[0][1])

    def _advance(self, frontier: int) -> None:
        self._frontier = max(self._frontier, frontier)
        if self._follower is None:
            self._follower = digest.FollowingDigest(self._fd, self._algorithm)
        self._follower.advance(self._frontier)

    def finish(self) -> str:
        """Make a blob of what arrived.

        Returns:
            The blob's path.

        Raises:
            WrongContent: If it does not have the expected hash; nothing of it is kept.
        """
        if self.missing(self.size or 1):
            raise WrongContent(f"only {self.held} of {self.size} bytes arrived")
        with explaining("write to", self._path):
            os.ftruncate(self._fd, self.size)
        with self._lock:
            self._advance(self.size)
            follower = self._follower
        assert follower is not None
        found = follower.result(self.size)
        if found != self._hash:
            self.abandon()
            raise WrongContent(
                f"what was received as {self._algorithm} {self._hash} has the hash {found}",
                hint="the sender or something on the way altered it; nothing of it was kept",
            )
        path = publish(self._layout, self._verified, self._fd, self._path, self._hash, self._algorithm)
        remove_if_there(f"{self._path}{RANGES}")
        return path

    def abandon(self) -> None:
        """Remove what arrived, because it is no longer wanted."""
        self.discard()
        # the list first: without it nobody believes that something is in the file
        remove_if_there(f"{self._path}{RANGES}")
        remove_if_there(self._path)

    def discard(self) -> None:
        """Throw away what arrived."""
        with self._lock:
            if self._follower is not None:
                self._follower.stop()
                self._follower = None
            os.ftruncate(self._ranges_fd, 0)
            os.ftruncate(self._fd, 0)
            self._held = []
            self._frontier = 0

    def _read_ranges(self) -> list[tuple[int, int]]:
        ranges = []
        with open(self._ranges_fd, "rb", closefd=False) as file:
            file.seek(0)
            for line in file.read().split(b"\n")[:-1]:
                parts = line.split()
                if len(parts) == 2 and all(part.isdigit() and len(part) < 20 for part in parts):
                    start, end = int(parts[0]), int(parts[1])
                    if 0 <= start < end <= self.size:
                        ranges.append((start, end))
        there = os.fstat(self._fd).st_size
        return [(start, end) for start, end in ranges if end <= there]

    def __enter__(self) -> Receiving:
        return self

    def __exit__(self, *_: object) -> None:
        if self._follower is not None:
            self._follower.stop()
        os.close(self._ranges_fd)
        os.close(self._fd)


def _is_at(fd: int, path: str) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def _merge(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
