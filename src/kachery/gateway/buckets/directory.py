"""A bucket that is a directory.

    ROOT/[zones/ZONE/]sha1/ab/cd/ef/HASH     what is published; read-only files
    ROOT/staging/NAME                        what is being received
    ROOT/trash/…                             what was deleted

Relied upon: `link` in one file system is atomic and refuses an existing name, so publishing neither shows a part of a
file nor overwrites one; a name is durable once its directory was fsynced.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

from ... import digest
from ...errors import NotFound, WrongContent, from_os_error
from .contract import Bucket, Digests, Reader, Staging

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

#: Written bytes are sent to the disk in steps of this size while more arrive, so that the last step is short.
SYNC_STEP = 64 * 1024 * 1024

# below this size, in bytes, starting threads would take longer than hashing
_SMALL = 1024 * 1024

# what one call of the system takes; IOV_MAX
_MOST_BUFFERS = 1024

_STAGING = "staging"
_TRASH = "trash"


class DirectoryBucket(Bucket):
    """A directory as a bucket.

    Args:
        root: The directory; created if it is not there.
        name: The bucket's name in the gateway.
    """

    def __init__(self, root: Path, name: str = "default") -> None:
        self.root = root
        self.uri = f"directory://{name}"
        self._staging = root / _STAGING
        try:
            self._staging.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise from_os_error(error, "create", self._staging) from error

    def stage(self, name: str) -> Staging:
        """A new staging object, or one that exists, to be continued."""
        return _StagingFile(self._staging / name)

    def staging_path(self, name: str) -> Path:
        """Where a staging object is."""
        return self._staging / name

    def discard(self, name: str) -> None:
        """Remove a staging object, if there is one."""
        (self._staging / name).unlink(missing_ok=True)

    def staged(self) -> Iterator[tuple[str, float]]:
        """The names of all staging objects, and when each was last written to, in seconds since the epoch."""
        with os.scandir(self._staging) as entries:
            for entry in entries:
                try:
                    yield entry.name, entry.stat(follow_symlinks=False).st_mtime
                except FileNotFoundError:
                    continue

    def publish(self, name: str, key: str) -> bool:
        """Make a staging object's content readable under a key, durably, unless there is something already."""
        path = self._path(key)
        try:
            self._make_parents(path)
            try:
                os.link(self._staging / name, path)
            except FileExistsError:
                return False
            _sync_directory(path.parent)
        except OSError as error:
            raise from_os_error(error, "publish", path) from error
        return True

    def withdraw(self, name: str, key: str) -> bool:
        """Undo `publish` if this very staging object is what is under the key; says whether it was."""
        path = self._path(key)
        try:
            if not os.path.samefile(self._staging / name, path):
                return False
            path.unlink()
            _sync_directory(path.parent)
        except FileNotFoundError:
            return False
        return True

    def replace(self, name: str, key: str) -> None:
        """As `publish`, over damaged content; readers of the old content keep it until they are done."""
        path = self._path(key)
        temporary = path.with_name(f"{path.name}.{name}")
        try:
            self._make_parents(path)
            temporary.unlink(missing_ok=True)
            os.link(self._staging / name, temporary)
            os.replace(temporary, path)
            _sync_directory(path.parent)
        except OSError as error:
            raise from_os_error(error, "publish", path) from error

    def stat(self, key: str) -> int | None:
        """The size of the object under a key in bytes; `None` if there is none."""
        try:
            return os.stat(self._path(key)).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def digests(self, key: str) -> Digests:
        """The digests of the object under a key, from reading it."""
        path = self._path(key)
        try:
            size = os.stat(path).st_size
            found = digest.of_file(path, ("sha1", "sha256"))
        except OSError as error:
            raise from_os_error(error, "read", path) from error
        return Digests(found["sha1"], found["sha256"], size)

    def open(self, key: str) -> Reader:
        """The object under a key, for reading."""
        return _FileReader(self._path(key))

    def trash(self, key: str) -> bool:
        """Move the object under a key to `trash/<key>`; says whether there was one."""
        path = self._path(key)
        target = self.root / _TRASH / key
        try:
            if not path.exists():
                return False
            self._make_parents(target)
            os.replace(path, target)
            _sync_directory(target.parent)
            _sync_directory(path.parent)
        except OSError as error:
            raise from_os_error(error, "move to the trash", path) from error
        return True

    def keys(self, prefix: str = "") -> Iterator[str]:
        """All keys that begin with a prefix, staging and trash excluded."""
        start = self.root / os.path.dirname(prefix)
        for directory, subdirectories, names in os.walk(start):
            if directory == str(self.root):
                subdirectories[:] = [name for name in subdirectories if name not in (_STAGING, _TRASH)]
            subdirectories.sort()
            for name in sorted(names):
                key = os.path.relpath(os.path.join(directory, name), self.root)
                if key.startswith(prefix):
                    yield key

    def room(self) -> int:
        """How many bytes can still be written."""
        status = os.statvfs(self._staging)
        return status.f_bavail * status.f_frsize

    def _path(self, key: str) -> Path:
        # keys are derived from checked names and hashes; this is the second lock on the door
        if key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")):
            raise ValueError(f"not a key: {key!r}")
        return self.root / key

    def _make_parents(self, path: Path) -> None:
        missing = []
        directory = path.parent
        while not directory.is_dir():
            missing.append(directory)
            directory = directory.parent
        for new in reversed(missing):
            new.mkdir(exist_ok=True, mode=0o700)
            _sync_directory(new.parent)


class _StagingFile(Staging):
    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o400 | 0o200)
        except OSError as error:
            raise from_os_error(error, "create", path) from error
        self._followers: list[digest.FollowingDigest] | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._syncing = threading.Lock()
        self._unsynced = 0

    def write(self, buffers: Sequence[bytes | memoryview], offset: int) -> None:
        """Write some buffers one after the other, beginning at an offset."""
        try:
            _write_all(self._fd, list(buffers), offset)
        except OSError as error:
            raise from_os_error(error, "write to", self._path.parent) from error
        self._unsynced += sum(map(len, buffers))
        if self._unsynced >= SYNC_STEP and self._syncing.acquire(blocking=False):
            self._unsynced = 0
            threading.Thread(target=self._sync_early, name="kachery-sync", daemon=True).start()

    def advance(self, frontier: int) -> None:
        """Say that bytes 0 to `frontier` are written and will not change."""
        if frontier > 0:
            for follower in self._follow():
                follower.advance(frontier)

    def digests(self, size: int) -> Digests:
        """The digests of the first `size` bytes; the object must not have more."""
        actual = os.fstat(self._fd).st_size
        if actual != size:
            raise WrongContent(f"the content has {actual} bytes, not {size}")
        if self._followers is None and size <= _SMALL:
            content = os.pread(self._fd, size, 0)
            return Digests(digest.of_bytes(content, "sha1"), digest.of_bytes(content, "sha256"), size)
        sha1, sha256 = (follower.result(size) for follower in self._follow())
        return Digests(sha1, sha256, size)

    def sync(self) -> None:
        """Return once everything that is written is on the disk."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise from_os_error(error, "write to", self._path.parent) from error

    def reader(self) -> Reader:
        """What is written, for reading while more comes."""
        return _FileReader(self._path)

    def close(self) -> None:
        """Let go of the object; what is written stays."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            followers = self._followers or []
        for follower in followers:
            follower.stop()
        # an early sync holds on to the descriptor for as long as it runs
        with self._syncing:
            os.close(self._fd)

    def _follow(self) -> list[digest.FollowingDigest]:
        with self._lock:
            if self._followers is None:
                self._followers = [digest.FollowingDigest(self._fd, name) for name in ("sha1", "sha256")]
            return self._followers

    def _sync_early(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError:
            pass  # the sync that counts comes later, and raises
        finally:
            self._syncing.release()


class _FileReader(Reader):
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"the bucket has no {path.name}") from error
        except OSError as error:
            raise from_os_error(error, "read", path) from error
        self.size = os.fstat(self._fd).st_size
        self._buffer: bytearray | None = None

    def read_now(self, offset: int, count: int) -> bytes | None:
        """Up to `count` bytes if the page cache has them, else `None`."""
        # one buffer for the whole file: new pages for every block would cost more than the copy
        if self._buffer is None or len(self._buffer) < count:
            self._buffer = bytearray(count)
        view = memoryview(self._buffer)[:count]
        try:
            got = os.preadv(self._fd, [view], offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL):
                return None
            raise
        return bytes(view[:got]) if got else None

    def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes; empty at the end."""
        return os.pread(self._fd, count, offset)

    def readinto(self, offset: int, view: memoryview) -> int:
        """Put some bytes into a buffer; says how many, 0 at the end."""
        return os.preadv(self._fd, [view], offset)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _write_all(fd: int, buffers: list[bytes | memoryview], offset: int) -> None:
    while buffers:
        batch = buffers[:_MOST_BUFFERS]
        count = os.pwritev(fd, batch, offset)
        offset += count
        # a short write happens when a disk is nearly full; the next call says so
        done = 0
        while done < len(batch) and count >= len(batch[done]):
            count -= len(batch[done])
            done += 1
        del buffers[:done]
        if count:
            buffers[0] = buffers[0][count:]


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
