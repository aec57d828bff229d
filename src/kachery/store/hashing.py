"""The hash of a file outside the store, and of copies of it.

The source is only ever read. It may be changed by somebody else at any time, so the hash is never taken from it when a
copy is made: the copy is hashed. A source that changes meanwhile gives an error.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from typing import TYPE_CHECKING

from .. import digest
from ..errors import InvalidInput, KacheryError, NotFound, SourceChanged, explaining, from_os_error
from .verified import SMALL, Verified

if TYPE_CHECKING:
    from ..progress import Progress
    from .layout import Layout

# one call copies at most this much, so that the digest can follow; `benchmarks/experiments/copy_and_hash.py`
_COPY_STEP = 1024 * 1024


def open_source(path: str) -> tuple[int, os.stat_result]:
    """Open a regular file for reading.

    Returns:
        A descriptor, and how the file looked when it was opened.

    Raises:
        NotFound, NotAllowed: As the file system says.
        InvalidInput: If it is a directory, a device, a pipe or a socket.
    """
    try:
        # a pipe that nobody writes to would hold up the opening for ever
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotFound(f"no such file: {path}", hint="check the spelling of the path") from error
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise InvalidInput(f"{path} is not a regular file", hint="give the path of a file") from error
        raise from_os_error(error, "read", path) from error
    except ValueError as error:
        raise InvalidInput(f"not a path: {path!r}: {error}") from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise InvalidInput(f"{path} is {kind}", hint="give the path of a file")
    return fd, status


def same_look(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether a file did not change between two looks at it."""
    return (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) == (
        other.st_dev,
        other.st_ino,
        other.st_size,
        other.st_mtime_ns,
        other.st_ctime_ns,
    )


def require_unchanged(fd: int, before: os.stat_result, path: str) -> None:
    """Say so when an open source no longer looks as it did.

    Raises:
        SourceChanged: If its size or a time differs.
    """
    if not same_look(before, os.fstat(fd)):
        raise SourceChanged(f"{path} changed while it was read", hint="try again when nothing writes to it")


def read_whole(fd: int, before: os.stat_result, path: str) -> bytes:
    """All of a small open source.

    Raises:
        SourceChanged: If it changes meanwhile, or has more or fewer bytes than it says.
    """
    try:
        data = os.read(fd, before.st_size + 1)
    except OSError as error:
        raise from_os_error(error, "read", path) from error
    require_unchanged(fd, before, path)
    if len(data) != before.st_size:
        raise SourceChanged(f"{path} has {before.st_size} bytes, and {len(data)} could be read", hint="try again")
    return data


def read_seen(path: str, seen: os.stat_result) -> bytes:
    """All of a small file that must look as it did when somebody looked at it.

    Raises:
        NotFound, NotAllowed, InvalidInput: As `open_source`.
        SourceChanged: If it looks different now.
    """
    try:
        # whether it is a regular file was seen then
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        fd, _ = open_source(path)
    try:
        return read_whole(fd, seen, path)
    finally:
        os.close(fd)


def copy_and_digest(source: int, target: int, size: int, progress: Progress, algorithm: str = "sha1") -> str:
    """Copy a file and digest the copy at the same time.

    Args:
        source: A descriptor at the beginning of the file to copy.
        target: A descriptor of an empty file, readable and writable.
        size: How many bytes there are to copy.
        progress: Told of every step.
        algorithm: The digest to take.

    Returns:
        The digest in hex of what is now in the copy.

    Raises:
        SourceChanged: If the source ends early or goes on.
        OSError: As the file system says.
    """
    follower = digest.FollowingDigest(target, algorithm)
    try:
        copied = 0
        while copied < size:
            count = copy_some(source, target, min(_COPY_STEP, size - copied))
            if count == 0:
                raise SourceChanged(f"the file became shorter while it was read: {copied} of {size} bytes")
            copied += count
            follower.advance(copied)
            progress.advance(count)
        if os.read(source, 1):
            raise SourceChanged(f"the file is longer than its {size} bytes", hint="is it one that a program generates?")
        return follower.result(size)
    finally:
        follower.stop()


def copy_some(source: int, target: int, count: int) -> int:
    """Copy at most `count` bytes from one descriptor's position to another's; 0 at the end of the source."""
    if hasattr(os, "copy_file_range"):
        try:
            # shares blocks where the file system can, and never passes through this process
            copied = os.copy_file_range(source, target, count)
            # some file systems say 0 where there is more to read
            if copied:
                return copied
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF):
                raise
    data = os.read(source, min(count, digest.BUFFER_SIZE))
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
    return len(data)


class HashCache:
    """What the hashes of large files outside the store were, kept where upstream keeps it.

    A remembered hash is believed only when the file was also seen by us to have it and looks the same (`Verified`).
    """

    def __init__(self, layout: Layout, verified: Verified) -> None:
        self._layout = layout
        self._verified = verified

    def sha1(self, path: str, progress: Progress) -> tuple[str, os.stat_result]:
        """The SHA-1 of a file, and how the file looked.

        Raises:
            NotFound, NotAllowed, InvalidInput: As `open_source`.
            SourceChanged: If the file changes while it is read.
        """
        path = os.path.abspath(path)
        opened = time.time()
        fd, status = open_source(path)
        try:
            if status.st_size > SMALL:
                known = self._recall(path)
                if known and self._verified.knows(known, status):
                    progress.advance(status.st_size)
                    return known, status
            with explaining("read", path), open(fd, "rb", buffering=0, closefd=False) as stream:
                hash_ = digest.of_stream(stream, advance=progress.advance)["sha1"]
                if stream.tell() != status.st_size:
                    raise SourceChanged(f"{path} says it has {status.st_size} bytes, and {stream.tell()} were read")
            require_unchanged(fd, status, path)
        finally:
            os.close(fd)
        self.remember(path, hash_, status, opened)
        return hash_, status

    def recall(self, path: str) -> str | None:
        """The SHA-1 of a large file that looks as it did when it was last hashed; else `None`."""
        known = self._recall(path)
        try:
            return known if known and self._verified.knows(known, os.stat(path)) else None
        except OSError:
            return None

    def remember(self, path: str, hash_: str, status: os.stat_result, opened: float) -> None:
        """Keep what the hash of a large file, opened at this time, was seen to be."""
        if status.st_size > SMALL:
            self._verified.remember(hash_, status, opened=opened)
            self._record(path, hash_, status)

    def _path(self, path: str) -> str:
        return f"{self._layout.mutables()}/@compute_sha1_cache/{digest.of_bytes(os.fsencode(path))}"

    def _recall(self, path: str) -> str | None:
        try:
            with open(self._path(path), "rb") as file:
                record = json.loads(file.read())
            hash_ = record["sha1"] if record["path"] == path else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return hash_ if isinstance(hash_, str) and digest.is_hash("sha1", hash_) else None

    def _record(self, path: str, hash_: str, status: os.stat_result) -> None:
        try:
            self._layout.replace(self._path(path), record_bytes(path, hash_, status))
        except KacheryError:
            # a cache that cannot be written to costs time, nothing else
            pass


def record_bytes(path: str, hash_: str, status: os.stat_result) -> bytes:
    """The record that upstream keeps of a file outside the store."""
    record = {"path": path, "size": status.st_size, "mtime": status.st_mtime, "sha1": hash_}
    return json.dumps(record).encode()
