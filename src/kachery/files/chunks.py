"""Manifests of the chunks of large files, by which parts of them can be verified when they are read.

None is written unless it is asked for: it means to read the file once more.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import digest, manifests, progress
from ..errors import InvalidInput, SourceChanged, explaining
from ..manifests import Chunk, Chunks
from ..store.hashing import open_source, require_unchanged
from .storing import store_bytes

if TYPE_CHECKING:
    from .opening import Place
    from .storing import Stored


def store_chunks(
    path: str | os.PathLike[str],
    stored: Stored,
    *,
    zone: str | None = None,
    local: bool = False,
    keep: bool = False,
    to: Place | None = None,
    algorithm: str = "sha1",
) -> str | None:
    """Store the manifest of a file's chunks beside the file.

    Args:
        path: The file.
        stored: What came of storing it.
        zone: As for `store_file`, as all that follows.
        local: The same.
        keep: The same.
        to: The same.
        algorithm: `sha1`; others have no manifests.

    Returns:
        The SHA-1 of the manifest; `None` for a file of at most 4,000,000 bytes, which needs none.

    Raises:
        InvalidInput: If the file is known by another hash than its SHA-1.
        SourceChanged: If the file is no longer what was stored.
        KacheryError: As for `store_file`.
    """
    if algorithm != "sha1":
        raise InvalidInput(f"files known by their {algorithm} have no manifests of chunks", hint="use sha1")
    if stored.size <= manifests.CHUNKED_ABOVE:
        return None
    chunks = of_file(os.fsdecode(path))
    if (chunks.sha1, chunks.size) != (stored.hash, stored.size):
        raise SourceChanged(f"{path} changed after it was stored", hint="try again when nothing writes to it")
    return store_bytes(chunks.to_bytes(), zone=zone, local=local, keep=keep, to=to, label="manifest").hash


def of_file(path: str) -> Chunks:
    """The chunks of a file on this machine, read once.

    Raises:
        NotFound, NotAllowed, InvalidInput: If it cannot be read.
        SourceChanged: If it changes meanwhile.
    """
    fd, status = open_source(path)
    step = manifests.chunk_size(status.st_size)
    whole = digest.new("sha1")
    chunks: list[Chunk] = []
    buffer = memoryview(bytearray(digest.BUFFER_SIZE))
    with (
        open(fd, "rb", buffering=0) as stream,
        progress.bar(status.st_size, f"Hashing {os.path.basename(path)}") as told,
        explaining("read", path),
    ):
        start = 0
        while start < status.st_size:
            end = min(start + step, status.st_size)
            part, position = digest.new("sha1"), start
            while position < end and (count := stream.readinto(buffer[: end - position])):
                whole.update(buffer[:count])
                part.update(buffer[:count])
                position += count
                told.advance(count)
            if position != end:
                raise SourceChanged(f"{path} became shorter while it was read", hint="try again")
            chunks.append(Chunk(start, end, part.hexdigest()))
            start = end
        require_unchanged(fd, status, path)
    return Chunks(status.st_size, whole.hexdigest(), tuple(chunks))
