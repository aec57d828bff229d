"""What was already seen to have which hash, so that large files are not read again at each use.

A record says how a file looked when it was hashed: device, inode, size, and the times of its last modification and
of its last change of status. The latter cannot be set by a program, so a file that still looks the same is the same.
When any of the five differs the file is hashed again. Small files are not recorded: hashing them costs less.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import KacheryError

if TYPE_CHECKING:
    import os

    from .layout import Layout

#: Up to this size, in bytes, hashing again is cheaper than a record (and upstream draws its line here, too).
SMALL = 1_000_000

#: A file that changed less than this long before it was opened, in seconds, may have changed again while it was read
#: without its times showing it: they are only as fine as the system's clock.
_TICK = 0.1

# one for each machine that sees a shared directory under a device number of its own
_MOST_ENTRIES = 8

_KEYS = ("dev", "ino", "size", "mtime_ns", "ctime_ns")


class Verified:
    """The records of one store directory.

    Args:
        layout: Of the store directory.
        believed: Whether what they say is taken for true; otherwise everything is hashed again.
    """

    def __init__(self, layout: Layout, *, believed: bool = True) -> None:
        self._layout = layout
        self._believed = believed

    def knows(self, hash_: str, status: os.stat_result, algorithm: str = "sha1") -> bool:
        """Whether the file that looks like this was seen to have this hash."""
        return self._believed and _look(status) in self._entries(hash_, algorithm)

    def remember(
        self, hash_: str, status: os.stat_result, algorithm: str = "sha1", *, opened: float | None = None
    ) -> None:
        """Record that the file that looks like this has this hash.

        Args:
            hash_: What it was seen to have.
            status: How it looked before and after it was hashed.
            algorithm: The hash's algorithm.
            opened: When it was opened to be hashed, in Unix time; `None` for the store's own, which nobody writes to.
        """
        if status.st_size <= SMALL:
            return
        if opened is not None and opened - status.st_ctime < _TICK:
            return
        look = _look(status)
        others = [
            entry
            for entry in self._entries(hash_, algorithm)
            if entry["dev"] != look["dev"] or entry["ino"] != look["ino"]
        ]
        content = json.dumps({"entries": [*others[1 - _MOST_ENTRIES :], look]}).encode()
        try:
            self._layout.replace(self._layout.verified(hash_, algorithm), content)
        except KacheryError:
            # a store that cannot be written to still serves what it has
            pass

    def _entries(self, hash_: str, algorithm: str) -> list[dict[str, Any]]:
        try:
            with open(self._layout.verified(hash_, algorithm), "rb") as file:
                entries = json.loads(file.read())["entries"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return []
        if not isinstance(entries, list):
            return []
        return [entry for entry in entries if isinstance(entry, dict) and entry.keys() >= set(_KEYS)]


def _look(status: os.stat_result) -> dict[str, int]:
    return {
        "dev": status.st_dev,
        "ino": status.st_ino,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
    }
