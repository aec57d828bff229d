"""Temporary directories in the store directory."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from typing import TYPE_CHECKING

from kachery import settings

from .get_kachery_cloud_dir import get_kachery_cloud_dir

if TYPE_CHECKING:
    from types import TracebackType

# network file systems need a moment to let go of a file that was just closed
_TRIES = 5
_PAUSE = 0.2


class TemporaryDirectory:
    """A directory for as long as a `with` block lasts.

    Args:
        remove: Whether to remove it afterwards; `KACHERY_CLOUD_KEEP_TEMP_FILES=1` keeps it in any case.
        prefix: What its name begins with.
    """

    def __init__(self, *, remove: bool = True, prefix: str = "tmp") -> None:
        self._remove = remove
        self._prefix = prefix
        self._path: str | None = None

    def __enter__(self) -> str:
        self._path = tempfile.mkdtemp(prefix=f"{self._prefix}_", dir=get_kachery_cloud_dir())
        return self._path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._path is not None and self._remove and not settings.keep_temporary_files():
            _remove(self._path)

    def path(self) -> str:
        """The directory's path, once the block was entered."""
        if self._path is None:
            raise AttributeError("the directory is made when its `with` block is entered")
        return self._path


def _remove(path: str) -> None:
    for attempt in range(1, _TRIES + 1):
        try:
            shutil.rmtree(path)
        except OSError:
            if not os.path.exists(path):
                return
            if attempt == _TRIES:
                raise
            time.sleep(_PAUSE)
        else:
            return
