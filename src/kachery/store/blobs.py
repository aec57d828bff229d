"""Blobs: content in the store, under its hash.

What is handed out was hashed under its own name before: a small blob each time, a large one when it does not look as it
did when it was last hashed. What is taken in is copied to a private file first, and the copy is hashed.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from typing import TYPE_CHECKING

from .. import digest, settings
from ..errors import KacheryError, WrongContent, explaining, from_os_error
from ..progress import SILENT
from . import hashing, unnamed
from .layout import GROUP_FILE, Layout, lock, random_letters, remove_if_there, sync_directory, write_all
from .verified import SMALL, Verified

if TYPE_CHECKING:
    from ..progress import Progress

logger = logging.getLogger(__name__)

#: Up to this size, in bytes, a file is read whole, hashed in memory and written once.
AT_ONCE = 256 * 1024

#: What the name of the list of a file's ranges ends with; see `receiving`.
RANGES = ".ranges"
PART = ".part"

# a file is made a moment before it is locked, in seconds
_UNLOCKED_FOR = 60.0


class Blobs:
    """The blobs of one store directory."""

    def __init__(self, layout: Layout, verified: Verified) -> None:
        self._layout = layout
        self._verified = verified

    def find(self, hash_: str, algorithm: str = "sha1", told: Progress = SILENT) -> str | None:
        """The path of a blob that is what its name says.

        Args:
            hash_: Its hash.
            algorithm: The hash's algorithm.
            told: Told of every step, while a large one is read.

        Returns:
            The path, or `None` when the store does not have it.

        Raises:
            WrongContent: If it has something else under that name, which is moved to quarantine.
            NotAllowed: If it may not be read.
        """
        path = self._layout.blob(hash_, algorithm)
        try:
            # a pipe in its place would hold up the opening for ever
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise from_os_error(error, "read", path) from error
        try:
            status = os.fstat(fd)
            large = status.st_size > SMALL
            if large and self._verified.knows(hash_, status, algorithm):
                return path
            found = _digest(fd, status.st_size, algorithm, told)
            if found == hash_:
                if large:
                    self._verified.remember(hash_, status, algorithm)
                return path
        except OSError as error:
            raise from_os_error(error, "read", path) from error
        finally:
            os.close(fd)
        if not self._quarantine(path, hash_, status):
            # somebody else was faster, and may have put it right
            return self.find(hash_, algorithm, told)
        raise WrongContent(
            f"the stored copy of {algorithm} {hash_} was damaged: its content has the hash {found}",
            hint=f"it was moved to {self._layout.quarantine()}; load the file again",
        )

    def add_bytes(self, data: bytes, algorithm: str = "sha1") -> str:
        """Store some bytes.

        Returns:
            Their hash.
        """
        hash_ = digest.of_bytes(data, algorithm)
        path = self._layout.blob(hash_, algorithm)
        if len(data) > SMALL:
            try:
                if self.find(hash_, algorithm):
                    return hash_
            except WrongContent:
                logger.warning("the stored copy of %s was damaged; it is replaced", hash_)
        else:
            shared = self._layout.shared_with_group()
            leaf = path[: path.rindex("/")]
            if not self._layout.make_leaf(leaf, shared=shared) and _holds(path, data):
                return hash_
            if not settings.durable() and unnamed.put(leaf, path, data, permissions=GROUP_FILE if shared else 0):
                return hash_
        temporary = f"{path}.{random_letters(10)}"
        fd = self._layout.create(temporary)
        with explaining("write to", path):
            try:
                write_all(fd, data)
                publish(self._layout, self._verified, fd, temporary, hash_, algorithm)
            except BaseException:
                remove_if_there(temporary)
                raise
            finally:
                os.close(fd)
        return hash_

    def add_open(
        self, source: int, status: os.stat_result, path: str, progress: Progress, algorithm: str = "sha1"
    ) -> str:
        """Store a private copy of an open file.

        Args:
            source: A descriptor at the file's beginning.
            status: How the file looks.
            path: What to call it in errors.
            progress: Told of every step.
            algorithm: The hash's algorithm.

        Returns:
            Its hash.

        Raises:
            SourceChanged: If it changes meanwhile.
            StorageFull, NotAllowed: If the store cannot be written to.
        """
        if status.st_size <= AT_ONCE:
            return self.add_bytes(hashing.read_whole(source, status, path), algorithm)
        with Incoming(self._layout, self._verified) as incoming:
            with explaining("copy", path):
                hash_ = hashing.copy_and_digest(source, incoming.fd, status.st_size, progress, algorithm)
            hashing.require_unchanged(source, status, path)
            incoming.publish(hash_, algorithm)
        return hash_

    def _quarantine(self, path: str, hash_: str, damaged: os.stat_result) -> bool:
        """Move a damaged file away; says whether it was still the one in that place."""
        place = f"{self._layout.quarantine()}/{hash_}.{random_letters(8)}"
        try:
            self._layout.make_directory(self._layout.quarantine())
            os.replace(path, place)
            moved = os.stat(place)
            if (moved.st_dev, moved.st_ino) == (damaged.st_dev, damaged.st_ino):
                return True
            os.replace(place, path)
            return False
        except FileNotFoundError:
            return False
        except (OSError, KacheryError) as error:
            raise WrongContent(
                f"{path} is damaged and could not be moved away: {error}",
                hint="ask the owner of the store directory to remove it",
            ) from error


class Incoming:
    """A private file in the store on its way to becoming a blob.

    As a context it removes itself unless it was published. It holds a lock for as long as its process lives, so that
    files which nobody works on any more can be told from the others.
    """

    def __init__(self, layout: Layout, verified: Verified) -> None:
        self._layout = layout
        self._verified = verified
        self.path = f"{layout.temporary()}/incoming.{random_letters(10)}"
        self.fd = layout.create(self.path)
        self._published = False

    def publish(self, hash_: str, algorithm: str = "sha1") -> str:
        """Make the file visible under the hash that its content was seen to have.

        Returns:
            The blob's path.
        """
        path = publish(self._layout, self._verified, self.fd, self.path, hash_, algorithm)
        self._published = True
        return path

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._published:
            remove_if_there(self.path)
        os.close(self.fd)


def publish(layout: Layout, verified: Verified, fd: int, temporary: str, hash_: str, algorithm: str) -> str:
    """Move a finished, hashed file to its place among the blobs.

    Returns:
        The blob's path.

    Raises:
        NotAllowed, StorageFull: As the file system says; the temporary file stays.
    """
    path = layout.blob(hash_, algorithm)
    large = os.fstat(fd).st_size > SMALL
    if large and _is_known(verified, path, hash_, algorithm):
        remove_if_there(temporary)
        return path
    durable = settings.durable()
    with explaining("write to", path):
        if durable:
            os.fsync(fd)
        try:
            os.replace(temporary, path)
        except FileNotFoundError:
            layout.make_directory(os.path.dirname(path))
            os.replace(temporary, path)
        if durable:
            sync_directory(os.path.dirname(path))
    if large:
        verified.remember(hash_, os.fstat(fd), algorithm)
    return path


def _is_known(verified: Verified, path: str, hash_: str, algorithm: str) -> bool:
    try:
        return verified.knows(hash_, os.stat(path), algorithm)
    except OSError:
        return False


def remove_abandoned(layout: Layout, older_than: float) -> list[str]:
    """Remove files in `tmp/` that no living process holds.

    Args:
        layout: Of the store directory.
        older_than: Files touched less than this many seconds ago stay: an interrupted download may be continued.

    Returns:
        The paths that were removed.
    """
    try:
        names = os.listdir(layout.temporary())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise from_os_error(error, "list", layout.temporary()) from error
    removed = []
    for name in names:
        path = f"{layout.temporary()}/{name}"
        # only a download can be continued; the list of a file's ranges goes with the file
        patience = older_than if name.endswith((PART, RANGES)) else min(older_than, _UNLOCKED_FOR)
        if not _is_list_of_another(path) and remove_if_abandoned(path, patience):
            removed.append(path)
    return removed


def _is_list_of_another(path: str) -> bool:
    return path.endswith(RANGES) and os.path.exists(path.removesuffix(RANGES))


def remove_if_abandoned(path: str, older_than: float) -> bool:
    """Remove a file that no living process holds and nobody touched for a while; says whether it was removed.

    Args:
        path: The file.
        older_than: For how long, in seconds.

    Raises:
        NotAllowed: If it should go and may not.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        # just published or removed by somebody else, or not ours to look at
        return False
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or time.time() - status.st_mtime < older_than:
            return False
        if not lock(fd):
            return False
        # under the lock, so that whoever wants to continue with it sees that it is gone
        with explaining("remove", path):
            remove_if_there(f"{path}{RANGES}")
            remove_if_there(path)
        return True
    finally:
        os.close(fd)


def _holds(path: str, data: bytes) -> bool:
    """Whether a file is exactly this."""
    try:
        # a pipe in its place would hold up the opening for ever
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.read(fd, len(data) + 1) == data
        finally:
            os.close(fd)
    except OSError:
        return False


def _digest(fd: int, size: int, algorithm: str, told: Progress) -> str:
    if size <= AT_ONCE:
        data = os.read(fd, size + 1)
        if len(data) >= size:
            return digest.of_bytes(data, algorithm)
        # some file systems give less than there is
        os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb", buffering=0, closefd=False) as stream:
        return digest.of_stream(stream, (algorithm,), advance=told.advance)[algorithm]
