"""The resources that are connected, whatever wire they speak, and the limits on those who ask them.

A name is taken once in each zone, by one process. One that is connected to another process is asked through that one.
"""

from __future__ import annotations

import ipaddress
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import KacheryError, TimedOut, Unreachable
from ..forwarding import admitted, target_of
from ..seals import HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Scope

    from ..forwarding import Forwarder
    from ..peers import Peers, Place
    from ..seals import Seals

#: How many may wait for resources at once: altogether, and from one address.
MOST_WAITING = 1000
MOST_WAITING_EACH = 100

#: Seconds within which a resource whose name another one wants must answer.
PRESENCE = 10.0

# How much longer than the resource may take we wait for another process, in seconds
_MARGIN = 5.0


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


@dataclass(frozen=True, slots=True)
class Others:
    """The other processes of a gateway, or of a relay.

    Args:
        peers: Who they are, and what they have.
        forwarder: Asks them.
        seals: Say that a request is one of theirs.
    """

    peers: Peers
    forwarder: Forwarder
    seals: Seals

    async def open(self) -> None:
        """Come onto the bus."""
        await self.forwarder.open()
        await self.peers.open()

    async def close(self) -> None:
        """Say goodbye, and let go of all connections."""
        await self.peers.close()
        await self.forwarder.close()

    def admit(self, scope: Scope) -> Scope:
        """A request of another process as if it had come from its caller; a caller's own as it is.

        Raises:
            NotAllowed: If it says that it is from another process, and is not, or came before.
        """
        sealed = next((value for name, value in scope["headers"] if name == HEADER), None)
        if sealed is None:
            return scope
        return admitted(scope, self.seals.admit(sealed, scope["method"], target_of(scope)))


class Connected(ABC):
    """A resource that is connected.

    Args:
        name: The resource's name.
        zone: Its zone.
    """

    #: Whether it speaks our wire.
    ours = False

    def __init__(self, name: str, zone: str) -> None:
        self.name = name
        self.zone = zone

    async def is_there(self) -> bool:
        """Whether it still answers, as far as its wire has a way to ask."""
        return True

    def dismiss(self, reason: str) -> None:
        """Tell it why it is connected no more, and close its connection."""
        # one that is connected to another process is dismissed there
        raise NotImplementedError

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


class Elsewhere(Connected):
    """A resource that is connected to another process.

    Args:
        place: Where.
        forwarder: Asks the process.
    """

    def __init__(self, place: Place, forwarder: Forwarder) -> None:
        super().__init__(place.name, place.zone)
        self._process = place.process
        self._forwarder = forwarder

    async def answer(self, message: dict[str, Any], seconds: float) -> Answer:
        """The answer to a `requestFromClient`, through the process that has the socket."""
        asked = {"name": self.name, "zone": self.zone, "message": message, "seconds": seconds}
        try:
            said = await self._forwarder.call(self._process, "answer", asked, seconds + _MARGIN)
        except TimedOut:
            raise TimedOut(f"the resource {self.name} did not answer in time") from None
        except Unreachable as error:
            raise Gone(f"the process that the resource {self.name} is connected to has ended") from error
        if said.get("gone") is True:
            raise Gone(f"the resource {self.name} has disconnected")
        return Answer(str(said["requestId"]), said["response"], said["error"])


class Registry:
    """Who is connected. A name is taken once in each zone, and whoever has it keeps it for as long as they answer.

    Args:
        others: The other processes; without them there is this one alone.
    """

    def __init__(self, others: Others | None = None) -> None:
        self._by_name: dict[str, dict[str, Connected]] = {}
        self._others = others
        if others is not None:
            others.peers.on_lost_name = self._give_up

    async def add(self, resource: Connected) -> bool:
        """Enter a resource; says whether its name was free."""
        name, zone = resource.name, resource.zone
        if await self.has(name, zone) or await self._is_taken_elsewhere(name, zone):
            return False
        if zone in self._by_name.get(name, {}):
            # another one was faster
            return False
        self._by_name.setdefault(name, {})[zone] = resource
        if self._others is not None:
            self._others.peers.have(name, zone, resource.ours)
        return True

    def remove(self, resource: Connected) -> None:
        """Strike a resource out; nothing happens to another one of the same name."""
        same_name = self._by_name.get(resource.name, {})
        if same_name.get(resource.zone) is resource:
            del same_name[resource.zone]
            if self._others is not None:
                self._others.peers.have_not(resource.name, resource.zone)
            if not same_name:
                del self._by_name[resource.name]

    async def has(self, name: str, zone: str) -> bool:
        """Whether this process has a resource that still answers; one that does not is struck out."""
        resource = self._by_name.get(name, {}).get(zone)
        if resource is None:
            return False
        if await resource.is_there():
            return True
        self.remove(resource)
        resource.dismiss("it did not answer, and another one of its name has come")
        return False

    async def _is_taken_elsewhere(self, name: str, zone: str) -> bool:
        if self._others is None:
            return False
        for place in self._others.peers.named(name):
            if place.zone != zone:
                continue
            try:
                said = await self._others.forwarder.call(
                    place.process, "has", {"name": name, "zone": zone}, PRESENCE + _MARGIN
                )
                taken = said.get("has") is not False
            except KacheryError:
                # if it has ended, nobody knows it any more; if it only does not answer, it may have it
                taken = self._others.peers.address_of(place.process) is not None
            if taken:
                return True
        return False

    def _give_up(self, name: str, zone: str) -> None:
        resource = self._by_name.get(name, {}).get(zone)
        if resource is not None:
            self.remove(resource)
            resource.dismiss(f"a resource {name!r} of zone {zone!r} is connected already")

    def named(self, name: str) -> dict[str, Connected]:
        """The resources of a name, by zone, wherever they are connected."""
        elsewhere: dict[str, Connected] = {}
        if self._others is not None:
            for place in self._others.peers.named(name):
                elsewhere[place.zone] = Elsewhere(place, self._others.forwarder)
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

    def names_of_zone(self, zone: str) -> dict[str, bool]:
        """The names of a zone's connected resources, wherever they are, and whether they speak our wire."""
        elsewhere = self._others.peers.of_zone(zone) if self._others is not None else []
        return {
            **{place.name: place.ours for place in elsewhere},
            **{each.name: each.ours for each in self.of_zone(zone)},
        }


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
