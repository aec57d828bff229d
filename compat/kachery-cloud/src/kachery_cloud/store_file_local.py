"""Storing files on this machine."""

from __future__ import annotations

import os

from kachery import digest, files
from kachery.store import Store, open_source, plain
from kachery.uri import labelled_uri, prefixed_uri, with_location


def store_file_local(
    filename: str,
    *,
    label: str | None = None,
    reference: bool | None = None,
    store_file_dir: str | None = None,
    store_file_prefix: str | None = None,
) -> str:
    """Store a file on this machine.

    Args:
        filename: Its path, or a `sha1://` URI, which is loaded first.
        label: A name for people, written into the URI.
        reference: Whether to copy nothing and write the file's place into the URI instead.
        store_file_dir: A plain directory to store it in, as `sha1/HASH`, instead of the store directory.
        store_file_prefix: What the URI begins with instead of `sha1://`.

    Returns:
        Its URI.

    Raises:
        NotFound, NotAllowed, InvalidInput: If it cannot be read.
        SourceChanged: If it changes meanwhile.
        StorageFull: If there is no room.
    """
    path = os.fspath(filename)
    if path.startswith("sha1://"):
        path = files.load_file(path)
    path = os.path.abspath(path)
    if reference:
        hash_, _ = Store().hash_file(path)
        return with_location(labelled_uri(hash_, label), path)
    if store_file_dir is not None:
        hash_, _ = plain.add_file(store_file_dir, path, label=label)
    else:
        hash_ = files.store_file(path, local=True, label=label).hash
    if store_file_prefix is not None:
        return prefixed_uri(store_file_prefix, hash_, label)
    return labelled_uri(hash_, label)


def _compute_file_hash(path: str, algorithm: str = "sha1") -> str:
    if algorithm == "sha1":
        return Store().hash_file(path)[0]
    fd, _ = open_source(os.path.abspath(path))
    with open(fd, "rb", buffering=0) as stream:
        return digest.of_stream(stream, (algorithm,))[algorithm]
