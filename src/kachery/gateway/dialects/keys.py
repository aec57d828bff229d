"""`/api/NAME`: the protocol of kachery 2.x (2.0.1 to 2.0.3).

| `POST /api/…` | who | answer |
|---|---|---|
| `findFile` | as the zone says; anybody in public zones, with any key | `found`, and an address to download from |
| `initiateFileUpload` | holders of an API key whose user may upload | `alreadyExists`, or an address to PUT to |
| `finalizeFileUpload` | whoever began the upload | `success`, once the bytes are those of the hash |
| the calls of `keys_management.py` | holders of a management key | |

A request is an object whose `type` is `<name>Request`, with exactly the keys of its form. The key comes as
`Authorization: Bearer KEY`. An error is `{"error": "…"}` in upstream's words, which its clients print.

Proof of work: the first 13 bits of SHA-1(hash + token), as texts, are 0. It costs a caller some 8,000 hashes and proves
nothing about them; it is asked for because every client of this protocol brings it.

Where upstream differs: it verifies nothing; it answers some mistakes of callers with 500; it refuses an unknown key
also where nobody needs one; it tells anybody that a zone is private. Uploads need a key in every zone here.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from ...digest import is_hash
from ...errors import InvalidInput, KacheryError, NotAllowed, NotIdentified, TooLarge
from ..http import header, read_json, send_bytes, send_json
from ..receiving import now
from ..services import api_keys, files, zones
from .cloud import download_address, require_file, require_room, upload_address
from .forms import Form, fits, is_flag, is_number, is_text
from .keys_management import FORMS as MANAGEMENT_FORMS
from .keys_management import Management

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import Connection
    from starlette.types import Receive, Scope, Send

    from ..runtime import Gateway

_CORS = [(b"access-control-allow-origin", b"*")]
_PREFLIGHT = [
    *_CORS,
    (b"access-control-allow-methods", b"POST, OPTIONS"),
    (b"access-control-allow-headers", b"Authorization, Content-Type"),
    (b"access-control-max-age", b"86400"),
]

#: Leading zero bits of a proof of work; written into the released clients.
WORK_BITS = 13

_FILE: Form = {"hashAlg": (True, is_text), "hash": (True, is_text), "zoneName": (True, is_text)}
_FORMS: dict[str, Form] = {
    "findFile": _FILE,
    "initiateFileUpload": {
        **_FILE,
        "size": (True, is_number),
        "workToken": (True, is_text),
        # 2.0.3; what a zone allows is the zone's to say
        "allowPublicZones": (False, is_flag),
    },
    "finalizeFileUpload": {**_FILE, "size": (True, is_number), "objectKey": (True, is_text)},
    **MANAGEMENT_FORMS,
}

#: The addresses of this protocol.
PATHS = {f"/api/{name}" for name in _FORMS}


class KeysDialect:
    """The ASGI application at `PATHS`.

    Args:
        gateway: The gateway it serves.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._management = Management(gateway)
        self._handlers: dict[str, Callable[[Scope, dict[str, Any], str], Awaitable[dict[str, Any]]]] = {
            "findFile": self._find,
            "initiateFileUpload": self._initiate,
            "finalizeFileUpload": self._finalize,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        name = scope["path"].removeprefix("/api/")
        if scope["method"] == "OPTIONS":
            await send_bytes(send, 200, b"", b"text/plain", _PREFLIGHT)
            return
        if scope["method"] != "POST":
            await send_json(send, 405, {"error": "Method not allowed"}, _CORS)
            return
        try:
            request = await _read(receive, name)
            token = _bearer(header(scope, b"authorization"))
            handler = self._handlers.get(name)
            if handler is None:
                reply = await self._management.answer(name, request, token)
            else:
                reply = await handler(scope, request, token)
        except KacheryError as error:
            level = "error" if error.http_status in (500, 507) or error.code == "collision" else "info"
            getattr(self._gateway.log, level)("refused", type=name, error=error.code, reason=error.message)
            # upstream tells "who are you" and "you may not" apart by their words only
            status = 401 if isinstance(error, NotAllowed) else error.http_status
            more = [(b"kachery-error", error.code.encode()), (b"access-control-expose-headers", b"Kachery-Error")]
            await send_json(send, status, {"error": str(error)}, [*_CORS, (b"cache-control", b"no-store"), *more])
        else:
            await send_json(send, 200, {"type": f"{name}Response", **reply}, [*_CORS, (b"cache-control", b"no-store")])

    async def _find(self, scope: Scope, request: dict[str, Any], token: str) -> dict[str, Any]:
        gateway = self._gateway
        sha1 = _require_hash(request)
        zone, holder, size = await gateway.database.read(_require_download, request["zoneName"], sha1, token)
        user, client = (holder.user_number, client_of(holder)) if holder else (0, "")
        gateway.counters.count(zone.name, user, client, now(), finds=1)
        # what a resource has brought can be had, also from a zone that keeps nothing
        held = gateway.on_demand.held(zone.name, sha1) if size is None else None
        size = held if size is None else size
        if size is None:
            return {"found": False}
        return {
            "found": True,
            "url": await download_address(gateway, scope, zone, sha1, size, user, on_demand=held is not None),
            "size": size,
            "bucketUri": gateway.bucket.uri,
            "objectKey": zone.key(sha1),
        }

    async def _initiate(self, scope: Scope, request: dict[str, Any], token: str) -> dict[str, Any]:
        gateway = self._gateway
        _require_hash(request)
        _require_token(request, token)
        if not is_work(request["hash"], request["workToken"]):
            raise InvalidInput("Invalid work token")
        zone, holder = await gateway.database.read(_require_upload, request["zoneName"], token)
        sha1, size = require_file(request)
        if size > gateway.config.max_size:
            raise TooLarge(f"File size exceeds maximum for zone: {size} > {gateway.config.max_size}")
        require_room(gateway, size)
        present = await gateway.receiver.has_file(zone, sha1)
        if present is not None:
            if present != size:
                raise InvalidInput(f"zone {zone.name!r} has a file of this hash with {present} bytes, not {size}")
            return {"alreadyExists": True, "alreadyPending": False}
        client = client_of(holder)
        upload = await gateway.database.write(
            files.begin, zone.name, sha1, size, client, holder.user, now(), in_parts=False
        )
        gateway.log.info("upload_begun", zone=zone.name, sha1=sha1, size=size, client=client, user=holder.user)
        return {
            "alreadyExists": False,
            "alreadyPending": False,
            "signedUploadUrl": upload_address(gateway, scope, upload),
            "objectKey": zone.key(sha1),
        }

    async def _finalize(self, scope: Scope, request: dict[str, Any], token: str) -> dict[str, Any]:
        gateway = self._gateway
        _require_hash(request)
        _require_token(request, token)
        zone, holder = await gateway.database.read(_require_upload, request["zoneName"], token)
        sha1, size = require_file(request)
        if request["objectKey"] != zone.key(sha1):
            raise InvalidInput(
                "objectKey is not that of this file in this zone", hint="send back what initiateFileUpload said"
            )
        client = client_of(holder)
        stored = await gateway.finalize(zone, sha1, size, client)
        if stored is not None:
            gateway.log.info("stored", zone=zone.name, sha1=sha1, size=size, client=client, user=holder.user)
            gateway.counters.count(zone.name, holder.user_number, client, now(), uploads=1, upload_bytes=stored)
        return {"success": True}


def is_work(hash_: str, token: str) -> bool:
    """Whether a token proves that its sender searched for it."""
    found = hashlib.sha1(f"{hash_}{token}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(found) >> (160 - WORK_BITS) == 0


def client_of(holder: api_keys.Holder) -> str:
    """What the account book and the uploads call the programs that send a key."""
    return f"key:{holder.key}"


async def _read(receive: Receive, name: str) -> dict[str, Any]:
    try:
        request = await read_json(receive)
    except InvalidInput:
        raise InvalidInput("Invalid request") from None
    form: Form = {"type": (True, lambda value: bool(value == f"{name}Request")), **_FORMS[name]}
    if not fits(request, form):
        raise InvalidInput("Invalid request")
    content: dict[str, Any] = request
    return content


def _bearer(value: bytes | None) -> str:
    """The key of an `Authorization` header; upstream does not look at the scheme either."""
    words = (value or b"").decode("latin-1").split()
    return words[1] if len(words) > 1 else ""


def _require_hash(request: dict[str, Any]) -> str:
    hash_: str = request["hash"]
    if request["hashAlg"] != "sha1" or not is_hash("sha1", hash_):
        raise InvalidInput("Invalid hash")
    return hash_


def _require_token(request: dict[str, Any], token: str) -> None:
    if not token:
        raise InvalidInput(f"User API token must be provided for zone {request['zoneName']}")


def _require_download(
    connection: Connection, zone_name: str, sha1: str, token: str
) -> tuple[zones.Zone, api_keys.Holder | None, int | None]:
    """The zone, who asks, and the size of a file in bytes if the zone has it, when they may download from the zone."""
    found = zones.find_with_file(connection, zone_name, sha1)
    zone, size = found or (None, None)
    holder = api_keys.holder(connection, token, api_keys.FILES) if token else None
    # an old key left in somebody's settings opens no door, and closes none
    if zone is not None and zones.rights_of(connection, zone, holder.user if holder else None).download:
        return zone, holder, size
    if token and holder is None:
        raise NotIdentified("Unauthorized - no user for token")
    if holder is None:
        # the same words where there is no such zone
        raise NotIdentified("User API token must be provided when zone does not allow public download")
    if zone is None:
        raise InvalidInput(f"Zone not found: {zone_name}")
    raise NotAllowed("This user is not allowed to download files from this zone")


def _require_upload(connection: Connection, zone_name: str, token: str) -> tuple[zones.Zone, api_keys.Holder]:
    holder = api_keys.holder(connection, token, api_keys.FILES)
    if holder is None:
        raise NotIdentified("Unauthorized - no user for token")
    zone = zones.find(connection, zone_name)
    if zone is None:
        raise InvalidInput(f"Zone not found: {zone_name}")
    if not zones.rights_of(connection, zone, holder.user).upload:
        raise NotAllowed("This user is not allowed to upload files to this zone")
    return zone, holder
