"""The resources that are connected to this process, whatever wire they speak, and the limits on those who ask them."""

from __future__ import annotations

import ipaddress
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .bus import Bus

#: How many may wait for resources at once: altogether, and from one address.
MOST_WAITING = 1000
MOST_WAITING_EACH = 100


@dataclass(frozen=True, slots=True)
class Answer:
    """What a resource answered to a request of upstream's wire.

    Args:
        request_id: The request's.
        response: Any JSON value.
        error: Why there is no good one; `None` if there is.
    """

    request_id: str
    response: Any
    error: str | None = None


class Gone(Unreachable):
    """A resource left before it answered."""


class Connected(ABC):
    """A resource that is connected.

    Args:
        name: The resource's name.
        zone: Its zone.
    """

    def __init__(self, name: str, zone: str) -> None:
        self.name = name
        self.zone = zone

    @abstractmethod
    async def answer(self, message: dict[str, Any], seconds: float) -> Answer:
        """The answer to a `requestFromClient`.

        Args:
            message: The message as the client sent it.
            seconds: How long to wait.

        Raises:
            TimedOut: If there is none in time.
            Unreachable: If the resource is gone.
        """


class Registry:
    """Who is connected. A name is taken once in each zone, and whoever has it keeps it until they leave.

    Args:
        bus: What the other processes have; without one there are none.
    """

    def __init__(self, bus: Bus | None = None) -> None:
        self._by_name: dict[str, dict[str, Connected]] = {}
        self._bus = bus

    def add(self, resource: Connected) -> bool:
        """Enter a resource; says whether its name was free."""
        if resource.zone in self._by_name.get(resource.name, {}):
            return False
        if self._bus is not None and not self._bus.claim(resource.name, resource.zone):
            return False
        self._by_name.setdefault(resource.name, {})[resource.zone] = resource
        return True

    def remove(self, resource: Connected) -> None:
        """Strike a resource out; nothing happens to another one of the same name."""
        same_name = self._by_name.get(resource.name, {})
        if same_name.get(resource.zone) is resource:
            del same_name[resource.zone]
            if self._bus is not None:
                self._bus.release(resource.name, resource.zone)
            if not same_name:
                del self._by_name[resource.name]

    def named(self, name: str) -> dict[str, Connected]:
        """The resources of a name, by zone, wherever they are connected."""
        elsewhere = self._bus.elsewhere(name) if self._bus is not None else {}
        return {**elsewhere, **self._by_name.get(name, {})}

    async def answer(self, name: str, zone: str, message: dict[str, Any], seconds: float) -> Answer:
        """Have a resource of this process answer a request that another process got.

        Raises:
            Gone: If it is not connected here any more.
            TimedOut, Unreachable: As its `answer`.
        """
        resource = self._by_name.get(name, {}).get(zone)
        if resource is None:
            raise Gone(f"the resource {name} has disconnected")
        return await resource.answer(message, seconds)

    def of_zone(self, zone: str) -> list[Connected]:
        """The resources of a zone that are connected to this process, by name."""
        return [zones[zone] for _, zones in sorted(self._by_name.items()) if zone in zones]


class WaitingRoom:
    """Bounds how many wait for resources.

    Addresses of this machine are counted together with all the others only: they are those of a proxy in front.

    Args:
        most: How many altogether.
        each: How many from one address.
    """

    def __init__(self, most: int = MOST_WAITING, each: int = MOST_WAITING_EACH) -> None:
        self._most = most
        self._each = each
        self._waiting: Counter[str] = Counter()

    @contextmanager
    def place(self, address: str) -> Iterator[None]:
        """A place for one who waits, for as long as the context lasts.

        Raises:
            Unreachable: If there is none.
        """
        if self._waiting.total() >= self._most:
            raise Unreachable(f"{self._most} requests wait for resources here already", hint="try again later")
        if self._waiting[address] >= self._each and not _is_loopback(address):
            raise Unreachable(f"{self._each} requests from {address} wait for resources here", hint="try again later")
        self._waiting[address] += 1
        try:
            yield
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
