"""Our wire for files on demand; `docs/on-demand.md` has the messages.

| request | answer |
|---|---|
| `GET /api/v1/relay` | 200, `{"kachery": "relay", "versions": [1], "socket": "/api/v1/resource", "gatewayKey": …}` |
| web socket `/api/v1/resource` | a daemon's control messages |
| `POST /api/v1/requests` | 200, `{"found": true, "size", "url", "resource"}` or `{"found": false, "reasons": …, …}` |

A request is `{"payload": {"type": "requestFile", "zone", "hash", "timestamp"}}`, signed like any request, or without
`fromClientId` and `signature` in zones that are public for download. Asking again is harmless.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ... import names, signing
from ...digest import is_hash
from ...errors import BadReply, InvalidInput, KacheryError, NotAllowed, TimedOut, Unreachable
from ..http import host_of, read_json
from ..receiving import now
from ..relay.connected import PRESENCE, Answer
from ..relay.on_demand import OFFER_PATIENCE, Daemon, NotOffered, Offer
from ..services import resources, zones
from ..services.identity import caller as caller_of
from ..sockets import REFUSED, Socket
from ..tokens import DOWNLOAD_LIFETIME, DownloadToken
from .cloud import authenticate, require_download

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sqlalchemy import Connection
    from starlette.types import Receive, Scope, Send

    from ..relay.delivery import Send as RangeToSend
    from ..runtime import Gateway

VERSION = 1
SOCKET_PATH = "/api/v1/resource"

# Seconds: within which a daemon introduces itself, between two pings, and without a word after which it is gone
_INTRODUCTION = 30.0
_PING = 20.0
_SILENCE = 60.0

# What one daemon may send at once, whatever it says
_MOST_SLOTS = 16

_URI = re.compile(r"sha1://([0-9a-f]{40})")


class OnDemandDialect:
    """The web socket of daemons, and the requests of clients.

    Args:
        gateway: The gateway it serves.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def describe(self) -> dict[str, Any]:
        """What this relay is, for a daemon that wants to know which wire to speak."""
        key = self._gateway.relay_keys.client_id
        return {"kachery": "relay", "versions": [VERSION], "socket": SOCKET_PATH, "gatewayKey": key}

    # -- clients ------------------------------------------------------------------------------------------------------

    async def request(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        """Answer a client that wants a file.

        Raises:
            InvalidInput: If the request has another form.
            NotAllowed, NotRegistered: If the caller may not download from the zone.
            Unreachable: If too many wait.
        """
        gateway = self._gateway
        request = await read_json(receive)
        payload = _require_request(request)
        client_id = authenticate(request, now())
        zone, caller, size = await gateway.database.read(require_download, payload["zone"], payload["hash"], client_id)
        sha1 = payload["hash"]
        expires = now() // 1000 + DOWNLOAD_LIFETIME
        base = gateway.config.base_url(scope["scheme"], host_of(scope))

        def address(size: int, kind: str) -> str:
            token = DownloadToken(zone.name, sha1, size, caller.user_number, expires, kind == "o")
            return f"{base}/transfer/{kind}/{gateway.signer.download(token)}/{sha1}"

        if size is not None:
            return {"found": True, "size": size, "url": address(size, "d")}
        with gateway.waiting.place((scope.get("client") or ("",))[0]):
            found = await gateway.on_demand.find(zone, sha1)
        if isinstance(found, NotOffered):
            return {
                "found": False,
                "reasons": found.reasons,
                "offline": found.offline,
                "elsewhere": [
                    *(f"{base}/r/{quote(name, safe='')}" for name in found.of_upstream if zone.public_download),
                    *found.elsewhere,
                ],
            }
        return {"found": True, "size": found.size, "url": address(found.size, "o"), "resource": found.resource}

    # -- other processes of this gateway ------------------------------------------------------------------------------

    async def find(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What the daemons of this process offer."""
        zone = await self._gateway.database.read(zones.find, asked["zone"])
        if zone is None or not is_hash("sha1", asked["hash"]):
            return {"found": False, "reasons": []}
        found = await self._gateway.on_demand.find_here(zone, asked["hash"])
        if isinstance(found, NotOffered):
            return {"found": False, "reasons": found.reasons}
        return {"found": True, "size": found.size, "resource": found.resource}

    async def held(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The size of a file that was brought to this process and is not in its zone."""
        return {"size": self._gateway.on_demand.held(asked["zone"], asked["hash"])}

    # -- daemons ------------------------------------------------------------------------------------------------------

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Speak with one daemon, until it leaves or breaks a rule."""
        gateway = self._gateway
        socket = Socket(scope, receive, send)
        daemon: _Daemon | None = None
        chores: asyncio.Task[None] | None = None
        try:
            await socket.accept()
            daemon, keep = await self._introduced(scope, socket)
            await socket.send({"type": "welcome", "gatewayKey": gateway.relay_keys.client_id, "keep": keep})
            gateway.log.info("resource_connected", resource=daemon.name, zone=daemon.zone, owner=daemon.owner)
            chores = asyncio.create_task(_ping(socket))
            while True:
                message = await socket.receive(_SILENCE)
                daemon.heard()
                self._take(daemon, message)
        except (BadReply, InvalidInput, NotAllowed) as error:
            gateway.log.warning("resource_refused", resource=daemon.name if daemon else "?", reason=error.message)
            await _refuse(socket, error)
        except Unreachable as error:
            gateway.log.info("resource_gone", resource=daemon.name if daemon else "?", reason=error.message)
            await socket.close()
        finally:
            if chores is not None:
                chores.cancel()
            if daemon is not None:
                gateway.on_demand.disconnect(daemon)
                daemon.leave()

    async def _introduced(self, scope: Scope, socket: Socket) -> tuple[_Daemon, bool]:
        gateway = self._gateway
        challenge = secrets.token_hex(16)
        await socket.send({"type": "challenge", "challenge": challenge})
        hello = _require_hello(await socket.receive(_INTRODUCTION))
        zone, owner = await self._require_right(hello, challenge)
        slots = max(1, min(_MOST_SLOTS, hello["maxConcurrentUploads"]))
        scheme = {"ws": "http", "wss": "https"}[scope["scheme"]]
        base = gateway.config.base_url(scheme, host_of(scope))
        daemon = _Daemon(gateway, hello["resource"], zone, slots, owner, socket, base)
        if not await gateway.on_demand.connect(daemon):
            raise NotAllowed(
                f"a resource {daemon.name!r} of zone {zone.name!r} is connected already",
                hint="end the other daemon, or choose another name",
            )
        return daemon, zone.keep_on_demand

    async def _require_right(self, hello: dict[str, Any], challenge: str) -> tuple[zones.Zone, str]:
        gateway = self._gateway
        zone = await gateway.database.read(zones.find, hello["zone"])
        name = names.component(hello["resource"], "resource name")
        if "proxySecret" in hello:
            given = hello["proxySecret"].encode("utf-8", "replace")
            if zone is None or not hmac.compare_digest(given, gateway.proxy_secret.encode()):
                raise NotAllowed("the proxy secret is wrong, or there is no such zone here")
            known = await gateway.database.read(resources.find, zone.name, name)
            if known is None:
                await gateway.database.write(resources.remember, zone.name, name, now())
            return zone, known.owner if known is not None else zone.owner
        signed = {"type": "hello", "resource": name, "zone": hello["zone"], "challenge": challenge}
        client_id = hello["clientId"].lower()
        if not signing.verify(client_id, signed, hello["signature"]):
            raise NotAllowed("invalid signature")

        def right(connection: Connection) -> str | None:
            caller = caller_of(connection, hello["zone"], client_id)
            return resources.sharer(connection, hello["zone"], name, caller, now())

        owner = None if zone is None else await gateway.database.write(right)
        if zone is None or owner is None:
            raise NotAllowed(
                f"client {client_id[:8]}… may not share as {name[:200]!r} in zone {hello['zone'][:200]!r}",
                hint="an administrator of the zone may, and whom `kachery admin resource add` named as owner",
            )
        return zone, owner

    def _take(self, daemon: _Daemon, message: dict[str, Any]) -> None:
        match message:
            case {"type": "ping"}:
                daemon.post({"type": "pong"})
            case {"type": "pong"}:
                pass
            case {"type": "offered", "id": str(offer), "found": bool(found)}:
                size, reason = message.get("size", 0), message.get("reason") or ""
                if type(size) is not int or not 0 <= size < 2**63 or not isinstance(reason, str):
                    raise BadReply("offered: size is a number of bytes, reason a text")
                daemon.offered(offer, Offer(found, size, reason[:300]))
            case {"type": "failed", "id": str(send), "reason": str(reason)}:
                self._gateway.on_demand.not_sent(daemon, send, reason)
            case _:
                raise BadReply(f"not a message that a daemon sends: {str(message.get('type'))[:40]!r}")


class _Daemon(Daemon):
    """A daemon of ours that is connected."""

    def __init__(
        self, gateway: Gateway, name: str, zone: zones.Zone, slots: int, owner: str, socket: Socket, base: str
    ) -> None:
        super().__init__(name, zone.name, slots, owner)
        self._gateway = gateway
        self._socket = socket
        self._base = base
        self._offers: dict[str, asyncio.Future[Offer]] = {}
        self._posting: set[asyncio.Task[None]] = set()
        self._speaking = asyncio.Event()

    async def offer(self, sha1: str) -> Offer:
        """Ask whether it has a file."""
        offer = secrets.token_hex(16)
        request = {
            "type": "offer",
            "zone": self.zone,
            "resource": self.name,
            "hash": sha1,
            "timestamp": now(),
            "nonce": secrets.token_hex(16),
        }
        signature = self._gateway.relay_keys.sign(request)
        answered: asyncio.Future[Offer] = asyncio.get_running_loop().create_future()
        self._offers[offer] = answered
        try:
            async with asyncio.timeout(OFFER_PATIENCE):
                await self._socket.send(
                    {"type": "offer", "id": offer, "hash": sha1, "request": request, "signature": signature}
                )
                return await answered
        except TimeoutError:
            raise TimedOut(f"it did not answer within {OFFER_PATIENCE:.0f} s") from None
        finally:
            del self._offers[offer]

    def offered(self, offer: str, content: Offer) -> None:
        """Take its answer; one that nobody waits for any more is forgotten."""
        waiting = self._offers.get(offer)
        if waiting is not None and not waiting.done():
            waiting.set_result(content)

    def tell_to_send(self, send: RangeToSend) -> None:
        """Have it send a range, without waiting."""
        self.post(
            {
                "type": "send",
                "id": send.id,
                "hash": send.delivery.sha1,
                "start": send.start,
                "end": send.end,
                "url": f"{self._base}/transfer/s/{send.id}",
            }
        )

    async def answer(self, message: dict[str, Any], seconds: float) -> Answer:
        """The answer to a `requestFromClient`: as upstream's daemon gives it, while we bring the file into the zone."""
        request_id = secrets.token_hex(5)
        inner = message["request"]
        if not _is_file_upload(inner):
            return Answer(request_id, {}, "Invalid kachery resource request")
        uri = _URI.fullmatch(inner["uri"])
        if uri is None:
            return Answer(request_id, {}, "Error handling request: Invalid URI")
        started = time.monotonic()
        # what the client wants the resource to wait, within what it wants the relay to wait
        wait = min(max(0.0, inner["timeoutMsec"] / 1000), max(0.0, seconds - 1.0))
        try:
            async with asyncio.timeout(seconds):
                status = await self._gateway.on_demand.upload_status(self.zone, uri[1], wait)
        except TimeoutError:
            raise TimedOut(f"no answer for {time.monotonic() - started:.0f} s") from None
        except KacheryError as error:
            return Answer(request_id, {}, f"Error handling request: {error.message}")
        return Answer(request_id, {"type": "fileUpload", "status": status})

    def heard(self) -> None:
        """Take note that it said something."""
        self._speaking.set()

    async def is_there(self) -> bool:
        """Whether it still answers a ping."""
        self._speaking.clear()
        try:
            async with asyncio.timeout(PRESENCE):
                await self._socket.send({"type": "ping"})
                await self._speaking.wait()
        except (TimeoutError, Unreachable):
            return False
        return True

    def dismiss(self, reason: str) -> None:
        """Tell it why it is connected no more, and close its connection."""
        self._in_background(_refuse(self._socket, NotAllowed(reason)))

    def post(self, message: dict[str, Any]) -> None:
        """Send a message without waiting; a daemon that takes none is found out by its silence."""
        self._in_background(self._post(message))

    def _in_background(self, action: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(action)
        self._posting.add(task)
        task.add_done_callback(self._posting.discard)

    async def _post(self, message: dict[str, Any]) -> None:
        try:
            await self._socket.send(message)
        except Unreachable:
            await self._socket.close()

    def leave(self) -> None:
        """Tell everybody who waits that there will be no answer."""
        for waiting in self._offers.values():
            if not waiting.done():
                waiting.set_exception(Unreachable("it has disconnected"))


async def _ping(socket: Socket) -> None:
    try:
        while True:
            await asyncio.sleep(_PING)
            await socket.send({"type": "ping"})
    except Unreachable:
        await socket.close()


async def _refuse(socket: Socket, error: KacheryError) -> None:
    try:
        await socket.send({"type": "refused", "reason": str(error)})
    except Unreachable:
        return
    await socket.close(REFUSED, error.message)


def _require_request(request: Any) -> dict[str, Any]:
    payload = request.get("payload") if isinstance(request, dict) else None
    if (
        not isinstance(payload, dict)
        or not set(request) <= {"payload", "fromClientId", "signature"}
        or not all(isinstance(request[key], str) for key in set(request) - {"payload"})
        or set(payload) != {"type", "zone", "hash", "timestamp"}
        or payload["type"] != "requestFile"
        or not isinstance(payload["zone"], str)
        or type(payload["timestamp"]) is not int
    ):
        raise InvalidInput(
            "not a request for a file", hint="payload (type, zone, hash, timestamp), fromClientId and signature"
        )
    if not isinstance(payload["hash"], str) or not is_hash("sha1", payload["hash"]):
        raise InvalidInput(f"not a SHA-1 hash: {str(payload['hash'])[:80]!r}", hint="40 lower-case hex digits")
    return payload


def _require_hello(message: dict[str, Any]) -> dict[str, Any]:
    common = {"type", "version", "resource", "zone", "maxConcurrentUploads"}
    proof = set(message) - common
    numbers = {"version", "maxConcurrentUploads"}
    if (
        not common <= set(message)
        or proof not in ({"proxySecret"}, {"clientId", "signature"})
        or message["type"] != "hello"
        or not all(type(message[key]) is int for key in numbers)
        or not all(isinstance(message[key], str) for key in set(message) - numbers)
    ):
        raise BadReply("the first message is not a hello")
    if message["version"] != VERSION:
        raise BadReply(f"this relay speaks version {VERSION}", hint="use a kachery of the same age at both ends")
    return message


def _is_file_upload(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"type", "uri", "timeoutMsec"}
        and value["type"] == "fileUpload"
        and isinstance(value["uri"], str)
        and isinstance(value["timeoutMsec"], int | float)
        and not isinstance(value["timeoutMsec"], bool)
    )
