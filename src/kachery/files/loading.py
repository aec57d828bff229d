"""Where may a file be?

A file by its content is looked for in this order; the first that has it delivers it, and what it delivers is verified:

    1. the store on this machine, the place its URI names, the links, and where earlier generations kept things
    2. the zone, or the place that was named instead of it: another zone, a channel of a classic server
    3. the zone's resources, whose bytes come through the gateway while they send them
    4. the resource that `KACHERY_RESOURCE_URL` names, which brings it into the zone

Who has it and does not deliver is remembered, so that the error at the end says why there is no file: nobody has it
(`NotFound`), somebody could not be asked (`Unreachable`), somebody refused (`NotAllowed`), or what came was not what
was asked for (`WrongContent`).
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING
from urllib.parse import unquote

from .. import digest, manifests, progress, settings, uri, web
from ..classic import Channel
from ..errors import (
    InvalidInput,
    KacheryError,
    NotFound,
    NotSupported,
    SourceChanged,
    TimedOut,
    TooLarge,
    Unreachable,
    WrongContent,
    explaining,
)
from ..progress import Silent
from ..remote import RemoteFile
from ..store import Store
from ..store.hashing import copy_and_digest, copy_some, open_source
from ..store.layout import random_letters, remove_if_there
from ..zone import Absent, Zone
from ..zone.resource import request_file
from .finding import explained, failure_of, find_local, find_remote
from .opening import open_zone

if TYPE_CHECKING:
    from .opening import Place


logger = logging.getLogger(__name__)

#: Up to this size, in bytes, a file is fetched into memory and written once.
SMALL = 1024 * 1024

# how long a resource may show no progress, in seconds, and how often it is asked
_RESOURCE_PATIENCE = 600.0
_RESOURCE_NEWS = 5.0
_RESOURCE_PAUSE = 2.0

_DIRECTORIES = "`kachery ls` shows what it has, `kachery load --dest` and load_dir load all of it"

_COPY_STEP = 8 * 1024 * 1024


def load_file(
    text: str,
    *,
    zone: str | None = None,
    dest: str | os.PathLike[str] | None = None,
    local_only: bool = False,
    ask_resource: bool | None = None,
    verbose: bool = False,
    fr: Place | None = None,
    remote_only: bool = False,
) -> str:
    """Find a file and have it on this machine.

    Args:
        text: Its URI, in any spelling.
        zone: The zone to ask; by default the one in the URI, or that of the settings.
        dest: Where to put a copy; directories above it are made.
        local_only: Ask nobody else.
        ask_resource: Whether to ask a resource for what the zone lacks; by default when one is set.
        verbose: Say on the log where the file comes from.
        fr: The place to ask instead of a zone of the settings.
        remote_only: Do not look on this machine.

    Returns:
        `dest`, or else the path of the verified content, which must not be written to.

    Raises:
        InvalidURI: If it is none.
        NotSupported: If it is one that this installation cannot load.
        NotFound, Unreachable, NotAllowed, WrongContent: When there is no file, as the module says.
        StorageFull: If there is no room.
    """
    reference = resolved(uri.parse(text), fr or zone, local_only=local_only, remote_only=remote_only)
    if isinstance(reference, uri.FileRef):
        path = load_content(
            reference,
            fr or zone,
            local_only=local_only,
            remote_only=remote_only,
            ask_resource=ask_resource,
            verbose=verbose,
        )
    elif isinstance(reference, uri.PathRef):
        fd, _ = open_source(reference.path)
        os.close(fd)
        path = reference.path
    elif isinstance(reference, uri.UrlRef | uri.GithubRef | uri.ZenodoRef):
        path = _load_address(reference, text, local_only=local_only)
    else:
        raise _not_supported(reference, text)
    if dest is None:
        return path
    return _copy(path, os.fsdecode(dest), reference if isinstance(reference, uri.FileRef) else None)


def manifest_bytes(
    reference: uri.TreeRef, place: Place | str | None = None, *, local_only: bool = False, remote_only: bool = False
) -> bytes:
    """The manifest of a directory, which is a file like any other.

    Args:
        reference: The directory, or something in it.
        place: The zone to ask by its name, or another place.
        local_only: Ask nobody else.
        remote_only: Do not look on this machine.

    Raises:
        NotFound, …: As for `load_file`.
        TooLarge: If it is too large for a manifest.
    """
    manifest = uri.FileRef(reference.algorithm, reference.hash, zone=reference.zone)
    path = load_content(manifest, place, local_only=local_only, remote_only=remote_only)
    with explaining("read", path), open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > manifests.LARGEST:
            raise TooLarge(f"{reference} is too large for a directory: its manifest has {size} bytes")
        data = file.read()
    require_content(data, manifest, path)
    return data


def require_content(data: bytes, reference: uri.FileRef, path: str) -> None:
    """Make sure that what was read outside the store is what was looked for; its owner may write to it at any time.

    Raises:
        SourceChanged: If it is something else.
    """
    if path == Store().layout.blob(reference.hash, reference.algorithm):
        return
    if digest.of_bytes(data, reference.algorithm) != reference.hash:
        raise SourceChanged(f"{path} changed while it was read", hint="try again when nothing writes to it")


def find_in(data: bytes, reference: uri.TreeRef) -> manifests.Member | manifests.Tree:
    """What a URI names inside a directory, given the directory's manifest.

    Raises:
        NotFound: If it has no such thing.
        WrongContent, InvalidName, TooLarge: If it is no manifest.
    """
    what = f"{reference.algorithm}dir://{reference.hash}"
    try:
        return manifests.find(data, reference.path, what)
    except NotFound:
        # classic URIs know no escapes; a name that cannot be written without them may have them all the same
        plain = tuple(unquote(part) for part in reference.path)
        if plain == reference.path:
            raise
        return manifests.find(data, plain, what)


def resolved(
    reference: uri.Reference,
    place: Place | str | None = None,
    *,
    local_only: bool = False,
    remote_only: bool = False,
) -> uri.Reference:
    """The file that a URI names, by its content, where it names one inside a directory; errors as for `load_file`."""
    if not isinstance(reference, uri.TreeRef):
        return reference
    if not reference.path:
        raise InvalidInput(f"{reference} is a directory, not a file", hint=_DIRECTORIES)
    data = manifest_bytes(reference, place, local_only=local_only, remote_only=remote_only)
    return file_of(manifests.require_file(find_in(data, reference), str(reference)), reference)


def file_of(member: manifests.Member, reference: uri.TreeRef) -> uri.FileRef:
    """A file of a directory by its content."""
    return uri.FileRef(member.algorithm, member.hash, label=unquote(reference.path[-1]), zone=reference.zone)


def load_content(
    reference: uri.FileRef,
    place: Place | str | None = None,
    *,
    local_only: bool = False,
    remote_only: bool = False,
    ask_resource: bool | None = None,
    verbose: bool = False,
) -> str:
    """Have a file on this machine by its content; arguments, result and errors as for `load_file`."""
    problems: list[str] = []
    local = None if remote_only else find_local(reference, problems)
    if local is not None:
        if verbose:
            logger.info("%s is on this machine (%s)", reference, local.kind)
        return local.path
    if local_only:
        raise failure_of(reference, [*problems, "only this machine was asked"], None)
    if isinstance(place, Channel):
        return _load_from_channel(place, reference, problems, verbose=verbose)
    with explained(reference, problems):
        target = place if isinstance(place, Zone) else open_zone(place or reference.zone)
    failure: KacheryError | None = None
    try:
        path = _load_from(target, reference, verbose=verbose)
        if path is not None:
            return path
        problems.append(f"{target} does not have it")
    except (Unreachable, NotFound) as error:
        # a zone that does not have what it says it has may get it from a resource all the same
        failure = error if isinstance(error, Unreachable) else None
        problems.append(error.message)
    # resources know files by their SHA-1
    if ask_resource is not False and reference.algorithm == "sha1":
        asked = Absent()
        if failure is None:
            brought = target.request_file(reference.hash)
            if isinstance(brought, RemoteFile):
                if verbose:
                    logger.info("%s is brought by the resource %s", reference, brought.resource)
                return _receive_again(target, brought, reference)
            asked = brought
        problems += asked.reasons
        given = settings.resource_url()
        if given is not None and _is_offline(given, target, asked):
            given = None
        for address in dict.fromkeys([*asked.elsewhere, *([given] if given else [])]):
            try:
                _request(address, target.name, reference)
                path = _load_from(target, reference, verbose=verbose)
                if path is not None:
                    return path
                problems.append("the resource said it brought the file, and the zone does not have it")
            except (Unreachable, NotFound) as error:
                failure = error if isinstance(error, Unreachable) else failure
                problems.append(error.message)
        for name in asked.offline:
            failure = failure or Unreachable(name, hint="ask the people who share the files")
            problems.append(f"the resource {name} of this zone is not connected")
    raise failure_of(reference, problems, failure)


def _is_offline(resource_url: str, target: Zone, asked: Absent) -> bool:
    """Whether a resource is one of the zone's own gateway, which has just said that it is not connected."""
    prefix = f"{target.gateway_url}/r/"
    return resource_url.startswith(prefix) and unquote(resource_url.removeprefix(prefix)) in asked.offline


def _load_from_channel(channel: Channel, reference: uri.FileRef, problems: list[str], *, verbose: bool) -> str:
    try:
        path = _load_from(channel, reference, verbose=verbose)
    except (Unreachable, NotFound) as error:
        failure = error if isinstance(error, Unreachable) else None
        raise failure_of(reference, [*problems, error.message], failure) from error
    if path is None:
        raise failure_of(reference, [*problems, f"{channel} does not have it"], None)
    return path


def _load_from(target: Place, reference: uri.FileRef, *, verbose: bool) -> str | None:
    found = find_remote(target, reference)
    if found is None:
        return None
    if verbose:
        logger.info("%s comes from %s, %d bytes", reference, target, found.size)
    return _receive_again(target, found, reference)


def _receive_again(target: Place, found: RemoteFile, reference: uri.FileRef) -> str:
    try:
        return _receive(target, found, reference)
    except WrongContent as error:
        # something on the way may have altered it; a second time is no accident
        logger.warning("%s; trying once more", error.message)
        return _receive(target, found, reference)


def _receive(target: Place, found: RemoteFile, reference: uri.FileRef) -> str:
    store = Store()
    if found.size <= SMALL:
        data = target.fetch_small(found)
        actual = digest.of_bytes(data, found.algorithm)
        if actual != found.hash:
            raise WrongContent(
                f"what {target} sent as {reference} has the hash {actual}",
                hint="its copy is damaged, or something on the way is; nothing was kept; tell its administrator",
            )
        store.add_bytes(data, found.algorithm)
        return store.layout.blob(found.hash, found.algorithm)
    label = reference.label or found.hash[:10]
    with store.receive(found.hash, found.size, algorithm=found.algorithm) as incoming:
        # whoever held the lock before us may have finished the file
        local = store.find(found.hash, algorithm=found.algorithm)
        if local is not None:
            incoming.abandon()
            return local.path
        with progress.bar(found.size, f"Downloading {label}") as told:
            told.advance(incoming.held)
            target.download(found, incoming, told)
            return incoming.finish()


def _request(resource_url: str, zone: str, reference: uri.FileRef) -> None:
    """Have a resource bring a file into its zone, and wait as long as there is progress."""
    last: tuple[object, ...] = ()
    deadline = time.monotonic() + _RESOURCE_PATIENCE
    moved = 0
    with progress.bar(None, reference.label or reference.hash[:10]) as told:
        while True:
            status = request_file(resource_url, zone, str(reference), _RESOURCE_NEWS)
            state = status["status"]
            if state == "completed":
                return
            if state == "not-found":
                raise NotFound("the resource does not have it")
            if state == "error":
                raise Unreachable(f"the resource could not deliver it: {status.get('error') or 'no reason given'}")
            uploaded = status.get("bytesUploaded")
            told.say("queued" if state == "queued" else "uploading")
            if isinstance(uploaded, int):
                told.advance(uploaded - moved)
                moved = uploaded
            seen = (state, uploaded)
            if seen != last:
                last, deadline = seen, time.monotonic() + _RESOURCE_PATIENCE
            elif time.monotonic() > deadline:
                raise TimedOut(f"the resource has been {state} for {_RESOURCE_PATIENCE:.0f} s without progress")
            time.sleep(_RESOURCE_PAUSE)


def _load_address(reference: uri.UrlRef | uri.GithubRef | uri.ZenodoRef, text: str, *, local_only: bool) -> str:
    store = Store()
    sha1 = reference.sha1 if isinstance(reference, uri.UrlRef) else None
    if sha1 is not None:
        local = store.find(sha1)
        if local is not None:
            return local.path
    if local_only:
        raise NotFound(f"{text} is not on this machine, and nobody else was asked")
    url = web.address(reference)
    store.layout.require_usable()
    store.layout.make_directory(store.layout.temporary())
    with (
        progress.bar(None, f"Downloading {text[:60]}") as told,
        web.fetch(url, store.layout.temporary(), told, sha1=sha1) as file,
    ):
        hash_, _ = store.add_open(file.fileno(), text)
    return store.layout.blob(hash_)


def _copy(path: str, dest: str, reference: uri.FileRef | None) -> str:
    """Put a copy at `dest`, whole or not at all."""
    if "\0" in dest:
        raise InvalidInput(f"not a path: {dest!r}")
    target = os.path.abspath(dest)
    if os.path.isdir(target):
        raise InvalidInput(f"{dest} is a directory", hint="give the path that the file should have")
    if os.path.exists(target) and os.path.samefile(path, target):
        return dest
    with explaining("write to", dest):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        temporary = f"{target}.{random_letters(10)}"
        try:
            with open(path, "rb", buffering=0) as source, open(temporary, "x+b", buffering=0) as copy:
                if reference is not None and path != Store().layout.blob(reference.hash, reference.algorithm):
                    _copy_checked(source.fileno(), copy.fileno(), path, reference)
                while copy_some(source.fileno(), copy.fileno(), _COPY_STEP):
                    pass
                if settings.durable():
                    os.fsync(copy.fileno())
            os.replace(temporary, target)
        except BaseException:
            remove_if_there(temporary)
            raise
    return dest


def _copy_checked(source: int, target: int, path: str, reference: uri.FileRef) -> None:
    # its owner may write to it at any time, so the copy must be what was asked for
    found = copy_and_digest(source, target, os.fstat(source).st_size, Silent(), reference.algorithm)
    if found != reference.hash:
        raise SourceChanged(f"{path} changed while it was read", hint="try again when nothing writes to it")


def _not_supported(reference: uri.Reference, text: str) -> KacheryError:
    if isinstance(reference, uri.EncryptedRef):
        return NotSupported(f"encrypted URIs are not supported yet: {text[:80]}")
    if isinstance(reference, uri.FeedRef):
        return NotSupported(f"feeds are not supported yet: {text[:80]}")
    if isinstance(reference, uri.GoneRef):
        return NotSupported(
            f"{reference.scheme}:// belonged to a service that no longer exists: {text[:80]}",
            hint="ask who made the URI for the sha1:// of the same content",
        )
    return NotSupported(f"not supported: {text[:80]}")
