"""Our own protocol between a daemon and a relay, in the daemon's role; `docs/on-demand.md` has all of it.

| direction | message | keys beside `type` |
|---|---|---|
| R→D | `challenge` | `challenge` |
| D→R | `hello` | `version`, `resource`, `zone`, `maxConcurrentUploads`; `proxySecret`, or `clientId` and `signature` |
| R→D | `welcome`, `refused` | `gatewayKey`, `keep`; `reason` |
| R→D | `offer` | `id`, `hash`, `request`, `signature` |
| D→R | `offered` | `id`, `found`, `size?`, `reason?` |
| R→D | `send` | `id`, `hash`, `start`, `end`, `url` |
| D→R | `failed` | `id`, `reason` |
| both | `ping`, `pong` | |

Bytes go out as `PUT` requests, read from the disk in pieces. Before each piece leaves, the file must look as it did
when it was verified; if it does not, the request is broken off and `failed` says why.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .. import http, transfer
from ..errors import (
    BadReply,
    Conflict,
    KacheryError,
    NotAllowed,
    NotConfigured,
    NotFound,
    SourceChanged,
    TimedOut,
    Unreachable,
)
from .jobs import Ended
from .sharing import CHANGED
from .threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from websockets.asyncio.client import ClientConnection

    from ..signing import ClientKeys
    from .config import ResourceConfig
    from .requests import Requests
    from .sharing import Shared, Sharing

logger = logging.getLogger(__name__)

VERSION = 1

#: Where a relay of ours tells that it is one, and where daemons connect.
PROBE = "/api/v1/relay"
CONNECT = "/api/v1/resource"

#: How often the relay hears of us, and when a silent relay is given up, in seconds.
PING_EVERY = 20.0
SILENCE = 60.0

#: The longest message that is taken, in bytes.
LONGEST_MESSAGE = 64 * 1024

#: Offers and ranges that may be under way or wait at once.
MOST_WAITING = 1000

# the relay waits 10 s for an answer; a file that takes longer to verify is told to come later
_VERIFYING = 8.0

_PATIENCE = 20.0

_CHALLENGE = re.compile("[0-9a-f]{32}")
_KEY = re.compile("[0-9a-f]{64}")

_LATER = "the file looks different from when it was linked, and is being read again; ask again in a moment"


class Session:
    """One connection to a relay.

    Args:
        socket: The connection.
        config: The resource.
        sharing: What it shares.
        requests: What was asked for, over all connections.
        keys: This machine's client, for a resource without a secret.
    """

    def __init__(
        self,
        socket: ClientConnection,
        config: ResourceConfig,
        sharing: Sharing,
        requests: Requests,
        keys: ClientKeys | None,
    ) -> None:
        self._socket = socket
        self._config = config
        self._sharing = sharing
        self._requests = requests
        self._keys = keys
        self._gateway_key = ""
        self._slots = asyncio.Semaphore(config.uploads)
        self._waiting = 0
        self._ended = threading.Event()

    async def serve(self, ready: Callable[[str], None]) -> None:
        """Answer offers and send bytes until the connection ends.

        Args:
            ready: Called with the gateway's key when the relay has welcomed us.

        Raises:
            NotAllowed: If the relay refuses us, or signs with another key than the one that is known.
            NotConfigured: If there is neither a secret nor a key pair to prove who we are.
            TimedOut: If the relay falls silent.
            BadReply: If it says what the protocol does not know.
            ConnectionClosed: When the connection ends.
        """
        self._gateway_key = await self._introduce()
        ready(self._gateway_key)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ping())
                while True:
                    await self._obey(await self._hear(SILENCE), group)
        finally:
            # what is being sent stops at its next piece
            self._ended.set()

    async def _introduce(self) -> str:
        challenge = _exactly(await self._hear(_PATIENCE), "challenge", "challenge")["challenge"]
        if not isinstance(challenge, str) or not _CHALLENGE.fullmatch(challenge):
            raise BadReply("the relay's challenge is none")
        config = self._config
        who: dict[str, Any]
        if config.secret is not None:
            who = {"proxySecret": config.secret}
        elif self._keys is not None:
            signed = {"type": "hello", "resource": config.name, "zone": config.zone, "challenge": challenge}
            who = {"clientId": self._keys.client_id, "signature": self._keys.sign(signed)}
        else:
            raise NotConfigured(
                "this resource has no proxySecret and this machine no client keys", hint="run `kachery init`"
            )
        await self._say(
            type="hello",
            version=VERSION,
            resource=config.name,
            zone=config.zone,
            maxConcurrentUploads=config.uploads,
            **who,
        )
        answer = await self._hear(_PATIENCE)
        if answer.get("type") == "refused":
            reason = str(_exactly(answer, "refused", "reason")["reason"])[:500]
            raise NotAllowed(f"the relay refuses this resource: {reason}")
        key = _exactly(answer, "welcome", "gatewayKey", "keep")["gatewayKey"]
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise BadReply("the relay does not say with which key requests are signed")
        if config.gateway_key is not None and key != config.gateway_key:
            raise NotAllowed(
                "the gateway signs with another key than the one that this machine knows",
                hint=f"if its administrator says that it was replaced, remove gatewayKey from {config.path}",
            )
        return key

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_EVERY)
            await self._say(type="ping")

    async def _obey(self, message: dict[str, Any], group: asyncio.TaskGroup) -> None:
        match message.get("type"):
            case "ping":
                await self._say(type="pong")
            case "pong":
                pass
            case "offer":
                _exactly(message, "offer", "id", "hash", "request", "signature")
                if self._has_room(message):
                    group.create_task(self._counted(self._offer(message)))
                else:
                    await self._say(type="offered", id=message["id"], found=False, reason="too busy; ask again later")
            case "send":
                _exactly(message, "send", "id", "hash", "start", "end", "url")
                # a relay asks for so many at once as `hello` said
                if not self._has_room(message):
                    raise BadReply(f"the relay asks for more than {MOST_WAITING} ranges at once")
                group.create_task(self._counted(self._send(message)))
            case kind:
                logger.warning("ignored message=%.40r resource=%s", kind, self._config.name)

    def _has_room(self, message: dict[str, Any]) -> bool:
        if not isinstance(message["id"], str) or len(message["id"]) > 64:
            raise BadReply("the relay sent a message whose id is none")
        return self._waiting < MOST_WAITING

    async def _counted(self, action: Any) -> None:
        self._waiting += 1
        try:
            await action
        finally:
            self._waiting -= 1

    # -- offers -------------------------------------------------------------------------------------------------------

    async def _offer(self, message: dict[str, Any]) -> None:
        hash_ = message["hash"]
        answer: dict[str, Any]
        try:
            self._requests.check(message["request"], message["signature"], hash_, self._gateway_key)
            async with asyncio.timeout(_VERIFYING):
                shared = await in_thread(self._sharing.open, hash_, unwanted=_close)
            _close(shared)
            answer = {"found": True, "size": shared.size}
            logger.info(
                "offered sha1=%s size=%d path=%r resource=%s", hash_, shared.size, shared.path, self._config.name
            )
        except NotFound:
            answer = {"found": False}
        except KacheryError as error:
            # which file it was is for this machine's log alone
            logger.warning("not offered sha1=%.40s resource=%s: %s", hash_, self._config.name, error)
            answer = {"found": False, "reason": error.message}
        except TimeoutError:
            answer = {"found": False, "reason": _LATER}
        except Exception as error:
            logger.exception("not offered sha1=%.40s", hash_)
            answer = {"found": False, "reason": f"a mistake in kachery: {type(error).__name__}"}
        await self._say(type="offered", id=message["id"], **answer)

    # -- bytes --------------------------------------------------------------------------------------------------------

    async def _send(self, message: dict[str, Any]) -> None:
        try:
            hash_, start, end, url = (message[key] for key in ("hash", "start", "end", "url"))
            if not self._requests.may_send(hash_):
                raise NotAllowed("nobody has asked for this file with a signed request")
            if not all(isinstance(value, int) and not isinstance(value, bool) for value in (start, end)):
                raise NotAllowed("start and end of the range are not numbers")
            address = self._address(url)
            async with self._slots:
                began = time.monotonic()
                shared = await in_thread(self._sharing.open, hash_, unwanted=_close)
                await in_thread(self._put, shared, start, end, address)
            seconds = max(time.monotonic() - began, 1e-6)
            logger.debug(
                "sent sha1=%s start=%d end=%d seconds=%.2f rate=%.0fMB/s resource=%s",
                *(hash_, start, end, seconds, (end - start) / seconds / 1e6, self._config.name),
            )
        except (Conflict, Ended):
            return
        except Unreachable as error:
            # the relay sees it, too, and asks again
            logger.warning("broke off sha1=%.40s resource=%s: %s", message["hash"], self._config.name, error)
        except KacheryError as error:
            logger.warning("not sent sha1=%.40s resource=%s: %s", message["hash"], self._config.name, error)
            reason = CHANGED if isinstance(error, SourceChanged) else error.message
            await self._say(type="failed", id=message["id"], reason=reason)
        except Exception as error:
            logger.exception("not sent sha1=%.40s", message["hash"])
            await self._say(type="failed", id=message["id"], reason=f"a mistake in kachery: {type(error).__name__}")

    def _address(self, url: object) -> str:
        if not isinstance(url, str) or len(url) > 8192:
            raise NotAllowed("the address to send to is none")
        parts = urlsplit(url)
        if not parts.path.startswith("/") or any(ord(character) <= 32 for character in url):
            raise NotAllowed("the address to send to is none")
        # only ever to the relay that this machine's owner chose, whatever the message says
        own = urlsplit(self._config.relay)
        return f"{own.scheme}://{own.netloc}{parts.path}" + (f"?{parts.query}" if parts.query else "")

    def _put(self, shared: Shared, start: int, end: int, address: str) -> None:
        """Send a range; in a thread."""
        try:
            if not (0 <= start < end <= shared.size or (start, end, shared.size) == (0, 0, 0)):
                raise NotAllowed(f"there are no bytes {start} to {end} in a file of {shared.size}")
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(end - start),
                "Content-Range": f"bytes {start}-{end - 1}/{shared.size}" if end else "bytes */0",
            }
            body = self._pieces(shared, start, end) if end else b""
            reply = http.exchange("PUT", address, body=body, headers=headers)
            reply.raise_if_busy()
        except EOFError as error:
            raise SourceChanged(CHANGED) from error
        except Unreachable:
            # an error of the file system in the body looks to the HTTP library like one of the connection
            shared.require_unchanged()
            raise
        finally:
            _close(shared)
        if reply.status in (404, 409, 410):
            raise Conflict(f"nobody waits for bytes {start} to {end} any more")
        if reply.status not in (200, 201, 204):
            raise Unreachable(f"the relay did not take the bytes (HTTP {reply.status}): {reply.text}")

    def _pieces(self, shared: Shared, start: int, end: int) -> Iterator[memoryview]:
        for piece in transfer.pieces(shared.fd, start, end, lambda _: None):
            shared.require_unchanged()
            if self._ended.is_set():
                raise Ended("the connection to the relay has ended")
            yield piece

    # -- messages -----------------------------------------------------------------------------------------------------

    async def _say(self, **message: Any) -> None:
        await self._socket.send(json.dumps(message, separators=(",", ":")))

    async def _hear(self, patience: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(patience):
                frame = await self._socket.recv()
        except TimeoutError:
            raise TimedOut(f"the relay said nothing for {patience:.0f} s") from None
        try:
            message = json.loads(frame)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise BadReply("the relay sent a message that is no JSON object")
        return message


def _exactly(message: dict[str, Any], kind: str, *keys: str) -> dict[str, Any]:
    if message.get("type") != kind or set(message) != {"type", *keys}:
        raise BadReply(f"the relay sent something else than a {kind}, or not as the protocol has it")
    return message


def _close(shared: Shared) -> None:
    with suppress(OSError):
        os.close(shared.fd)
