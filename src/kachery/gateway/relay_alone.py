"""The relay without a gateway: upstream's proxy, as a program of its own.

| request | answer |
|---|---|
| `GET /probe` | 200, `running.` |
| `POST /r/NAME`, web sockets at any address | `dialects/resource_proxy.py` |
| anything else | 404, a page |

It knows no zones: a resource says to which one it belongs, and anybody may ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .dialects.resource_proxy import ResourceProxy
from .http import send_text
from .relay.connected import Registry, WaitingRoom

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send
    from structlog.typing import FilteringBoundLogger


class RelayAlone:
    """The ASGI application.

    Args:
        secret: What resources must know.
        log: Where to say what happened.
    """

    def __init__(self, secret: str, log: FilteringBoundLogger) -> None:
        self._log = log
        self._proxy = ResourceProxy(Registry(), WaitingRoom(), secret, lambda zone: True, log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or the server's start and end."""
        if scope["type"] == "lifespan":
            for done in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
                await receive()
                await send({"type": done})
        elif scope["type"] == "websocket":
            await self._proxy.serve(scope, receive, send)
        elif scope["path"] == "/probe" and scope["method"] in ("GET", "HEAD"):
            await send_text(send, 200, "running.")
        else:
            await self._proxy(scope, receive, send)
