"""A zone of a gateway that speaks the protocol of kachery 2.x, asked with a user's API key.

    POST <gateway>/api/findFile             {"type": "findFileRequest", "hashAlg": "sha1", "hash": H, "zoneName": Z}
    POST <gateway>/api/initiateFileUpload   … with "size" and "workToken"; the reply has an address to PUT to
    POST <gateway>/api/finalizeFileUpload   … with "size" and "objectKey"
    replies                                 JSON objects; an error is {"error": text} with another status than 200

The key goes as `Authorization: Bearer KEY`. A work token is any text for which the first 13 bits of SHA-1(hash + token)
are 0; an upload costs some 8,000 hashes. Released gateways verify nothing; what comes from them is verified here.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

from .. import errors, http, settings
from ..errors import BadReply, InvalidInput, NotAllowed, NotConfigured, NotFound, NotSupported, TooLarge, Unreachable
from . import Absent, RemoteFile, Zone, sending

if TYPE_CHECKING:
    from ..progress import Progress

logger = logging.getLogger(__name__)

#: Leading zero bits of a proof of work.
WORK_BITS = 13

# a gateway of ours hashes what it got before it answers; allow it this many bytes per second
_SLOWEST_HASH = 50 * 1024 * 1024


def work_token(hash_: str) -> str:
    """The smallest number, as 16 hex digits, that proves the work for a hash."""
    begun = hashlib.sha1(hash_.encode("ascii"), usedforsecurity=False)
    number = 0
    while True:
        token = f"{number:016x}"
        attempt = begun.copy()
        attempt.update(token.encode("ascii"))
        if int.from_bytes(attempt.digest()[:2], "big") >> (16 - WORK_BITS) == 0:
            return token
        number += 1


class KeyedZone(Zone):
    """A zone of a gateway that speaks the protocol of kachery 2.x.

    Args:
        name: The zone; by default the one of the settings.
        gateway_url: The gateway's base address.
        api_key: The user's key; without one only what is public can be asked for.

    Raises:
        InvalidInput: If the address is none, or the zone's name.
    """

    def __init__(self, name: str | None, gateway_url: str, api_key: str | None) -> None:
        if not gateway_url.startswith(("http://", "https://")):
            raise InvalidInput(f"the gateway's address must begin with http:// or https://: {gateway_url!r}")
        super().__init__(name, gateway_url)
        self._api_key = api_key

    @property
    def has_key(self) -> bool:
        """Whether there is an API key."""
        return self._api_key is not None

    def find(self, hash_: str, algorithm: str = "sha1") -> RemoteFile | None:
        """Look for a file; see `Zone.find`."""
        if algorithm != "sha1":
            return None
        asked = {"hashAlg": "sha1", "hash": hash_, "zoneName": self.name}
        try:
            reply = self._ask("findFile", asked, self._api_key)
        except NotAllowed:
            if self._api_key is None:
                raise
            # released gateways refuse an unknown key even where nobody needs one
            reply = self._ask("findFile", asked, None)
            logger.warning("%s does not know KACHERY_API_KEY; this file is public", http.peer(self.gateway_url))
        if reply.get("found") is not True:
            return None
        size, url = reply.get("size"), reply.get("url")
        if type(size) is not int or size < 0 or not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise BadReply(f"{http.peer(self.gateway_url)} says it has the file but not its size and address")
        return RemoteFile(hash_, size, url, {key: value for key, value in reply.items() if key != "url"})

    def request_file(self, hash_: str) -> RemoteFile | Absent:
        """Ask a gateway of ours for what its resources bring to anybody; by this protocol nobody brings anything."""
        try:
            return super().request_file(hash_)
        except NotAllowed as error:
            return Absent((error.message,))

    def upload(self, fd: int, hash_: str, size: int, progress: Progress) -> bool:
        """Send a file, unless the zone has it; see `Zone.upload`."""
        self.require_keys()
        asked = {"hashAlg": "sha1", "hash": hash_, "zoneName": self.name, "size": size}
        flags = {"allowPublicZones": True} if settings.allow_public_zones() else {}
        reply = self._initiate({**asked, **flags, "workToken": work_token(hash_)})
        if reply.get("alreadyExists") is True:
            progress.advance(size)
            return False
        url, key = reply.get("signedUploadUrl"), reply.get("objectKey")
        if not isinstance(url, str) or not isinstance(key, str):
            raise BadReply(f"{http.peer(self.gateway_url)} gives no address to send the file to")
        sending.send_whole(url, fd, size, progress)
        patience = settings.timeout() + size / _SLOWEST_HASH
        self._ask("finalizeFileUpload", {**asked, "objectKey": key}, self._api_key, timeout=patience)
        return True

    def begin_upload(self, size: int) -> None:
        """By this protocol the hash must be known first."""
        self.require_keys()

    def require_keys(self) -> None:
        """Make sure that there is an API key, or that the zone is one that takes files from anybody.

        Raises:
            NotConfigured: If there is none.
        """
        if self._api_key is None and self.name != "scratch":
            raise NotConfigured(
                "KACHERY_API_KEY environment variable is not set",
                hint=f"it holds your key of {http.peer(self.gateway_url)}; or run `kachery init` for a gateway of ours",
            )

    def delete(self, hash_: str) -> None:
        """Nothing is removed by this protocol.

        Raises:
            NotSupported: In any case.
        """
        raise self._cannot("remove files")

    def record_alias(self, hash_: str, algorithm: str) -> str:
        """By this protocol files have one hash.

        Raises:
            NotSupported: In any case.
        """
        raise self._cannot(f"find files by their {algorithm}")

    def client_info(self, client_id: str | None = None) -> dict[str, Any] | None:
        """Whoever has the key is the user; there are no clients."""
        return None

    def _cannot(self, what: str) -> NotSupported:
        return NotSupported(
            f"an API key cannot be used to {what}", hint="run `kachery init`, which makes keys for this machine"
        )

    def _initiate(self, asked: dict[str, Any]) -> dict[str, Any]:
        for attempt in range(1, http.ATTEMPTS + 1):
            reply = self._ask("initiateFileUpload", asked, self._api_key)
            if reply.get("alreadyPending") is not True:
                return reply
            http.pause(attempt + 3, Unreachable("pending"))
        raise Unreachable("somebody else has been uploading this file for a while", hint="try again later")

    def _ask(
        self, name: str, asked: dict[str, Any], api_key: str | None, *, timeout: float | None = None
    ) -> dict[str, Any]:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        address = f"{self.gateway_url}/api/{name}"

        def attempt() -> http.Reply:
            reply = http.post_json(address, {"type": f"{name}Request", **asked}, headers=headers, timeout=timeout)
            reply.raise_if_busy()
            return reply

        reply = http.retrying(attempt)
        if reply.status != 200:
            _refuse(reply, name)
        content = reply.json()
        if content.get("type") != f"{name}Response":
            raise BadReply(f"{reply.host} answered {name} with {str(content.get('type'))[:40]!r}")
        return content


def _refuse(reply: http.Reply, name: str) -> None:
    content = reply.json()
    text = content.get("error")
    if not isinstance(text, str):
        raise BadReply(f"{reply.host} answered {name} with HTTP {reply.status}", hint="check KACHERY_BASE_URL")
    message = f"the gateway {reply.host} refused {name}: {text[:300]}"
    named = errors.by_code(reply.headers.get("kachery-error", ""))
    if named is not None:
        raise named(message)
    if text.startswith("File size exceeds"):
        raise TooLarge(message)
    if text.startswith("Zone not found"):
        raise NotFound(message, hint="check the name of the zone")
    if reply.status in (401, 403) or text.startswith("User "):
        raise NotAllowed(message, hint="check KACHERY_API_KEY, and what your account lacks")
    if reply.status == 400:
        raise InvalidInput(message)
    raise Unreachable(message, hint="ask the gateway's administrator if this goes on")
