"""Where should a file go: into a zone, or onto this machine?

A large file that was never hashed is hashed while it is sent; what a zone has is not sent again.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from .. import digest, progress, settings, uri
from ..classic import Channel
from ..errors import InvalidInput, NotSupported, SourceChanged, WrongContent, explaining
from ..store import Store, plain
from ..store.hashing import copy_and_digest, open_source, require_unchanged
from ..store.layout import write_all
from ..zone import IN_PARTS_ABOVE, Zone
from .opening import open_zone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..progress import Progress
    from .opening import Place

# what is taken from a stream at once, in bytes
_PIECE = 1024 * 1024


@dataclass(frozen=True)
class Stored:
    """What was stored.

    Attributes:
        hash: Its hash.
        size: In bytes.
        zone: The zone that has it now; `None` when only this machine or a classic server does.
        prefix: What its URI begins with, when `KACHERY_STORE_FILE_DIR` and `…_PREFIX` took it elsewhere.
        algorithm: The hash's algorithm.
    """

    hash: str
    size: int
    zone: str | None = None
    prefix: str | None = None
    algorithm: str = "sha1"

    def uri(self, name: str) -> str:
        """The URI of the content under a name for people; without one when that is empty."""
        if self.prefix is not None:
            return uri.prefixed_uri(self.prefix, self.hash, name or None)
        return uri.named_uri(self.hash, name, algorithm=self.algorithm)

    def older_uri(self, label: str | None, uri_type: int) -> str:
        """The URI in one of the spellings of kachery 2.x.

        Args:
            label: A name for people, or `None`.
            uri_type: 1 for `sha1://HASH?label=…`, 2 for `kachery:ZONE:sha1:HASH:…`.

        Raises:
            InvalidInput: If it is another number.
        """
        if uri_type not in (1, 2):
            raise InvalidInput(f"uri_type must be 1 or 2, not {uri_type!r}")
        if self.prefix is not None:
            return uri.prefixed_uri(self.prefix, self.hash, label or None)
        if uri_type == 1:
            return uri.labelled_uri(self.hash, label, algorithm=self.algorithm)
        return uri.zone_uri(self.zone, self.hash, label, algorithm=self.algorithm)


def store_file(
    path: str | os.PathLike[str],
    *,
    zone: str | None = None,
    local: bool = False,
    keep: bool = False,
    label: str | None = None,
    to: Place | None = None,
    algorithm: str = "sha1",
) -> Stored:
    """Store a file in a zone, with a classic server, or on this machine.

    Args:
        path: The file; it is only read.
        zone: The zone; by default that of the settings.
        local: Store it on this machine only.
        keep: Store it on this machine as well.
        label: What the progress bar calls it.
        to: The place to store it in instead of a zone of the settings.
        algorithm: `sha1` or `md5`. A zone takes its file by the SHA-1, and is asked to find it by the other hash, too.

    Raises:
        NotFound, NotAllowed, InvalidInput: If it cannot be read.
        SourceChanged: If it changes meanwhile.
        NotConfigured, NotRegistered, NotAllowed, Unreachable: If the zone does not take it.
        StorageFull: If there is no room.
    """
    path = os.fsdecode(path)
    plain_directory = None if local or to is not None else settings.store_file_dir()
    if plain_directory is not None:
        _require_sha1(algorithm)
        hash_, size = plain.add_file(plain_directory, path)
        return Stored(hash_, size, prefix=settings.store_file_prefix())
    store = Store()
    if local:
        hash_, size = _add_file(store, path, algorithm, label)
        return Stored(hash_, size, algorithm=algorithm)
    target = to or open_zone(zone)
    name = label or os.path.basename(path)
    if isinstance(target, Channel):
        return _send_to(target, store, path, algorithm, name, keep=keep)
    if algorithm != "sha1":
        if keep:
            hash_, _ = _add_file(store, path, algorithm, label)
            path = store.layout.blob(hash_, algorithm)
        stored = store_file(path, label=name, to=target)
        with explaining("read", path):
            return _known_by(target, stored, algorithm, digest.of_file(path, (algorithm,))[algorithm])
    target.require_keys()
    if keep:
        hash_, size = store.add_file(path, label=label)
        found = store.find(hash_)
        if found is None:
            raise WrongContent(f"the copy of {path} just stored cannot be found again", hint="run `kachery verify`")
        path = found.path
    else:
        sent = _send_while_hashing(store, target, os.path.abspath(path), name)
        if sent is not None:
            return sent
        with progress.bar(_size_of(path), f"Hashing {name}") as told:
            hash_, size = store.hash_file(path, told)
    _upload(target, os.path.abspath(path), hash_, size, name)
    return Stored(hash_, size, zone=target.name)


def _known_by(target: Zone, stored: Stored, algorithm: str, hash_: str) -> Stored:
    """A file of a zone under another hash, which the gateway takes of its copy as we did of ours."""
    if target.record_alias(stored.hash, algorithm) != hash_:
        raise SourceChanged("the file changed while it was stored", hint="try again when nothing writes to it")
    return replace(stored, hash=hash_, algorithm=algorithm)


def _add_file(store: Store, path: str, algorithm: str, label: str | None) -> tuple[str, int]:
    if algorithm == "sha1":
        return store.add_file(path, label=label)
    digest.new(algorithm)
    source, status = open_source(os.path.abspath(path))
    try:
        with (
            store.incoming() as incoming,
            progress.bar(status.st_size, f"Storing {label or os.path.basename(path)}") as told,
        ):
            with explaining("copy", path):
                hash_ = copy_and_digest(source, incoming.fd, status.st_size, told, algorithm)
            require_unchanged(source, status, path)
            incoming.publish(hash_, algorithm)
    finally:
        os.close(source)
    return hash_, status.st_size


def _send_to(channel: Channel, store: Store, path: str, algorithm: str, name: str, *, keep: bool) -> Stored:
    known: tuple[str, int] | None = None
    if keep:
        known = _add_file(store, path, algorithm, name)
        path = store.layout.blob(known[0], algorithm)
    fd, before = open_source(os.path.abspath(path))
    try:
        if known is None:
            with progress.bar(before.st_size, f"Hashing {name}") as told:
                known = _hash_open(store, path, fd, algorithm, told)
        hash_, size = known
        with progress.bar(size, f"Uploading {name}") as told:
            try:
                channel.upload(fd, hash_, size, told, algorithm)
            finally:
                # then what the server says of it does not matter
                require_unchanged(fd, before, path)
    finally:
        os.close(fd)
    return Stored(hash_, size, algorithm=algorithm)


def _hash_open(store: Store, path: str, fd: int, algorithm: str, told: Progress) -> tuple[str, int]:
    if algorithm == "sha1":
        return store.hash_file(path, told)
    with explaining("read", path), open(fd, "rb", buffering=0, closefd=False) as stream:
        hash_ = digest.of_stream(stream, (algorithm,), advance=told.advance)[algorithm]
        return hash_, stream.tell()


def _send_while_hashing(store: Store, target: Zone, path: str, name: str) -> Stored | None:
    """Send a large file that was never hashed, and hash it meanwhile; `None` when it must be hashed first."""
    size = _size_of(path)
    if size is None or size <= IN_PARTS_ABOVE or store.recall_hash(path) is not None:
        return None
    begun = target.begin_upload(size)
    if begun is None:
        return None

    def hash_and_name() -> str:
        try:
            hash_, _ = store.hash_file(path)
            begun.name(hash_)
        except BaseException:
            begun.cancel()
            raise
        return hash_

    fd, before = open_source(path)
    try:
        with ThreadPoolExecutor(1, "kachery-hash") as pool, progress.bar(size, f"Uploading {name}") as told:
            hashing = pool.submit(hash_and_name)
            complete = begun.send(fd, told)
            hash_ = hashing.result()
        if complete:
            try:
                begun.finish(hash_)
            except WrongContent:
                require_unchanged(fd, before, path)
                # it did not change, so something on the way altered it: send it again, under its hash
                return None
    finally:
        os.close(fd)
    return Stored(hash_, size, zone=target.name)


def _upload(target: Zone, path: str, hash_: str, size: int, name: str) -> None:
    fd, before = open_source(path)
    try:
        for last in (False, True):
            try:
                with progress.bar(size, f"Uploading {name}") as told:
                    target.upload(fd, hash_, size, told)
                    return
            except WrongContent:
                require_unchanged(fd, before, path)
                # it did not change, so something on the way altered it; a second time is no accident
                if last:
                    raise
    finally:
        os.close(fd)


def store_bytes(
    data: bytes,
    *,
    zone: str | None = None,
    local: bool = False,
    keep: bool = False,
    label: str | None = None,
    to: Place | None = None,
    algorithm: str = "sha1",
) -> Stored:
    """Store some bytes as a file; arguments and errors as for `store_file`."""
    plain_directory = settings.store_file_dir()
    if not local and to is None and plain_directory is not None:
        _require_sha1(algorithm)
        return Stored(plain.add_bytes(plain_directory, data), len(data), prefix=settings.store_file_prefix())
    if local:
        return Stored(Store().add_bytes(data, algorithm), len(data), algorithm=algorithm)
    target = to or open_zone(zone)
    if isinstance(target, Zone):
        if algorithm != "sha1":
            hash_ = Store().add_bytes(data, algorithm) if keep else digest.of_bytes(data, algorithm)
            return _known_by(target, store_bytes(data, label=label, to=target), algorithm, hash_)
        target.require_keys()
    hash_ = Store().add_bytes(data, algorithm) if keep else digest.of_bytes(data, algorithm)
    with _descriptor(data) as fd, progress.bar(len(data), f"Uploading {label or 'data'}") as told:
        if isinstance(target, Channel):
            target.upload(fd, hash_, len(data), told, algorithm)
            return Stored(hash_, len(data), algorithm=algorithm)
        target.upload(fd, hash_, len(data), told)
    return Stored(hash_, len(data), zone=target.name)


def store_stream(
    stream: BinaryIO,
    *,
    zone: str | None = None,
    local: bool = False,
    keep: bool = False,
    label: str | None = None,
    to: Place | None = None,
) -> Stored:
    """Store what a stream gives until its end; other arguments and errors as for `store_file`.

    All of it goes into a private file first: a zone must know the hash and the size before it takes anything.
    """
    plain_directory = None if local or to is not None else settings.store_file_dir()
    target = None if local or plain_directory is not None else to or open_zone(zone)
    if isinstance(target, Zone):
        target.require_keys()
    name = label or "data"
    with Store().incoming() as incoming:
        with progress.bar(None, f"Reading {name}") as told:
            hash_, size = _spool(stream, incoming.fd, incoming.path, told)
        if plain_directory is not None:
            plain.add_file(plain_directory, incoming.path, label=name)
            return Stored(hash_, size, prefix=settings.store_file_prefix())
        if target is not None:
            with progress.bar(size, f"Uploading {name}") as told:
                target.upload(incoming.fd, hash_, size, told)
        if local or keep:
            incoming.publish(hash_)
    return Stored(hash_, size, zone=target.name if isinstance(target, Zone) else None)


def link_file(path: str | os.PathLike[str]) -> Stored:
    """Make a file findable by its hash where it lies, on this machine.

    Raises:
        NotFound, NotAllowed, InvalidInput: If it cannot be read.
        SourceChanged: If it changes meanwhile.
    """
    hash_, size = Store().link(path)
    return Stored(hash_, size)


def delete_file(text: str, *, zone: str | None = None) -> None:
    """Remove a file from a zone, as one of its administrators.

    Raises:
        InvalidURI: If the URI does not name a file by its SHA-1.
        NotAllowed, NotFound, Unreachable: What the gateway said.
    """
    reference = uri.parse_file(text)
    _require_sha1(reference.algorithm)
    open_zone(zone or reference.zone).delete(reference.hash)


def _spool(stream: BinaryIO, fd: int, path: str, told: Progress) -> tuple[str, int]:
    found, size = digest.new("sha1"), 0
    while True:
        with explaining("read", "the stream"):
            data = stream.read(_PIECE)
        if not data:
            return found.hexdigest(), size
        found.update(data)
        with explaining("write to", path):
            write_all(fd, data)
        size += len(data)
        told.advance(len(data))


@contextmanager
def _descriptor(data: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        with explaining("write to", tempfile.gettempdir()):
            file.write(data)
            file.flush()
        yield file.fileno()


def _require_sha1(algorithm: str) -> None:
    if algorithm != "sha1":
        raise NotSupported(f"zones know files by their SHA-1, not by {algorithm}")


def _size_of(path: str | os.PathLike[str]) -> int | None:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        # whoever opens the file says what is wrong with it
        return None
