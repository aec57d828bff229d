"""Upstream's resource proxy: the relay that published daemons and released clients speak to.

    client ── POST /r/NAME ──▶ proxy ── web socket ──▶ resource
    client ◀───── 200 ──────── proxy ◀── its answer ── resource

| web socket message | keys, all required unless marked |
|---|---|
| from the resource, first | `type` = `initialize`, `resourceName`, `zone`, `proxySecret` |
| to the resource | `type` = `acknowledge` |
| from the resource | `type` = `ping`; never answered |
| to the resource | the client's `requestFromClient` and `requestId` of 10 letters |
| from the resource | `type` = `responseToClient`, `requestId`, `response`, `error?` |

| outcome of a POST, in the order tested | status | JSON |
|---|---|---|
| not JSON; more than 100 KiB | 400; 413 | a page |
| another form, or not sent as JSON | 400 | `invalid request` |
| names in path and body differ | 500 | `Resource name mismatch: <body> <> <path>` |
| nobody of the name is connected | 404 | `resource not found: <name>` |
| at a gateway: one that its zone knows is not connected, leaves, or does not answer | 200 | `status` is `error` |
| the resource is of another zone | 500 | `Zone mismatch: <request> <> <resource>` |
| the caller chose a `requestId` | 400 | `requestId field not allowed` |
| no answer in time, or one that is null, 0, false or empty | 504 | `timeout waiting for response` |
| the resource left meanwhile | 504 | `resource disconnected: <name>` |
| an answer | 200 | the whole `responseToClient` |

The published proxy sends the inner `response` alone, which no released client understands; earlier ones sent the whole.
Where a gateway stands behind it, a request of somebody who proves nothing is for zones that are public for download, or
for a file that a member asked the gateway for just now (`relay/asked.py`). Released clients raise for every status but
200, and give `None` for the status `error`: their callers go on to other sources then.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import string
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from ...errors import BadReply, TimedOut, Unreachable
from ..http import RequestBody, header, send_bytes, send_json
from ..relay.connected import Answer, Connected, Gone
from ..sockets import REFUSED, Socket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send
    from structlog.typing import FilteringBoundLogger

    from ..relay.asked import Asked
    from ..relay.connected import Registry, WaitingRoom

#: The largest body of a request, in bytes, as upstream's.
LARGEST_BODY = 100 * 1024

#: The longest that a caller may have us wait for a resource, in seconds.
LONGEST_WAIT = 300.0

# Seconds within which a resource must say who it is, and without a word after which it is gone. Upstream's daemon says
# something every 20 s.
_INTRODUCTION = 30.0
_SILENCE = 90.0

_LETTERS = string.ascii_letters
_INITIALIZE = {"type", "resourceName", "zone", "proxySecret"}
_REQUEST = {"type", "resourceName", "zone", "request", "timeoutMsec"}


class ResourceProxy:
    """The ASGI application at `/r/…`, and for web sockets at any address.

    Args:
        registry: Who is connected.
        waiting: Bounds how many wait.
        secret: What resources must know.
        is_public: Whether anybody may ask for files of a zone.
        log: Where to say what happened.
        remember: Told the zone and the name of each resource that connects.
        knows: Whether a zone has a resource of a name, connected or not.
        asked: What members of closed zones asked for.
    """

    def __init__(
        self,
        registry: Registry,
        waiting: WaitingRoom,
        secret: str,
        is_public: Callable[[str], bool],
        log: FilteringBoundLogger,
        remember: Callable[[str, str], Awaitable[None]] | None = None,
        knows: Callable[[str, str], Awaitable[bool]] | None = None,
        asked: Asked | None = None,
    ) -> None:
        self._registry = registry
        self._waiting = waiting
        self._secret = secret
        self._is_public = is_public
        self._log = log
        self._remember = remember
        self._knows = knows
        self._asked = asked

    # -- clients ------------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        name = _name_in(scope)
        if scope["method"] != "POST" or name is None:
            await _send_page(send, 404, f"Cannot {scope['method']} {scope['path'][:200]}")
            return
        body = RequestBody(receive, scope)
        is_json = (header(scope, b"content-type") or b"").split(b";")[0].strip().lower() == b"application/json"
        try:
            content = b""
            while chunk := await body.chunk():
                content += chunk
                if len(content) > LARGEST_BODY:
                    await _send_page(send, 413, "request entity too large", close=not await body.drain())
                    return
            request = _parse(content) if is_json else {}
        except Unreachable:
            return
        except (ValueError, RecursionError):
            await _send_page(send, 400, "the body is not JSON")
            return
        status, answer = await self._relay(scope, name, request)
        await send_json(send, status, answer)

    async def _relay(self, scope: Scope, name: str, request: Any) -> tuple[int, dict[str, Any]]:
        if not _is_request(request):
            return 400, {"message": "invalid request"}
        if request["resourceName"] != name:
            return 500, {"message": f"Resource name mismatch: {request['resourceName']} <> {name}"}
        zone = request["zone"]
        address = (scope.get("client") or ("",))[0]
        may_ask = self._is_public(zone) or self._was_asked(zone, request["request"], address)
        # the resources of closed zones are not there for those who prove nothing
        seen = {
            each: found
            for each, found in self._registry.named(name).items()
            if (may_ask if each == zone else self._is_public(each))
        }
        if not seen:
            if not may_ask:
                why = f"zone {zone[:200]} is not open for requests without a signature, or there is no such zone here"
                return 403, {"message": why}
            if self._knows is not None and await self._knows(zone, name):
                return 200, _failed(f"the resource {name} of this zone is not connected")
            return 404, {"message": f"resource not found: {name}"}
        resource = seen.get(zone)
        if resource is None:
            return 500, {"message": f"Zone mismatch: {zone} <> {next(iter(seen))}"}
        if "requestId" in request:
            return 400, {"message": "requestId field not allowed"}
        seconds = min(max(0.0, request["timeoutMsec"] / 1000), LONGEST_WAIT)
        try:
            with self._waiting.place(address):
                answer = await resource.answer(request, seconds)
        except (TimedOut, Gone) as error:
            if self._knows is not None:
                return 200, _failed(error.message)
            gone = isinstance(error, Gone)
            return 504, {"message": f"resource disconnected: {name}" if gone else "timeout waiting for response"}
        except Unreachable as error:
            return 503, {"message": error.message}
        if answer.response is None or answer.response is False or answer.response in (0, ""):
            return 504, {"message": "timeout waiting for response"}
        envelope = {"type": "responseToClient", "requestId": answer.request_id, "response": answer.response}
        return 200, envelope if answer.error is None else {**envelope, "error": answer.error}

    def _was_asked(self, zone: str, request: Any, address: str) -> bool:
        uri = request.get("uri") if isinstance(request, dict) else None
        if self._asked is None or not isinstance(uri, str) or not uri.startswith("sha1://"):
            return False
        return self._asked.again(zone, uri.removeprefix("sha1://"), address)

    # -- resources ----------------------------------------------------------------------------------------------------

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Speak with one resource, until it leaves or breaks a rule."""
        socket = Socket(scope, receive, send)
        resource: _Resource | None = None
        try:
            await socket.accept()
            resource = await self._introduced(socket)
            if resource is not None:
                await socket.send({"type": "acknowledge"})
                self._log.info("resource_connected", resource=resource.name, zone=resource.zone)
                if self._remember is not None:
                    await self._remember(resource.zone, resource.name)
                while True:
                    why = resource.take(await socket.receive(_SILENCE))
                    if why is not None:
                        self._log.warning("resource_refused", resource=resource.name, reason=why)
                        await socket.close(REFUSED, why)
                        return
        except BadReply:
            name = resource.name if resource is not None else "?"
            self._log.warning("resource_refused", resource=name, reason="a message is not a JSON object")
            await socket.close(REFUSED, "a message is not a JSON object")
        except Unreachable as error:
            self._log.info("resource_gone", resource=resource.name if resource else "?", reason=error.message)
            await socket.close()
        finally:
            if resource is not None:
                self._registry.remove(resource)
                resource.leave()

    async def _introduced(self, socket: Socket) -> _Resource | None:
        message = await socket.receive(_INTRODUCTION)
        name = ""
        if not _is_initialize(message):
            why = "Expected initialize message from websocket"
        elif not hmac.compare_digest(message["proxySecret"].encode("utf-8", "replace"), self._secret.encode()):
            why, name = "Incorrect proxy secret", message["resourceName"]
        else:
            name = message["resourceName"]
            resource = _Resource(name, message["zone"], socket)
            if await self._registry.add(resource):
                return resource
            why = f"Resource already exists: {name}"
        self._log.warning("resource_refused", resource=name[:200], reason=why[:300])
        await socket.close(REFUSED, why)
        return None


class _Resource(Connected):
    """A published daemon that is connected."""

    def __init__(self, name: str, zone: str, socket: Socket) -> None:
        super().__init__(name, zone)
        self._socket = socket
        self._pending: dict[str, asyncio.Future[Answer]] = {}
        self._closing: asyncio.Task[None] | None = None

    async def answer(self, message: dict[str, Any], seconds: float) -> Answer:
        """The answer to a `requestFromClient`."""
        request_id = "".join(secrets.choice(_LETTERS) for _ in range(10))
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = answered
        try:
            async with asyncio.timeout(seconds):
                await self._socket.send({**message, "requestId": request_id})
                return await answered
        except TimeoutError:
            raise TimedOut(f"the resource {self.name} did not answer in time") from None
        finally:
            del self._pending[request_id]

    def take(self, message: dict[str, Any]) -> str | None:
        """Take a message of the daemon; says why it is refused, if it is."""
        match message.get("type"):
            case "ping" if len(message) == 1:
                return None
            case "initialize" if _is_initialize(message):
                return f"Websocket already initialized: {self.name}"
            case "responseToClient" if _is_response(message):
                request_id = message.get("requestId")
                if request_id is None:
                    return f"No requestId in message from websocket. Closing {self.name}"
                waiting = self._pending.get(request_id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(Answer(request_id, message["response"], message.get("error")))
                return None
            case _:
                return f"Unexpected message from resource. Closing {self.name}"

    def dismiss(self, reason: str) -> None:
        """Close its connection, with the reason in the close frame."""
        self._closing = asyncio.create_task(self._socket.close(REFUSED, reason))

    def leave(self) -> None:
        """Tell everybody who waits that there will be no answer."""
        for waiting in self._pending.values():
            if not waiting.done():
                waiting.set_exception(Gone(f"the resource {self.name} has disconnected"))


def _failed(reason: str) -> dict[str, Any]:
    status = {"status": "error", "error": reason}
    return {"type": "responseToClient", "response": {"type": "fileUpload", "status": status}}


def _name_in(scope: Scope) -> str | None:
    raw = scope.get("raw_path") or scope["path"].encode()
    parts = raw.split(b"?")[0].split(b"/")
    if len(parts) == 4 and not parts[3]:
        parts.pop()
    if len(parts) != 3 or parts[:2] != [b"", b"r"] or not parts[2]:
        return None
    return unquote_to_bytes(parts[2]).decode("utf-8", "replace")


def _parse(content: bytes) -> Any:
    value = json.loads(content, parse_constant=_refuse) if content.strip() else {}
    if not isinstance(value, dict | list):
        raise ValueError("neither an object nor an array")
    return value


def _refuse(text: str) -> None:
    raise ValueError(text)


def _is_initialize(message: dict[str, Any]) -> bool:
    texts = all(isinstance(value, str) for value in message.values())
    return texts and set(message) == _INITIALIZE and message["type"] == "initialize"


def _is_request(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _REQUEST <= set(value) <= _REQUEST | {"requestId"}
        and value["type"] == "requestFromClient"
        and isinstance(value["resourceName"], str)
        and isinstance(value["zone"], str)
        and isinstance(value["timeoutMsec"], int | float)
        and not isinstance(value["timeoutMsec"], bool)
        and isinstance(value.get("requestId", ""), str)
    )


def _is_response(message: dict[str, Any]) -> bool:
    return (
        {"type", "response"} <= set(message) <= {"type", "requestId", "response", "error"}
        and isinstance(message.get("requestId", ""), str)
        and isinstance(message.get("error", ""), str)
    )


async def _send_page(send: Send, status: int, text: str, *, close: bool = False) -> None:
    shown = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    page = f'<!DOCTYPE html>\n<html lang="en">\n<title>Error</title>\n<pre>{shown}</pre>\n</html>\n'
    closing = [(b"connection", b"close")] if close else []
    headers = [(b"content-security-policy", b"default-src 'none'"), *closing]
    await send_bytes(send, status, page.encode("utf-8", "replace"), b"text/html; charset=utf-8", headers)
