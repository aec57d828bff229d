"""Loading parts of files."""

from __future__ import annotations

import sys

from kachery import files

from ._outcomes import none_if_missing


def load_bytes(uri: str, start: int | None, end: int | None, *, write_to_stdout: bool = False) -> bytes | None:
    """The bytes of a file from `start` to before `end`.

    Args:
        uri: The file's URI.
        start: The first byte; `None` for 0.
        end: The byte after the last one; `None` for the file's size.
        write_to_stdout: Whether to write them to stdout instead.

    Returns:
        The bytes; `None` when they were written to stdout, and as for `load_file`.

    Raises:
        InvalidInput: If start and end are not in order and within the file.
    """
    data = none_if_missing(lambda: files.load_bytes(uri, start=start, end=end))
    if data is None or not write_to_stdout:
        return data
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return None
