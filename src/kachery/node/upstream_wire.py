"""Upstream's protocol between a resource and its proxy, in the resource's role.

Each message is one text frame with one JSON object. An object with a key too many or too few is not a message.

| direction | message | keys beside `type` |
|---|---|---|
| R→P | `initialize` | `resourceName`, `zone`, `proxySecret` |
| P→R | `acknowledge` | |
| R→P | `ping` | every 20 s once acknowledged; never answered |
| P→R | `requestFromClient` | `resourceName`, `zone`, `request`, `timeoutMsec`, `requestId` |
| R→P | `responseToClient` | `requestId`, `response`, `error?` |

The inner request is `{"type": "fileUpload", "uri": "sha1://HASH", "timeoutMsec": …}`, the inner response
`{"type": "fileUpload", "status": {…}}`. A proxy that refuses closes the connection without a word. That the proxy is
still there is seen by pings of the WebSocket protocol, which every server answers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from typing import TYPE_CHECKING, Any

from ..errors import BadReply, NotAllowed, TimedOut

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.asyncio.client import ClientConnection

    from .config import ResourceConfig
    from .jobs import Jobs

logger = logging.getLogger(__name__)

#: How often the proxy hears of us, in seconds.
PING_EVERY = 20.0

#: The longest message that is taken, in bytes; a proxy takes no request above 100 KiB.
LONGEST_MESSAGE = 256 * 1024

#: Requests that may wait for their answers at once.
MOST_REQUESTS = 1000

# how long a proxy may take to acknowledge, in seconds
_PATIENCE = 20.0

# the longest that a request may wait for a file's end, in seconds
_LONGEST_WAIT = 600.0

_REQUEST_KEYS = {"type", "resourceName", "zone", "request", "timeoutMsec", "requestId"}


async def serve(socket: ClientConnection, config: ResourceConfig, jobs: Jobs, ready: Callable[[], None]) -> None:
    """Answer requests until the connection ends.

    Args:
        socket: A connection to the proxy.
        config: The resource.
        jobs: What brings the files.
        ready: Called when the proxy has acknowledged us.

    Raises:
        TimedOut: If the proxy says nothing at the beginning.
        NotAllowed: If it ends the connection instead of acknowledging us.
        BadReply: If it says something else.
        ConnectionClosed: When the connection ends.
    """
    from websockets.exceptions import ConnectionClosed

    await socket.send(_text(_initialize(config)))
    try:
        async with asyncio.timeout(_PATIENCE):
            first = _parse(await socket.recv())
    except TimeoutError:
        raise TimedOut("the relay did not acknowledge this resource in time") from None
    except ConnectionClosed as error:
        raise NotAllowed(
            "the relay hung up before it acknowledged this resource",
            hint="check proxySecret and resourceName: a wrong secret and a name in use both look like this",
        ) from error
    if first != {"type": "acknowledge"}:
        raise BadReply("the relay did not begin with an acknowledgement", hint="check proxyUrl")
    ready()
    async with asyncio.TaskGroup() as group:
        group.create_task(_ping(socket))
        await _answer_all(socket, config, jobs, group)


def _initialize(config: ResourceConfig) -> dict[str, str]:
    hello = {"type": "initialize", "resourceName": config.name, "zone": config.zone}
    # without a secret it is left out, and the proxy hangs up
    return hello if config.secret is None else {**hello, "proxySecret": config.secret}


async def _ping(socket: ClientConnection) -> None:
    while True:
        await asyncio.sleep(PING_EVERY)
        await socket.send(_text({"type": "ping"}))


async def _answer_all(socket: ClientConnection, config: ResourceConfig, jobs: Jobs, group: asyncio.TaskGroup) -> None:
    waiting = 0

    async def answer(request: dict[str, Any]) -> None:
        nonlocal waiting
        waiting += 1
        try:
            try:
                reply = await _reply(request, config, jobs)
            except Exception as error:
                logger.exception("a request could not be answered resource=%s", config.name)
                reply = {"response": {}, "error": f"Error handling request: {type(error).__name__}"}
            await socket.send(_text({"type": "responseToClient", "requestId": request["requestId"], **reply}))
        finally:
            waiting -= 1

    while True:
        message = _parse(await socket.recv())
        if not _is_request(message):
            logger.warning("a message that is not understood was ignored resource=%s", config.name)
        elif waiting >= MOST_REQUESTS:
            reply = {"response": {}, "error": f"{MOST_REQUESTS} requests wait at this resource; try again later"}
            await socket.send(_text({"type": "responseToClient", "requestId": message["requestId"], **reply}))
        else:
            group.create_task(answer(message))


async def _reply(message: dict[str, Any], config: ResourceConfig, jobs: Jobs) -> dict[str, Any]:
    request = message["request"]
    if not (
        isinstance(request, dict)
        and set(request) == {"type", "uri", "timeoutMsec"}
        and request["type"] == "fileUpload"
        and isinstance(request["uri"], str)
        and _is_number(request["timeoutMsec"])
    ):
        return {"response": {}, "error": "Invalid kachery resource request"}
    if message["zone"] != config.zone or message["resourceName"] != config.name:
        return {"response": {}, "error": "Error handling request: it is for another resource or zone"}
    parts = request["uri"].split("/")
    if len(parts) != 3 or parts[:2] != ["sha1:", ""] or len(parts[2]) != 40:
        return {"response": {}, "error": "Error handling request: Invalid URI"}
    patience = max(0.0, min(request["timeoutMsec"] / 1000, _LONGEST_WAIT))
    return {"response": {"type": "fileUpload", "status": await jobs.request(parts[2], patience)}}


def _is_request(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and set(message) == _REQUEST_KEYS
        and message["type"] == "requestFromClient"
        and all(isinstance(message[key], str) for key in ("resourceName", "zone", "requestId"))
        and _is_number(message["timeoutMsec"])
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _parse(frame: str | bytes) -> Any:
    try:
        return json.loads(frame)
    except (ValueError, RecursionError):
        raise BadReply("the relay sent a message that is not JSON") from None


def _text(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)
