"""Making files findable where they lie."""

from __future__ import annotations

from kachery import files
from kachery.uri import labelled_uri


def link_file(filename: str, *, label: str | None = None) -> str:
    """Make a file findable by its hash on this machine, without a copy.

    Args:
        filename: Its path; it is only read.
        label: A name for people, written into the URI.

    Returns:
        Its URI.

    Raises:
        NotFound, NotAllowed, InvalidInput: If it cannot be read.
        SourceChanged: If it changes meanwhile.
    """
    return labelled_uri(files.link_file(filename).hash, label)
