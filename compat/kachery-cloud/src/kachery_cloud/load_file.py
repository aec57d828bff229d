"""Loading files from wherever they are."""

from __future__ import annotations

from typing import Any

from kachery import files, settings, uri
from kachery.errors import NotSupported

from ._outcomes import none_if_missing


def load_file(
    uri: str,
    *,
    verbose: bool = False,
    local_only: bool = False,
    dest: str | None = None,
    _get_info: bool = False,
    do_request: bool | None = None,
) -> str | dict[str, Any] | None:
    """Find a file and have it on this machine, verified.

    Args:
        uri: Its URI, in any spelling of any generation, or an absolute path.
        verbose: Whether to say on the log where the file comes from.
        local_only: Whether to ask nobody but this machine.
        dest: Where to put a copy.
        _get_info: Give what `load_file_info` gives instead.
        do_request: Whether to ask the resource of `KACHERY_RESOURCE_URL` for what the zone lacks; by default yes.

    Returns:
        `dest`, or else the path of the content, which must not be written to; `None` when nobody has it, or nobody who
        has it can be reached, with the reason as a warning on the log.

    Raises:
        NotAllowed: If the zone refuses.
        WrongContent: If what came is not what the URI says, more than once.
        StorageFull: If there is no room.
    """
    if _get_info:
        return load_file_info(uri)
    return none_if_missing(
        lambda: files.load_file(uri, dest=dest, local_only=local_only, ask_resource=do_request, verbose=verbose)
    )


def load_file_info(uri: str) -> dict[str, Any] | None:
    """What the zone says of a file: `type`, `found`, `size`, `bucketUri`, `objectKey`, `cacheHit`; nothing is loaded.

    Args:
        uri: The file's URI.

    Returns:
        The gateway's answer without the address, or `None` as for `load_file`.
    """
    return none_if_missing(lambda: zone_info(uri))


def load_file_local(uri: str, *, dest: str | None = None) -> str | None:
    """As `load_file`, asking nobody but this machine."""
    return none_if_missing(lambda: files.load_file(uri, dest=dest, local_only=True))


def load_content(uri: str, *, local_only: bool = False) -> bytes | None:
    """The whole content of a file, which stays on this machine; `None` as for `load_file`."""
    return none_if_missing(lambda: files.load_bytes(uri, local_only=local_only))


def zone_info(text: str) -> dict[str, Any]:
    """As `load_file_info`, with an error where there is no answer.

    Raises:
        InvalidURI, NotSupported: If the URI does not name a file that a zone could have.
        NotFound: If the zone does not have it.
        NotConfigured, NotAllowed, Unreachable: If it cannot be asked.
    """
    reference = uri.parse_file(text)
    if reference.algorithm != "sha1":
        raise NotSupported(f"zones know files by their SHA-1, not by {reference.algorithm}")
    return files.open_zone(reference.zone or settings.zone()).require(reference.hash).reply
