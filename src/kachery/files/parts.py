"""Parts of files: what is not read is not moved.

A file on this machine is verified. A part of one elsewhere is what its zone or server sends, unless the URI names a
manifest of its chunks: then each chunk is verified before anything of it is handed out.
"""

from __future__ import annotations

import io
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from .. import manifests, reading, uri
from ..errors import InvalidInput, NotFound, Unreachable, WrongContent, explaining
from ..remote import RemoteFile
from ..zone import Zone
from .finding import explained, find_local, find_remote
from .loading import SMALL, load_content, load_file, require_content, resolved
from .opening import open_zone

if TYPE_CHECKING:
    from collections.abc import Callable

    from .opening import Place

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Readable:
    """A file that can be read from, in whole or in part.

    Attributes:
        name: What to call it.
        size: In bytes.
        path: Where its verified content is on this machine, or `None`.
        read: Gets the bytes from a start to an end that are within the file.
    """

    name: str
    size: int
    path: str | None
    read: Callable[[int, int], bytes]


def find_readable(
    text: str, *, zone: str | None = None, fr: Place | None = None, remote_only: bool = False
) -> Readable:
    """Where a file can be read from; what is not read is not moved, unless it is small.

    Args:
        text: The file's URI.
        zone: The zone to ask.
        fr: The place to ask instead of a zone of the settings.
        remote_only: Do not look on this machine.

    Raises:
        NotFound, …: As for `load_file`.
    """
    reference = resolved(uri.parse(text), fr or zone, remote_only=remote_only)
    if not isinstance(reference, uri.FileRef):
        return _on_this_machine(load_file(text, zone=zone, fr=fr, remote_only=remote_only), text)
    problems: list[str] = []
    local = None if remote_only else find_local(reference, problems)
    if local is not None:
        return _on_this_machine(local.path, str(reference))
    with explained(reference, problems):
        target = fr or open_zone(zone or reference.zone)
        found = find_remote(target, reference)
        if found is None and reference.algorithm == "sha1" and isinstance(target, Zone):
            brought = target.request_file(reference.hash)
            found = brought if isinstance(brought, RemoteFile) else None
        if found is None or found.size <= SMALL:
            path = load_content(reference, fr or zone, remote_only=remote_only)
            return _on_this_machine(path, str(reference))
    read = target.reader(found)
    if reference.manifest is not None:
        chunks = _chunks(reference, found.size, fr or zone)
        read = reading.Verified(read, chunks, str(reference)) if chunks is not None else read
    return Readable(str(reference), found.size, None, read)


def _chunks(reference: uri.FileRef, size: int, place: Place | str | None) -> manifests.Chunks | None:
    """The manifest of a file's chunks that its URI names; `None`, and a warning, when it cannot be had.

    Raises:
        WrongContent: If it is no manifest, or that of another file.
    """
    what = f"sha1://{reference.manifest}"
    manifest = uri.FileRef("sha1", str(reference.manifest), zone=reference.zone)
    try:
        path = load_content(manifest, place)
    except (NotFound, Unreachable) as error:
        logger.warning("what is read of %s cannot be verified: %s", reference, error.message)
        return None
    with explaining("read", path), open(path, "rb") as file:
        data = file.read(manifests.LARGEST_OF_CHUNKS + 1)
    chunks = manifests.parse_chunks(data, what)
    require_content(data, manifest, path)
    if (chunks.sha1, chunks.size) != (reference.hash, size):
        raise WrongContent(f"{what} is the manifest of another file than {reference}", hint="leave ?manifest= out")
    return chunks


def _on_this_machine(path: str, name: str) -> Readable:
    with explaining("read", path):
        size = os.stat(path).st_size

    def read(start: int, end: int) -> bytes:
        with explaining("read", path), open(path, "rb") as file:
            file.seek(start)
            return file.read(end - start)

    return Readable(name, size, path, read)


def open_file(text: str, *, zone: str | None = None, fr: Place | None = None, remote_only: bool = False) -> BinaryIO:
    """Open a file for reading, wherever it is; what is not read is not moved.

    Args:
        text: The file's URI.
        zone: The zone to ask.
        fr: The place to ask instead of a zone of the settings.
        remote_only: Do not look on this machine.

    Returns:
        A binary file that can seek. Content on this machine is verified; see `kachery.reading` for what is not.

    Raises:
        NotFound, …: As for `load_file`.
    """
    found = find_readable(text, zone=zone, fr=fr, remote_only=remote_only)
    if found.path is not None:
        return open(found.path, "rb")
    raw = reading.RangeReader(found.size, found.read, found.name)
    return io.BufferedReader(raw, buffer_size=64 * 1024)


def load_bytes(
    text: str,
    *,
    start: int | None = None,
    end: int | None = None,
    zone: str | None = None,
    local_only: bool = False,
    fr: Place | None = None,
    remote_only: bool = False,
) -> bytes:
    """The bytes of a file, or of a part of it.

    A part of a large file that is not on this machine is read from the zone without loading the rest, and is then not
    verified against the hash.

    Args:
        text: The file's URI.
        start: The first byte; by default 0.
        end: The byte after the last one; by default the file's size.
        zone: The zone to ask.
        local_only: Ask nobody else.
        fr: The place to ask instead of a zone of the settings.
        remote_only: Do not look on this machine.

    Raises:
        InvalidInput: If start and end are not in order and within the file.
        NotFound, …: As for `load_file`.
    """
    if local_only or (start is None and end is None):
        path = load_file(text, zone=zone, local_only=local_only, fr=fr, remote_only=remote_only)
        with open(path, "rb") as file:
            return _slice(file, os.fstat(file.fileno()).st_size, start, end)
    with open_file(text, zone=zone, fr=fr, remote_only=remote_only) as file:
        size = file.seek(0, io.SEEK_END)
        return _slice(file, size, start, end)


def _slice(file: BinaryIO, size: int, start: int | None, end: int | None) -> bytes:
    first = 0 if start is None else start
    last = size if end is None else end
    if not 0 <= first <= last <= size:
        raise InvalidInput(f"bytes {first} to {last} are not within a file of {size} bytes")
    file.seek(first)
    return file.read(last - first)
