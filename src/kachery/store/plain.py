"""A plain directory of files under their hashes, `DIRECTORY/sha1/HASH`, as a web server publishes it.

It is written to and never read from: no links, no keys, no records. What is being written lies in `.incoming`, held by
a lock, so that what a killed process left behind is found and removed by the next one.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .. import digest, progress, settings
from ..errors import KacheryError, from_os_error
from .hashing import copy_and_digest, open_source, require_unchanged
from .layout import Layout, lock, random_letters, remove_if_there, sync_directory, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator

# a file is made a moment before it is locked, in seconds
_UNLOCKED_FOR = 60.0


def add_file(
    directory: str | os.PathLike[str], path: str | os.PathLike[str], *, label: str | None = None
) -> tuple[str, int]:
    """Copy a file into the directory.

    Args:
        directory: The plain directory; made if it is missing.
        path: The file; it is only read.
        label: What the progress bar calls it.

    Returns:
        Its SHA-1 and its size in bytes.

    Raises:
        NotFound, NotAllowed, InvalidInput: If it cannot be read.
        SourceChanged: If it changes meanwhile.
        StorageFull, NotAllowed: If the directory cannot be written to.
    """
    text = os.path.abspath(os.fsdecode(path))
    source, status = open_source(text)
    try:
        with (
            progress.bar(status.st_size, f"Storing {label or os.path.basename(text)}") as told,
            _incoming(directory) as (fd, temporary),
        ):
            hash_ = copy_and_digest(source, fd, status.st_size, told)
            require_unchanged(source, status, text)
            _publish(directory, fd, temporary, hash_)
    finally:
        os.close(source)
    return hash_, status.st_size


def add_bytes(directory: str | os.PathLike[str], data: bytes) -> str:
    """Write some bytes into the directory.

    Returns:
        Their SHA-1.

    Raises:
        StorageFull, NotAllowed: If the directory cannot be written to.
    """
    hash_ = digest.of_bytes(data)
    with _incoming(directory) as (fd, temporary):
        write_all(fd, data)
        _publish(directory, fd, temporary, hash_)
    return hash_


@contextmanager
def _incoming(directory: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    place = os.path.join(os.path.abspath(directory), ".incoming")
    layout = Layout(Path(directory).absolute())
    layout.require_usable()
    _remove_abandoned(place)
    temporary = os.path.join(place, random_letters(10))
    fd = layout.create(temporary)
    try:
        yield fd, temporary
    except KacheryError:
        raise
    except OSError as error:
        raise from_os_error(error, "write to", directory) from error
    finally:
        remove_if_there(temporary)
        os.close(fd)


def _publish(directory: str | os.PathLike[str], fd: int, temporary: str, hash_: str) -> None:
    path = os.path.join(os.path.abspath(directory), "sha1", hash_)
    Layout(Path(directory).absolute()).make_directory(os.path.dirname(path))
    if settings.durable():
        os.fsync(fd)
    os.replace(temporary, path)
    if settings.durable():
        sync_directory(os.path.dirname(path))


def _remove_abandoned(place: str) -> None:
    try:
        names = os.listdir(place)
    except OSError:
        return
    for name in names:
        path = os.path.join(place, name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            # it was just published, or somebody else's to clean up
            continue
        try:
            # under the lock, which whoever writes to it would hold
            if lock(fd) and time.time() - os.fstat(fd).st_mtime > _UNLOCKED_FOR:
                remove_if_there(path)
        except OSError:
            # it stays until somebody may remove it
            pass
        finally:
            os.close(fd)
