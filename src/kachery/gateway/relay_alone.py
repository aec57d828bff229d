"""The relay without a gateway: upstream's proxy, as a program of its own.

| request | answer |
|---|---|
| `GET /probe` | 200, `running.` |
| `POST /r/NAME`, web sockets at any address | `dialects/resource_proxy.py` |
| anything else | 404, a page |

It knows no zones: a resource says to which one it belongs, and anybody may ask.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ..errors import KacheryError, NotAllowed
from .dialects.resource_proxy import ResourceProxy
from .forwarding import PATH
from .http import send_text
from .relay.connected import Registry, WaitingRoom
from .relay.internal import Internal, of_registry

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send
    from structlog.typing import FilteringBoundLogger

    from .relay.connected import Others


def key_from(secret: str) -> bytes:
    """What relays that have a secret in common share; made slowly, so that nobody guesses the secret from it."""
    return hashlib.scrypt(secret.encode("utf-8", "surrogateescape"), salt=b"kachery relay", n=2**14, r=8, p=1)


class RelayAlone:
    """The ASGI application.

    Args:
        secret: What resources must know.
        log: Where to say what happened.
        others: The other relays behind the same address, which then act as one.
    """

    def __init__(self, secret: str, log: FilteringBoundLogger, others: Others | None = None) -> None:
        self._others = others
        self._log = log
        registry = Registry(others)
        self._proxy = ResourceProxy(registry, WaitingRoom(), secret, lambda zone: True, log)
        self._internal = Internal(of_registry(registry))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or the server's start and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] == "websocket":
            await self._proxy.serve(scope, receive, send)
            return
        if self._others is not None:
            try:
                scope = self._others.admit(scope)
            except NotAllowed as error:
                self._log.warning("refused", type="internal", reason=error.message)
                await send_text(send, error.http_status, str(error))
                return
        if scope["path"] == "/probe" and scope["method"] in ("GET", "HEAD"):
            await send_text(send, 200, "running.")
        elif self._others is not None and scope["path"].startswith(PATH):
            await self._internal(scope, receive, send)
        else:
            await self._proxy(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        if self._others is not None:
            try:
                await self._others.open()
            except KacheryError as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self._others is not None:
            await self._others.close()
        await send({"type": "lifespan.shutdown.complete"})
