"""The addresses that bytes travel over.

| request | answer |
|---|---|
| `PUT /transfer/u/TOKEN` with the whole file | 200 if size and SHA-1 are right, else 422 and nothing is kept |
| `PUT /transfer/u/TOKEN` with `Content-Range: bytes FIRST-LAST/SIZE` | 200; parts come in any order, several at once |
| `GET /transfer/u/TOKEN` | 200, `{"size": N, "received": [[start, end), …]}` |
| `GET`, `HEAD /transfer/d/TOKEN/HASH`, with or without `Range` | 200, 206 or 416 |
| `GET`, `HEAD /transfer/o/TOKEN/HASH`, as above | the same of a file that a resource brings meanwhile |
| `PUT /transfer/s/SEND` with `Content-Range` | 200: a daemon has sent the range that it was told to |

Where several processes are one gateway, one that lacks what a request needs passes it on to the one that has it.

Callers take the addresses as they are; other answers carry one line of text. Content is always an attachment of unknown
type: what somebody uploaded is never shown as a page of the gateway.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from ...errors import InvalidInput, KacheryError, NotFound, SourceChanged, Unreachable
from ..buckets import open_object
from ..forwarding import NOT_HERE, came_from
from ..http import DIRECT, PATIENCE, RequestBody, header, send_bytes, send_json, send_text
from ..receiving import now
from ..relay.on_demand import Brought, NotOffered
from ..services import files, zones
from ..streams import in_thread

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from ..buckets.contract import Reader
    from ..direct import Direct
    from ..exchange import Exchange
    from ..relay.delivery import Delivery
    from ..runtime import Gateway
    from ..tokens import DownloadToken, UploadToken

# What the event loop sends of a file at once
_PIECE = 256 * 1024

# What a thread sends at once: fewer turns, and larger pieces bring nothing more; `experiments/moving_bodies.py`
_DIRECT_PIECE = 1024 * 1024

# Downloads that have a thread each, with a buffer of that size; the others go through the event loop
_MOST_DIRECT = 16
_places = threading.BoundedSemaphore(_MOST_DIRECT)

CORS = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"Accept-Ranges, Content-Length, Content-Range, ETag"),
]
_PREFLIGHT = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, HEAD, PUT, OPTIONS"),
    (b"access-control-allow-headers", b"Content-Type, Content-Range, Range, If-Match, If-None-Match, If-Range"),
    (b"access-control-max-age", b"86400"),
]

# How often a file is looked for that another process brought a moment ago
_ATTEMPTS = 3

_CONTENT_RANGE = re.compile(rb"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_RANGE = re.compile(rb"bytes=(\d{0,19})-(\d{0,19})")


class Transfers:
    """The ASGI application under `/transfer/`.

    Args:
        gateway: The gateway it serves.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        body = RequestBody(receive, scope)
        method = scope["method"]
        try:
            if method == "OPTIONS":
                await send_bytes(send, 200, b"", b"text/plain", _PREFLIGHT)
                return
            if await self._passed_on(scope, receive, send):
                return
            match scope["path"].split("/")[2:]:
                case ["d" | "o", token, sha1] if method in ("GET", "HEAD"):
                    await self._download(scope, receive, send, token, sha1)
                case ["s", told] if method == "PUT":
                    await self._take_range(scope, send, body, told)
                case ["u", token] if method in ("GET", "HEAD"):
                    await self._show(send, token)
                case ["u", token] if method == "PUT":
                    await self._upload(scope, send, body, token)
                case ["d" | "o", _, _] | ["u" | "s", _]:
                    await send_text(send, 405, f"{method} is not for this address", CORS)
                case _:
                    raise NotFound("there is nothing at this address")
        except KacheryError as error:
            if method == "PUT" and isinstance(error, Unreachable):
                self._gateway.log.info("transfer_broken", method=method)
                if not body.ended:
                    await send_text(send, 408, "the request came too slowly", [*CORS, (b"connection", b"close")])
                return
            level = "error" if error.http_status >= 500 else "info"
            getattr(self._gateway.log, level)("transfer_refused", method=method, error=error.code, reason=error.message)
            # a body that nobody reads would break the connection before its sender sees the answer
            closing = [] if await body.drain() else [(b"connection", b"close")]
            code = (b"kachery-error", error.code.encode())
            await send_text(send, error.http_status, str(error), [*CORS, code, *closing])

    async def _passed_on(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Have another process answer that has what a request needs; says whether it did."""
        gateway = self._gateway
        if gateway.others is None:
            return False
        match scope["path"].split("/")[2:]:
            case ["u", _] if came_from(scope) is not None:
                if not gateway.others.peers.leads:
                    raise Unreachable("this process of the gateway does not receive files", hint="try again")
                return False
            case _ if came_from(scope) is not None:
                return False
            case ["u", _]:
                process = await gateway.receiving_process()
            case ["s", told] if gateway.on_demand.process_of(told) != gateway.others.peers.process:
                process = gateway.on_demand.process_of(told)
                if gateway.others.peers.address_of(process) is None:
                    raise NotFound("nobody waits for these bytes any more")
            case _:
                return False
        if process is None:
            return False
        try:
            if not await gateway.others.forwarder.forward(process, scope, receive, send):
                raise Unreachable("another process of this gateway has ended", hint="try again")
        except Unreachable as error:
            # the caller is there, so it is no broken transfer
            await send_text(send, error.http_status, str(error), [*CORS, (b"connection", b"close")])
        return True

    # -- uploads ------------------------------------------------------------------------------------------------------

    async def _upload(self, scope: Scope, send: Send, body: RequestBody, text: str) -> None:
        started = time.monotonic()
        gateway = self._gateway
        token = gateway.signer.read_upload(text, now() // 1000)
        part = _content_range(header(scope, b"content-range"), token.size)
        upload = await self._find(token)
        if upload is None:
            if part is None or await gateway.database.read(files.size_of, token.zone, token.sha1) != token.size:
                raise NotFound("this upload is over", hint="begin it again")
            # another process of the same client has ended it; these bytes are in the zone
            while await body.chunk():
                pass
        elif part is None:
            if not upload.sha1:
                raise InvalidInput("an upload without a name takes parts only", hint="send Content-Range")
            length = header(scope, b"content-length")
            await gateway.receiver.receive_whole(upload, body, int(length) if length is not None else None)
        else:
            await gateway.receiver.receive_part(upload, *part, body)
        gateway.log.info(
            "received",
            zone=token.zone,
            sha1=token.sha1,
            size=token.size,
            part=list(part) if part else None,
            seconds=round(time.monotonic() - started, 3),
        )
        await send_bytes(send, 200, b"", b"text/plain", CORS)

    async def _show(self, send: Send, text: str) -> None:
        token = self._gateway.signer.read_upload(text, now() // 1000)
        upload = await self._find(token)
        if upload is not None:
            ranges = await self._gateway.receiver.received(upload)
        elif await self._gateway.database.read(files.size_of, token.zone, token.sha1) == token.size:
            ranges = [(0, token.size)]
        else:
            raise NotFound("this upload is over", hint="begin it again")
        await send_json(send, 200, {"size": token.size, "received": ranges}, CORS)

    async def _find(self, token: UploadToken) -> files.Upload | None:
        upload = await self._gateway.database.read(files.find_upload, token.upload)
        if upload is None or (upload.zone, upload.size) != (token.zone, token.size):
            return None
        # an upload may be begun before its hash is known, and named later
        return upload if token.sha1 in ("", upload.sha1) else None

    # -- downloads ----------------------------------------------------------------------------------------------------

    async def _download(self, scope: Scope, receive: Receive, send: Send, text: str, sha1: str) -> None:
        gateway = self._gateway
        token = gateway.signer.read_download(text, sha1, now() // 1000)
        zone, size = await gateway.database.read(zones.find_with_file, token.zone, sha1) or (None, None)
        if zone is not None and size is None and token.on_demand:
            await self._bring(scope, receive, send, zone, token)
            return
        if zone is None or size is None:
            raise NotFound("the zone does not have this file any more")
        try:
            reader = await open_object(gateway.bucket, zone.key(sha1))
        except NotFound:
            gateway.log.error("object_missing", zone=token.zone, sha1=sha1)
            raise NotFound("the zone has lost this file", hint="store it again from where you have it") from None
        try:
            if reader.size != size:
                gateway.log.error("object_damaged", zone=token.zone, sha1=sha1, size=size, stored=reader.size)
                raise KacheryError(
                    "the zone's copy of this file is damaged", hint="store it again from where you have it"
                )
            await self._send_file(scope, receive, send, reader, token)
        finally:
            reader.close()

    async def _bring(self, scope: Scope, receive: Receive, send: Send, zone: zones.Zone, token: DownloadToken) -> None:
        delivery = await self._find_delivery(scope, receive, send, zone, token)
        if delivery is None:
            return
        reader = delivery.open()
        try:
            await self._send_file(scope, receive, send, reader, token, delivery)
        finally:
            delivery.close_reader(reader)

    async def _find_delivery(
        self, scope: Scope, receive: Receive, send: Send, zone: zones.Zone, token: DownloadToken
    ) -> Delivery | None:
        """The file, as it comes to this process; `None` when another process has answered."""
        on_demand, others = self._gateway.on_demand, self._gateway.others
        if came_from(scope) is not None:
            here = await on_demand.find_here(zone, token.sha1)
            if isinstance(here, NotOffered):
                await send_text(send, NOT_HERE, str(here.error()))
                return None
            return _require_size(here, token)
        # a process that brought it may have ended, or the daemon have moved to another one
        for _ in range(_ATTEMPTS):
            found = await on_demand.find(zone, token.sha1)
            if isinstance(found, NotOffered):
                raise found.error()
            if not isinstance(found, Brought):
                return _require_size(found, token)
            _require_size(found, token)
            try:
                if others is not None and await others.forwarder.forward(found.process, scope, receive, send):
                    return None
            except Unreachable as error:
                self._gateway.log.info("not_passed_on", process=found.process, reason=error.message)
            on_demand.not_elsewhere(zone.name, token.sha1)
        raise Unreachable("the process of this gateway that brings the file has ended", hint="try again in a moment")

    async def _take_range(self, scope: Scope, send: Send, body: RequestBody, told: str) -> None:
        match = _CONTENT_RANGE.fullmatch(header(scope, b"content-range") or b"")
        if match is None:
            raise InvalidInput("Content-Range is not understood", hint="as in bytes 0-1048575/4194304")
        first, last, size = (int(number) for number in match.groups())
        await self._gateway.on_demand.receive(told, first, last + 1, size, body)
        await send_bytes(send, 200, b"", b"text/plain", CORS)

    async def _send_file(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        reader: Reader,
        token: DownloadToken,
        delivery: Delivery | None = None,
    ) -> None:
        size = reader.size if delivery is None else delivery.size
        etag = f'"{token.sha1}"'.encode()
        headers = [
            (b"etag", etag),
            (b"accept-ranges", b"bytes"),
            (b"cache-control", b"private, max-age=3600, immutable"),
            (b"content-disposition", b"attachment"),
            (b"content-security-policy", b"sandbox; default-src 'none'"),
            *CORS,
        ]
        matching = header(scope, b"if-none-match")
        if matching is not None and etag in [tag.strip() for tag in matching.split(b",")]:
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        wanted = header(scope, b"range")
        unchanged = header(scope, b"if-range")
        span = None if wanted is None or unchanged not in (None, etag) else requested_range(wanted, size)
        if span == (0, 0):
            unsatisfiable = [(b"content-range", b"bytes */%d" % size), *headers]
            await send_text(send, 416, f"the file has {size} bytes", unsatisfiable)
            return
        start, end = span or (0, size)
        if span is not None:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, size)))
        headers += [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % (end - start)),
            (b"x-content-type-options", b"nosniff"),
        ]
        reading = scope["method"] == "GET" and start < end
        if reading and delivery is not None:
            delivery.follow(start, end)
            # a file that does not come is said so, instead of a reply that breaks off
            await delivery.available(start, end)
        await send({"type": "http.response.start", "status": 200 if span is None else 206, "headers": headers})
        if not reading:
            await send({"type": "http.response.body", "body": b""})
            return
        if delivery is None:
            sent, problem = await send_range(scope, receive, send, reader, start, end)
        else:
            sent, problem = await _send_as_it_comes(receive, send, reader, delivery, start, end)
        if problem:
            # too late for another answer: the server breaks the connection, and the reader knows that bytes are missing
            self._gateway.log.warning("download_broken", zone=token.zone, sha1=token.sha1, sent=sent, reason=problem)
        # several ranges make one download, counted with its beginning
        counted = 1 if start == 0 else 0
        self._gateway.counters.count(token.zone, token.user, "", now(), downloads=counted, download_bytes=sent)


_Found = TypeVar("_Found", "Delivery", Brought)


def _require_size(found: _Found, token: DownloadToken) -> _Found:
    if found.size != token.size:
        raise SourceChanged(f"the file has {found.size} bytes, not {token.size} as before")
    return found


async def send_range(
    scope: Scope, receive: Receive, send: Send, reader: Reader, start: int, end: int
) -> tuple[int, str | None]:
    """Send bytes `start` to `end` of a file; says how many were taken, and what came in between."""
    if end - start <= _PIECE:
        return await _send_pieces(send, reader, start, end, None)
    exchange: Exchange | None = (scope.get("extensions") or {}).get(DIRECT)
    if exchange is not None and _places.acquire(blocking=False):
        try:
            direct = exchange.direct_answer(end - start)
            if direct is not None:
                return await _send_directly(exchange, direct, send, reader, start, end)
        finally:
            _places.release()
    # the server takes pieces for a reader who is gone without a word, and the disk would read them for nobody
    gone = asyncio.create_task(_wait_until_gone(receive))
    try:
        return await _send_pieces(send, reader, start, end, gone)
    finally:
        gone.cancel()


async def _send_directly(
    exchange: Exchange, direct: Direct, send: Send, reader: Reader, start: int, end: int
) -> tuple[int, str | None]:
    """As `send_range`, in a thread."""
    position = start

    def work() -> None:
        nonlocal position
        view = memoryview(bytearray(min(_DIRECT_PIECE, end - start)))
        while position < end:
            count = reader.readinto(position, view[: end - position])
            if not count:
                raise SourceChanged("the file became shorter while it was sent")
            direct.write(view[:count], PATIENCE)
            position += count

    try:
        await in_thread(work, direct.abort)
    except KacheryError as error:
        return position - start, error.message
    finally:
        exchange.sent(position - start)
    await send({"type": "http.response.body", "body": b""})
    return position - start, None


async def _send_as_it_comes(
    receive: Receive, send: Send, reader: Reader, delivery: Delivery, start: int, end: int
) -> tuple[int, str | None]:
    """As `send_range`, of a file that comes meanwhile."""
    gone = asyncio.create_task(_wait_until_gone(receive))
    position = start
    try:
        while position < end and not gone.done():
            waiting = asyncio.create_task(delivery.available(position, end))
            await asyncio.wait([waiting, gone], return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                break
            reach = waiting.result()
            taken, problem = await _send_pieces(send, reader, position, reach, gone, more=reach < end)
            position += taken
            if problem:
                return position - start, problem
    except KacheryError as error:
        return position - start, error.message
    finally:
        gone.cancel()
    return position - start, None if position >= end else "the reader went away"


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_pieces(
    send: Send, reader: Reader, start: int, end: int, gone: asyncio.Task[None] | None, *, more: bool = False
) -> tuple[int, str | None]:
    position = start
    loop = asyncio.get_running_loop()
    while gone is None or not gone.done():
        count = min(_PIECE, end - position)
        piece = reader.read_now(position, count) if count else b""
        if piece is None:
            piece = await asyncio.to_thread(reader.read, position, count)
        if count and not piece:
            return position - start, "the file became shorter while it was sent"
        last = position + len(piece) >= end
        try:
            # a reader that takes nothing any more must not keep the file open for ever
            async with asyncio.timeout_at(loop.time() + PATIENCE):
                await send({"type": "http.response.body", "body": piece, "more_body": more or not last})
        except TimeoutError:
            return position - start, f"the reader took nothing for {PATIENCE:.0f} s"
        position += len(piece)
        if last:
            return position - start, None
    return position - start, "the reader went away"


def _content_range(value: bytes | None, size: int) -> tuple[int, int] | None:
    if value is None:
        return None
    match = _CONTENT_RANGE.fullmatch(value)
    if match is None:
        raise InvalidInput("Content-Range is not understood", hint="as in bytes 0-1048575/4194304")
    first, last, total = (int(number) for number in match.groups())
    if total != size or first > last or last >= size:
        raise InvalidInput(f"Content-Range does not fit a file of {size} bytes")
    return first, last + 1


def requested_range(value: bytes, size: int) -> tuple[int, int] | None:
    """The bytes that a Range header asks for, [start, end); `(0, 0)` if there are none, `None` to ignore it."""
    match = _RANGE.fullmatch(value.strip())
    if match is None or match.groups() == (b"", b""):
        return None
    first, last = match.groups()
    if not first:
        count = min(int(last), size)
        return (size - count, size) if count else (0, 0)
    start = int(first)
    end = min(int(last) + 1, size) if last else size
    if last and int(last) < start:
        return None
    return (start, end) if start < size else (0, 0)
