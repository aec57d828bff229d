"""Which of several gateway processes on one data directory receives files.

What is known of a file on its way in (which parts are there, which are being written) is in the memory of one process,
so one of them receives for all. It is the one that holds a lock on `receiving.lock`. The system gives the lock up when
that process ends, however it does, and the next one takes it within a second.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import from_os_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Lead:
    """This process's claim to receive.

    Args:
        path: The lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def take(self) -> bool:
        """Take the lead if nobody has it; says whether this process has it now.

        Raises:
            NotAllowed: If the lock cannot be written.
        """
        if self._fd is not None:
            return True
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise from_os_error(error, "write to", self._path) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def give_up(self) -> None:
        """Let another process have it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait for the turn of this process, for what several must not do at once.

    Args:
        path: A lock.

    Raises:
        NotAllowed: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise from_os_error(error, "write to", path) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
