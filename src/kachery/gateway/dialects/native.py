"""Our own requests.

| request | answer |
|---|---|
| `GET /probe` | 200, `{"kachery": "gateway", "version": …}` |
| `POST /api/v1/registrations` | 200, `{"url": …, "expiresIn": 900}`: the link that the client's user opens |

A registration is `{"payload": {type, gateway, zone, label, nonce, timestamp}, "fromClientId": …, "signature": …}`,
`type` is `register`, signed like any request. Errors have one shape, `{"error": {"code", "message", "hint"}}`, and the
status that belongs to the error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ... import _version
from ...errors import InvalidInput, KacheryError, NotAllowed, NotFound, NotSupported
from ..http import host_of, read_json, send_bytes, send_json
from ..receiving import now
from ..services import registrations
from .cloud import WINDOW, authenticate

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from ..runtime import Gateway

_CORS = [(b"access-control-allow-origin", b"*")]
_PREFLIGHT = [
    *_CORS,
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-allow-headers", b"Content-Type"),
]

_ENVELOPE = {"payload", "fromClientId", "signature"}
_TEXTS = ("type", "gateway", "zone", "label", "nonce")


class NativeDialect:
    """The ASGI application at `/probe` and under `/api/v1/`.

    Args:
        gateway: The gateway it serves.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

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
                case method, "/probe" | "/api/v1/registrations":
                    raise NotSupported(f"{method} is not for this address")
                case _:
                    raise NotFound("there is nothing at this address")
        except KacheryError as error:
            self._gateway.log.info("refused", type="native", error=error.code, reason=error.message)
            shape = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
            await send_json(send, error.http_status, shape, _CORS)

    async def _register(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        gateway = self._gateway
        request = await read_json(receive)
        payload = require_registration(request)
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


def require_registration(request: Any) -> dict[str, Any]:
    """The payload of a request for registration, when it has exactly the form of one.

    Raises:
        InvalidInput: If it has not.
    """
    payload = request.get("payload") if isinstance(request, dict) and set(request) == _ENVELOPE else None
    if (
        not isinstance(payload, dict)
        or set(payload) != {*_TEXTS, "timestamp"}
        or not all(isinstance(payload[key], str) for key in _TEXTS)
        or not all(isinstance(request[key], str) for key in ("fromClientId", "signature"))
        or payload["type"] != "register"
        or type(payload["timestamp"]) is not int
    ):
        raise InvalidInput(
            "not a request for registration",
            hint="payload (type, gateway, zone, label, nonce, timestamp), fromClientId and signature, and nothing else",
        )
    return payload
