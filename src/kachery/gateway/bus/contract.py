"""What a bus promises; `tests/unit/gateway/test_buses.py` holds every implementation to it.

A bus carries small messages to every process that is on it just now, the sender included. It is made so that
PostgreSQL's LISTEN/NOTIFY and NATS without its storage can both be one:

* a message comes at most once, and those of one process in the order in which it sent them;
* a process that is not on the bus at that moment never gets it, so whoever needs to know says it again (`peers.py`);
* while a bus is away `publish` says so at once, and nothing is kept for later; it comes back by itself;
* it does not say who sent a message: whoever reads one checks its seal (`seals.py`).
"""

from __future__ import annotations

import json
import re
import socket
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput, TooLarge

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    Take = Callable[[dict[str, Any]], None]

#: The largest message in bytes, as JSON; a notification of PostgreSQL carries less than 8000.
LARGEST = 7000

_TOPIC = re.compile("[a-z]{1,20}")


class Bus(ABC):
    """One process's place on a bus.

    Args:
        log: Where to say that the bus is away, and back.
    """

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._takers: dict[str, list[Take]] = {}
        self._away = False

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether messages of others arrive here just now."""

    @property
    @abstractmethod
    def here(self) -> str:
        """The IP address by which the others on the bus reach this machine."""

    @abstractmethod
    async def open(self) -> None:
        """Come onto the bus, or try to, in the background, for as long as it is away.

        Raises:
            InvalidInput, NotAllowed, NotConfigured: If it can never be.
        """

    @abstractmethod
    async def close(self) -> None:
        """Leave; nothing is delivered any more when this returns."""

    @abstractmethod
    async def _send(self, topic: str, content: bytes) -> None:
        """Send a message to every process on the bus, or raise `Unreachable`."""

    def subscribe(self, topic: str, take: Take) -> None:
        """Have a function called, in the event loop, with each message of a topic that comes from now on."""
        _require_topic(topic)
        self._takers.setdefault(topic, []).append(take)

    async def publish(self, topic: str, message: dict[str, Any]) -> None:
        """Send a message to every process on the bus, this one included.

        Args:
            topic: 1 to 20 letters a-z.
            message: A JSON object.

        Raises:
            Unreachable: If the bus is away; nobody gets the message, or not everybody.
            TooLarge: If it is larger than `LARGEST`.
        """
        _require_topic(topic)
        content = json.dumps(message, separators=(",", ":")).encode()
        if len(content) > LARGEST:
            raise TooLarge(f"a message of {len(content)} bytes; a bus carries at most {LARGEST}")
        await self._send(topic, content)

    def _deliver(self, topic: str, content: bytes) -> None:
        takers = self._takers.get(topic)
        if not takers or len(content) > LARGEST:
            return
        try:
            message = json.loads(content)
        except (ValueError, RecursionError):
            return  # not one of ours
        if isinstance(message, dict):
            for take in list(takers):
                try:
                    take(message)
                except Exception as error:
                    self._log.error("bus_message_not_taken", topic=topic, exc_info=error)

    def _say_away(self, reason: str) -> None:
        if not self._away:
            self._away = True
            self._log.warning("bus_away", reason=reason[:300])

    def _say_back(self) -> None:
        if self._away:
            self._away = False
            self._log.info("bus_back")


def towards(host: str, port: int) -> str:
    """The IP address from which this machine reaches a server; nothing is sent."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"


def _require_topic(topic: str) -> None:
    if not _TOPIC.fullmatch(topic):
        raise InvalidInput(f"not a topic of a bus: {topic!r}")
