"""What the processes of a gateway, or of a relay, ask each other; `docs/several-processes.md`.

| `POST /internal/v1/…` | asked | answered |
|---|---|---|
| `has` | `name`, `zone` | `has`: whether a resource of this process has the name, and still answers |
| `answer` | `name`, `zone`, `message`, `seconds` | `requestId`, `response`, `error`; or `gone` |
| `find` | `zone`, `hash` | `found`, `size`, `resource`; or `found`, `reasons` |
| `held` | `zone`, `hash` | `size`, of a file that was brought and is not in its zone, or `null` |
| `finalize` | `zone`, `hash`, `size`, `client` | `stored`: how many bytes became a file, or `null` |

An error is `{"error": {"code", "message", "hint"}}` with the status that belongs to it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput, KacheryError, NotAllowed, NotFound, TooLarge
from ..forwarding import PATH, came_from
from ..http import RequestBody, send_json
from .connected import Gone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    from .connected import Registry

    Answering = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

# A message of a client, and some, in bytes
_LARGEST = 256 * 1024


class Internal:
    """The ASGI application under `/internal/v1/`; only for requests whose seal was checked.

    Args:
        answering: What is answered beside what `of_registry` gives, by the end of the address.
    """

    def __init__(self, answering: dict[str, Answering]) -> None:
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            request = came_from(scope)
            if request is None:
                raise NotAllowed("this address is for the processes of the gateway alone")
            answering = self._answering.get(scope["path"].removeprefix(PATH))
            if answering is None or scope["method"] != "POST":
                raise NotFound("there is nothing at this address")
            await send_json(send, 200, await answering(await _read(receive, request.body)))
        except KacheryError as error:
            shape = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
            await send_json(send, error.http_status, shape)


def of_registry(registry: Registry) -> dict[str, Answering]:
    """What every relay answers."""

    async def has(asked: dict[str, Any]) -> dict[str, Any]:
        return {"has": await registry.has(str(asked["name"]), str(asked["zone"]))}

    async def answer(asked: dict[str, Any]) -> dict[str, Any]:
        try:
            given = await registry.answer(asked["name"], asked["zone"], asked["message"], float(asked["seconds"]))
        except Gone:
            return {"gone": True}
        return {"requestId": given.request_id, "response": given.response, "error": given.error}

    return {"has": has, "answer": answer}


async def _read(receive: Receive, digest: str | None) -> dict[str, Any]:
    body = RequestBody(receive)
    content = b""
    while chunk := await body.chunk():
        content += chunk
        if len(content) > _LARGEST:
            raise TooLarge(f"the request is larger than {_LARGEST} bytes")
    if digest is None or not hmac.compare_digest(hashlib.sha256(content).hexdigest(), digest):
        raise NotAllowed("the body is not the one that was sealed")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidInput("the body of the request is no JSON object")
    return value
