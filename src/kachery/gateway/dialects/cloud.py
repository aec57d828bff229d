"""`/api/gateway`: the protocol of the kachery-cloud clients 0.3 and 0.4.

| `type` | who | answer |
|---|---|---|
| `findFile` | as the zone says; anonymous callers in public zones | `found`, and an address to download from |
| … with `hashAlg` `sha256` or `md5`, from clients of ours | the same | the same, and the file's `sha1` |
| `initiateFileUpload` | registered clients whose owner may upload | `alreadyExists`, or an address to PUT to |
| `finalizeFileUpload` | the client that began the upload | – |
| `deleteFile` | administrators of the zone | `success` |
| `getClientInfo`, `getResourceInfo`, `getZoneInfo` | anyone | `found`, and what there is |

A body that is not exactly one of these: 400. Every other failure: 500 and `Error: <reason>` in text, as clients know
it, with the error's code in the header `Kachery-Error` for those who look. Not found is no failure.

Order: form, time, signature, rights, and only then the hash: who may not read a zone learns nothing about its files,
nor whether a private zone exists. Requests carry no nonce, so what can be done with a repeated one must be harmless;
only deleting is not, and its signatures are accepted once.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from ... import signing
from ...digest import is_hash
from ...errors import InvalidInput, KacheryError, NotAllowed, NotRegistered, StorageFull, TooLarge
from ..buckets import address_of_object, open_object
from ..http import header, host_of, read_json, send_bytes, send_json, send_text
from ..receiving import now
from ..services import aliases, files, identity, resources, zones
from ..tokens import DOWNLOAD_LIFETIME, UPLOAD_LIFETIME, DownloadToken, UploadToken
from .forms import Form, fits, is_number, is_object, is_text

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from starlette.types import Receive, Scope, Send

    from ..http import Headers
    from ..runtime import Gateway

#: Files up to this size, in bytes, come with the answer to `findFile` for those who ask, and save them a request.
ENCLOSED = 64 * 1024

#: How far a caller's clock may be from ours, in milliseconds.
WINDOW = 125_000

# Pages of these origins may send credentials; all others may call too, without
_ORIGINS = {b"http://localhost:3000", b"http://localhost:3001", b"https://figurl.org", b"https://www.figurl.org"}
_METHODS = (b"access-control-allow-methods", b"GET,OPTIONS,PATCH,DELETE,POST,PUT")
_ALLOWED_HEADERS = (
    b"access-control-allow-headers",
    b"X-CSRF-Token, X-Requested-With, Accept, Accept-Version, Content-Length, Content-MD5, Content-Type, Date, "
    b"X-Api-Version, Kachery-Accept",
)

_HEX64 = re.compile(r"[0-9a-fA-F]{64}")
_HEX128 = re.compile(r"[0-9a-fA-F]{128}")


def _is_client_id(value: Any) -> bool:
    return isinstance(value, str) and _HEX64.fullmatch(value) is not None


def _is_signature(value: Any) -> bool:
    return isinstance(value, str) and _HEX128.fullmatch(value) is not None


def _is_sha1(value: Any) -> bool:
    return bool(value == "sha1")


def _is_algorithm(value: Any) -> bool:
    return isinstance(value, str) and value in aliases.ALGORITHMS


_ENVELOPE: Form = {
    "payload": (True, is_object),
    "fromClientId": (False, _is_client_id),
    "signature": (False, _is_signature),
    "githubUserId": (False, is_text),
    "githubAccessToken": (False, is_text),
}
_COMMON: Form = {"type": (True, is_text), "timestamp": (True, is_number)}
_ZONE: Form = {"zone": (False, is_text)}
_FILE: Form = {"hashAlg": (True, _is_sha1), "hash": (True, is_text), **_ZONE}
_PAYLOADS: dict[str, Form] = {
    # other hashes than SHA-1 are ours
    "findFile": {**_COMMON, **_FILE, "hashAlg": (True, _is_algorithm)},
    "initiateFileUpload": {**_COMMON, **_FILE, "size": (True, is_number)},
    "finalizeFileUpload": {**_COMMON, **_FILE, "objectKey": (True, is_text), "size": (True, is_number)},
    "deleteFile": {**_COMMON, **_FILE},
    "getClientInfo": {**_COMMON, **_ZONE, "clientId": (True, _is_client_id)},
    "getResourceInfo": {**_COMMON, **_ZONE, "resourceName": (True, is_text)},
    "getZoneInfo": {**_COMMON, "zoneName": (True, is_text)},
}


class CloudDialect:
    """The ASGI application at `/api/gateway`.

    Args:
        gateway: The gateway it serves.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._handlers = {
            "initiateFileUpload": self._initiate,
            "finalizeFileUpload": self._finalize,
            "deleteFile": self._delete,
            "getClientInfo": self._client_info,
            "getResourceInfo": self._resource_info,
            "getZoneInfo": self._zone_info,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Any method will do, as long as there is a body."""
        cors = _cors(header(scope, b"origin"))
        if scope["method"] == "OPTIONS":
            await send_bytes(send, 200, b"", b"text/plain", [*cors, _METHODS, _ALLOWED_HEADERS])
            return
        kind = "?"
        try:
            request = await read_json(receive, scope)
            if not is_request(request):
                raise InvalidInput(f"Invalid request: {json.dumps(request)[:10_000]}")
            payload = request["payload"]
            kind = payload["type"]
            client_id = authenticate(request, now())
            if kind == "findFile":
                reply = await self._find(scope, payload, client_id)
            else:
                reply = await self._handlers[kind](scope, payload, client_id, request.get("signature", ""))
        except InvalidInput as error:
            if kind == "?":
                text = error.message if error.message.startswith("Invalid request") else f"Invalid request: {error}"
                await send_text(send, 400, text, cors)
                return
            await self._refuse(send, kind, error, cors)
        except KacheryError as error:
            await self._refuse(send, kind, error, cors)
        else:
            await send_json(send, 200, reply, cors)

    async def _refuse(self, send: Send, kind: str, error: KacheryError, cors: Headers) -> None:
        level = "error" if error.http_status in (500, 507) or error.code == "collision" else "info"
        getattr(self._gateway.log, level)("refused", type=kind, error=error.code, reason=error.message)
        code = (b"kachery-error", error.code.encode())
        await send_text(
            send, 500, f"Error: {error}", [*cors, code, (b"access-control-expose-headers", b"Kachery-Error")]
        )

    # -- files --------------------------------------------------------------------------------------------------------

    async def _find(self, scope: Scope, payload: dict[str, Any], client_id: str | None) -> dict[str, Any]:
        gateway = self._gateway
        algorithm, name = payload["hashAlg"], payload.get("zone", "default")
        sha1 = payload["hash"] if algorithm == "sha1" and is_hash("sha1", payload["hash"]) else ""
        zone, caller, size = await gateway.database.read(require_download, name, sha1, client_id)
        if algorithm != "sha1":
            known = await gateway.database.read(aliases.resolve, zone.name, algorithm, payload["hash"])
            sha1, size = ("", None) if known is None else (known.sha1, known.size)
        gateway.counters.count(
            zone.name, caller.user_number, (caller.client_id or "") if caller.user else "", now(), finds=1
        )
        # what a resource has brought can be had, also from a zone that keeps nothing
        held = gateway.on_demand.held(zone.name, sha1) if size is None else None
        if size is None and held is None and gateway.others is not None:
            held = await gateway.on_demand.held_elsewhere(zone.name, sha1)
        size = held if size is None else size
        if size is None:
            if sha1 and not zone.public_download:
                gateway.asked.note(zone.name, sha1, (scope.get("client") or ("",))[0])
            return {"type": "findFile", "found": False}
        reply = {
            "type": "findFile",
            "found": True,
            "size": size,
            "bucketUri": gateway.bucket.uri,
            "objectKey": zone.key(sha1),
            "url": await download_address(
                gateway, scope, zone, sha1, size, caller.user_number, on_demand=held is not None
            ),
            "cacheHit": False,
        }
        if algorithm != "sha1":
            reply["sha1"] = sha1
        if size <= ENCLOSED and header(scope, b"kachery-accept") == b"content":
            # only clients that ask get it: the others accept no key that they do not know
            content = await self._small_content(zone.key(sha1), size)
            if content is not None:
                reply["content"] = base64.b64encode(content).decode("ascii")
                gateway.counters.count(
                    zone.name, caller.user_number, "", now(), downloads=1, download_bytes=len(content)
                )
        return reply

    async def _small_content(self, key: str, size: int) -> bytes | None:
        """The whole of a small object; `None` when it cannot be had, and its address will say why."""
        try:
            reader = await open_object(self._gateway.bucket, key)
        except KacheryError:
            return None
        try:
            content = reader.read_now(0, size) if size else b""
            if content is None:
                content = await asyncio.to_thread(reader.read, 0, size)
            return content if reader.size == len(content) == size else None
        finally:
            reader.close()

    async def _initiate(self, scope: Scope, payload: dict[str, Any], client_id: str | None, _: str) -> dict[str, Any]:
        gateway = self._gateway
        zone, caller = await gateway.database.read(require_upload, payload.get("zone", "default"), client_id)
        sha1, size = require_file(payload)
        require_room(gateway, size)
        present = await gateway.receiver.has_file(zone, sha1)
        if present is not None:
            if present != size:
                raise InvalidInput(f"zone {zone.name!r} has a file of this hash with {present} bytes, not {size}")
            return {"type": "initiateFileUpload", "alreadyExists": True}
        parts = header(scope, b"kachery-accept") == b"parts"
        upload = await gateway.database.write(
            files.begin, zone.name, sha1, size, client_id or "", caller.user or "", now(), in_parts=parts
        )
        gateway.log.info("upload_begun", zone=zone.name, sha1=sha1, size=size, client=client_id, user=caller.user)
        reply = {
            "type": "initiateFileUpload",
            "alreadyExists": False,
            "objectKey": zone.key(sha1),
            "signedUploadUrl": upload_address(gateway, scope, upload),
        }
        # only clients that ask are told: the others accept no key that they do not know
        return {**reply, "parts": True} if parts else reply

    async def _finalize(self, scope: Scope, payload: dict[str, Any], client_id: str | None, _: str) -> dict[str, Any]:
        gateway = self._gateway
        zone, caller = await gateway.database.read(require_upload, payload.get("zone", "default"), client_id)
        sha1, size = require_file(payload)
        if payload["objectKey"] != zone.key(sha1):
            raise InvalidInput(
                "objectKey is not that of this file in this zone", hint="send back what initiateFileUpload said"
            )
        stored = await gateway.finalize(zone, sha1, size, client_id or "")
        if stored is not None:
            gateway.log.info("stored", zone=zone.name, sha1=sha1, size=size, client=client_id, user=caller.user)
            gateway.counters.count(
                zone.name, caller.user_number, client_id or "", now(), uploads=1, upload_bytes=stored
            )
        return {"type": "finalizeFileUpload"}

    async def _delete(
        self, scope: Scope, payload: dict[str, Any], client_id: str | None, signature: str
    ) -> dict[str, Any]:
        gateway = self._gateway
        zone, caller = await gateway.database.read(_require_admin, payload.get("zone", "default"), client_id)
        sha1 = payload["hash"]
        seen = hashlib.sha256(f"{client_id}/{signature.lower()}".encode()).hexdigest()
        if not await gateway.database.write(identity.use_once, f"delete:{seen}", now() + 2 * WINDOW, now()):
            raise NotAllowed("this request was made before", hint="sign a new one")
        if not is_hash("sha1", sha1) or not await gateway.receiver.delete(zone, sha1):
            return {"type": "deleteFile", "success": False, "error": f"zone {zone.name!r} does not have this file"}
        gateway.log.info("deleted", zone=zone.name, sha1=sha1, client=client_id, user=caller.user)
        return {"type": "deleteFile", "success": True}

    # -- information --------------------------------------------------------------------------------------------------

    async def _client_info(
        self, scope: Scope, payload: dict[str, Any], client_id: str | None, _: str
    ) -> dict[str, Any]:
        wanted = payload["clientId"].lower()
        client = await self._gateway.database.read(identity.find_client, payload.get("zone", "default"), wanted)
        if client is None:
            return {"type": "getClientInfo", "found": False}
        info = {
            "clientId": client.client_id,
            "ownerId": client.owner,
            "timestampCreated": client.created,
            "label": client.label,
        }
        return {"type": "getClientInfo", "found": True, "client": info}

    async def _resource_info(
        self, scope: Scope, payload: dict[str, Any], client_id: str | None, _: str
    ) -> dict[str, Any]:
        name = payload.get("zone", "default")
        rights = (await self._gateway.database.read(_who, name, client_id))[1]
        resource = await self._gateway.database.read(resources.find, name, payload["resourceName"])
        if resource is None or not rights.download:
            return {"type": "getResourceInfo", "found": False}
        info = {
            "resourceName": resource.name,
            "ownerId": resource.owner,
            "timestampCreated": resource.created,
            "proxyUrl": resource.proxy_url or self._gateway.config.base_url(scope["scheme"], host_of(scope)),
        }
        return {"type": "getResourceInfo", "found": True, "resource": info}

    async def _zone_info(self, scope: Scope, payload: dict[str, Any], client_id: str | None, _: str) -> dict[str, Any]:
        base = self._gateway.config.base_url(scope["scheme"], host_of(scope))
        return {"type": "getZoneInfo", "found": True, "kacheryGatewayUrl": base}


def is_request(value: Any) -> bool:
    """Whether a JSON value has exactly the form of one of the requests."""
    if not fits(value, _ENVELOPE):
        return False
    form = _PAYLOADS.get(value["payload"].get("type", "")) if is_text(value["payload"].get("type")) else None
    return form is not None and fits(value["payload"], form)


def authenticate(request: dict[str, Any], time: int) -> str | None:
    """The client that signed a well-formed request; `None` for an anonymous one.

    Args:
        request: The envelope.
        time: The time, in milliseconds since the epoch.

    Raises:
        NotAllowed: If it is too old or from the future, or its signature is missing or wrong.
    """
    skew = (request["payload"]["timestamp"] - time) / 1000
    if abs(skew) * 1000 > WINDOW:
        raise NotAllowed(
            f"invalid timestamp: it is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this gateway's clock,"
            f" at most {WINDOW // 1000} s are accepted",
            hint="set the clock of the machine that sent the request",
        )
    if "githubUserId" in request or "githubAccessToken" in request:
        raise NotAllowed("this gateway has no sign-in with GitHub", hint="register a client, and sign with its key")
    client_id: str | None = request.get("fromClientId")
    if client_id is None:
        return None
    signature = request.get("signature")
    if signature is None:
        raise NotAllowed("fromClientId without a signature")
    if not signing.verify(client_id, request["payload"], signature, legacy=True):
        raise NotAllowed("invalid signature")
    return client_id.lower()


def _who(
    connection: Connection, zone_name: str, client_id: str | None
) -> tuple[identity.Caller, zones.Rights, zones.Zone | None]:
    zone = zones.find(connection, zone_name)
    caller = identity.caller(connection, zone_name, client_id)
    return caller, zones.rights_of(connection, zone, caller.user), zone


def require_download(
    connection: Connection, zone_name: str, sha1: str, client_id: str | None
) -> tuple[zones.Zone, identity.Caller, int | None]:
    """The zone, who asks, and the size of a file in bytes if the zone has it, when they may download from the zone.

    Raises:
        NotAllowed, NotRegistered: If they may not, or there is no such zone.
    """
    # one lookup for zone and file: this is the busiest request; rights are looked at before anything is said
    found = zones.find_with_file(connection, zone_name, sha1)
    caller = identity.caller(connection, zone_name, client_id)
    zone, size = found or (None, None)
    if zone is None or not (zone.public_download or zones.rights_of(connection, zone, caller.user).download):
        raise _denied(caller, zone_name, "download from")
    return zone, caller, size


def require_upload(connection: Connection, zone_name: str, client_id: str | None) -> tuple[zones.Zone, identity.Caller]:
    """The zone, and who asks, when they may upload to it.

    Raises:
        NotAllowed, NotRegistered: If they may not, or there is no such zone.
    """
    caller, rights, zone = _who(connection, zone_name, client_id)
    if zone is None or not rights.upload:
        raise _denied(caller, zone_name, "upload to")
    return zone, caller


def _require_admin(connection: Connection, zone_name: str, client_id: str | None) -> tuple[zones.Zone, identity.Caller]:
    caller, rights, zone = _who(connection, zone_name, client_id)
    if zone is None or not rights.admin:
        raise _denied(caller, zone_name, "administer")
    return zone, caller


def _denied(caller: identity.Caller, zone_name: str, action: str) -> NotAllowed:
    # the same words whether the zone is closed or does not exist
    if caller.client_id is None:
        return NotAllowed(
            f"anonymous callers may not {action} zone {zone_name[:200]!r}, or there is no such zone here",
            hint="sign the request with a registered client's key",
        )
    if caller.user is None:
        return NotRegistered(
            f"client {caller.client_id[:8]}… is not registered in a zone {zone_name[:200]!r} here, so it may not"
            f" {action} it",
            hint="run `kachery init` (or `kachery-cloud-init`) for this zone, and check its name",
        )
    return NotAllowed(
        f"user {caller.user!r} may not {action} zone {zone_name!r}", hint="an administrator of the zone can grant it"
    )


def require_room(gateway: Gateway, size: int) -> None:
    """Make sure that a file is not larger than this gateway takes.

    Raises:
        TooLarge: If it is over the limit.
        StorageFull: If there is no room for it.
    """
    if size > gateway.config.max_size:
        raise TooLarge(f"the file has {size} bytes; this gateway accepts at most {gateway.config.max_size}")
    room = gateway.bucket.room()
    if size > room:
        raise StorageFull(f"the file has {size} bytes; the zone has room for {room}", hint="ask its owner to make room")


async def download_address(
    gateway: Gateway, scope: Scope, zone: zones.Zone, sha1: str, size: int, user: int, *, on_demand: bool = False
) -> str:
    """An address where a caller gets a file for a while: in the bucket itself where it gives one, else here.

    Args:
        gateway: The gateway.
        scope: The caller's request.
        zone: The file's zone.
        sha1: Its hash.
        size: Its size in bytes.
        user: The number of whom the address is given to, 0 for nobody.
        on_demand: Whether a resource has to bring it.
    """
    if not on_demand:
        direct = await address_of_object(gateway.bucket, zone.key(sha1), DOWNLOAD_LIFETIME)
        if direct is not None:
            # nobody here sees what is then fetched
            gateway.counters.count(zone.name, user, "", now(), downloads=1, download_bytes=size)
            return direct
    expires = now() // 1000 + DOWNLOAD_LIFETIME
    token = gateway.signer.download(DownloadToken(zone.name, sha1, size, user, expires, on_demand))
    base = gateway.config.base_url(scope["scheme"], host_of(scope))
    return f"{base}/transfer/{'o' if on_demand else 'd'}/{token}/{sha1}"


def upload_address(gateway: Gateway, scope: Scope, upload: files.Upload) -> str:
    """An address that a caller can send an upload's bytes to for a while."""
    expires = now() // 1000 + UPLOAD_LIFETIME
    token = gateway.signer.upload(UploadToken(upload.id, upload.zone, upload.sha1, upload.size, expires))
    return f"{gateway.config.base_url(scope['scheme'], host_of(scope))}/transfer/u/{token}"


def require_file(payload: dict[str, Any]) -> tuple[str, int]:
    """The SHA-1 and the size in bytes that a request names.

    Raises:
        InvalidInput: If it is no hash, or no size.
    """
    sha1, size = payload["hash"], payload["size"]
    if not is_hash("sha1", sha1):
        raise InvalidInput(f"not a SHA-1 hash: {sha1[:80]!r}", hint="40 lower-case hex digits")
    if int(size) != size or not 0 <= size < 2**63:
        raise InvalidInput(f"not a size in bytes: {size!r}")
    return sha1, int(size)


def _cors(origin: bytes | None) -> Headers:
    if origin in _ORIGINS:
        return [
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-allow-origin", origin or b""),
            (b"vary", b"Origin"),
        ]
    return [(b"access-control-allow-origin", b"*"), (b"vary", b"Origin")]
