"""The functions that people call: `import kachery`.

`store_*` give a URI; `load_*` take one, of any generation. All read the settings at each call, and take `zone=` for a
zone other than theirs. What cannot be done is an error of `kachery.errors`, each of them also the builtin one would
expect.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, BinaryIO

from . import codecs, files

if TYPE_CHECKING:
    import numpy as np

    from .files import FileInfo


def store_file(
    filename: str | os.PathLike[str],
    *,
    label: str | None = None,
    zone: str | None = None,
    local: bool = False,
    cache_locally: bool = False,
) -> str:
    """Store a file.

    Args:
        filename: The file; it is only read.
        label: Its name in the URI, for people; by default its own.
        zone: The zone to store it in; by default that of the settings.
        local: Store it on this machine only.
        cache_locally: Keep a copy on this machine as well.

    Returns:
        `sha1://HASH/NAME`. When it is returned, the content is where it should be, and verified there.

    Raises:
        NotFound, NotAllowed, InvalidInput: If the file cannot be read.
        SourceChanged: If it changes meanwhile.
        NotConfigured, NotRegistered, NotAllowed, Unreachable: If the zone does not take it.
        StorageFull: If there is no room.

    Example:
        >>> store_file("recording.nwb", zone="lab.public")        # doctest: +SKIP
        'sha1://253cc837e71aa814d19025fb70717353912b2577/recording.nwb'
    """
    stored = files.store_file(filename, zone=zone, local=local, keep=cache_locally, label=label)
    return stored.uri(label if label is not None else os.path.basename(os.fsdecode(filename)))


def store_text(
    text: str, *, label: str | None = None, zone: str | None = None, local: bool = False, cache_locally: bool = False
) -> str:
    """Store a text, in UTF-8; other arguments, result and errors as for `store_file`."""
    return _store(codecs.text_to_bytes(text), "file.txt", label, zone, local=local, keep=cache_locally)


def store_json(
    x: Any,
    *,
    separators: tuple[str, str] = (",", ":"),
    indent: int | None = None,
    label: str | None = None,
    zone: str | None = None,
    local: bool = False,
    cache_locally: bool = False,
) -> str:
    """Store a JSON value.

    Args:
        x: Dicts, lists, tuples, texts, numbers, booleans and `None`. Equal values get equal URIs.
        separators: Between items, and between a key and its value.
        indent: Blanks for each level, or `None` for one line.
        label: The name in the URI, for people.
        zone: The zone to store it in; by default that of the settings.
        local: Store it on this machine only.
        cache_locally: Keep a copy on this machine as well.

    Returns:
        `sha1://HASH/NAME`.

    Raises:
        TypeError, ValueError: If the value is not one that JSON has, NaN and infinity included.
        KacheryError: As for `store_file`.
    """
    data = codecs.json_to_bytes(x, separators=separators, indent=indent)
    return _store(data, "file.json", label, zone, local=local, keep=cache_locally)


def store_npy(
    array: np.ndarray,
    *,
    label: str | None = None,
    zone: str | None = None,
    local: bool = False,
    cache_locally: bool = False,
) -> str:
    """Store an array in the npy format.

    Args:
        array: Of any shape, and any dtype but Python objects.
        label: The name in the URI, for people.
        zone: The zone to store it in; by default that of the settings.
        local: Store it on this machine only.
        cache_locally: Keep a copy on this machine as well.

    Returns:
        `sha1://HASH/NAME`.

    Raises:
        ValueError: If the array holds Python objects.
        NotSupported: If numpy is not installed.
        KacheryError: As for `store_file`.
    """
    return _store(codecs.array_to_bytes(array), "file.npy", label, zone, local=local, keep=cache_locally)


def store_pkl(
    x: Any, *, label: str | None = None, zone: str | None = None, local: bool = False, cache_locally: bool = False
) -> str:
    """Store a value of simple types as a pickle, whose hash depends on the versions of Python and numpy.

    Args:
        x: Numbers, texts, booleans, `None`, ranges, slices, dicts, lists, tuples, numpy arrays and scalars.
        label: The name in the URI, for people.
        zone: The zone to store it in; by default that of the settings.
        local: Store it on this machine only.
        cache_locally: Keep a copy on this machine as well.

    Returns:
        `sha1://HASH/NAME`.

    Raises:
        InvalidInput: If the value holds something else.
        KacheryError: As for `store_file`.
    """
    return _store(codecs.pickle_to_bytes(x), "file.pkl", label, zone, local=local, keep=cache_locally)


def link_file(filename: str | os.PathLike[str], *, label: str | None = None) -> str:
    """Make a file findable by its hash where it lies, on this machine, without a copy.

    Args:
        filename: The file. It is served only as long as it stays what it is.
        label: Its name in the URI, for people; by default its own.

    Returns:
        `sha1://HASH/NAME`.

    Raises:
        NotFound, NotAllowed, InvalidInput: If the file cannot be read.
        SourceChanged: If it changes meanwhile.
    """
    stored = files.link_file(filename)
    return stored.uri(label if label is not None else os.path.basename(os.fsdecode(filename)))


def load_file(
    uri: str,
    *,
    dest: str | os.PathLike[str] | None = None,
    zone: str | None = None,
    local_only: bool = False,
    verbose: bool = False,
) -> str:
    """Have a file on this machine.

    Args:
        uri: Its URI, in the spelling of any generation.
        dest: Where to put a copy; directories above it are made.
        zone: The zone to ask; by default the one in the URI, or that of the settings.
        local_only: Ask nobody else.
        verbose: Say on the log where the file comes from.

    Returns:
        `dest`, or else the path of the verified content in the store, which must not be written to.

    Raises:
        InvalidURI, NotSupported: If the URI cannot be loaded.
        NotFound: If nobody who was asked has it.
        Unreachable: If somebody who may have it could not be asked.
        NotAllowed: If the zone says no.
        WrongContent: If what came does not have the hash.
        StorageFull: If there is no room.

    Example:
        >>> load_file("sha1://253cc837e71aa814d19025fb70717353912b2577", dest="recording.nwb")   # doctest: +SKIP
        'recording.nwb'
    """
    return files.load_file(uri, dest=dest, zone=zone, local_only=local_only, verbose=verbose)


def load_text(uri: str, *, zone: str | None = None, local_only: bool = False) -> str:
    """The text of a file; arguments and errors as for `load_file`, and `WrongContent` if it is not UTF-8."""
    return codecs.bytes_to_text(files.load_bytes(uri, zone=zone, local_only=local_only))


def load_json(uri: str, *, zone: str | None = None, local_only: bool = False) -> Any:
    """The JSON value of a file; arguments and errors as for `load_file`, and `WrongContent` if it is not JSON."""
    return codecs.bytes_to_json(files.load_bytes(uri, zone=zone, local_only=local_only))


def load_npy(uri: str, *, zone: str | None = None, local_only: bool = False) -> np.ndarray:
    """The array of a file; arguments and errors as for `load_file`, and `WrongContent` if it is not an array."""
    return codecs.bytes_to_array(files.load_bytes(uri, zone=zone, local_only=local_only))


def load_pkl(uri: str, *, zone: str | None = None, local_only: bool = False) -> Any:
    """The value of a pickled file, of simple types only, so that nothing in it is executed.

    Arguments and errors as for `load_file`, and `WrongContent` if it asks for other types.
    """
    return codecs.bytes_to_pickle(files.load_bytes(uri, zone=zone, local_only=local_only))


def load_bytes(
    uri: str, start: int | None = None, end: int | None = None, *, zone: str | None = None, local_only: bool = False
) -> bytes:
    """The bytes of a file, or of a part of it.

    A part of a large file that is not on this machine is read from the zone without loading the rest, and is then not
    verified against the hash.

    Args:
        uri: The file's URI.
        start: The first byte; by default 0.
        end: The byte after the last one; by default the file's size.
        zone: The zone to ask.
        local_only: Ask nobody else.

    Raises:
        InvalidInput: If start and end are not in order and within the file.
        KacheryError: As for `load_file`.
    """
    return files.load_bytes(uri, start=start, end=end, zone=zone, local_only=local_only)


def open(uri: str, *, zone: str | None = None) -> BinaryIO:  # noqa: A001 — as `io.open`
    """Open a file for reading, wherever it is; what is not read is not moved.

    Args:
        uri: The file's URI.
        zone: The zone to ask.

    Returns:
        A binary file that can seek. Content on this machine is verified; parts from a zone are what the zone sends.

    Raises:
        KacheryError: As for `load_file`.

    Example:
        >>> with open("sha1://253cc837e71aa814d19025fb70717353912b2577") as file:                # doctest: +SKIP
        ...     header = file.read(8)
    """
    return files.open_file(uri, zone=zone)


def info(uri: str, *, zone: str | None = None) -> FileInfo:
    """What is known of a file by its content; nothing is loaded.

    Args:
        uri: The file's URI.
        zone: The zone to ask.

    Raises:
        InvalidURI: If the URI does not name a file by its content.
        NotFound, NotAllowed, Unreachable: If neither this machine nor the zone has it, with the reason.
    """
    return files.file_info(uri, zone=zone)


def _store(data: bytes, name: str, label: str | None, zone: str | None, *, local: bool, keep: bool) -> str:
    stored = files.store_bytes(data, zone=zone, local=local, keep=keep, label=label)
    return stored.uri(label if label is not None else name)
