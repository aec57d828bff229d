"""What a machine shares: which of the files that its store knows, and whether they still are what they were.

Nothing is shared but what the store knows by its hash: blobs and linked files. Where directories are named, only what
really lies in one of them, whatever links of the file system say. A file is opened only after its hash was verified or
its look (device, inode, size, times) is the one that was verified; whoever asks for a file that changed gets a reason.
Reasons for others never name a path of this machine; the log does.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import KacheryError, NotAllowed, NotFound, SourceChanged
from ..store import Store, open_source
from ..store.hashing import same_look

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

CHANGED = "the file was changed, moved or removed since it was linked there"
OUTSIDE = "that machine has the file and does not share it"

# what was verified is remembered for so many files
_MOST_SEEN = 10_000

# a change within this many seconds may not show in a file's times
_TICK = 0.1


@dataclass(frozen=True)
class Candidate:
    """A file that the store knows, not verified yet.

    Attributes:
        hash: Its SHA-1.
        kind: `blob` or `link`.
        path: Where it is.
        size: In bytes, now; `None` when it cannot be looked at.
    """

    hash: str
    kind: str
    path: str
    size: int | None


@dataclass(frozen=True)
class Shared:
    """A verified file, open for reading; whoever opened it closes `fd`."""

    hash: str
    path: str
    fd: int
    status: os.stat_result

    @property
    def size(self) -> int:
        """In bytes."""
        return self.status.st_size

    def require_unchanged(self) -> None:
        """Make sure that the open file still is what was verified.

        Raises:
            SourceChanged: If its size or a time differs.
        """
        if not same_look(self.status, os.fstat(self.fd)):
            raise SourceChanged(CHANGED)


@dataclass(frozen=True)
class Listed:
    """A line of what is shared; `refused` says why a file is not, or is `None`."""

    candidate: Candidate
    refused: str | None


class Sharing:
    """The files that one store directory shares.

    Args:
        directories: Share only what lies in these; everything when there are none.
        root: The store directory; by default that of the settings.

    Attributes:
        directories: The real paths of these.
        root: The store directory.
    """

    def __init__(self, directories: Sequence[str] = (), root: Path | None = None) -> None:
        self.root = Store(root).root
        self.directories = tuple(os.path.realpath(directory) for directory in directories)
        self._seen: OrderedDict[str, tuple[str, os.stat_result]] = OrderedDict()
        self._lock = threading.Lock()
        self._hashing: dict[str, threading.Lock] = {}

    def look(self, hash_: str) -> Candidate | None:
        """Whether there is something to share under a hash; fast, nothing is verified.

        Args:
            hash_: A SHA-1 in the canonical spelling.

        Returns:
            What to share, or `None` when the store does not know the hash.

        Raises:
            NotAllowed: If the store knows it, and it is not shared.
            SourceChanged: If what was linked is gone or has another size now.
        """
        store = Store(self.root)
        found = [candidate for candidate in _candidates(store, hash_) if candidate is not None]
        if not found:
            return None
        allowed = [candidate for candidate in found if self._is_shared(candidate.path)]
        if not allowed:
            raise NotAllowed(OUTSIDE)
        for candidate in allowed:
            if candidate.size is not None:
                return candidate
        raise SourceChanged(CHANGED)

    def open(self, hash_: str) -> Shared:
        """Open a file that is shared, verified; this may take as long as reading all of it.

        Raises:
            NotFound: If the store does not know the hash.
            NotAllowed: If the file is not shared, or cannot be read.
            SourceChanged: If it no longer is what it was.
        """
        seen = self._open_seen(hash_)
        if seen is not None:
            return seen
        with self._lock:
            turn = self._hashing.setdefault(hash_, threading.Lock())
        try:
            # of many who ask at once, one reads
            with turn:
                return self._open_seen(hash_) or self._open_verified(hash_)
        finally:
            with self._lock:
                self._hashing.pop(hash_, None)

    def listing(self) -> Iterator[Listed]:
        """All that the store knows by a SHA-1, and whether it would be shared; only looks, reads nothing."""
        store = Store(self.root)
        for entry in store.entries():
            if entry.algorithm != "sha1":
                continue
            candidate = _blob(store, entry.hash) if entry.kind == "blob" else _link(store, entry.hash)
            if candidate is None:
                continue
            refused = None
            if not self._is_shared(candidate.path):
                refused = "not in a directory that is shared"
            elif candidate.size is None:
                refused = "changed, moved or removed since it was linked"
            yield Listed(candidate, refused)

    def _open_seen(self, hash_: str) -> Shared | None:
        with self._lock:
            seen = self._seen.get(hash_)
        if seen is None or not self._is_shared(seen[0]):
            return None
        path, look = seen
        try:
            fd, status = open_source(path)
        except KacheryError:
            return None
        if same_look(look, status):
            return Shared(hash_, path, fd, status)
        os.close(fd)
        return None

    def _open_verified(self, hash_: str) -> Shared:
        store = Store(self.root)
        found = [candidate for candidate in _candidates(store, hash_) if candidate is not None]
        if not found:
            raise NotFound("that machine does not have it")
        allowed = [candidate for candidate in found if self._is_shared(candidate.path)]
        if not allowed:
            raise NotAllowed(OUTSIDE)
        for candidate in allowed:
            shared = self._verify(store, candidate)
            if shared is not None:
                return shared
        logger.warning("%s: %s", hash_, "; ".join(f"{item.path} is no longer what it was" for item in allowed))
        raise SourceChanged(CHANGED)

    def _verify(self, store: Store, candidate: Candidate) -> Shared | None:
        if candidate.size is None:
            return None
        try:
            fd, status = open_source(candidate.path)
        except KacheryError:
            return None
        try:
            # looked at by its path, so it must still be the open file afterwards
            same = store.links.still_is(candidate.path, candidate.hash, size=candidate.size) and same_look(
                status, os.stat(candidate.path)
            )
        except (KacheryError, OSError):
            same = False
        if not same:
            os.close(fd)
            return None
        if time.time() - max(status.st_ctime, status.st_mtime) >= _TICK:
            with self._lock:
                self._seen[candidate.hash] = (candidate.path, status)
                while len(self._seen) > _MOST_SEEN:
                    self._seen.popitem(last=False)
        return Shared(candidate.hash, candidate.path, fd, status)

    def _is_shared(self, path: str) -> bool:
        if not self.directories:
            return True
        real = os.path.realpath(path)
        return any(os.path.commonpath((directory, real)) == directory for directory in self.directories)


def _candidates(store: Store, hash_: str) -> Iterator[Candidate | None]:
    yield _blob(store, hash_)
    yield _link(store, hash_)


def _blob(store: Store, hash_: str) -> Candidate | None:
    path = store.layout.blob(hash_)
    size = _size(path)
    return None if size is None else Candidate(hash_, "blob", path, size)


def _link(store: Store, hash_: str) -> Candidate | None:
    record = store.links.record(hash_)
    if record is None:
        return None
    size = _size(record["path"])
    if isinstance(record.get("size"), int) and record["size"] != size:
        size = None
    return Candidate(hash_, "link", record["path"], size)


def _size(path: str) -> int | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size if os.path.isfile(path) else None
