"""Writing a file's content to stdout."""

from __future__ import annotations

import shutil
import sys

from kachery import files

from ._outcomes import none_if_missing

_BLOCK = 256 * 1024


def cat_file(uri: str) -> None:
    """Write a file's content to stdout, and nothing else; nothing when there is no file, as for `load_file`.

    Args:
        uri: The file's URI.
    """
    path = none_if_missing(lambda: files.load_file(uri))
    if path is not None:
        write_out(path)


def write_out(path: str) -> None:
    """Write a local file's content to stdout."""
    sys.stdout.flush()
    with open(path, "rb", buffering=0) as file:
        shutil.copyfileobj(file, sys.stdout.buffer, _BLOCK)
    sys.stdout.buffer.flush()
