"""NATS as a bus: `nats://[USER:PASSWORD@]HOST[:PORT][,…]`, or `tls://…`; no storage of it is used.

A topic is the subject `kachery.SPACE.TOPIC`, so that several gateways may share a server. nats-py could come back to a
lost server by itself, but would then send late what was published meanwhile; here a lost connection is over, and
another one is made.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...errors import InvalidInput, NotConfigured, Unreachable
from .contract import LARGEST, Bus, towards

if TYPE_CHECKING:
    from nats.aio.client import Client
    from structlog.typing import FilteringBoundLogger

# Seconds: for connecting, before another try, and between two looks whether the server is still there
_PATIENCE = 5.0
_PAUSE = 1.0
_PING = 5

# How long `open` waits for the first connection before a process goes on without, in seconds
_FIRST = 5.0


class NatsBus(Bus):
    """A place on a bus that is a NATS server.

    Args:
        servers: Addresses, separated by commas.
        space: What tells this gateway's messages from those of others; letters and digits.
        log: Where to say that the server is away, and back.

    Raises:
        InvalidInput: If an address is not one.
        NotConfigured: If nats-py is not installed.
    """

    def __init__(self, servers: str, space: str, log: FilteringBoundLogger) -> None:
        super().__init__(log)
        self._servers = [each.strip() for each in servers.split(",")]
        for each in self._servers:
            parts = urlsplit(each)
            if parts.scheme not in ("nats", "tls") or not parts.hostname:
                raise InvalidInput("not the address of a NATS server", hint="as in nats://127.0.0.1:4222")
        try:
            import nats  # noqa: F401 - better said now than in the background
        except ImportError:
            raise NotConfigured("nats-py is not installed", hint="pip install 'kachery[cluster]'") from None
        self._prefix = f"kachery.{space}."
        self._client: Client | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection to a server."""
        return self._client is not None and self._client.is_connected

    @property
    def here(self) -> str:
        """The address from which this machine reaches the server."""
        parts = urlsplit(self._servers[0])
        return towards(parts.hostname or "", parts.port or 4222)

    async def open(self) -> None:
        """Come onto the bus; where the server is away, go on trying in the background."""
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keeping = asyncio.create_task(self._keep(first))
        await asyncio.wait([first], timeout=_FIRST)

    async def close(self) -> None:
        """Leave."""
        if self._keeping is not None:
            self._keeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeping
            self._keeping = None
        self._takers.clear()

    async def _keep(self, first: asyncio.Future[None]) -> None:
        while True:
            closed = asyncio.Event()
            client = await self._connect(closed)
            if client is not None:
                self._client = client
                self._say_back()
                if not first.done():
                    first.set_result(None)
                try:
                    await closed.wait()
                    self._say_away("the connection to the NATS server is lost")
                finally:
                    self._client = None
                    # what was published a moment ago still leaves
                    with suppress(Exception):
                        async with asyncio.timeout(1.0):
                            await client.flush()
                    with suppress(Exception):
                        await client.close()
            await asyncio.sleep(_PAUSE)

    async def _connect(self, closed: asyncio.Event) -> Client | None:
        from nats.aio.client import Client

        async def on_closed() -> None:
            closed.set()

        async def on_error(error: Exception) -> None:
            # what a server refuses (permissions, a slow reader) comes here too; a lost one also closes
            self._log.debug("nats_error", reason=str(error)[:300])

        client = Client()
        try:
            async with asyncio.timeout(_PATIENCE):
                await client.connect(
                    self._servers,
                    name="kachery",
                    allow_reconnect=False,
                    connect_timeout=2,
                    ping_interval=_PING,
                    closed_cb=on_closed,
                    disconnected_cb=on_closed,
                    error_cb=on_error,
                )
                await client.subscribe(self._prefix + "*", cb=self._take)
                # the first one may overtake the subscription, which the server has when the second one is answered
                await client.flush()
                await client.flush()
        except Exception as error:
            # of any kind: a server may say, or be, anything
            self._say_away(str(error) or type(error).__name__)
            with suppress(Exception):
                await client.close()
            return None
        return client

    async def _take(self, message: Any) -> None:
        if len(message.data) <= LARGEST:
            self._deliver(message.subject[len(self._prefix) :], message.data)

    async def _send(self, topic: str, content: bytes) -> None:
        client = self._client
        if client is None or not client.is_connected:
            raise Unreachable("the NATS server cannot be reached")
        try:
            await client.publish(self._prefix + topic, content)
        except Exception as error:
            raise Unreachable(f"the NATS server does not take a message: {error}") from error
