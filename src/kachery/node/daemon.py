"""One resource's daemon: finds out what its relay speaks, connects, stays connected, and ends cleanly.

A connection that breaks, or that the relay refuses, is tried again after 1 s, then after twice as long each time up to
60 s, with jitter, for ever. What was being done for the relay is begun anew when it asks again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import http, settings
from ..errors import BadReply, KacheryError, NotConfigured
from ..store import keys
from . import config as configuration
from . import our_wire, upstream_wire
from .jobs import Jobs, into_zone
from .requests import Requests
from .sharing import Sharing
from .threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .config import ResourceConfig

logger = logging.getLogger(__name__)

#: The first pause before another try, and the longest, in seconds.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0

# a connection that lasted for so long, in seconds, was a good one
_GOOD = 30.0

_PROBE_PATIENCE = 10.0
_CONNECT_PATIENCE = 20.0


class Daemon:
    """The daemon of one resource.

    Args:
        config: The resource.
        sharing: What it shares; by default what the configuration says.
        connected: Called each time when the relay has taken us.
    """

    def __init__(
        self,
        config: ResourceConfig,
        sharing: Sharing | None = None,
        connected: Callable[[ResourceConfig], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._sharing = sharing or Sharing(config.directories, config.store)
        self._connected = connected
        self._requests = Requests(config.zone, config.name)
        self._jobs = Jobs(self._sharing, config.uploads, into_zone(config.zone))
        self._live_since: float | None = None
        self._ever_connected = False

    async def run(self) -> None:
        """Serve until the task is cancelled.

        Raises:
            NotConfigured: If it never connected, and never can as this machine is set up.
        """
        pause = FIRST_PAUSE
        try:
            while True:
                reason = await self._once()
                lasted = 0.0 if self._live_since is None else time.monotonic() - self._live_since
                if lasted >= _GOOD:
                    pause = FIRST_PAUSE
                wait = pause * random.uniform(0.5, 1.0)
                logger.warning(
                    "disconnected resource=%s relay=%s retry_in=%.1fs: %s",
                    *(self._config.name, http.peer(self._config.relay), wait, reason),
                )
                await asyncio.sleep(wait)
                pause = min(LONGEST_PAUSE, pause * 2)
        finally:
            await self._jobs.close()

    async def _once(self) -> str:
        """Connect and serve; returns why that ended."""
        self._live_since = None
        try:
            if await in_thread(speaks_ours, self._config.relay):
                await self._serve_ours()
            else:
                await self._serve_upstream()
        except NotConfigured as error:
            if not self._ever_connected:
                raise
            return str(error)
        except Exception as error:
            return self._reason(error)
        return "the relay has closed the connection"

    async def _serve_ours(self) -> None:
        from websockets.asyncio.client import connect

        config = self._config
        own = await in_thread(keys.load)
        # this protocol has pings of its own
        async with connect(
            _socket_url(config.relay + our_wire.CONNECT),
            max_size=our_wire.LONGEST_MESSAGE,
            open_timeout=_CONNECT_PATIENCE,
            close_timeout=2,
            ping_interval=None,
            user_agent_header=http.user_agent(),
        ) as socket:
            session = our_wire.Session(socket, config, self._sharing, self._requests, own)
            await session.serve(lambda key: self._ready("ours", key))

    async def _serve_upstream(self) -> None:
        from websockets.asyncio.client import connect

        async with connect(
            _socket_url(self._config.relay),
            max_size=upstream_wire.LONGEST_MESSAGE,
            open_timeout=_CONNECT_PATIENCE,
            close_timeout=2,
            ping_interval=20,
            ping_timeout=40,
            user_agent_header=http.user_agent(),
        ) as socket:
            await upstream_wire.serve(socket, self._config, self._jobs, lambda: self._ready("upstream", None))

    def _ready(self, wire: str, key: str | None) -> None:
        self._live_since = time.monotonic()
        self._ever_connected = True
        config = self._config
        logger.info("connected resource=%s zone=%s relay=%s wire=%s", config.name, config.zone, config.relay, wire)
        if key is not None and config.gateway_key is None:
            try:
                self._config = configuration.remember_gateway(config, key)
                logger.info("gateway key learned resource=%s key=%s", config.name, key)
            except KacheryError as error:
                self._config = replace(config, gateway_key=key)
                logger.warning("the gateway's key is known until this program ends only: %s", error)
        self._connected(self._config)

    def _reason(self, error: Exception) -> str:
        from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI, PayloadTooBig

        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, KacheryError):
            return str(error)
        if isinstance(error, ConnectionClosed):
            frame = error.rcvd or error.sent
            return f"the connection was closed{f': {frame.reason}' if frame is not None and frame.reason else ''}"
        if isinstance(error, InvalidHandshake | InvalidURI | PayloadTooBig):
            return f"the relay takes no web socket there: {error}"
        if isinstance(error, TimeoutError):
            return "the relay did not answer in time"
        if isinstance(error, OSError):
            return f"the relay cannot be reached: {error.strerror or error}"
        if isinstance(error, ImportError):
            return f"the proxy of the environment cannot be used: {error}"
        logger.error("a mistake in kachery", exc_info=error)
        return f"a mistake in kachery: {type(error).__name__}: {error}"


def speaks_ours(relay: str) -> bool:
    """Whether a relay speaks our protocol; else it is taken for one of upstream's.

    Raises:
        Unreachable, TimedOut: If it does not answer at all, or only says to come later.
    """
    reply = http.exchange("GET", relay + our_wire.PROBE, timeout=min(_PROBE_PATIENCE, settings.timeout()))
    reply.raise_if_busy()
    if reply.status != 200:
        return False
    try:
        content = reply.json()
    except BadReply:
        return False
    return content.get("kachery") == "relay"


async def share(daemons: Sequence[Daemon]) -> None:
    """Run several resources side by side, until the task is cancelled.

    Raises:
        NotConfigured: If one of them can never connect as this machine is set up.
    """
    await asyncio.gather(*(daemon.run() for daemon in daemons))


def _socket_url(url: str) -> str:
    return "ws" + url.removeprefix("http")
