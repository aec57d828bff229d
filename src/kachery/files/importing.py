"""From an old directory into the store of this machine, or into a zone.

Every file is verified before it is taken; the old directory is only read. What is there already is not taken again, so
that an import which was interrupted is continued by the same command.
"""

from __future__ import annotations

import os
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import digest, older, progress
from ..errors import (
    InvalidInput,
    KacheryError,
    NotAllowed,
    NotFound,
    NotSupported,
    SourceChanged,
    TooLarge,
    WrongContent,
    explaining,
)
from ..store import Store
from ..store.hashing import copy_and_digest, open_source, require_unchanged
from .opening import open_zone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..older import OldDirectory, OldFile
    from ..progress import Progress
    from ..zone import Zone

# up to this size, in bytes, a file is read whole
_SMALL = 256 * 1024

# how many files are on their way at once: hashing is as fast as the processors, a zone answers after a while
_AT_ONCE = 4


@dataclass(frozen=True)
class Imported:
    """What became of one file.

    Attributes:
        algorithm: The hash's algorithm.
        hash: Its hash.
        size: In bytes.
        path: Where it is in, or from, the old directory.
        outcome: `copied`, `linked`, `sent`, or `present` when it was there already; `damaged`, `unreadable`, `refused`
            by the zone, or `gone` when it was not taken; `block` when it never was a file by this hash; in a rehearsal
            `wanted`.
        reason: Why it was not taken.
    """

    algorithm: str
    hash: str
    size: int
    path: str
    outcome: str
    reason: str | None = None


def import_files(
    directory: str, *, zone: str | None = None, link: bool = False, links: bool = True, rehearse: bool = False
) -> tuple[OldDirectory, Iterator[Imported]]:
    """Take what an old directory has.

    Args:
        directory: The old directory; see `kachery.older` for the kinds.
        zone: The zone to take it to; by default the store of this machine.
        link: Leave the files where they are, and make them findable there; for the store of this machine.
        links: Whether to take what the directory only has a record of, too: into the store as links, into a zone as
            files.
        rehearse: Look what there is to do, without doing or reading it.

    Returns:
        What the directory holds, and one result after the other while it is done.

    Raises:
        NotFound, InvalidInput, NotAllowed: If the directory cannot be looked through, or is the store itself.
        NotConfigured, NotRegistered, NotAllowed, Unreachable, StorageFull: If the store or zone takes nothing; raised
            while the results are asked for.
    """
    if zone is not None and link:
        raise InvalidInput("a zone keeps files, not links", hint="leave out --link, or --to")
    store = Store()
    both = os.path.isdir(store.root) and os.path.isdir(directory)
    if zone is None and both and os.path.samefile(store.root, directory):
        raise InvalidInput(
            f"{directory} is the store of this machine", hint="nothing to import; `kachery verify` checks it"
        )
    target: Zone | None = None
    if zone is not None:
        target = open_zone(zone)
        target.require_keys()
    found = older.look_through(directory)
    return found, _results(found, store, target, link=link, links=links, rehearse=rehearse)


def _results(
    found: OldDirectory, store: Store, target: Zone | None, *, link: bool, links: bool, rehearse: bool
) -> Iterator[Imported]:
    wanted = [[file for file in same if links or not file.linked] for same in found.files.values()]
    wanted = [same for same in wanted if same]
    if links:
        for (algorithm, hash_), path in found.gone.items():
            yield Imported(algorithm, hash_, 0, path, "gone", f"{path} is no longer there")
    with progress.bar(None if rehearse else sum(same[0].size for same in wanted), "Importing") as told:

        def take(same: list[OldFile]) -> list[Imported]:
            if rehearse:
                return [_rehearsed(same[0], store, target)]
            if target is not None:
                return _first_good(same, lambda file: _send(file, target, told))
            return _first_good(same, lambda file: _keep(file, store, told, link=link or file.linked))

        yield from _several_at_once(take, wanted)


def _several_at_once(
    take: Callable[[list[OldFile]], list[Imported]], wanted: list[list[OldFile]]
) -> Iterator[Imported]:
    waiting: set[Future[list[Imported]]] = set()
    with ThreadPoolExecutor(_AT_ONCE, "kachery-import") as pool:
        try:
            for same in wanted:
                waiting.add(pool.submit(take, same))
                if len(waiting) >= 2 * _AT_ONCE:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield from future.result()
            for future in waiting:
                yield from future.result()
        finally:
            for future in waiting:
                future.cancel()


def _first_good(same: list[OldFile], take: Callable[[OldFile], str]) -> list[Imported]:
    """Try the places of one content in turn; those that are not what they should be are told of."""
    results = []
    for file in same:
        try:
            outcome, reason = take(file), None
        except _NotTaken as error:
            outcome, reason = error.outcome, error.reason
        results.append(Imported(file.algorithm, file.hash, file.size, file.path, outcome, reason))
        if reason is None:
            break
    return results


class _NotTaken(Exception):
    """One file is not taken; others may be."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


def _open(file: OldFile) -> tuple[int, os.stat_result]:
    try:
        return open_source(file.path)
    except (NotAllowed, NotFound, InvalidInput) as error:
        raise _NotTaken("unreadable", error.message) from error


def _is_present(file: OldFile, store: Store) -> bool:
    try:
        return store.blobs.find(file.hash, file.algorithm) is not None
    except KacheryError:
        # a damaged copy is replaced
        return False


def _rehearsed(file: OldFile, store: Store, target: Zone | None) -> Imported:
    present = _is_present(file, store) if target is None else target.find(file.hash, file.algorithm) is not None
    return Imported(file.algorithm, file.hash, file.size, file.path, "present" if present else "wanted")


def _keep(file: OldFile, store: Store, told: Progress, *, link: bool) -> str:
    if _is_present(file, store):
        told.advance(file.size)
        return "present"
    # links are records under a SHA-1
    if link and file.algorithm == "sha1":
        return _link(file, store, told)
    source, status = _open(file)
    try:
        if status.st_size <= _SMALL:
            _copy_small(file, store, source, status)
            told.advance(status.st_size)
        else:
            with store.incoming() as incoming:
                try:
                    hash_ = copy_and_digest(source, incoming.fd, status.st_size, told, file.algorithm)
                    require_unchanged(source, status, file.path)
                except SourceChanged as error:
                    raise _NotTaken("unreadable", error.message) from error
                _require(hash_, file)
                incoming.publish(hash_, file.algorithm)
    finally:
        os.close(source)
    return "copied"


def _copy_small(file: OldFile, store: Store, source: int, status: os.stat_result) -> None:
    with explaining("read", file.path):
        data = os.read(source, status.st_size + 1)
    _require(digest.of_bytes(data, file.algorithm), file)
    store.blobs.add_bytes(data, file.algorithm)


def _link(file: OldFile, store: Store, told: Progress) -> str:
    try:
        if store.links.find(file.hash) == os.path.abspath(file.path):
            told.advance(file.size)
            return "present"
    except KacheryError:
        # what was linked under it is something else now
        pass
    try:
        hash_, _ = store.hash_file(file.path, told)
    except (NotAllowed, NotFound, InvalidInput, SourceChanged) as error:
        raise _NotTaken("unreadable", error.message) from error
    _require(hash_, file)
    store.link(file.path)
    return "linked"


def _send(file: OldFile, target: Zone, told: Progress) -> str:
    if target.find(file.hash, file.algorithm) is not None:
        told.advance(file.size)
        return "present"
    source, status = _open(file)
    try:
        # before it is sent, so that nothing damaged goes over the network
        with explaining("read", file.path), open(source, "rb", buffering=0, closefd=False) as stream:
            hashes = digest.of_stream(stream, tuple(dict.fromkeys(("sha1", file.algorithm))))
        _require(hashes[file.algorithm], file)
        try:
            sent = target.upload(source, hashes["sha1"], status.st_size, told)
        except (WrongContent, SourceChanged, TooLarge) as error:
            raise _NotTaken("refused", error.message) from error
    finally:
        os.close(source)
    if file.algorithm == "md5":
        try:
            target.record_alias(hashes["sha1"], "md5")
        except NotSupported:
            # the gateway is not one of ours; the content is there, under its SHA-1
            pass
    return "sent" if sent else "present"


def _require(found: str, file: OldFile) -> None:
    if found != file.hash:
        reason = f"{file.path} has the {file.algorithm} {found}, not the one of its name"
        raise _NotTaken("block" if file.doubtful else "damaged", reason)
