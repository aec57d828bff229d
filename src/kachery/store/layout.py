"""Where things lie in the store directory, and how they get there.

    sha1/ab/cd/ef/HASH                     a blob; ab, cd, ef are the first three pairs of its hash
    linked_files/sha1/ab/cd/ef/HASH        where the content of HASH lies outside the store (JSON)
    mutables/@folder/name                  a local mutable
    mutables/@compute_sha1_cache/HASH      what a large file's hash was (JSON); HASH is that of its path
    private.pem, public.pem                the client's keys
    kachery.json                           the gateway and zone that `kachery init` set
    tmp/…                                  what is being written; every writer holds a lock on its file there
    verified/sha1/ab/HASH                  which files were seen to have this hash, and how they looked then (JSON)
    quarantine/HASH.…                      blobs that turned out not to be what their name says

All but the last four are upstream's, byte for byte, and its programs may work in the same directory at the same time.

What POSIX promises and is relied on here: `rename` within a file system is atomic; a lock taken with `flock` goes away
with its process, however that ends. A file appears under its final name only whole.

A directory that is group-writable with the setgid bit set belongs to a group: what is made in it is group-writable
too, whatever the umask says. `KACHERY_CLOUD_MULTI_USER=1` asks for the same anywhere.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from pathlib import Path

from .. import digest, settings
from ..errors import NotAllowed, explaining, from_os_error

_GROUP_DIRECTORY = stat.S_ISGID | stat.S_IWGRP
_GROUP_ALL = stat.S_ISGID | stat.S_IRWXG
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}

#: What a file may be besides, that belongs to a group.
GROUP_FILE = stat.S_IRGRP | stat.S_IWGRP


class Layout:
    """The paths of one store directory; nothing is made before something is written.

    Args:
        root: The store directory.
    """

    def __init__(self, root: str | Path) -> None:
        self._prefix = str(root)
        self._shared: bool | None = None

    @property
    def root(self) -> Path:
        """The store directory."""
        return Path(self._prefix)

    def blob(self, hash_: str, algorithm: str = "sha1") -> str:
        """The path of a blob."""
        return f"{self._prefix}/{algorithm}/{hash_[:2]}/{hash_[2:4]}/{hash_[4:6]}/{hash_}"

    def link(self, hash_: str) -> str:
        """The path of a link's record."""
        return f"{self._prefix}/linked_files/sha1/{hash_[:2]}/{hash_[2:4]}/{hash_[4:6]}/{hash_}"

    def verified(self, hash_: str, algorithm: str = "sha1") -> str:
        """The path of the record of files seen to have this hash."""
        return f"{self._prefix}/verified/{algorithm}/{hash_[:2]}/{hash_}"

    def mutables(self) -> str:
        """The directory of local mutables."""
        return f"{self._prefix}/mutables"

    def temporary(self) -> str:
        """The directory of what is being written."""
        return f"{self._prefix}/tmp"  # noqa: S108 — in the store directory

    def quarantine(self) -> str:
        """The directory of blobs that are not what their name says."""
        return f"{self._prefix}/quarantine"

    def shared_with_group(self) -> bool:
        """Whether what is made here must be writable for the group."""
        if self._shared is not None:
            return self._shared
        if settings.multi_user():
            return True
        try:
            mode = os.stat(self._prefix).st_mode
        except OSError:
            return False
        return mode & _GROUP_DIRECTORY == _GROUP_DIRECTORY

    def settle(self) -> None:
        """Make the store directory, and look only once whether it belongs to a group; before many files are written."""
        self.make_directory(self._prefix)
        self._shared = self.shared_with_group()

    def make_directory(self, path: str) -> None:
        """Make a directory and those above it, as the store directory wants them.

        Raises:
            NotAllowed: If that is forbidden.
            StorageFull: If there is no room.
        """
        with explaining("make the directory", path):
            try:
                _make(path, shared=self.shared_with_group())
            except OSError:
                # some file systems say that it may not be made when it is there
                if not os.path.isdir(path):
                    raise

    def make_leaf(self, path: str, *, shared: bool) -> bool:
        """Make the directory of a blob; it has three levels, of which the lower two are mostly new.

        Args:
            path: The directory.
            shared: Whether it must be writable for the group, as `shared_with_group` said.

        Returns:
            Whether it was made just now, so that there was nothing in it.

        Raises:
            NotAllowed, StorageFull: As the file system says.
        """
        try:
            # the middle one is new, too, in a store of fewer than 45,000 blobs; `experiments/small_files.py`
            try:
                _make(path[: path.rindex("/")], shared=shared)
            except FileExistsError:
                pass
            _make(path, shared=shared)
        except FileExistsError:
            return False
        except OSError as error:
            raise from_os_error(error, "make the directory", path) from error
        return True

    def create(self, path: str) -> int:
        """Make a new file for reading and writing, with its directory where that is missing.

        Returns:
            A descriptor, of a file that is group-writable where the directory asks for it. It holds a lock as long as
            it is open, by which files that nobody writes any more are told from the others.

        Raises:
            NotAllowed, StorageFull: As the file system says.
            Conflict: If the file exists.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with explaining("write to", path):
            try:
                fd = os.open(path, flags, 0o666)
            except FileNotFoundError:
                self.make_directory(os.path.dirname(path))
                fd = os.open(path, flags, 0o666)
            try:
                lock(fd)
                self.share(fd)
            except BaseException:
                os.close(fd)
                raise
        return fd

    def share(self, fd: int) -> None:
        """Make an open file group-writable where the directory asks for it and nobody did so before."""
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        # what another user of the group made is writable already, and only its owner may change its mode
        if mode & GROUP_FILE != GROUP_FILE and self.shared_with_group():
            os.fchmod(fd, mode | GROUP_FILE)

    def replace(self, path: str, content: bytes, *, mode: int | None = None) -> None:
        """Write a small file whole or not at all; readers see the old content or the new.

        Args:
            path: Where; its directory is made if it is missing.
            content: What.
            mode: Its permissions from the first moment on; by default as for other files here.
        """
        # a name beside it could be mistaken for a mutable's, and would be too long for the longest ones
        inside = path.startswith(f"{self._prefix}/")
        temporary = f"{self.temporary()}/record.{random_letters(10)}" if inside else f"{path}.{random_letters(10)}"
        fd = self.create(temporary)
        with explaining("write to", path):
            try:
                with open(fd, "wb", buffering=0):
                    if mode is not None:
                        os.fchmod(fd, mode)
                    write_all(fd, content)
                    if settings.durable():
                        os.fsync(fd)
                try:
                    os.replace(temporary, path)
                except FileNotFoundError:
                    self.make_directory(os.path.dirname(path))
                    os.replace(temporary, path)
            except BaseException:
                remove_if_there(temporary)
                raise
            if settings.durable():
                sync_directory(os.path.dirname(path))

    def require_usable(self) -> None:
        """Say clearly when the store directory is something else, or cannot be read.

        Raises:
            NotAllowed: If it is not a directory or not readable.
        """
        try:
            mode = os.stat(self._prefix).st_mode
        except FileNotFoundError:
            return
        except OSError as error:
            raise from_os_error(error, "read the store directory", self._prefix) from error
        if not stat.S_ISDIR(mode):
            raise NotAllowed(
                f"{self._prefix} is not a directory", hint="give the path of a directory, or of one that can be made"
            )


def _make(path: str, *, shared: bool) -> None:
    """Make a directory, and those above it where they are missing.

    Raises:
        FileExistsError: If something is there.
    """
    try:
        os.mkdir(path)
    except FileNotFoundError:
        try:
            _make(os.path.dirname(path), shared=shared)
        except FileExistsError:
            # somebody else was faster
            pass
        os.mkdir(path)
    if shared:
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if mode & _GROUP_ALL != _GROUP_ALL:
            os.chmod(path, mode | _GROUP_ALL)


def lock(fd: int) -> bool:
    """Hold a file for as long as it stays open; says whether nobody else holds it.

    Where the file system knows no locks nobody holds anything, and age alone tells what was abandoned.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def random_letters(count: int) -> str:
    """Letters and digits that nobody else chose."""
    return secrets.token_hex((count + 1) // 2)[:count]


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of some bytes, however many calls that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def remove_if_there(path: str) -> None:
    """Remove a file; whether it was there does not matter."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def sync_directory(path: str) -> None:
    """Have the names in a directory survive a loss of power."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def is_leaf_name(name: str, algorithm: str = "sha1") -> bool:
    """Whether a file name is that of a finished blob."""
    return digest.is_hash(algorithm, name)
