"""A client's view of one zone of a gateway."""

from __future__ import annotations

import binascii
import secrets
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .. import http, names, settings, transfer
from ..errors import (
    BadReply,
    InvalidInput,
    NotAllowed,
    NotConfigured,
    NotFound,
    NotIdentified,
    NotSupported,
    Unreachable,
)
from ..progress import Silent
from ..remote import Memory, RemoteFile
from . import on_demand, sending
from .gateway_calls import call, call_native
from .on_demand import Absent

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..progress import Progress
    from ..signing import ClientKeys

__all__ = ["Absent", "RemoteFile", "Zone"]

#: Files above this size, in bytes, go to the zone in parts, several at a time.
IN_PARTS_ABOVE = 64 * 1024 * 1024

# a gateway hashes what it got before it answers; allow it this many bytes per second
_SLOWEST_HASH = 50 * 1024 * 1024

# what our gateways add to their answers for those who ask
_PARTS = {"Kachery-Accept": "parts"}
_CONTENT = {"Kachery-Accept": "content"}


class Zone:
    """A zone of a gateway, as this client sees it.

    Args:
        name: The zone; by default the one of the settings.
        gateway_url: The gateway's base address; by default that of the settings.
        keys: The client's keys; without them only what is public can be asked for.

    Raises:
        NotConfigured: If no gateway is known.
        InvalidName: If the zone's name is none.
    """

    def __init__(self, name: str | None = None, gateway_url: str | None = None, keys: ClientKeys | None = None) -> None:
        self.name = names.zone(settings.zone(name))
        self.gateway_url = gateway_url.rstrip("/") if gateway_url else settings.gateway_url()
        self.keys = keys

    def __str__(self) -> str:
        return f"the zone {self.name}"

    def _call(self, payload: dict[str, Any], **options: Any) -> dict[str, Any]:
        try:
            return call(self.gateway_url, payload, self.keys, **options)
        except NotAllowed as error:
            if self.keys is not None:
                raise
            hint = "this machine has no client keys; run `kachery init` (or `kachery-cloud-init`) for this zone"
            raise NotIdentified(error.message, hint=hint) from error

    def find(self, hash_: str, algorithm: str = "sha1") -> RemoteFile | None:
        """Look for a file.

        Args:
            hash_: Its hash.
            algorithm: The hash's algorithm; only gateways of ours know others than `sha1`.

        Returns:
            Where to fetch it, or `None` when the zone does not have it.

        Raises:
            NotAllowed: If this client may not load from the zone.
            Unreachable: If the gateway cannot be asked.
        """
        asked = {"type": "findFile", "hashAlg": algorithm, "hash": hash_, "zone": self.name}
        try:
            reply = self._call(asked, headers=_CONTENT)
        except InvalidInput:
            if algorithm == "sha1":
                raise
            return None
        if reply.get("found") is not True:
            return None
        size, url = reply.get("size"), reply.get("url")
        is_address = isinstance(url, str) and url.startswith(("http://", "https://"))
        if not isinstance(size, int) or size < 0 or not isinstance(url, str) or not is_address:
            raise BadReply(f"{http.peer(self.gateway_url)} says it has the file but not its size and address")
        said = {key: value for key, value in reply.items() if key not in ("url", "content")}
        content = _enclosed(reply.get("content"), size)
        return RemoteFile(hash_, size, url, said, content=content, algorithm=algorithm)

    def require(self, hash_: str, algorithm: str = "sha1") -> RemoteFile:
        """As `find`, for a file that must be there.

        Raises:
            NotFound: If the zone does not have it.
        """
        found = self.find(hash_, algorithm)
        if found is None:
            raise NotFound(f"the zone {self.name} of {http.peer(self.gateway_url)} does not have {hash_}")
        return found

    def request_file(self, hash_: str) -> RemoteFile | Absent:
        """Ask the zone's resources for a file that the zone lacks.

        Returns:
            Where to fetch it while it comes, or why nobody brings it.

        Raises:
            NotAllowed: If this client may not load from the zone.
            Unreachable: If the gateway cannot be asked.
        """
        reply = on_demand.request_file(self.gateway_url, self.name, hash_, self.keys)
        if isinstance(reply, Absent):
            return reply
        # without a resource, the zone has got it meanwhile
        resource = reply.get("resource")
        shown = {key: value for key, value in reply.items() if key != "url"}
        return RemoteFile(hash_, reply["size"], reply["url"], shown, resource if isinstance(resource, str) else None)

    def _address_again(self, found: RemoteFile) -> str:
        if found.resource is not None:
            again = self.request_file(found.hash)
            if isinstance(again, RemoteFile):
                return again.url
        return self.require(found.hash, found.algorithm).url

    def download(self, found: RemoteFile, sink: transfer.Sink, progress: Progress) -> None:
        """Fetch what a sink is missing of a file.

        Raises:
            NotFound, NotAllowed, BadReply, TimedOut, Unreachable: When it is not delivered.
        """

        def address(renew: bool) -> str:
            return self._address_again(found) if renew else found.url

        transfer.download(address, sink, progress)

    def fetch_small(self, found: RemoteFile) -> bytes:
        """The whole content of a small file, unverified.

        Raises:
            NotFound, NotAllowed, BadReply, TimedOut, Unreachable: When it is not delivered.
        """
        if found.content is not None:
            return found.content
        sink = Memory(found.size)
        self.download(found, sink, Silent())
        return bytes(sink.content)

    def reader(self, found: RemoteFile) -> Callable[[int, int], bytes]:
        """What gets the bytes of a file from a start to an end, as the zone sends them, for as long as one reads."""
        url = found.url

        def address(renew: bool) -> str:
            nonlocal url
            if renew:
                url = self.require(found.hash, found.algorithm).url
            return url

        def fetch(start: int, end: int) -> bytes:
            sink = Memory(found.size, start, end)
            transfer.download(address, sink, Silent())
            return bytes(sink.content)

        return fetch

    def upload(self, fd: int, hash_: str, size: int, progress: Progress) -> bool:
        """Send a file, unless the zone has it.

        Args:
            fd: A descriptor of the file; its position does not matter.
            hash_: The file's SHA-1.
            size: Its size in bytes.
            progress: Told of every step.

        Returns:
            Whether it was sent.

        Raises:
            NotConfigured: If there are no keys.
            NotRegistered, NotAllowed: If this client may not store there.
            WrongContent: If the zone received something else than what was hashed; the file changed meanwhile, or
                something on the way altered it.
            SourceChanged: If the file became shorter.
            TooLarge: If the zone takes no file of this size.
            Unreachable: If the gateway cannot be asked.
        """
        self.require_keys()
        asked = {"type": "initiateFileUpload", "size": size, "hashAlg": "sha1", "hash": hash_, "zone": self.name}
        reply = self._initiate(asked)
        if reply.get("alreadyExists") is True:
            progress.advance(size)
            return False
        url, key = reply.get("signedUploadUrl"), reply.get("objectKey")
        if not isinstance(url, str) or not isinstance(key, str):
            raise BadReply(f"{http.peer(self.gateway_url)} gives no address to send the file to")
        if reply.get("parts") is True and size > IN_PARTS_ABOVE:
            sending.send_parts(url, fd, size, progress)
        else:
            sending.send_whole(url, fd, size, progress)
        self._finalize(key, hash_, size)
        return True

    def _finalize(self, key: str, hash_: str, size: int) -> None:
        asked = {"type": "finalizeFileUpload", "objectKey": key, "hashAlg": "sha1", "hash": hash_, "size": size}
        self._call({**asked, "zone": self.name}, timeout=settings.timeout() + size / _SLOWEST_HASH)

    def begin_upload(self, size: int) -> EarlyUpload | None:
        """Begin to send a file whose hash is not known yet, to a gateway of ours.

        Args:
            size: Its size in bytes.

        Returns:
            The upload; `None` when the hash must be known first, because the zone has a file of this size, or because
            the gateway knows no such thing.

        Raises:
            NotConfigured, NotRegistered, NotAllowed, TooLarge, StorageFull, Unreachable: If the zone does not take it.
        """
        self.require_keys()
        reply = self._native("uploads", {"type": "beginUpload", "zone": self.name, "size": size})
        if reply is None or not isinstance(reply.get("url"), str) or not isinstance(reply.get("upload"), str):
            return None
        return EarlyUpload(self, reply["upload"], reply["url"], size)

    def finish_upload(self, hash_: str, size: int) -> None:
        """Have the zone verify and publish what this client sent of a file.

        Raises:
            WrongContent: If that is something else than what was hashed.
        """
        reply = self._initiate(
            {"type": "initiateFileUpload", "size": size, "hashAlg": "sha1", "hash": hash_, "zone": self.name}
        )
        if reply.get("alreadyExists") is not True:
            self._finalize(str(reply.get("objectKey")), hash_, size)

    def name_upload(self, upload: str, hash_: str) -> bool:
        """Say which file it is that is being sent; says whether the zone has it already."""
        reply = self._native("uploads/name", {"type": "nameUpload", "zone": self.name, "upload": upload, "hash": hash_})
        return reply is not None and reply.get("alreadyExists") is True

    def record_alias(self, hash_: str, algorithm: str) -> str:
        """Have the zone find a file by another hash, too; the gateway takes it of its own copy.

        Args:
            hash_: The file's SHA-1.
            algorithm: `md5`. By `sha256` every file is found.

        Returns:
            The other hash.

        Raises:
            NotFound: If the zone does not have the file.
            NotSupported: If the gateway is not one of ours.
            NotConfigured, NotRegistered, NotAllowed: If this client may not store there.
        """
        self.require_keys()
        asked = {"type": "recordAlias", "zone": self.name, "hash": hash_, "algorithm": algorithm}
        reply = self._native("aliases", asked)
        found = None if reply is None else reply.get("hash")
        if not isinstance(found, str):
            raise NotSupported(f"{http.peer(self.gateway_url)} knows files by their SHA-1 alone")
        return found

    def _native(self, what: str, payload: dict[str, Any]) -> dict[str, Any] | None:
        return call_native(self.gateway_url, what, payload, self.keys)

    def _initiate(self, asked: dict[str, Any]) -> dict[str, Any]:
        for attempt in range(1, http.ATTEMPTS + 1):
            reply = self._call(asked, headers=_PARTS)
            if reply.get("alreadyPending") is not True:
                return reply
            http.pause(attempt + 3, Unreachable("pending"))
        raise Unreachable("somebody else has been uploading this file for a while", hint="try again later")

    def require_keys(self) -> None:
        """Make sure that this machine has keys.

        Raises:
            NotConfigured: If it has none.
        """
        if self.keys is None:
            raise NotConfigured("this machine has no client keys", hint="run `kachery init`")

    def delete(self, hash_: str) -> None:
        """Remove a file from the zone, as one of its administrators.

        Raises:
            NotAllowed: If this client's owner is none.
            NotFound: If it is not there.
        """
        self.require_keys()
        reply = self._call({"type": "deleteFile", "hashAlg": "sha1", "hash": hash_, "zone": self.name})
        if reply.get("success") is not True:
            raise NotFound(
                f"{hash_} was not removed from the zone {self.name}: {reply.get('error') or 'no reason given'}"
            )

    def client_info(self, client_id: str | None = None) -> dict[str, Any] | None:
        """What the zone knows about a client: `clientId`, `ownerId`, `timestampCreated`, `label`; `None` if nothing."""
        if client_id is None:
            self.require_keys()
            assert self.keys is not None
            client_id = self.keys.client_id
        reply = self._call({"type": "getClientInfo", "clientId": client_id, "zone": self.name})
        client = reply.get("client")
        return client if reply.get("found") is True and isinstance(client, dict) else None

    def resource_info(self, resource: str) -> dict[str, Any] | None:
        """What the zone knows about a resource: `resourceName`, `ownerId`, `proxyUrl`, …; `None` if nothing."""
        reply = self._call({"type": "getResourceInfo", "resourceName": resource, "zone": self.name})
        found = reply.get("resource")
        return found if reply.get("found") is True and isinstance(found, dict) else None

    def registration_link(self, label: str | None = None) -> str:
        """The page where a person registers this client, in the form that every gateway knows.

        Args:
            label: What the client is called; by default this machine's name.
        """
        import socket

        self.require_keys()
        assert self.keys is not None
        signature = self.keys.sign({"type": "addClient"})
        label = label or socket.gethostname()
        return (
            f"{self.gateway_url}/registerClient/{self.keys.client_id}"
            f"?signature={signature}&zone={quote(self.name, safe='')}&label={quote(label, safe='')}"
        )

    def begin_registration(self, label: str | None = None) -> str:
        """Prove to a gateway of ours who we are, and get the page where a person finishes our registration.

        Unlike the classic link, what is signed names this gateway, this zone and a number used once.

        Args:
            label: What the client is called; by default this machine's name.

        Returns:
            The page's address, valid for some minutes; the classic link where the gateway is not one of ours.
        """
        import socket

        self.require_keys()
        asked = {
            "type": "register",
            "gateway": self.gateway_url,
            "zone": self.name,
            "label": label or socket.gethostname(),
            "nonce": secrets.token_hex(16),
        }
        reply = self._native("registrations", asked)
        if reply is None or not isinstance(reply.get("url"), str):
            return self.registration_link(label)
        return str(reply["url"])


class EarlyUpload:
    """A file that is sent while it is hashed.

    Args:
        zone: Where it goes.
        upload: The gateway's name for the upload.
        url: Where to send it.
        size: Its size in bytes.
    """

    def __init__(self, zone: Zone, upload: str, url: str, size: int) -> None:
        self._zone = zone
        self._upload = upload
        self._url = url
        self._size = size
        self._no_longer_needed = threading.Event()

    def name(self, hash_: str) -> bool:
        """Say which file it is; any thread, while `send` runs. Says whether the zone has it already."""
        exists = self._zone.name_upload(self._upload, hash_)
        if exists:
            self._no_longer_needed.set()
        return exists

    def cancel(self) -> None:
        """Stop sending; any thread."""
        self._no_longer_needed.set()

    def send(self, fd: int, progress: Progress) -> bool:
        """Send the file; returns whether all of it was sent, which is not so when nobody needs it any more."""
        try:
            sending.send_parts(self._url, fd, self._size, _Stoppable(progress, self._no_longer_needed))
        except _NoLongerNeeded:
            return False
        return True

    def finish(self, hash_: str) -> None:
        """Have the zone verify and publish what it got.

        Raises:
            WrongContent: If that is something else than what was hashed.
        """
        self._zone.finish_upload(hash_, self._size)


class _NoLongerNeeded(Exception):
    pass


class _Stoppable:
    def __init__(self, progress: Progress, stop: threading.Event) -> None:
        self._progress = progress
        self._stop = stop

    def advance(self, count: int) -> None:
        self._progress.advance(count)
        if self._stop.is_set():
            raise _NoLongerNeeded

    def say(self, state: str) -> None:
        self._progress.say(state)


def _enclosed(text: object, size: int) -> bytes | None:
    if not isinstance(text, str):
        return None
    try:
        content = binascii.a2b_base64(text)
    except ValueError:
        return None
    return content if len(content) == size else None
