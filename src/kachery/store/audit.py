"""Looking over a whole store directory: what is there, how large, whether it is still right, what is left over."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import digest
from ..errors import KacheryError, explaining, from_os_error
from . import sandbox
from .blobs import Blobs, remove_abandoned, remove_if_abandoned
from .layout import Layout, is_leaf_name, remove_if_there

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..progress import Progress
    from .links import Links

# <hash>.<10 letters> of a local copy, <hash>.tmp.<8 letters> of a download; ours and upstream's
_LEFT_OVER = re.compile(r"[0-9a-f]{32,64}\.(tmp\.[A-Za-z0-9]{8}|[A-Za-z0-9]{10})")

# keys that were never used, of a process that ended while it made them
_KEYS_LEFT_OVER = re.compile(r"(private|public)\.pem\.[0-9a-f]{10}")

#: Upstream's programs hold no lock on what they write, so only age tells, in seconds.
ABANDONED_AFTER = 24 * 3600.0

#: Damaged content may be all that is left of something, so there is time to look at it, in seconds.
DAMAGED_FOR = 30 * 24 * 3600.0

# what `blobs` calls them in quarantine
_DAMAGED = re.compile(r"[0-9a-f]{32,64}\.[0-9a-f]{8}")


@dataclass(frozen=True)
class Entry:
    """Something in the store.

    Attributes:
        kind: `blob` or `link`.
        algorithm: The hash's algorithm.
        hash: The hash it lies under.
        size: In bytes.
        modified: Unix time, in seconds.
        path: Where the content is.
    """

    kind: str
    algorithm: str
    hash: str
    size: int
    modified: float
    path: str


@dataclass(frozen=True)
class Problem:
    """Something in the store that is not what it should be."""

    entry: Entry
    reason: str


def entries(layout: Layout, links: Links) -> Iterator[Entry]:
    """All blobs and links, in the order of their hashes."""
    for algorithm in digest.HEX_LENGTHS:
        for path, name in _leaves(f"{layout.root}/{algorithm}", algorithm):
            status = _stat(path)
            if status is not None:
                yield Entry("blob", algorithm, name, status.st_size, status.st_mtime, path)
    for path, name in _leaves(f"{layout.root}/linked_files/sha1", "sha1"):
        record = links.read(path)
        if record is not None:
            status = _stat(record["path"])
            size, modified = (status.st_size, status.st_mtime) if status else (0, 0.0)
            yield Entry("link", "sha1", name, size, modified, record["path"])


@dataclass(frozen=True)
class Usage:
    """How much there is of one kind.

    Attributes:
        kind: `blobs`; `links`, whose content lies outside the store; `damaged`, blobs that were moved to quarantine;
            `temporary`; or `other`, the store's own records, keys and mutables.
        files: How many.
        size: In bytes.
    """

    kind: str
    files: int
    size: int


def usage(layout: Layout, links: Links) -> list[Usage]:
    """How much there is of each kind."""
    kinds = ("blobs", "links", "damaged", "temporary", "other")
    files, sizes = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0)
    for folder, _, names in os.walk(layout.root, onerror=_unless_missing):
        top = os.path.relpath(folder, layout.root).partition(os.sep)[0]
        for name in names:
            status = _stat(f"{folder}/{name}")
            if status is not None:
                kind = _kind(top, name)
                files[kind] += 1
                sizes[kind] += status.st_size
    for _, name in _leaves(f"{layout.root}/linked_files/sha1", "sha1"):
        record = links.read(layout.link(name))
        if record is not None:
            status = _stat(record["path"])
            files["links"] += 1
            sizes["links"] += status.st_size if status else 0
    return [Usage(kind, files[kind], sizes[kind]) for kind in kinds]


def _kind(top: str, name: str) -> str:
    if top in digest.HEX_LENGTHS and is_leaf_name(name, top):
        return "blobs"
    if top == "tmp" or _LEFT_OVER.fullmatch(name):
        return "temporary"
    return "damaged" if top == "quarantine" else "other"


def verify(layout: Layout, blobs: Blobs, links: Links, progress: Progress) -> Iterator[Entry | Problem]:
    """Look at every blob and every linked file, with blobs and links that believe no record and hash them again.

    Damaged blobs are moved to quarantine. Nothing is repaired: load them again from their zone.
    """
    for entry in entries(layout, links):
        counted = _Counted(progress)
        try:
            if entry.kind == "blob":
                blobs.find(entry.hash, entry.algorithm, counted)
            else:
                links.find(entry.hash, counted)
        except KacheryError as error:
            yield Problem(entry, error.message)
        else:
            yield entry
        progress.advance(entry.size - counted.done)


class _Counted:
    """A progress that knows how far it is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.done = 0

    def advance(self, count: int) -> None:
        self.done += count
        self._progress.advance(count)

    def say(self, state: str) -> None:
        self._progress.say(state)


def clean(layout: Layout, older_than: float = ABANDONED_AFTER, damaged: float = DAMAGED_FOR) -> list[str]:
    """Remove temporary files that a process left behind when it was ended, and blobs that were damaged long ago.

    Args:
        layout: Of the store directory.
        older_than: Temporary files that were touched less than this many seconds ago stay.
        damaged: Blobs that were moved to quarantine less than this many seconds ago stay.

    Returns:
        The paths that were removed.
    """
    removed = [*remove_abandoned(layout, older_than), *sandbox.remove_abandoned(layout, older_than)]
    half_made = [str(path) for path in layout.root.glob("*.pem.*") if _KEYS_LEFT_OVER.fullmatch(path.name)]
    removed += [path for path in half_made if remove_if_abandoned(path, older_than)]
    for algorithm in digest.HEX_LENGTHS:
        for folder, _, files in os.walk(f"{layout.root}/{algorithm}", onerror=_unless_missing):
            for name in files:
                path = f"{folder}/{name}"
                if _LEFT_OVER.fullmatch(name) and remove_if_abandoned(path, older_than):
                    removed.append(path)
    return [*removed, *_remove_damaged(layout, damaged)]


def _remove_damaged(layout: Layout, older_than: float) -> list[str]:
    try:
        names = os.listdir(layout.quarantine())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise from_os_error(error, "list", layout.quarantine()) from error
    removed = []
    for name in names:
        path = f"{layout.quarantine()}/{name}"
        try:
            # a file's status changes when it is moved here, and its content had its time before
            moved = os.lstat(path).st_ctime
        except FileNotFoundError:
            continue
        if _DAMAGED.fullmatch(name) and time.time() - moved >= older_than:
            with explaining("remove", path):
                remove_if_there(path)
            removed.append(path)
    return removed


def _leaves(top: str, algorithm: str) -> Iterator[tuple[str, str]]:
    for folder, folders, files in os.walk(top, onerror=_unless_missing):
        folders.sort()
        for name in sorted(files):
            # what lies anywhere else is nothing that anybody would find
            if is_leaf_name(name, algorithm) and folder == f"{top}/{name[:2]}/{name[2:4]}/{name[4:6]}":
                yield f"{folder}/{name}", name


def _unless_missing(error: OSError) -> None:
    # what cannot be listed must not look as if it were empty
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise from_os_error(error, "list", error.filename) from error


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        # a record may say anything
        return None
