"""One directory on this machine: blobs, links, local mutables. No network.

`Store` is made for each use and keeps nothing, because programs change the directory between two calls.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import progress, settings
from ..errors import KacheryError, SourceChanged
from ..progress import SILENT
from . import audit, sandbox
from .blobs import AT_ONCE, Blobs, Incoming, remove_abandoned
from .hashing import HashCache, open_source, read_seen, require_unchanged
from .layout import Layout
from .links import Links
from .mutables import Mutables
from .receiving import Receiving
from .verified import SMALL, Verified

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..progress import Progress

logger = logging.getLogger(__name__)

__all__ = ["Found", "Store", "audit", "open_source"]


@dataclass(frozen=True)
class Found:
    """Content on this machine.

    Attributes:
        path: Where it is.
        kind: `blob`, `link` or `location`.
    """

    path: str
    kind: str


class Store:
    """A store directory.

    Args:
        root: The directory; by default the one that the settings name, or the sandbox in use.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self.layout = Layout(sandbox.store_path() if root is None else Path(root).absolute())
        self._verified = Verified(self.layout)
        self.blobs = Blobs(self.layout, self._verified)

    @property
    def root(self) -> Path:
        """The store directory."""
        return self.layout.root

    @property
    def links(self) -> Links:
        """What lies outside the store and is found by its hash."""
        return Links(self.layout, self._verified, self._cache)

    @property
    def mutables(self) -> Mutables:
        """The local mutables."""
        return Mutables(self.layout)

    @property
    def _cache(self) -> HashCache:
        return HashCache(self.layout, self._verified)

    def add_file(self, path: str | os.PathLike[str], *, label: str | None = None) -> tuple[str, int]:
        """Store a private copy of a file.

        Args:
            path: The file; it is only read.
            label: What the progress bar calls it.

        Returns:
            Its SHA-1 and its size in bytes.

        Raises:
            NotFound, NotAllowed, InvalidInput: If it cannot be read.
            SourceChanged: If it changes meanwhile.
            StorageFull, NotAllowed: If the store cannot be written to.
        """
        text = os.path.abspath(os.fsdecode(path))
        opened = time.time()
        try:
            source, status = open_source(text)
            try:
                if status.st_size <= AT_ONCE:
                    # done before anybody could see a bar
                    return self.blobs.add_open(source, status, text, SILENT), status.st_size
                return self._add_larger(source, status, text, opened, label), status.st_size
            finally:
                os.close(source)
        except KacheryError:
            self.layout.require_usable()
            raise

    def _add_larger(self, source: int, status: os.stat_result, path: str, opened: float, label: str | None) -> str:
        if status.st_size > SMALL:
            self.layout.require_usable()
            remove_abandoned(self.layout, audit.ABANDONED_AFTER)
            # a file that was hashed before and looks the same is not read again
            known = self._cache.recall(path)
            if known is not None and self._has_blob(known):
                return known
        with progress.bar(status.st_size, f"Storing {label or os.path.basename(path)}") as told:
            hash_ = self.blobs.add_open(source, status, path, told)
        self._cache.remember(path, hash_, status, opened)
        return hash_

    def prepare(self) -> None:
        """Make sure that the store can be used, and remove what killed processes left; before many files are added."""
        self.layout.require_usable()
        remove_abandoned(self.layout, audit.ABANDONED_AFTER)
        self.layout.settle()

    def add_seen(self, path: str, seen: os.stat_result, told: Progress, algorithm: str = "sha1") -> str:
        """Store a private copy of a file that was looked at before, after `prepare`.

        Args:
            path: The file's absolute path; it is only read.
            seen: How it looked.
            told: Told of every step.
            algorithm: `sha1` or `md5`.

        Returns:
            Its hash.

        Raises:
            NotFound, NotAllowed, InvalidInput: If it cannot be read.
            SourceChanged: If it looks different now, or changes meanwhile.
            StorageFull, NotAllowed: If the store cannot be written to.
        """
        if algorithm == "sha1" and seen.st_size > SMALL:
            known = self._cache.recall(path)
            if known is not None and self._has_blob(known):
                told.advance(seen.st_size)
                return known
        if seen.st_size <= AT_ONCE:
            hash_ = self.blobs.add_bytes(read_seen(path, seen), algorithm)
            # so small that the steps of copying it are not told
            told.advance(seen.st_size)
            return hash_
        opened = time.time()
        source, status = open_source(path)
        try:
            require_unchanged(source, seen, path)
            hash_ = self.blobs.add_open(source, status, path, told, algorithm)
        finally:
            os.close(source)
        if algorithm == "sha1":
            self._cache.remember(path, hash_, status, opened)
        return hash_

    def _has_blob(self, hash_: str) -> bool:
        try:
            return self.blobs.find(hash_) is not None
        except KacheryError:
            return False

    def add_open(self, fd: int, name: str) -> tuple[str, int]:
        """Store a private copy of an open file.

        Args:
            fd: A descriptor at the file's beginning.
            name: What to call it in errors.

        Returns:
            Its SHA-1 and its size in bytes.
        """
        self.layout.require_usable()
        status = os.fstat(fd)
        return self.blobs.add_open(fd, status, name, SILENT), status.st_size

    def add_bytes(self, data: bytes, algorithm: str = "sha1") -> str:
        """Store some bytes.

        Returns:
            Their hash.
        """
        try:
            return self.blobs.add_bytes(data, algorithm)
        except KacheryError:
            self.layout.require_usable()
            raise

    def link(self, path: str | os.PathLike[str]) -> tuple[str, int]:
        """Make a file findable by its hash where it lies.

        Returns:
            Its SHA-1 and its size in bytes.

        Raises:
            NotFound, NotAllowed, InvalidInput: If it cannot be read.
            SourceChanged: If it changes meanwhile.
        """
        self.layout.require_usable()
        text = os.path.abspath(os.fsdecode(path))
        with progress.bar(_size(text), f"Linking {os.path.basename(text)}") as told:
            return self.links.add(text, told)

    def recall_hash(self, path: str) -> str | None:
        """The SHA-1 of a large file that looks as it did when it was last hashed; else `None`."""
        return self._cache.recall(os.path.abspath(path))

    def hash_file(self, path: str | os.PathLike[str], told: Progress | None = None) -> tuple[str, int]:
        """The SHA-1 and size of a file outside the store; nothing is stored but what the hash cache keeps.

        Raises:
            NotFound, NotAllowed, InvalidInput: If it cannot be read.
            SourceChanged: If it changes meanwhile.
        """
        hash_, status = self._cache.sha1(os.fsdecode(path), told or SILENT)
        return hash_, status.st_size

    def find(
        self, hash_: str, *, algorithm: str = "sha1", location: str | None = None, reasons: list[str] | None = None
    ) -> Found | None:
        """Content on this machine that has this hash now: a blob, then the file at `location`, then a link.

        Args:
            hash_: The hash.
            algorithm: Its algorithm.
            location: An absolute path that may hold the content, from a URI.
            reasons: Takes the reasons why something that should have it does not.

        Returns:
            Where it is, or `None`.
        """
        for kind in ("blob", "location", "link"):
            try:
                path = self._look(kind, hash_, algorithm, location)
            except KacheryError as error:
                logger.warning("%s", error)
                if reasons is not None:
                    reasons.append(error.message)
                path = None
            if path is not None:
                return Found(path, kind)
            if kind == "blob":
                # a store that cannot be looked into must not seem empty
                self.layout.require_usable()
        return None

    def _look(self, kind: str, hash_: str, algorithm: str, location: str | None) -> str | None:
        if kind == "blob":
            return self.blobs.find(hash_, algorithm)
        if kind == "location":
            return self._at_location(hash_, location, algorithm)
        return self.links.find(hash_) if algorithm == "sha1" else None

    def _at_location(self, hash_: str, location: str | None, algorithm: str) -> str | None:
        if location is None or not os.path.isabs(location) or not os.path.isfile(location):
            return None
        try:
            return location if self.links.still_is(location, hash_, algorithm=algorithm) else None
        except SourceChanged:
            return None

    def receive(self, hash_: str, size: int, *, algorithm: str = "sha1") -> Receiving:
        """A place for content that arrives from elsewhere; see `Receiving`."""
        self.layout.require_usable()
        return Receiving(self.layout, self._verified, hash_, size, algorithm=algorithm, patience=settings.timeout())

    def incoming(self) -> Incoming:
        """A private file in the store that may become a blob; see `Incoming`."""
        self.layout.require_usable()
        remove_abandoned(self.layout, audit.ABANDONED_AFTER)
        return Incoming(self.layout, self._verified)

    def entries(self) -> Iterator[audit.Entry]:
        """All blobs and links."""
        self.layout.require_usable()
        return audit.entries(self.layout, self.links)

    def verify(self, told: Progress | None = None) -> Iterator[audit.Entry | audit.Problem]:
        """Every blob and link, each hashed again; see `audit.verify`."""
        self.layout.require_usable()
        doubted = Verified(self.layout, believed=False)
        cache = HashCache(self.layout, doubted)
        blobs, links = Blobs(self.layout, doubted), Links(self.layout, doubted, cache)
        return audit.verify(self.layout, blobs, links, told or SILENT)

    def usage(self) -> list[audit.Usage]:
        """How much of what there is; see `audit.usage`."""
        return audit.usage(self.layout, self.links)

    def clean(self, older_than: float = audit.ABANDONED_AFTER, damaged: float = audit.DAMAGED_FOR) -> list[str]:
        """Remove abandoned temporary files, and blobs that were damaged long ago; see `audit.clean`."""
        return audit.clean(self.layout, older_than, damaged)


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        # whoever opens the file says what is wrong with it
        return None
