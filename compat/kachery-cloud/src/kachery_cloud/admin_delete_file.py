"""Removing files from the zone."""

from __future__ import annotations

from kachery import files


def admin_delete_file(uri: str) -> None:
    """Remove a file from the zone, as one of its administrators.

    Args:
        uri: The file's `sha1://` URI.

    Raises:
        InvalidURI: If it is something else.
        NotAllowed, NotFound, Unreachable: What the gateway said.
    """
    files.delete_file(uri)
