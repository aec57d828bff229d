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

    from .relay.bus import Bus


class RelayAlone:
    """The ASGI application.

    Args:
        secret: What resources must know.
        log: Where to say what happened.
        bus: What other processes behind the same address have.
    """

    def __init__(self, secret: str, log: FilteringBoundLogger, bus: Bus | None = None) -> None:
        self._bus = bus
        self._registry = Registry(bus)
        self._proxy = ResourceProxy(self._registry, WaitingRoom(), secret, lambda zone: True, log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or the server's start and end."""
        if scope["type"] == "lifespan":
            await receive()
            if self._bus is not None:
                await self._bus.open(self._registry.answer)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            if self._bus is not None:
                await self._bus.close()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "websocket":
            await self._proxy.serve(scope, receive, send)
        elif scope["path"] == "/probe" and scope["method"] in ("GET", "HEAD"):
            await send_text(send, 200, "running.")
        else:
            await self._proxy(scope, receive, send)
