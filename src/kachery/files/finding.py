"""Where a file may be: on this machine, or with whoever is asked. Nothing is loaded."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import settings, uri
from ..classic import Channel
from ..errors import KacheryError, NotConfigured, NotFound
from ..store import Found, Store
from ..zone import Zone
from .opening import open_zone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..remote import RemoteFile
    from .opening import Place

_LOOK_AGAIN = "check the URI, and that this is the zone or machine where it was stored"


@dataclass(frozen=True)
class FileInfo:
    """What is known of a file.

    Attributes:
        hash: Its hash.
        algorithm: The hash's algorithm.
        label: Its name for people, from the URI.
        size: In bytes.
        local: Where it is on this machine, or `None`.
        zone: The zone that has it, or `None`.
        reply: What the zone's gateway said of it, without the address; empty when it was not asked or does not have it.
        problems: Why something that should have it does not.
    """

    hash: str
    algorithm: str
    label: str | None
    size: int
    local: Found | None
    zone: str | None
    reply: dict[str, Any]
    problems: tuple[str, ...]


def file_info(text: str | uri.FileRef, *, zone: str | None = None, fr: Place | None = None) -> FileInfo:
    """What is known of a file by its content; nothing is loaded.

    Args:
        text: The file's URI, or what was read of it.
        zone: The zone to ask.
        fr: The place to ask instead of a zone of the settings.

    Raises:
        InvalidURI: If the URI does not name a file by its content.
        NotFound, NotAllowed, Unreachable: If neither this machine nor the zone has it, with the reason.
    """
    reference = uri.parse_file(text) if isinstance(text, str) else text
    problems: list[str] = []
    local = find_local(reference, problems)
    failure: KacheryError | None = None
    found: RemoteFile | None = None
    target: Place | None = None
    try:
        target = fr or open_zone(zone or reference.zone)
        found = find_remote(target, reference)
    except NotConfigured as error:
        if local is None:
            raise failure_of(reference, [*problems, error.message], None, hint=error.hint) from error
    except KacheryError as error:
        failure = error
        problems.append(error.message)
    if found is None and local is None:
        if failure is None and target is not None:
            problems.append(f"{target} does not have it")
        raise failure_of(reference, problems, failure)
    size = found.size if found else os.stat(local.path).st_size if local else 0
    return FileInfo(
        reference.hash,
        reference.algorithm,
        reference.label,
        size,
        local,
        target.name if found and isinstance(target, Zone) else None,
        found.reply if found else {},
        tuple(problems),
    )


def locate(
    text: str | uri.FileRef, *, zone: str | None = None, fr: Place | None = None, remote_only: bool = False
) -> Found | RemoteFile:
    """Where a file is, on this machine or elsewhere; nothing is loaded.

    Args:
        text: The file's URI, or what it means.
        zone: The zone to ask.
        fr: The place to ask instead of a zone of the settings.
        remote_only: Do not look on this machine.

    Raises:
        InvalidURI: If the URI does not name a file by its content.
        NotFound, NotAllowed, Unreachable: If neither this machine nor the place has it, with the reason.
    """
    reference = uri.parse_file(text) if isinstance(text, str) else text
    problems: list[str] = []
    local = None if remote_only else find_local(reference, problems)
    if local is not None:
        return local
    with explained(reference, problems):
        target = fr or open_zone(zone or reference.zone)
        found = find_remote(target, reference)
    if found is None:
        raise failure_of(reference, [*problems, f"{target} does not have it"], None)
    return found


def find_local(reference: uri.FileRef, problems: list[str]) -> Found | None:
    """A file on this machine, where this or an earlier generation keeps it; `problems` takes what is wrong there."""
    store = Store()
    algorithm, hash_ = reference.algorithm, reference.hash
    found = store.find(hash_, algorithm=algorithm, location=reference.location, reasons=problems)
    if found is not None:
        return found
    for place in settings.older_places(algorithm):
        if not os.path.isdir(place):
            continue
        # as classic kachery laid them out from 0.4.3 on, and before
        for directories in (f"{hash_[:2]}/{hash_[2:4]}/{hash_[4:6]}", f"{hash_[0]}/{hash_[1:3]}"):
            path = f"{place}/{directories}/{hash_}"
            if os.path.isfile(path):
                found = store.find(hash_, algorithm=algorithm, location=path, reasons=problems)
                if found is not None:
                    return found
                problems.append(f"{path} is not what its name says")
    return None


def find_remote(target: Place, reference: uri.FileRef) -> RemoteFile | None:
    """A file of a zone or a channel, asked for by a hash that it knows."""
    if isinstance(target, Channel):
        return target.find(reference.hash, reference.algorithm) if reference.algorithm in ("sha1", "md5") else None
    return target.find(reference.hash, reference.algorithm)


@contextmanager
def explained(reference: uri.FileRef, problems: list[str]) -> Iterator[None]:
    """A context in which a place that is not set up is the reason why a file is not found."""
    try:
        yield
    except NotConfigured as error:
        raise failure_of(reference, [*problems, error.message], None, hint=error.hint) from error


def failure_of(
    reference: uri.FileRef, problems: list[str], failure: KacheryError | None, *, hint: str | None = None
) -> KacheryError:
    """The error that says why a file is not there.

    Args:
        reference: The file.
        problems: What is known of why.
        failure: What kept somebody from being asked, which then is the kind of the error.
        hint: What to do next.
    """
    reasons = "; ".join(dict.fromkeys(problems))
    message = f"{reference} was not found: {reasons}" if reasons else f"{reference} was not found"
    if failure is not None:
        return type(failure)(f"{reference} could not be loaded: {reasons}", hint=failure.hint)
    return NotFound(message, hint=hint or _LOOK_AGAIN)
