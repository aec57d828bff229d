"""Links: content that stays where it lies, outside the store, and is found there by its hash.

A link is a record of the file's path, size, time and hash, in upstream's form. The file is served only if it still is
what was linked: if anything about it moved, it is hashed again.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from .. import digest
from ..errors import KacheryError, SourceChanged, explaining
from ..progress import SILENT
from .hashing import HashCache, open_source, record_bytes, require_unchanged

if TYPE_CHECKING:
    from ..progress import Progress
    from .layout import Layout
    from .verified import Verified


class Links:
    """The links of one store directory."""

    def __init__(self, layout: Layout, verified: Verified, cache: HashCache) -> None:
        self._layout = layout
        self._verified = verified
        self._cache = cache

    def add(self, path: str, progress: Progress) -> tuple[str, int]:
        """Link a file.

        Args:
            path: The file; it is only read.
            progress: Told of every step.

        Returns:
            Its SHA-1 and its size in bytes.

        Raises:
            NotFound, NotAllowed, InvalidInput: If it cannot be read.
            SourceChanged: If it changes meanwhile.
        """
        path = os.path.abspath(path)
        hash_, status = self._cache.sha1(path, progress)
        self._layout.replace(self._layout.link(hash_), record_bytes(path, hash_, status))
        return hash_, status.st_size

    def remove(self, hash_: str) -> bool:
        """Forget what is linked under a SHA-1, which stays where it lies; says whether anything was."""
        path = self._layout.link(hash_)
        with explaining("remove", path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                return False
        return True

    def find(self, hash_: str, told: Progress = SILENT) -> str | None:
        """The path of a linked file that still has this SHA-1.

        Args:
            hash_: The SHA-1.
            told: Told of every step, while the file is read.

        Returns:
            The path, or `None` when nothing of that hash is linked.

        Raises:
            SourceChanged: If what was linked is gone, unreadable or something else now; the message says which.
        """
        record = self.record(hash_)
        if record is None:
            return None
        path = record["path"]
        if not self.still_is(path, hash_, size=record.get("size"), told=told):
            raise SourceChanged(
                f"the linked file {path} is no longer what was linked", hint="link it again under its new hash"
            )
        self._refresh(hash_, path, record)
        return str(path)

    def record(self, hash_: str) -> dict[str, Any] | None:
        """What is written of the file that is linked under a SHA-1, checked for nothing; `None` when none is."""
        return self.read(self._layout.link(hash_)) or self.read(
            # where clients of 2022 kept them
            f"{self._layout.mutables()}/@linked_files/@sha1/{hash_}"
        )

    def still_is(
        self, path: str, hash_: str, *, size: object = None, algorithm: str = "sha1", told: Progress = SILENT
    ) -> bool:
        """Whether a file outside the store has this hash now.

        Args:
            path: The file.
            hash_: The hash it should have.
            size: Its size in bytes when that is known, to save reading what cannot be right.
            algorithm: The hash's algorithm.
            told: Told of every step, while the file is read.

        Raises:
            SourceChanged: If it cannot be read, or changes while it is.
        """
        opened = time.time()
        try:
            fd, status = open_source(path)
        except KacheryError as error:
            raise SourceChanged(f"the linked file cannot be read: {error.message}") from error
        with open(fd, "rb", buffering=0) as file:
            if isinstance(size, int) and status.st_size != size:
                return False
            if self._verified.knows(hash_, status, algorithm):
                return True
            if algorithm == "sha1":
                found, _ = self._cache.sha1(path, told)
                return found == hash_
            with explaining("read", path):
                found = digest.of_stream(file, (algorithm,), advance=told.advance)[algorithm]
            require_unchanged(fd, status, path)
        if found == hash_:
            self._verified.remember(hash_, status, algorithm, opened=opened)
        return found == hash_

    def _refresh(self, hash_: str, path: str, record: dict[str, Any]) -> None:
        try:
            status = os.stat(path)
            if status.st_mtime != record.get("mtime"):
                self._layout.replace(self._layout.link(hash_), record_bytes(path, hash_, status))
        except (OSError, KacheryError):
            # the record only saves upstream's programs a second look
            pass

    @staticmethod
    def read(path: str) -> dict[str, Any] | None:
        """The record of a link, or `None` when there is none that can be understood."""
        try:
            with open(path, "rb") as file:
                record = json.loads(file.read())
        except (OSError, ValueError, RecursionError):
            return None
        if isinstance(record, dict) and isinstance(record.get("path"), str) and os.path.isabs(record["path"]):
            return record
        return None
