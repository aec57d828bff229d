"""PostgreSQL's LISTEN and NOTIFY as a bus, for gateways that have their database there: `postgresql://USER@HOST/NAME`.

All messages go through the channel `kachery_SPACE` as the topic, a line feed and the JSON; a notification carries less
than 8000 bytes (https://www.postgresql.org/docs/current/sql-notify.html). One connection listens and another one
speaks, since waiting for notifications occupies the first.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...errors import InvalidInput, NotConfigured, Unreachable
from .contract import Bus, towards

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from structlog.typing import FilteringBoundLogger

# Seconds: for connecting, before another try, for one message, and how long `open` waits for the first connection
_PATIENCE = 5.0
_PAUSE = 1.0
_SENDING = 5.0
_FIRST = 5.0

# A server that has vanished without a word is noticed within about 15 s
_KEEPALIVES = {"keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 3, "keepalives_count": 3}


class PostgresBus(Bus):
    """A place on a bus that is a PostgreSQL database.

    Args:
        address: The database's.
        space: What tells this gateway's messages from those of others; letters and digits.
        log: Where to say that the server is away, and back.

    Raises:
        InvalidInput: If the address is not one.
        NotConfigured: If the driver is not installed.
    """

    def __init__(self, address: str, space: str, log: FilteringBoundLogger) -> None:
        super().__init__(log)
        parts = urlsplit(address)
        if not parts.path.strip("/"):
            raise InvalidInput(
                "not the address of a PostgreSQL database", hint="as in postgresql://USER@HOST:5432/NAME"
            )
        try:
            import psycopg  # noqa: F401 - better said now than in the background
        except ImportError:
            raise NotConfigured("PostgreSQL needs its driver", hint="pip install 'kachery[postgresql]'") from None
        self._address = address
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 5432
        self._channel = f"kachery_{space}"
        self._speaker: AsyncConnection[Any] | None = None
        self._turn = asyncio.Lock()
        self._keeping: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the server."""
        return self._speaker is not None

    @property
    def here(self) -> str:
        """The address from which this machine reaches the server."""
        return towards(self._host, self._port)

    async def open(self) -> None:
        """Come onto the bus; where the server is away, go on trying in the background."""
        first = asyncio.Event()
        self._keeping = asyncio.create_task(self._keep(first))
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST):
                await first.wait()

    async def close(self) -> None:
        """Leave."""
        if self._keeping is not None:
            # what is being sent still leaves
            async with self._turn:
                self._keeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeping
            self._keeping = None
        self._takers.clear()

    async def _keep(self, first: asyncio.Event) -> None:
        import psycopg

        while True:
            try:
                async with AsyncExitStack() as stack:
                    listener, speaker = [await self._connect(stack) for _ in range(2)]
                    await listener.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(self._channel)))
                    self._speaker = speaker
                    self._say_back()
                    first.set()
                    async for notification in listener.notifies():
                        topic, _, content = notification.payload.partition("\n")
                        self._deliver(topic, content.encode())
            except (psycopg.Error, OSError, TimeoutError) as error:
                self._say_away(str(error) or type(error).__name__)
            finally:
                self._speaker = None
            await asyncio.sleep(_PAUSE)

    async def _connect(self, stack: AsyncExitStack) -> AsyncConnection[Any]:
        from psycopg import AsyncConnection
        from psycopg.conninfo import make_conninfo

        async with asyncio.timeout(_PATIENCE):
            connection = await AsyncConnection.connect(make_conninfo(self._address, **_KEEPALIVES), autocommit=True)
        stack.push_async_callback(connection.close)
        return connection

    async def _send(self, topic: str, content: bytes) -> None:
        import psycopg

        async with self._turn:
            if self._speaker is None:
                raise Unreachable("the PostgreSQL server cannot be reached")
            try:
                async with asyncio.timeout(_SENDING):
                    payload = f"{topic}\n{content.decode('ascii')}"
                    await self._speaker.execute("SELECT pg_notify(%s, %s)", (self._channel, payload))
            except (psycopg.Error, OSError, TimeoutError) as error:
                raise Unreachable(f"the PostgreSQL server does not take a message: {error}") from error
