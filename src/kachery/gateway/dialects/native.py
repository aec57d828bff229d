"""Our own requests.

| request | answer |
|---|---|
| `GET /probe` | 200, `{"kachery": "gateway", "version": …}` |
| `POST /api/v1/registrations` | 200, `{"url": …, "expiresIn": 900}`: the link that the client's user opens |
| `POST /api/v1/uploads` | 200, `{"upload": …, "url": …}`: where to send a file whose hash is not known yet, or |
| | 200, `{"sizeKnown": true}`: the zone has a file of this size, so hash first |
| `POST /api/v1/uploads/name` | 200, `{"alreadyExists": …}`: the upload is of the file with this hash |
| `POST /api/v1/aliases` | 200, `{"algorithm": "md5", "hash": …}`: a file of the zone can be asked for by that, too |
| `GET /api/v1/relay`, `POST /api/v1/requests` | files on demand: `on_demand.py` |

Requests are `{"payload": {…, "timestamp": ms}, "fromClientId": …, "signature": …}`, signed like any request:

| payload | keys |
|---|---|
| registration | `type` = `register`, `gateway`, `zone`, `label`, `nonce` |
| upload | `type` = `beginUpload`, `zone`, `size` |
| name | `type` = `nameUpload`, `zone`, `upload`, `hash` |
| alias | `type` = `recordAlias`, `zone`, `hash` (the file's SHA-1), `algorithm` = `md5` |

A client that hashes a large file may send it meanwhile; that saves it half of the time on a fast network. The upload
takes parts only. Once it is named it is like any other: it can be found again, continued, and ended by
`finalizeFileUpload`, which verifies it. Errors have one shape, `{"error": {"code", "message", "hint"}}`, and the status
that belongs to the error.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ... import _version
from ...digest import is_hash
from ...errors import InvalidInput, KacheryError, NotAllowed, NotFound, WrongContent
from ..http import host_of, read_json, send_bytes, send_json
from ..receiving import now
from ..services import aliases, files, registrations
from ..tokens import UPLOAD_LIFETIME, UploadToken
from .cloud import WINDOW, authenticate, require_room, require_upload
from .on_demand import OnDemandDialect

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from ..runtime import Gateway

_CORS = [(b"access-control-allow-origin", b"*")]
_PREFLIGHT = [
    *_CORS,
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-allow-headers", b"Content-Type"),
]

_PATHS = {
    "/probe",
    "/api/v1/registrations",
    "/api/v1/uploads",
    "/api/v1/uploads/name",
    "/api/v1/aliases",
    "/api/v1/relay",
    "/api/v1/requests",
}

# files that are read again for another hash
_HASHED_AT_ONCE = 2

_ENVELOPE = {"payload", "fromClientId", "signature"}


class NativeDialect:
    """The ASGI application at `/probe` and under `/api/v1/`.

    Args:
        gateway: The gateway it serves.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.on_demand = OnDemandDialect(gateway)
        self._hashing = asyncio.Semaphore(_HASHED_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            match scope["method"], scope["path"]:
                case "OPTIONS", _:
                    await send_bytes(send, 200, b"", b"text/plain", _PREFLIGHT)
                case "GET" | "HEAD", "/probe":
                    await send_json(send, 200, {"kachery": "gateway", "version": _version.__version__}, _CORS)
                case "POST", "/api/v1/registrations":
                    await send_json(send, 200, await self._register(scope, receive), _CORS)
                case "POST", "/api/v1/uploads":
                    await send_json(send, 200, await self._begin_upload(scope, receive), _CORS)
                case "POST", "/api/v1/uploads/name":
                    await send_json(send, 200, await self._name_upload(receive), _CORS)
                case "POST", "/api/v1/aliases":
                    await send_json(send, 200, await self._record_alias(receive), _CORS)
                case "GET" | "HEAD", "/api/v1/relay":
                    await send_json(send, 200, self.on_demand.describe(), _CORS)
                case "POST", "/api/v1/requests":
                    await send_json(send, 200, await self.on_demand.request(scope, receive), _CORS)
                case method, path if path in _PATHS:
                    shape = {"error": {"code": "method", "message": f"{method} is not for this address", "hint": None}}
                    await send_json(send, 405, shape, _CORS)
                case _:
                    raise NotFound("there is nothing at this address")
        except KacheryError as error:
            self._gateway.log.info("refused", type="native", error=error.code, reason=error.message)
            shape = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
            await send_json(send, error.http_status, shape, _CORS)

    async def _register(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        gateway = self._gateway
        request = await read_json(receive)
        payload = require_request(request, "register", ("gateway", "zone", "label", "nonce"))
        client_id = authenticate(request, now()) or ""
        reached_at = (scope["server"] or (None,))[0]
        base = gateway.config.base_url(scope["scheme"], host_of(scope))
        if payload["gateway"].rstrip("/") != base or not gateway.config.is_own_address(base, reached_at):
            own = gateway.config.public_url or base
            raise NotAllowed(
                f"the request was signed for {payload['gateway'][:200]}, this gateway is {own}",
                hint="set KACHERY_GATEWAY_URL to the gateway's own address, or start the gateway with --public-url",
            )
        code = await gateway.database.write(
            registrations.begin, client_id, payload["zone"], payload["label"], payload["nonce"], WINDOW, now()
        )
        gateway.log.info("registration_begun", client=client_id, zone=payload["zone"])
        return {"url": f"{base}/register/{code}", "expiresIn": registrations.LIFETIME // 1000}

    async def _begin_upload(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        gateway = self._gateway
        request = await read_json(receive)
        payload = require_request(request, "beginUpload", ("zone",), ("size",))
        client_id = authenticate(request, now()) or ""
        zone, caller = await gateway.database.read(require_upload, payload["zone"], client_id)
        size = payload["size"]
        if not 0 < size < 2**63:
            raise InvalidInput(f"not a size in bytes: {size}")
        require_room(gateway, size)
        if await gateway.database.read(files.has_size, zone.name, size):
            return {"sizeKnown": True}
        upload = await gateway.database.write(
            files.begin, zone.name, "", size, client_id, caller.user or "", now(), in_parts=True
        )
        token = gateway.signer.upload(UploadToken(upload.id, zone.name, "", size, now() // 1000 + UPLOAD_LIFETIME))
        base = gateway.config.base_url(scope["scheme"], host_of(scope))
        gateway.log.info("upload_begun", zone=zone.name, sha1=None, size=size, client=client_id, user=caller.user)
        return {"upload": upload.id, "url": f"{base}/transfer/u/{token}"}

    async def _name_upload(self, receive: Receive) -> dict[str, Any]:
        gateway = self._gateway
        request = await read_json(receive)
        payload = require_request(request, "nameUpload", ("zone", "upload", "hash"))
        client_id = authenticate(request, now()) or ""
        zone, _ = await gateway.database.read(require_upload, payload["zone"], client_id)
        if not is_hash("sha1", payload["hash"]):
            raise InvalidInput(f"not a SHA-1 hash: {payload['hash'][:80]!r}", hint="40 lower-case hex digits")
        if not await gateway.database.write(files.name_upload, payload["upload"], client_id, payload["hash"]):
            raise NotFound("this client has no upload of this name that waits for its hash", hint="begin it again")
        return {"alreadyExists": await gateway.receiver.has_file(zone, payload["hash"]) is not None}

    async def _record_alias(self, receive: Receive) -> dict[str, Any]:
        gateway = self._gateway
        request = await read_json(receive)
        payload = require_request(request, "recordAlias", ("zone", "hash", "algorithm"))
        client_id = authenticate(request, now()) or ""
        zone, _ = await gateway.database.read(require_upload, payload["zone"], client_id)
        sha1, algorithm = payload["hash"], payload["algorithm"]
        if algorithm != "md5":
            raise InvalidInput(f"not an algorithm that is recorded: {algorithm[:80]!r}", hint="md5")
        known = await gateway.database.read(aliases.resolve, zone.name, "sha1", sha1)
        if known is None:
            raise NotFound(f"zone {zone.name!r} does not have this file")
        # what a client says its content hashes to is not believed
        async with self._hashing:
            found = await asyncio.to_thread(self._hash_object, zone.key(known.sha1), ("sha1", algorithm))
        if found["sha1"] != known.sha1:
            gateway.log.error("object_damaged", zone=zone.name, sha1=known.sha1, found=found["sha1"])
            raise WrongContent("the zone's copy of this file is damaged", hint="store it again from where you have it")
        await gateway.database.read(aliases.require_same, zone.name, algorithm, found[algorithm], known.sha1)
        await gateway.database.write(aliases.record, algorithm, found[algorithm], known.sha1, now())
        return {"algorithm": algorithm, "hash": found[algorithm]}

    def _hash_object(self, key: str, algorithms: tuple[str, ...]) -> dict[str, str]:
        reader = self._gateway.bucket.open(key)
        try:
            return reader.hashes(algorithms)
        finally:
            reader.close()


def require_request(
    request: Any, kind: str, texts: tuple[str, ...] = (), numbers: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The payload of a signed request, when it has exactly the form of one.

    Args:
        request: The body.
        kind: What `type` must be.
        texts: The keys of texts beside it.
        numbers: The keys of integers beside `timestamp`.

    Raises:
        InvalidInput: If it has another form.
    """
    payload = request.get("payload") if isinstance(request, dict) and set(request) == _ENVELOPE else None
    texts, numbers = ("type", *texts), (*numbers, "timestamp")
    if (
        not isinstance(payload, dict)
        or set(payload) != {*texts, *numbers}
        or not all(isinstance(payload[key], str) for key in texts)
        or not all(isinstance(request[key], str) for key in ("fromClientId", "signature"))
        or payload["type"] != kind
        or not all(type(payload[key]) is int for key in numbers)
    ):
        raise InvalidInput(
            f"not a request of the kind {kind}",
            hint=f"payload ({', '.join([*texts, *numbers])}), fromClientId and signature, and nothing else",
        )
    return payload
