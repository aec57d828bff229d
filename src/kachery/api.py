"""The functions that people call: `import kachery`.

`store_*` give a URI; `load_*` take one, of any generation. All read the settings at each call, and take `zone=` for a
zone other than theirs, and the options of `kachery.configuration` (`to=`, `fr=`, `algorithm=`, …). What cannot be done
is an error of `kachery.errors`, each of them also the builtin one would expect.

These are the names that all generations have. Arguments may be spelled as in any of them: `basename=` is `label=`, and
`path=` the `uri=` or `filename=`. Names that only one of them had are in `kachery.generations`.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Unpack

from . import codecs, configuration, files
from .calls import (
    URIS,
    also_called,
    chosen_name,
    load_data,
    located,
    name_in,
    spelled,
    store_data,
    whence,
    where_to,
)
from .outcomes import missing_as_asked
from .uri import with_manifest

if TYPE_CHECKING:
    import numpy as np

    from .configuration import Options
    from .files import FileInfo, TreeInfo


@also_called(path="filename")
def store_file(
    filename: str | os.PathLike[str],
    basename: str | None = None,
    git_annex_mode: bool = False,
    *,
    label: str | None = None,
    zone: str | None = None,
    local: bool = False,
    cache_locally: bool = False,
    uri_type: int | None = None,
    manifest: bool = False,
    **options: Unpack[Options],
) -> str:
    """Store a file.

    Without a zone, a server or a gateway that anybody named, it is stored on this machine.

    Args:
        filename: The file; it is only read. A URI is loaded first.
        basename: The same as `label`.
        git_annex_mode: For directories; of no meaning here.
        label: Its name in the URI, for people; by default its own.
        zone: The zone to store it in; by default that of the settings.
        local: Store it on this machine only.
        cache_locally: Keep a copy on this machine as well.
        uri_type: 1 for `sha1://HASH?label=NAME`, 2 for `kachery:ZONE:sha1:HASH:NAME`, as kachery 2.x has them.
        manifest: Store a manifest of the chunks of a file of more than 4,000,000 bytes, too, by which parts of it are
            verified when they are read; `?manifest=HASH` in the URI names it.
        options: `to`, `to_remote_only`, `algorithm`, … for this call; see `kachery.configuration`.

    Returns:
        `sha1://HASH/NAME`. When it is returned, the content is where it should be, and verified there.

    Raises:
        NotFound, NotAllowed, InvalidInput: If the file cannot be read.
        SourceChanged: If it changes meanwhile.
        NotConfigured, NotRegistered, NotAllowed, Unreachable: If the zone or server does not take it.
        StorageFull: If there is no room.

    Example:
        >>> store_file("recording.nwb", zone="lab.public")        # doctest: +SKIP
        'sha1://253cc837e71aa814d19025fb70717353912b2577/recording.nwb'
    """
    path = os.fsdecode(filename)
    name = chosen_name(label, basename)
    own_name = os.path.basename(path)
    chosen = configuration.chosen(options)
    if path.startswith(URIS):
        own_name = name_in(path)
        path = files.load_file(path, **whence(chosen, zone))
    backend = None if local or chosen.to is not None else configuration.storage_backend()
    if backend is not None:
        return str(backend.store_file(path, label=name))
    where = where_to(chosen, zone, local=local, keep=cache_locally)
    stored = files.store_file(path, label=name or own_name, **where)
    chunks = files.store_chunks(path, stored, **where) if manifest else None
    uri = spelled(stored, name, own_name, uri_type)
    return uri if chunks is None else with_manifest(uri, chunks)


@also_called(x="text")
def store_text(
    text: str,
    basename: str | None = None,
    *,
    label: str | None = None,
    zone: str | None = None,
    local: bool = False,
    cache_locally: bool = False,
    uri_type: int | None = None,
    **options: Unpack[Options],
) -> str:
    """Store a text, in UTF-8; other arguments, result and errors as for `store_file`."""
    data = codecs.text_to_bytes(text)
    name = chosen_name(label, basename)
    return store_data(
        data, "file.txt", name, zone=zone, local=local, keep=cache_locally, uri_type=uri_type, options=options
    )


def store_json(
    x: Any,
    *,
    separators: tuple[str, str] = (",", ":"),
    indent: int | None = None,
    label: str | None = None,
    zone: str | None = None,
    local: bool = False,
    cache_locally: bool = False,
    uri_type: int | None = None,
    **options: Unpack[Options],
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
        uri_type: As for `store_file`.
        options: As for `store_file`.

    Returns:
        `sha1://HASH/NAME`.

    Raises:
        TypeError, ValueError: If the value is not one that JSON has, NaN and infinity included.
        KacheryError: As for `store_file`.
    """
    data = codecs.json_to_bytes(x, separators=separators, indent=indent)
    return store_data(
        data, "file.json", label, zone=zone, local=local, keep=cache_locally, uri_type=uri_type, options=options
    )


@also_called(x="array")
def store_npy(
    array: np.ndarray,
    basename: str | None = None,
    *,
    label: str | None = None,
    zone: str | None = None,
    local: bool = False,
    cache_locally: bool = False,
    uri_type: int | None = None,
    **options: Unpack[Options],
) -> str:
    """Store an array in the npy format.

    Args:
        array: Of any shape, and any dtype but Python objects.
        basename: The same as `label`.
        label: The name in the URI, for people.
        zone: The zone to store it in; by default that of the settings.
        local: Store it on this machine only.
        cache_locally: Keep a copy on this machine as well.
        uri_type: As for `store_file`.
        options: As for `store_file`.

    Returns:
        `sha1://HASH/NAME`.

    Raises:
        ValueError: If the array holds Python objects.
        NotSupported: If numpy is not installed.
        KacheryError: As for `store_file`.
    """
    data = codecs.array_to_bytes(array)
    name = chosen_name(label, basename)
    return store_data(
        data, "file.npy", name, zone=zone, local=local, keep=cache_locally, uri_type=uri_type, options=options
    )


def store_pkl(
    x: Any,
    *,
    label: str | None = None,
    zone: str | None = None,
    local: bool = False,
    cache_locally: bool = False,
    uri_type: int | None = None,
    **options: Unpack[Options],
) -> str:
    """Store a value of simple types as a pickle, whose hash depends on the versions of Python and numpy.

    Args:
        x: Numbers, texts, booleans, `None`, ranges, slices, dicts, lists, tuples, numpy arrays and scalars.
        label: The name in the URI, for people.
        zone: The zone to store it in; by default that of the settings.
        local: Store it on this machine only.
        cache_locally: Keep a copy on this machine as well.
        uri_type: As for `store_file`.
        options: As for `store_file`.

    Returns:
        `sha1://HASH/NAME`.

    Raises:
        InvalidInput: If the value holds something else.
        KacheryError: As for `store_file`.
    """
    data = codecs.pickle_to_bytes(x)
    return store_data(
        data, "file.pkl", label, zone=zone, local=local, keep=cache_locally, uri_type=uri_type, options=options
    )


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


@missing_as_asked
@also_called(path="uri")
def load_file(
    uri: str,
    dest: str | os.PathLike[str] | None = None,
    *,
    zone: str | None = None,
    local_only: bool = False,
    **options: Unpack[Options],
) -> str:
    """Have a file on this machine.

    Args:
        uri: Its URI, in the spelling of any generation, or the path of a file on this machine.
        dest: Where to put a copy; directories above it are made.
        zone: The zone to ask; by default the one in the URI, or that of the settings.
        local_only: Ask nobody else.
        options: `fr`, `from_remote_only`, `verbose`, … for this call; see `kachery.configuration`.

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
    chosen = configuration.chosen(options)
    return files.load_file(
        located(uri), dest=dest, local_only=local_only, verbose=chosen.verbose, **whence(chosen, zone)
    )


@missing_as_asked
@also_called(path="uri")
def load_text(uri: str, *, zone: str | None = None, local_only: bool = False, **options: Unpack[Options]) -> str:
    """The text of a file; arguments and errors as for `load_file`, and `WrongContent` if it is not UTF-8."""
    return codecs.bytes_to_text(load_data(uri, zone=zone, local_only=local_only, options=options))


@missing_as_asked
@also_called(path="uri")
def load_json(uri: str, *, zone: str | None = None, local_only: bool = False, **options: Unpack[Options]) -> Any:
    """The JSON value of a file; arguments and errors as for `load_file`, and `WrongContent` if it is not JSON."""
    return codecs.bytes_to_json(load_data(uri, zone=zone, local_only=local_only, options=options))


@missing_as_asked
@also_called(path="uri")
def load_npy(uri: str, *, zone: str | None = None, local_only: bool = False, **options: Unpack[Options]) -> np.ndarray:
    """The array of a file; arguments and errors as for `load_file`, and `WrongContent` if it is not an array."""
    return codecs.bytes_to_array(load_data(uri, zone=zone, local_only=local_only, options=options))


@missing_as_asked
@also_called(path="uri")
def load_pkl(uri: str, *, zone: str | None = None, local_only: bool = False, **options: Unpack[Options]) -> Any:
    """The value of a pickled file, of simple types only, so that nothing in it is executed.

    Arguments and errors as for `load_file`, and `WrongContent` if it asks for other types.
    """
    return codecs.bytes_to_pickle(load_data(uri, zone=zone, local_only=local_only, options=options))


@missing_as_asked
@also_called(path="uri")
def load_bytes(
    uri: str,
    start: int | None = None,
    end: int | None = None,
    write_to_stdout: bool = False,
    *,
    zone: str | None = None,
    local_only: bool = False,
    **options: Unpack[Options],
) -> bytes:
    """The bytes of a file, or of a part of it.

    A part of a large file that is not on this machine is read from the zone without loading the rest, and is then not
    verified against the hash, unless the URI names a manifest of its chunks.

    Args:
        uri: The file's URI.
        start: The first byte; by default 0.
        end: The byte after the last one; by default the file's size.
        write_to_stdout: Write them there instead, and give none.
        zone: The zone to ask.
        local_only: Ask nobody else.
        options: As for `load_file`.

    Raises:
        InvalidInput: If start and end are not in order and within the file.
        KacheryError: As for `load_file`.
    """
    data = load_data(uri, start, end, zone=zone, local_only=local_only, options=options)
    if not write_to_stdout:
        return data
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return b""


@also_called(path="uri")
def open(  # noqa: A001 — as `io.open`
    uri: str, *, zone: str | None = None, **options: Unpack[Options]
) -> BinaryIO:
    """Open a file for reading, wherever it is; what is not read is not moved.

    Args:
        uri: The file's URI.
        zone: The zone to ask.
        options: As for `load_file`.

    Returns:
        A binary file that can seek. Content on this machine is verified; parts from a zone are what the zone sends,
        verified where the URI names a manifest of the file's chunks.

    Raises:
        KacheryError: As for `load_file`.

    Example:
        >>> with open("sha1://253cc837e71aa814d19025fb70717353912b2577") as file:                # doctest: +SKIP
        ...     header = file.read(8)
    """
    return files.open_file(located(uri), **whence(configuration.chosen(options), zone))


def info(uri: str, *, zone: str | None = None, **options: Unpack[Options]) -> FileInfo | TreeInfo:
    """What is known of a file by its content, or of a directory; no file is loaded.

    Args:
        uri: The URI of the file or directory.
        zone: The zone to ask.
        options: As for `load_file`.

    Raises:
        InvalidURI: If the URI names neither.
        NotFound, NotAllowed, Unreachable: If neither this machine nor the zone has it, with the reason.
    """
    where = whence(configuration.chosen(options), zone)
    return files.any_info(uri, zone=where["zone"], fr=where["fr"])
