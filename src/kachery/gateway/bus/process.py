"""The bus of several applications in one process."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from ...errors import Unreachable
from .contract import Bus

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


class Hub:
    """What the buses of one process have in common. Each of them may live in an event loop of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buses: list[ProcessBus] = []

    def join(self, bus: ProcessBus) -> None:
        """Take a bus in."""
        with self._lock:
            self._buses.append(bus)

    def leave(self, bus: ProcessBus) -> None:
        """Let a bus go."""
        with self._lock:
            if bus in self._buses:
                self._buses.remove(bus)

    def send(self, topic: str, content: bytes) -> None:
        """Hand a message to all of them."""
        with self._lock:
            for bus in self._buses:
                bus.hand_over(topic, content)


class ProcessBus(Bus):
    """A place on the bus of a process.

    Args:
        hub: The bus.
        log: Unused; nothing goes wrong here.
    """

    def __init__(self, hub: Hub, log: FilteringBoundLogger) -> None:
        super().__init__(log)
        self._hub = hub
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def connected(self) -> bool:
        """Whether it is open."""
        return self._loop is not None

    @property
    def here(self) -> str:
        """This machine."""
        return "127.0.0.1"

    async def open(self) -> None:
        """Come onto the bus."""
        self._loop = asyncio.get_running_loop()
        self._hub.join(self)

    async def close(self) -> None:
        """Leave."""
        self._hub.leave(self)
        self._loop = None

    async def _send(self, topic: str, content: bytes) -> None:
        if self._loop is None:
            raise Unreachable("this bus is closed")
        self._hub.send(topic, content)

    def hand_over(self, topic: str, content: bytes) -> None:
        """Have a message delivered in this bus's own loop; any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._deliver_if_open, topic, content)

    def _deliver_if_open(self, topic: str, content: bytes) -> None:
        if self._loop is not None:
            self._deliver(topic, content)
