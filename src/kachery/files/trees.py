"""Directories: stored as a whole, loaded as a whole or file by file.

A directory is its manifest (`kachery.manifests`), which is a file like any other. It is stored after all of its files,
so whoever finds a directory finds what is in it. Loaded, a directory appears whole or not at all.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import digest, manifests, progress, settings, uri
from ..classic import Channel
from ..errors import Conflict, InvalidInput, KacheryError, NotSupported, WrongContent, explaining
from ..progress import Silent
from ..store import Store
from ..store.hashing import copy_and_digest, copy_some, open_source, require_unchanged, same_look
from ..store.layout import sync_directory
from ..zone import Zone
from . import appearing, finding, loading, storing, walking
from .opening import open_zone
from .parallel import each

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..manifests import Entry, Member, Tree
    from ..progress import Progress
    from .finding import FileInfo
    from .opening import Place
    from .walking import Source

_COPY_STEP = 8 * 1024 * 1024

# a path in the kernel, in bytes, its end included
_LONGEST_PATH = 4096


@dataclass(frozen=True)
class StoredTree:
    """A directory that was stored.

    Attributes:
        hash: The hash of its manifest.
        algorithm: The hash's algorithm, which is that of its files, too.
        files: How many files there are in it and below.
        size: Of these, in bytes.
        zone: The zone that has it now; `None` when only this machine or a classic server does.
    """

    hash: str
    algorithm: str
    files: int
    size: int
    zone: str | None = None

    def uri(self, name: str) -> str:
        """The URI of the directory under a name for people; without one when that is empty."""
        return uri.tree_uri(self.hash, name, algorithm=self.algorithm)


@dataclass(frozen=True)
class TreeInfo:
    """What is known of a directory.

    Attributes:
        hash: The hash of its manifest, or of that of the directory that it is in.
        algorithm: The hash's algorithm.
        name: Its name for people, from the URI.
        files: How many files there are in it and below.
        dirs: How many directories there are in it and below.
        size: Of the files, in bytes.
    """

    hash: str
    algorithm: str
    name: str | None
    files: int
    dirs: int
    size: int


def store_dir(
    path: str | os.PathLike[str],
    *,
    zone: str | None = None,
    local: bool = False,
    keep: bool = False,
    to: Place | None = None,
    algorithm: str = "sha1",
    git_annex: bool = False,
) -> StoredTree:
    """Store a directory with all that is below it.

    Args:
        path: The directory; it is only read. Links are followed; pipes, sockets, devices and links to nothing are left
            out, with a warning.
        zone: The zone; by default that of the settings.
        local: Store it on this machine only.
        keep: Store it on this machine as well.
        to: The place to store it in instead of a zone of the settings.
        algorithm: `sha1` or `md5`, of the manifest and of the files.
        git_annex: Take the MD5 of git-annex files from their links, without their content.

    Raises:
        NotFound, NotAllowed, InvalidInput, TooLarge: If it cannot be read, or is no directory that can be stored.
        SourceChanged: If something in it changes meanwhile; the message names it.
        NotConfigured, NotRegistered, NotAllowed, Unreachable: If the zone does not take it.
        StorageFull: If there is no room.
    """
    if algorithm not in ("sha1", "md5"):
        raise InvalidInput(f"directories have no {algorithm} hashes", hint="sha1 or md5")
    if not local and to is None and settings.store_file_dir() is not None:
        raise NotSupported(
            "KACHERY_STORE_FILE_DIR takes files, not directories", hint="unset it, or store on this machine only"
        )
    target = None if local else to or open_zone(zone)
    if isinstance(target, Zone):
        target.require_keys()
    top = os.path.abspath(os.fsdecode(path))
    name = os.path.basename(top)
    walked = walking.walk(top, git_annex=git_annex)
    store = Store()
    if target is None or keep:
        store.prepare()
    with progress.bar(walked.size, f"{'Uploading' if target else 'Storing'} {name}") as told:

        def work(source: Source) -> None:
            _set_hash(source.entry, algorithm, _store_one(store, target, source, algorithm, told, keep=keep))

        each(walked.sources, work, _workers(target))
    walked.require_unchanged()
    data = manifests.to_bytes(walked.tree)
    if target is None:
        hash_ = store.add_bytes(data, algorithm)
    else:
        # last, so that whoever sees it finds all that is in it
        hash_ = storing.store_bytes(data, to=target, keep=keep, label=name, algorithm=algorithm).hash
    in_zone = target.name if isinstance(target, Zone) else None
    return StoredTree(hash_, algorithm, len(walked.sources), walked.size, zone=in_zone)


def _store_one(
    store: Store, target: Place | None, source: Source, algorithm: str, told: Progress, *, keep: bool
) -> str:
    if target is None:
        return store.add_seen(source.path, source.status, told, algorithm)
    path, own = source.path, None
    if keep:
        own = store.add_seen(source.path, source.status, Silent(), algorithm)
        path = store.layout.blob(own, algorithm)
    # a zone takes its files by the SHA-1, and is asked to find them by the other hash, too
    sent_as = algorithm if isinstance(target, Channel) else "sha1"
    own = own or _hash_one(store, path, algorithm, Silent())
    hash_ = own if sent_as == algorithm else _hash_one(store, path, sent_as, Silent())
    fd, before = open_source(path)
    try:
        if not keep and not same_look(before, source.status):
            raise walking.changed(source.path)
        for last in (False, True):
            try:
                if isinstance(target, Channel):
                    target.upload(fd, hash_, before.st_size, told, algorithm)
                else:
                    target.upload(fd, hash_, before.st_size, told)
                break
            except WrongContent:
                # it did not change, so something on the way altered it; a second time is no accident
                require_unchanged(fd, before, source.path)
                if last:
                    raise
    finally:
        os.close(fd)
    if sent_as != algorithm and not isinstance(target, Channel) and target.record_alias(hash_, algorithm) != own:
        raise walking.changed(source.path)
    return own


def _hash_one(store: Store, path: str, algorithm: str, told: Progress) -> str:
    if algorithm == "sha1":
        return store.hash_file(path, told)[0]
    fd, before = open_source(path)
    with open(fd, "rb", buffering=0) as stream:
        hash_ = digest.of_stream(stream, (algorithm,), advance=told.advance)[algorithm]
        require_unchanged(fd, before, path)
    return hash_


def hash_dir(path: str | os.PathLike[str], *, git_annex: bool = False, algorithm: str = "sha1") -> Tree:
    """The manifest of a directory on this machine; nothing is stored. Arguments and errors as for `store_dir`."""
    walked = walking.walk(os.path.abspath(os.fsdecode(path)), git_annex=git_annex)
    store = Store()
    with progress.bar(walked.size, f"Hashing {os.path.basename(walked.path)}") as told:

        def work(source: Source) -> None:
            _set_hash(source.entry, algorithm, _hash_one(store, source.path, algorithm, told))

        each(walked.sources, work, _workers(None))
    walked.require_unchanged()
    return walked.tree


def read_dir(
    text: str,
    *,
    zone: str | None = None,
    local_only: bool = False,
    fr: Place | None = None,
    remote_only: bool = False,
) -> Tree:
    """What a directory holds; none of its files is loaded.

    Args:
        text: Its URI, which may name a directory inside it.
        zone: The zone to ask.
        local_only: Ask nobody else.
        fr: The place to ask instead of a zone of the settings.
        remote_only: Do not look on this machine.

    Raises:
        InvalidURI, InvalidInput: If the URI is none, or is that of a file.
        NotFound, Unreachable, NotAllowed: As for `load_file`.
        WrongContent, InvalidName, TooLarge: If what it names is not the manifest of a directory.
    """
    reference = _tree_reference(text)
    data = loading.manifest_bytes(reference, fr or zone, local_only=local_only, remote_only=remote_only)
    return manifests.require_directory(loading.find_in(data, reference), text)


def is_directory(text: str, *, zone: str | None = None, local_only: bool = False, fr: Place | None = None) -> bool:
    """Whether a URI names a directory, or one inside a directory; arguments and errors as for `read_dir`."""
    reference = uri.parse(text)
    if not isinstance(reference, uri.TreeRef) or not reference.path:
        return isinstance(reference, uri.TreeRef)
    data = loading.manifest_bytes(reference, fr or zone, local_only=local_only)
    return not isinstance(loading.find_in(data, reference), manifests.Member)


def any_info(text: str, *, zone: str | None = None, fr: Place | None = None) -> FileInfo | TreeInfo:
    """What is known of a file or a directory, whichever the URI names; errors as for `file_info` and `read_dir`."""
    reference = uri.parse(text)
    if not isinstance(reference, uri.TreeRef):
        return finding.file_info(text, zone=zone, fr=fr)
    found = loading.find_in(loading.manifest_bytes(reference, fr or zone), reference)
    if isinstance(found, manifests.Member):
        return finding.file_info(loading.file_of(found, reference), zone=zone, fr=fr)
    return _info(reference, found)


def _info(reference: uri.TreeRef, tree: Tree) -> TreeInfo:
    below = [here for _, here in manifests.walk(tree)]
    return TreeInfo(
        reference.hash,
        reference.algorithm,
        reference.path[-1] if reference.path else reference.name,
        sum(len(here["files"]) for here in below),
        len(below) - 1,
        sum(entry["size"] for here in below for entry in here["files"].values()),
    )


def load_dir(
    text: str,
    dest: str | os.PathLike[str],
    *,
    zone: str | None = None,
    local_only: bool = False,
    fr: Place | None = None,
    remote_only: bool = False,
) -> str:
    """Have a copy of a directory on this machine, whole or not at all.

    What is downloaded for it is kept in the store, so that an interrupted call continues where it was.

    Args:
        text: Its URI, which may name a directory inside it.
        dest: Where to put it; nothing may be there. Directories above it are made.
        zone: The zone to ask.
        local_only: Ask nobody else.
        fr: The place to ask instead of a zone of the settings.
        remote_only: Do not look on this machine.

    Returns:
        `dest`.

    Raises:
        Conflict: If something is there.
        InvalidName: If a name in it could escape, or be taken for another; nothing was written then.
        NotFound, Unreachable, NotAllowed, WrongContent: If a file of it cannot be had; the message names it.
        StorageFull: If there is no room.
        KacheryError: As for `read_dir`.
    """
    given = os.fsdecode(dest)
    if not given or "\0" in given:
        raise InvalidInput(f"not a path: {given!r}")
    target = os.path.abspath(given)
    if os.path.lexists(target):
        raise Conflict(f"Destination directory already exists: {given}", hint="give a path where nothing is yet")
    tree = read_dir(text, zone=zone, local_only=local_only, fr=fr, remote_only=remote_only)
    place = fr or zone or _tree_reference(text).zone
    # a private directory's name is longer than the one it gets
    manifests.require_safe(tree, longest=_LONGEST_PATH - len(os.fsencode(appearing.private_name(target))) - 2)
    members: list[tuple[str, Member]] = []
    directories: list[str] = []
    for path, here in manifests.walk(tree):
        directories.append("/".join(path))
        members += [("/".join([*path, name]), manifests.member(entry)) for name, entry in here["files"].items()]
    total = sum(member.size for _, member in members)
    store = Store()
    with appearing.at(target) as private:
        appearing.require_room(private, total)
        with explaining("make a directory in", private):
            for directory in directories[1:]:
                os.mkdir(f"{private}/{directory}")
        with progress.bar(total, f"Loading {os.path.basename(target)}") as told:

            def work(item: tuple[str, Member]) -> None:
                path, member = item
                with _named(path):
                    source = loading.load_content(
                        uri.FileRef(member.algorithm, member.hash, label=os.path.basename(path)),
                        place,
                        local_only=local_only,
                        remote_only=remote_only,
                    )
                    _copy_to(store, source, member, f"{private}/{path}")
                told.advance(member.size)

            each(members, work, max(_workers(None), settings.transfers()))
        if settings.durable():
            for directory in directories:
                sync_directory(f"{private}/{directory}")
    return given


@contextmanager
def _named(path: str) -> Iterator[None]:
    try:
        yield
    except KacheryError as error:
        raise type(error)(f"{path}: {error.message}", hint=error.hint) from error


def _copy_to(store: Store, source: str, member: Member, target: str) -> None:
    fd, status = open_source(source)
    try:
        if status.st_size != member.size:
            raise WrongContent(f"it has {status.st_size} bytes, and {member.size} according to its directory")
        with explaining("write to", target), open(target, "x+b", buffering=0) as copy:
            if source != store.layout.blob(member.hash, member.algorithm):
                # its owner may write to it at any time, so the copy must be what was asked for
                found = copy_and_digest(fd, copy.fileno(), status.st_size, Silent(), member.algorithm)
                if found != member.hash:
                    raise WrongContent(f"{source} changed while it was read", hint="try again")
            while copy_some(fd, copy.fileno(), _COPY_STEP):
                pass
            if settings.durable():
                os.fsync(copy.fileno())
    finally:
        os.close(fd)


def _tree_reference(text: str) -> uri.TreeRef:
    reference = uri.parse(text)
    if isinstance(reference, uri.TreeRef):
        return reference
    raise InvalidInput(
        f"Not a directory: {text[:120]}", hint="the URI of a directory begins with sha1dir:// or md5dir://"
    )


def _set_hash(entry: Entry, algorithm: str, hash_: str) -> None:
    if algorithm == "sha1":
        entry["sha1"] = hash_
    else:
        entry["md5"] = hash_


def _workers(target: Place | None) -> int:
    return settings.transfers() if target is not None else min(4, os.cpu_count() or 1)
