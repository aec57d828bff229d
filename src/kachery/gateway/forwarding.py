"""Requests from one process of a gateway to another: small ones with an answer in JSON, and those of callers passed on.

    caller ── request ──▶ process A ── the same, sealed ──▶ process B, which has what it takes
    caller ◀── bytes ──── process A ◀──────── bytes ─────── process B

Bytes are passed on as they come, in both directions, no faster than the slower side takes them. Files go this way and
not over the bus, which would have to keep whole files in its memory, cut them up, and make a slow reader everybody's
problem; HTTP has the back-pressure, the ranges and the broken connections that mean what they should.

A request that came from another process is never passed on again: whoever cannot answer it says 421, and the process
that asked looks anew. So nothing can go in circles.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..errors import BadReply, KacheryError, NotConfigured, TimedOut, Unreachable, by_code
from .http import RequestBody
from .seals import HEADER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp
    from starlette.types import Receive, Scope, Send

    from .peers import Peers
    from .seals import Request, Seals

#: Where processes ask each other.
PATH = "/internal/v1/"

#: What a process says that was asked for something that it does not have any more.
NOT_HERE = 421

# Seconds: for a connection, without a byte of an answer, and of one to bytes that were sent, which are verified and
# written to the disk first. Whoever answers has given up earlier.
_CONNECTING = 3.0
_SILENCE = 120.0
_VERIFYING = 1800.0

# Headers that belong to one connection, and those that the HTTP library writes itself
_HOP = {
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer"),
    *(b"transfer-encoding", b"upgrade", b"host", b"expect", b"date", b"server", HEADER),
}

_BUFFER = 256 * 1024

# The longest answer to a small request, in bytes
_LONGEST_ANSWER = 512 * 1024


class Forwarder:
    """Asks other processes, and passes requests on to them.

    Args:
        peers: Where they are.
        seals: Say that it is us.
    """

    def __init__(self, peers: Peers, seals: Seals) -> None:
        self._peers = peers
        self._seals = seals
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make ready.

        Raises:
            NotConfigured: If aiohttp is not installed.
        """
        try:
            import aiohttp
        except ImportError:
            raise NotConfigured("aiohttp is not installed", hint="pip install 'kachery[cluster]'") from None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECTING),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            read_bufsize=_BUFFER,
        )

    async def close(self) -> None:
        """Let go of all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, process: str, what: str, value: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Ask another process something.

        Args:
            process: Which one.
            what: What, the end of the address.
            value: A JSON object.
            seconds: How long to wait.

        Raises:
            TimedOut: If it does not answer in time.
            Unreachable: If it is gone.
            KacheryError: What it raised.
        """
        import aiohttp

        session, address = self._reach(process)
        target = PATH + what
        body = json.dumps(value, separators=(",", ":")).encode()
        seal = self._seals.request(process, "POST", target, body=body)
        headers = {HEADER.decode(): seal, "Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(seconds),
                session.post(address + target, data=body, headers=headers, allow_redirects=False) as reply,
            ):
                content = await reply.content.read(_LONGEST_ANSWER)
                while len(content) < _LONGEST_ANSWER and (more := await reply.content.read(_LONGEST_ANSWER)):
                    content += more
                status = reply.status
        except TimeoutError:
            raise TimedOut("another process of this gateway does not answer") from None
        except aiohttp.ClientConnectorError as error:
            self._peers.lost(process)
            raise Unreachable("another process of this gateway has ended") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"another process of this gateway has broken off: {error}") from error
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise BadReply(f"another process of this gateway answers with {status} and no JSON object")
        if status != 200:
            shape = answer.get("error")
            raise _error(shape if isinstance(shape, dict) else {})
        return answer

    async def forward(self, process: str, scope: Scope, receive: Receive, send: Send) -> bool:
        """Have another process answer a caller's request.

        Args:
            process: Which one.
            scope: The request.
            receive: Gives its body.
            send: Takes the answer.

        Returns:
            Whether it answered; otherwise it does not have what it takes any more, and nothing was sent.

        Raises:
            Unreachable: If it cannot be reached, or breaks off before the answer begins; nothing was sent.
        """
        import aiohttp

        session, address = self._reach(process)
        target = target_of(scope)
        client, method = (scope.get("client") or ("",))[0], scope["method"]
        seal = self._seals.request(process, method, target, client=client, scheme=scope["scheme"], host=_host_of(scope))
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in _kept(scope["headers"])]
        headers.append((HEADER.decode(), seal))
        body = _body(receive) if method in ("PUT", "POST") else None
        gone = None if body is not None else asyncio.create_task(_until_gone(receive))
        # the address is sent as it came, byte for byte: it is sealed
        from yarl import URL

        url = URL(address + target, encoded=True)
        patience = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECTING, sock_read=_SILENCE if body is None else _VERIFYING
        )
        asking = asyncio.create_task(
            _ask(session.request(method, url, headers=headers, data=body, allow_redirects=False, timeout=patience))
        )
        try:
            await asyncio.wait([asking] if gone is None else [asking, gone], return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return True  # nobody waits for the answer any more
            reply = asking.result()
            try:
                if reply.status == NOT_HERE:
                    return False
                await _pass_on(reply, send, gone)
            finally:
                if reply.content.at_eof():
                    reply.release()
                else:
                    reply.close()
        except aiohttp.ClientConnectorError as error:
            self._peers.lost(process)
            raise Unreachable("another process of this gateway has ended", hint="try again") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable("another process of this gateway has broken off", hint="try again") from error
        finally:
            asking.cancel()
            if gone is not None:
                gone.cancel()
        return True

    def _reach(self, process: str) -> tuple[aiohttp.ClientSession, str]:
        address = self._peers.address_of(process)
        if address is None or self._session is None:
            raise Unreachable("another process of this gateway has ended", hint="try again")
        return self._session, address


def admitted(scope: Scope, request: Request) -> Scope:
    """A request of another process as if it had come from its caller; `came_from` says that it did not."""
    headers = [(name, value) for name, value in scope["headers"] if name != HEADER]
    if request.host:
        headers = [(name, value) for name, value in headers if name != b"host"]
        headers.append((b"host", request.host.encode("latin-1", "replace")))
    return {
        **scope,
        "headers": headers,
        "client": (request.client, 0),
        "scheme": request.scheme,
        "kachery.request": request,
    }


def came_from(scope: Scope) -> Request | None:
    """What the seal of a request from another process said; `None` for a caller's own."""
    request: Request | None = scope.get("kachery.request")
    return request


def target_of(scope: Scope) -> str:
    """The path and query of a request, as they came."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    query: bytes = scope.get("query_string") or b""
    path = raw.split(b"?")[0]
    return (path + (b"?" + query if query else b"")).decode("latin-1")


async def _ask(request: Any) -> aiohttp.ClientResponse:
    reply: aiohttp.ClientResponse = await request
    return reply


async def _pass_on(reply: aiohttp.ClientResponse, send: Send, gone: asyncio.Task[None] | None) -> None:
    import aiohttp

    headers = [(name.lower(), value) for name, value in reply.raw_headers if name.lower() not in _HOP]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    try:
        while (gone is None or not gone.done()) and (piece := await reply.content.readany()):
            async with asyncio.timeout(_SILENCE):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
    except (aiohttp.ClientError, TimeoutError, OSError):
        # too late for another answer: the server breaks the connection, and the reader knows that bytes are missing
        return
    if gone is None or not gone.done():
        await send({"type": "http.response.body", "body": b""})


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    body = RequestBody(receive)
    while chunk := await body.chunk():
        yield chunk


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _kept(headers: Any) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name not in _HOP]


def _host_of(scope: Scope) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")


def _error(shape: dict[str, Any]) -> KacheryError:
    kind = by_code(str(shape.get("code"))) or KacheryError
    return kind(str(shape.get("message"))[:1000], hint=shape.get("hint"))
