"""A file system of its own with little room."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 8 * 1024 * 1024
READ_ONLY, REMOUNT = 1, 32

_libc = ctypes.CDLL(None, use_errno=True)
_DETACH = 2


def mount(place: Path, flags: int, options: str) -> None:
    """Mount a file system in memory."""
    if _libc.mount(b"tmpfs", bytes(place), b"tmpfs", flags, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def small() -> Iterator[Path]:
    """A file system of its own with room for `SIZE` bytes."""
    place = Path(tempfile.mkdtemp(prefix="kachery-disk-"))
    place.chmod(0o755)
    mount(place, 0, f"size={SIZE}")
    try:
        yield place
    finally:
        _libc.umount2(bytes(place), _DETACH)
        place.rmdir()


def fill(place: Path, leave: int = 0) -> Path:
    """Leave so many bytes free on the file system of a directory; gives the file that takes the rest."""
    ballast = place / "ballast"
    free = shutil.disk_usage(place).free
    ballast.write_bytes(b"\0" * max(0, free - leave))
    return ballast
