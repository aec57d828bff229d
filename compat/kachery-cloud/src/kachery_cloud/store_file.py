"""Storing files in the zone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kachery import files
from kachery.uri import labelled_uri, prefixed_uri

from ._custom_storage_backend import storing_backend
from .store_file_local import store_file_local
from .TemporaryDirectory import TemporaryDirectory

if TYPE_CHECKING:
    from kachery.files import Stored


def store_file(filename: str, *, label: str | None = None, cache_locally: bool = False, local: bool = False) -> str:
    """Store a file in the zone.

    Args:
        filename: Its path; it is only read.
        label: A name for people, written into the URI.
        cache_locally: Whether to keep a copy on this machine as well.
        local: Whether to store it on this machine only.

    Returns:
        Its URI: of the zone, of the plain directory that `KACHERY_STORE_FILE_DIR` names, or whatever a custom backend
        says.

    Raises:
        NotFound, NotAllowed, InvalidInput: If it cannot be read.
        SourceChanged: If it changes meanwhile.
        NotConfigured, NotRegistered, NotAllowed, Unreachable: If the zone does not take it.
        StorageFull: If there is no room.
    """
    if local:
        return store_file_local(filename, label=label)
    backend = storing_backend()
    if backend is not None:
        return str(backend.store_file(filename, label=label))
    return stored_uri(files.store_file(filename, keep=cache_locally, label=label), label)


def store_data(data: bytes, *, name: str, label: str | None, cache_locally: bool, local: bool) -> str:
    """As `store_file`, for the bytes of a value.

    Args:
        data: The bytes.
        name: What the file is called that a custom backend gets.
        label: As for `store_file`.
        cache_locally: As for `store_file`.
        local: As for `store_file`.
    """
    if not local and storing_backend() is not None:
        with TemporaryDirectory() as directory:
            path = f"{directory}/{name}"
            with open(path, "wb") as file:
                file.write(data)
            return store_file(path, label=label)
    return stored_uri(files.store_bytes(data, local=local, keep=cache_locally, label=label), label)


def stored_uri(stored: Stored, label: str | None) -> str:
    """The URI of what was stored, in the releases' spelling."""
    if stored.prefix is not None:
        return prefixed_uri(stored.prefix, stored.hash, label)
    return labelled_uri(stored.hash, label)
