"""The gateway as one ASGI application: which path speaks which dialect.

The busiest paths come first and pass through no router. Whatever goes wrong inside, the caller gets a plain answer and
the log the reason.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import KacheryError, NotAllowed
from .dialects.broker import BrokerDialect
from .dialects.broker import speaks as is_brokers
from .dialects.classic import PREFIX as CLASSIC_PREFIX
from .dialects.classic import ClassicDialect
from .dialects.cloud import CloudDialect
from .dialects.keys import PATHS as KEYS_PATHS
from .dialects.keys import KeysDialect
from .dialects.native import NativeDialect
from .dialects.on_demand import SOCKET_PATH
from .dialects.resource_proxy import ResourceProxy
from .dialects.transfer import Transfers
from .forwarding import PATH
from .http import send_text
from .receiving import now
from .relay.internal import Internal, of_registry
from .services import resources, usage, zones
from .web.pages import Pages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .runtime import Gateway

# Seconds between two entries into the account book, and between two looks for abandoned uploads
_FLUSH = 2.0
_CLEAN = 3600.0

# Seconds between two looks whether another process has stopped to receive files
_LEAD = 1.0

# Seconds between two looks for files on demand that nobody reads any more
_CLEAN_ON_DEMAND = 60.0


class Application:
    """The ASGI application.

    Args:
        gateway: The gateway's parts; closed by us at shutdown.
        classic_port: A port where the classic protocol alone is spoken.
    """

    def __init__(self, gateway: Gateway, classic_port: int | None = None) -> None:
        self._gateway = gateway
        self._cloud = CloudDialect(gateway)
        self._transfers = Transfers(gateway)
        self._keys = KeysDialect(gateway)
        channels = gateway.config.channels
        self._classic = None if channels is None else ClassicDialect(gateway, channels.channels)
        self._classic_port = classic_port
        broker_zone = gateway.config.broker
        self._broker = None if broker_zone is None else BrokerDialect(gateway, broker_zone)
        self._native = NativeDialect(gateway)
        self._pages = Pages(gateway)
        self._proxy = ResourceProxy(
            *(gateway.registry, gateway.waiting, gateway.proxy_secret, self._is_public, gateway.log),
            *(self._remember, self._knows, gateway.asked),
        )
        on_demand = self._native.on_demand
        self._internal = Internal(
            {
                **of_registry(gateway.registry),
                "find": on_demand.find,
                "held": on_demand.held,
                "finalize": gateway.finalize_for_another,
            }
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or the server's start and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        path: str = scope["path"]
        alone = self._classic_port is not None and scope["server"] and scope["server"][1] == self._classic_port
        if self._gateway.others is not None and scope["type"] == "http":
            try:
                scope = self._gateway.others.admit(scope)
            except NotAllowed as error:
                self._gateway.log.warning("refused", type="internal", reason=error.message)
                await send_text(send, error.http_status, str(error))
                return
        if scope["type"] == "websocket":
            if alone:
                await send({"type": "websocket.close"})
                return
            # upstream's daemons connect wherever their proxy's address points
            serve = self._native.on_demand.serve if path == SOCKET_PATH else self._proxy.serve
            await serve(scope, receive, send)
            return
        if self._classic is not None and (alone or path.startswith(f"{CLASSIC_PREFIX}/")):
            answer: ASGIApp = self._classic
            route = f"{CLASSIC_PREFIX}/…"
        elif path == "/api/gateway":
            answer, route = self._cloud, path
        elif path.startswith("/transfer/"):
            answer, route = self._transfers, "/transfer/…"
        elif path in KEYS_PATHS:
            answer, route = self._keys, path
        elif self._broker is not None and is_brokers(path):
            answer, route = self._broker, "/api/v1/file…"
        elif path == "/probe" or path.startswith("/api/"):
            answer, route = self._native, "/api/…"
        elif path.startswith("/r/"):
            answer, route = self._proxy, "/r/…"
        elif path.startswith(PATH):
            answer, route = self._internal, f"{PATH}…"
        else:
            answer, route = self._pages, "/…"
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await answer(scope, receive, watched)
        except Exception as error:
            self._gateway.log.error("failed", route=route, method=scope["method"], exc_info=error)
            if started:
                raise
            await send_text(send, 500, "Error: the gateway made a mistake; its log says more")

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except KacheryError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self) -> None:
        """Put right what an earlier process left, and begin the work that is done at intervals."""
        if self._gateway.others is not None:
            await self._gateway.others.open()
            await self._try_to_lead()
        else:
            await self._recover()
        self._tasks = [
            asyncio.create_task(self._repeat(self.flush, _FLUSH)),
            asyncio.create_task(self._repeat(self._try_to_lead, _LEAD)),
            asyncio.create_task(self._repeat(self._clean, _CLEAN)),
            asyncio.create_task(self._repeat(self._gateway.on_demand.clean, _CLEAN_ON_DEMAND)),
        ]

    async def _recover(self) -> None:
        # only a process that is alone on its data directory may do this
        await self._gateway.receiver.recover()
        if self._classic is not None:
            await self._classic.recover()

    async def stop(self) -> None:
        """Write what is only in memory, and let go of everything."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self.flush()
        await self._gateway.on_demand.close()
        await self._gateway.receiver.close()
        if self._gateway.others is not None:
            await self._gateway.others.close()
        if self._gateway.lead is not None:
            self._gateway.lead.give_up()
        await asyncio.to_thread(self._gateway.database.close)

    async def _try_to_lead(self) -> None:
        """Receive files for all processes of this gateway, if no other does."""
        gateway = self._gateway
        if gateway.others is None or gateway.lead is None or gateway.others.peers.leads or not gateway.lead.take():
            return
        # what other processes put together just now is theirs
        await gateway.receiver.recover(older_than=_CLEAN)
        gateway.others.peers.lead()
        gateway.log.info("receives_for_all")

    async def _clean(self) -> None:
        if self._gateway.others is None or self._gateway.others.peers.leads:
            await self._gateway.receiver.clean()

    def _is_public(self, zone: str) -> bool:
        known = self._gateway.database.read_now(zones.find, zone)
        return known is not None and known.public_download

    async def _knows(self, zone: str, name: str) -> bool:
        return await self._gateway.database.read(resources.find, zone, name) is not None

    async def _remember(self, zone: str, name: str) -> None:
        try:
            if await self._gateway.database.read(resources.find, zone, name) is None:
                await self._gateway.database.write(resources.remember, zone, name, now())
        except KacheryError as error:
            # it is served all the same
            self._gateway.log.error("resource_not_remembered", resource=name, zone=zone, reason=error.message)

    async def flush(self) -> None:
        """Write the counters into the account book; a failure is logged, and the next time comes."""
        try:
            await self._gateway.traffic.flush()
        except KacheryError as error:
            self._gateway.log.error("quotas_not_written", reason=error.message)
        counts = self._gateway.counters.take()
        if not counts:
            return
        try:
            await self._gateway.database.write(usage.write, counts)
        except KacheryError as error:
            self._gateway.counters.put_back(counts)
            self._gateway.log.error("usage_not_written", reason=error.message, lines=len(counts))

    async def _repeat(self, action: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await action()
            except Exception as error:
                self._gateway.log.error("chore_failed", chore=getattr(action, "__name__", "?"), exc_info=error)
