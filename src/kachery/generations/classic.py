"""The names of classic kachery (0.1 to 0.6) that no other generation has.

What is not found gives `None`, as it did then, with the reason as a warning on the log; what is refused, damaged or
makes no sense is an error.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, BinaryIO, Unpack

from .. import api, codecs, configuration, digest, files, uri
from ..calls import chosen_name, load_data, located, store_data, whence
from ..errors import InvalidURI, NotFound
from ..outcomes import none_if_missing
from ..store import Found, Store, open_source

if TYPE_CHECKING:
    from ..configuration import Options


def store_object(
    object: Any,  # noqa: A002 — its name since 2019
    basename: str | None = None,
    indent: int | None = None,
    *,
    label: str | None = None,
    zone: str | None = None,
    local: bool = False,
    cache_locally: bool = False,
    uri_type: int | None = None,
    **options: Unpack[Options],
) -> str:
    """Store a JSON value as classic kachery wrote it, its keys in the order that they have; see `store_json`.

    Args:
        object: Dicts, lists, tuples, texts, numbers (NaN as well), booleans and `None`.
        basename: The name in the URI, for people.
        indent: Blanks for each level, or `None` for one line.
        label: The same as `basename`.
        zone: The zone to store it in; by default that of the settings.
        local: Store it on this machine only.
        cache_locally: Keep a copy on this machine as well.
        uri_type: As for `store_file`.
        options: As for `store_file`.

    Returns:
        `sha1://HASH/NAME`.

    Raises:
        TypeError: If the value is not one that JSON has.
        KacheryError: As for `store_file`.
    """
    data = codecs.object_to_bytes(object, indent=indent)
    name = chosen_name(label, basename)
    return store_data(
        data, "file.json", name, zone=zone, local=local, keep=cache_locally, uri_type=uri_type, options=options
    )


def load_object(path: str, *, zone: str | None = None, local_only: bool = False, **options: Unpack[Options]) -> Any:
    """The JSON value of a file, or `None`; arguments and errors as for `load_json`."""
    data = none_if_missing(lambda: load_data(path, zone=zone, local_only=local_only, options=options))
    return None if data is None else codecs.bytes_to_json(data)


def get_object_hash(obj: Any) -> str:
    """The SHA-1 of a value's JSON text with sorted keys and without blanks.

    It is not the hash of what `store_object` stores, and equal for values that are equal.

    Raises:
        TypeError: If the value is not one that JSON has.
    """
    return digest.of_bytes(codecs.json_to_bytes(obj, allow_nan=True))


def get_file_info(
    path: str, hash_only: bool = False, *, zone: str | None = None, **options: Unpack[Options]
) -> dict[str, Any] | None:
    """Where a file is and how large; nothing is loaded.

    Args:
        path: Its URI, or its path on this machine.
        hash_only: Give the hash alone, without asking where the file is.
        zone: The zone to ask.
        options: As for `load_file`.

    Returns:
        `path`, or `url` when it is elsewhere (signed: it opens the file to whoever sees it); `size` in bytes; and the
        hash under the name of its algorithm. `None` when nobody has it, with the reason on the log.

    Raises:
        NotAllowed: If a zone or server refuses.
    """
    return none_if_missing(lambda: file_info(path, hash_only, zone=zone, **options))


def file_info(
    path: str, hash_only: bool = False, *, zone: str | None = None, **options: Unpack[Options]
) -> dict[str, Any]:
    """As `get_file_info`, with an error where there is no file."""
    chosen = configuration.chosen(options)
    where = whence(chosen, zone)
    text = located(path)
    if not isinstance(text, str) or text.startswith("/"):
        return _local_info(text, path, chosen.algorithm)
    named = uri.parse(text)
    if isinstance(named, uri.TreeRef) and not named.path:
        raise NotFound(f"{text[:120]} is a directory, not a file", hint="`kachery ls` lists it")
    reference = files.resolved(named, where["fr"] or zone, remote_only=chosen.from_remote_only)
    if not isinstance(reference, uri.FileRef):
        raise InvalidURI(f"not the URI of a file by its content: {text[:80]!r}", hint="for example sha1://HASH/NAME")
    hashed = {reference.algorithm: reference.hash}
    if hash_only:
        return hashed
    found = files.locate(reference, **where)
    if isinstance(found, Found):
        return {"path": found.path, "size": os.stat(found.path).st_size, **hashed}
    return {"url": found.url, "size": found.size, **hashed}


def get_file_hash(path: str) -> str:
    """The SHA-1 of a file.

    Args:
        path: Its URI, or its path on this machine. What a `sha1://` URI names need not be there; what another names is
            loaded.

    Raises:
        NotFound, Unreachable, NotAllowed: If it has to be read, and cannot be.
    """
    text = located(path)
    if isinstance(text, str) and text.startswith("sha1://"):
        return uri.parse_file(text).hash
    hash_, _ = Store().hash_file(files.load_file(text, **whence(configuration.chosen({}), None)))
    return hash_


def open_file(
    path: str, block_size: int | None = None, *, zone: str | None = None, **options: Unpack[Options]
) -> BinaryIO:
    """As `open`; `block_size` is accepted, and how much is fetched at once is found out by itself."""
    return api.open(path, zone=zone, **options)


def _local_info(text: str, given: str, algorithm: str) -> dict[str, Any]:
    if algorithm == "sha1":
        hash_, size = Store().hash_file(text)
    else:
        fd, status = open_source(text)
        with open(fd, "rb", buffering=0) as stream:
            hash_, size = digest.of_stream(stream, (algorithm,))[algorithm], status.st_size
    return {"path": given, "size": size, algorithm: hash_}
