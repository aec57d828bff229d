"""The protocol of the classic servers (kachery 0.x), under `/classic` and at a port of its own.

| request | answer |
|---|---|
| `GET /probe` | `{"success": true}` |
| `GET /check/ALG/HASH?channel=&signature=` | `{"success": true, "found": true, "size": N}` or `found` false |
| `GET`, `HEAD /get/ALG/HASH?channel=&signature=` | the file, or one range of it |
| `POST /set/ALG/HASH?channel=&signature=` | `{"success": true}` |

A signature is the SHA-1 of `{"algorithm":…,"hash":…,"name":…,"password":…}`, where `name` is `check`, `download` or
`upload`. Upstream's server escapes nothing that is not ASCII, its client everything; both spellings are accepted.
Signatures never expire and are bound to nothing else: whoever sees one may repeat the request. So use TLS
(`"tlsOnly": true`).

What upstream's server says keeps its words and its status, which is 500 for everything; its clients print them. What it
has no words for has a status of its own: 403 without TLS, 422 for other bytes than those of the hash, 429 and 503 for
too many requests. Unlike upstream's, nothing is said about files before the signature was checked, a hash is hex, and
texts are never HTML.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from weakref import WeakValueDictionary

from ... import digest
from ...errors import KacheryError, NotAllowed, NotFound, Unreachable, WrongContent
from ..buckets import open_object
from ..http import RequestBody, header, send_bytes, send_text
from ..receiving import now
from ..services import aliases, files, zones
from .cloud import require_room
from .transfer import CORS, requested_range, send_range

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from ..buckets.contract import Reader
    from ..runtime import Gateway
    from ..services.channels import Channel

#: Where the protocol is spoken at the gateway's own port.
PREFIX = "/classic"

ALGORITHMS = ("sha1", "md5")

# endpoint → what its signature names
_OPERATIONS = {"check": "check", "get": "download", "set": "upload"}

# What the account book and the uploads call the programs of channels begins with this
_SENDERS = "channel:"

# Seconds that a wrong signature waits for its answer, as at upstream's
_DELAY = 1.0

_PREFLIGHT = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, HEAD, POST, OPTIONS"),
    (b"access-control-allow-headers", b"Content-Type, Range"),
    (b"access-control-max-age", b"86400"),
]


class _Refused(KacheryError):
    """What upstream's server refuses, in its words."""

    code = "refused"
    http_status = 500


class ClassicDialect:
    """The ASGI application.

    Args:
        gateway: The gateway it serves.
        channels: The channels by name.
    """

    def __init__(self, gateway: Gateway, channels: dict[str, Channel]) -> None:
        self._gateway = gateway
        self._channels = channels
        # a lock lives for as long as somebody holds it or waits for it
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; `path` is what follows the server's address."""
        body = RequestBody(receive, scope)
        method, path = scope["method"], scope["path"].removeprefix(PREFIX)
        try:
            if method == "OPTIONS":
                await send_bytes(send, 200, b"", b"text/plain", _PREFLIGHT)
                return
            match path.split("/")[1:]:
                case ["probe"] if method in ("GET", "HEAD"):
                    await _send_json(send, {"success": True})
                case ["check", algorithm, hash_] if method in ("GET", "HEAD"):
                    await self._check(scope, send, algorithm, hash_)
                case ["get", algorithm, hash_] if method in ("GET", "HEAD"):
                    await self._get(scope, receive, send, algorithm, hash_)
                case ["set", algorithm, hash_] if method == "POST":
                    await self._set(scope, send, body, algorithm, hash_)
                case _:
                    await send_text(send, 404, f"Cannot {method} this address", CORS)
        except Unreachable as error:
            if method == "POST" and body.ended:
                self._gateway.log.info("transfer_broken", method=method)
                return
            await self._refuse(send, body, error)
        except KacheryError as error:
            await self._refuse(send, body, error)

    async def recover(self) -> None:
        """Give up what a process left that died: whoever sent it begins anew. Nothing may be received yet."""
        if await self._gateway.database.write(files.forget_uploads_of, _SENDERS):
            await self._gateway.receiver.clean(older_than=0.0)

    async def _refuse(self, send: Send, body: RequestBody, error: KacheryError) -> None:
        level = "error" if error.http_status == 507 or error.code in ("error", "collision") else "info"
        getattr(self._gateway.log, level)("refused", type="classic", error=error.code, reason=error.message)
        # a body that nobody reads would break the connection before its sender sees the answer
        closing = [] if await body.drain() else [(b"connection", b"close")]
        more = [(b"kachery-error", error.code.encode()), (b"cache-control", b"no-store"), *closing]
        await send_text(send, error.http_status, str(error), [*CORS, *more])

    # -- who --------------------------------------------------------------------------------------------------------

    async def _authorize(self, scope: Scope, endpoint: str, algorithm: str, hash_: str) -> tuple[Channel, zones.Zone]:
        """The channel of a request, and its zone, when the request is signed for it."""
        query = _query(scope)
        name = query.get("channel", "undefined")
        channel = self._channels.get(name)
        if channel is None:
            raise _Refused(f"Channel not found in config: {name[:200]}")
        if channel.tls_only and not _came_over_tls(scope):
            raise NotAllowed("this channel is for TLS only", hint="use its https address")
        self._gateway.traffic.require_rate(channel, (scope["client"] or ("",))[0])
        given = query.get("signature", "").encode()
        matches = [
            hmac.compare_digest(given, expected.encode())
            for expected in signatures(algorithm, hash_, _OPERATIONS[endpoint], channel.password)
        ]
        if not any(matches):
            self._gateway.log.warning("wrong_signature", channel=name, address=(scope["client"] or ("",))[0])
            await asyncio.sleep(_DELAY)
            raise _Refused("incorrect or missing signature")
        zone = await self._gateway.database.read(zones.find, channel.zone)
        if zone is None:
            raise KacheryError(f"the zone of channel {name} does not exist any more", hint="tell its administrator")
        return channel, zone

    # -- files --------------------------------------------------------------------------------------------------------

    async def _check(self, scope: Scope, send: Send, algorithm: str, hash_: str) -> None:
        channel, zone = await self._authorize(scope, "check", algorithm, hash_)
        _require_form(algorithm, hash_)
        found = await self._gateway.database.read(aliases.resolve, zone.name, algorithm, hash_)
        self._count(channel, zone, finds=1)
        if found is None:
            await _send_json(send, {"success": True, "found": False})
        else:
            await _send_json(send, {"success": True, "found": True, "size": found.size})

    async def _get(self, scope: Scope, receive: Receive, send: Send, algorithm: str, hash_: str) -> None:
        gateway = self._gateway
        _require_form(algorithm, hash_)
        channel, zone = await self._authorize(scope, "get", algorithm, hash_)
        found = await gateway.database.read(aliases.resolve, zone.name, algorithm, hash_)
        if found is None:
            raise _Refused("Not found.")
        size = found.size
        etag = f'"{found.sha1}"'.encode()
        if etag in [tag.strip() for tag in (header(scope, b"if-none-match") or b"").split(b",")]:
            await send_bytes(send, 304, b"", b"application/octet-stream", [(b"etag", etag), *CORS])
            return
        wanted = header(scope, b"range") if header(scope, b"if-range") in (None, etag) else None
        span = None if wanted is None else requested_range(wanted, size)
        if span == (0, 0):
            text = "Error downloading file: Range Not Satisfiable"
            await send_text(send, 500, text, [*CORS, (b"content-range", b"bytes */%d" % size)])
            return
        start, end = span or (0, size)
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % (end - start)),
            (b"accept-ranges", b"bytes"),
            (b"cache-control", b"private, max-age=0"),
            (b"etag", etag),
            (b"last-modified", formatdate(found.created / 1000, usegmt=True).encode()),
            (b"content-disposition", b"attachment"),
            (b"content-security-policy", b"sandbox; default-src 'none'"),
            (b"x-content-type-options", b"nosniff"),
            *CORS,
        ]
        if span is not None:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, size)))
        reading = scope["method"] == "GET"
        count = end - start if reading else 0
        async with gateway.traffic.transfer(channel, "download", size, files=int(reading), size=count) as transfer:
            reader = await self._open(zone, found)
            try:
                await send({"type": "http.response.start", "status": 200 if span is None else 206, "headers": headers})
                if count == 0:
                    transfer.charge(int(reading), 0)
                    await send({"type": "http.response.body", "body": b""})
                    return
                sent, problem = await send_range(scope, receive, send, reader, start, end)
            finally:
                reader.close()
            transfer.charge(1, sent)
        self._count(channel, zone, downloads=1 if start == 0 else 0, download_bytes=sent)
        if problem:
            gateway.log.warning("download_broken", zone=zone.name, sha1=found.sha1, sent=sent, reason=problem)

    async def _open(self, zone: zones.Zone, found: aliases.Known) -> Reader:
        log = self._gateway.log
        try:
            reader = await open_object(self._gateway.bucket, zone.key(found.sha1))
        except NotFound:
            log.error("object_missing", zone=zone.name, sha1=found.sha1)
            raise _Refused("Error downloading file: the server has lost it") from None
        if reader.size != found.size:
            reader.close()
            log.error("object_damaged", zone=zone.name, sha1=found.sha1, size=found.size, stored=reader.size)
            raise _Refused("Error downloading file: the server's copy is damaged")
        return reader

    async def _set(self, scope: Scope, send: Send, body: RequestBody, algorithm: str, hash_: str) -> None:
        gateway = self._gateway
        channel, zone = await self._authorize(scope, "set", algorithm, hash_)
        _require_form(algorithm, hash_)
        length = header(scope, b"content-length") or b""
        if not length.isdigit() or len(length) > 18:
            raise _Refused("Missing or invalid content-length in request header")
        size = int(length)
        require_room(gateway, size)
        known = await gateway.database.read(aliases.resolve, zone.name, algorithm, hash_)
        if known is not None and known.size != size:
            raise WrongContent(f"the file of this hash has {known.size} bytes, not {size}")
        # what is there already takes nothing of a quota
        new = int(known is None)
        async with gateway.traffic.transfer(channel, "upload", size, files=new, size=new * size) as transfer:
            if algorithm == "sha1":
                stored = await self._receive(channel, zone, hash_, size, body)
            else:
                stored = await self._receive_by_md5(channel, zone, hash_, size, body)
            if stored:
                transfer.charge(1, size)
        if stored:
            self._count(channel, zone, uploads=1, upload_bytes=size)
            gateway.log.info("stored", zone=zone.name, size=size, channel=channel.name, **{algorithm: hash_})
        await _send_json(send, {"success": True})

    async def _receive(self, channel: Channel, zone: zones.Zone, sha1: str, size: int, body: RequestBody) -> bool:
        """Receive and publish a file; says whether the zone did not have it."""
        gateway, client = self._gateway, _sender(channel)
        upload = await gateway.database.write(
            files.begin, zone.name, sha1, size, client, zone.owner, now(), in_parts=False
        )
        try:
            await gateway.receiver.receive_whole(upload, body, size)
            return await self._publish(zone, sha1, size, client)
        finally:
            await gateway.receiver.abandon(upload)

    async def _receive_by_md5(self, channel: Channel, zone: zones.Zone, md5: str, size: int, body: RequestBody) -> bool:
        """As `_receive`, of a file whose SHA-1 is known when all of it is there."""
        gateway, client = self._gateway, _sender(channel)
        if size == 0:
            if md5 != digest.of_bytes(b"", "md5"):
                raise WrongContent("the content is empty, and its md5 is another")
            sha1 = digest.of_bytes(b"")
            stored = await self._receive(channel, zone, sha1, 0, body)
        else:
            upload = await gateway.database.write(
                files.begin, zone.name, "", size, client, zone.owner, now(), in_parts=True
            )
            try:
                await gateway.receiver.receive_part(upload, 0, size, body)
                found = await asyncio.to_thread(_digests_of_staging, gateway, upload.id)
                if found["md5"] != md5:
                    raise WrongContent(f"the content has the md5 {found['md5']}, not {md5}", hint="send it again")
                sha1 = found["sha1"]
                await gateway.database.read(aliases.require_same, zone.name, "md5", md5, sha1)
                await gateway.database.write(files.name_upload, upload.id, client, sha1)
                stored = await self._publish(zone, sha1, size, client)
            finally:
                await gateway.receiver.abandon(upload)
        await gateway.database.write(aliases.record, "md5", md5, sha1, now())
        return stored

    async def _publish(self, zone: zones.Zone, sha1: str, size: int, client: str) -> bool:
        # one after the other, so that of two who send the same at once one is charged
        async with self._locks.setdefault(f"{zone.name}/{sha1}", asyncio.Lock()):
            return await self._gateway.finalize(zone, sha1, size, client) is not None

    def _count(self, channel: Channel, zone: zones.Zone, **counts: int) -> None:
        self._gateway.counters.count(zone.name, 0, f"{_SENDERS}{channel.name}", now(), **counts)


def signatures(algorithm: str, hash_: str, name: str, password: str) -> list[str]:
    """The signatures of a request: with what is not ASCII escaped, as the client does, and as it is.

    Args:
        algorithm: `sha1` or `md5`, or what a caller takes for one.
        hash_: The hash, likewise.
        name: `check`, `download` or `upload`.
        password: The channel's.
    """
    signed = {"algorithm": algorithm, "hash": hash_, "name": name, "password": password}
    return [
        hashlib.sha1(
            json.dumps(signed, separators=(",", ":"), ensure_ascii=escaped).encode("utf-8", "surrogatepass"),
            usedforsecurity=False,
        ).hexdigest()
        for escaped in (True, False)
    ]


def _sender(channel: Channel) -> str:
    """Who sends one upload: nobody else ends it, or is disturbed by it."""
    return f"{_SENDERS}{channel.name}.{secrets.token_hex(4)}"


def _digests_of_staging(gateway: Gateway, name: str) -> dict[str, str]:
    staging = gateway.bucket.stage(name)
    try:
        reader = staging.reader()
    finally:
        staging.close()
    try:
        return reader.hashes(ALGORITHMS)
    finally:
        reader.close()


def _query(scope: Scope) -> dict[str, str]:
    """The first value of each key of a request's query."""
    text = scope["query_string"].decode("utf-8", "replace")
    try:
        fields = parse_qs(text, keep_blank_values=True, errors="replace", max_num_fields=20)
    except ValueError:
        return {}
    return {key: values[0] for key, values in fields.items()}


def _came_over_tls(scope: Scope) -> bool:
    """Whether a request came over TLS, or a proxy in front says so; who lies about it deceives themselves only."""
    return scope["scheme"] == "https" or header(scope, b"x-forwarded-proto") == b"https"


def _require_form(algorithm: str, hash_: str) -> None:
    if algorithm not in ALGORITHMS or not digest.is_hash(algorithm, hash_):
        raise _Refused(f"Invalid {algorithm[:80]} string")


async def _send_json(send: Send, value: dict[str, Any]) -> None:
    headers = [*CORS, (b"cache-control", b"no-store")]
    await send_bytes(send, 200, json.dumps(value, indent=4).encode(), b"application/json; charset=utf-8", headers)
