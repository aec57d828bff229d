"""The other processes of this gateway, or relay: who lives, at which address, and which resources each has.

Each process says on the bus what it has: every two seconds all of it, and at once what changes. Whoever is not heard of
for seven seconds is gone, or at once when its address takes no connection. While the bus is away what was heard last
counts, since silence then says nothing.

| message of the topic `peers` | sent | keys beside `type`, `process`, `number`, `at` |
|---|---|---|
| `here` | every two seconds; at news | `address`, `leads`, `resources`: `[[name, zone, ours, since], …]` |
| `left` | when a resource disconnects | `resources`: `[[name, zone], …]` |
| `bye` | at the end of a process | |
| `who` | at its start: all others say `here` | |

`number` grows with each message of a process, so that an old one says nothing any more. All are sealed (`seals.py`).
Other news goes the same way, as `{"type": "news", "kind", …}`: `tell` and `listen`.

A name of a resource is one process's. Who wants one that another has asks that one, which looks whether its resource
still answers. Should two come to have it, because they took it in the same moment or did not hear each other, the one
that has had it longer keeps it and the other gives it up.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import KacheryError, Unreachable
from .seals import WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from .bus.contract import Bus
    from .seals import Seals

TOPIC = "peers"

#: Seconds between two messages of a process that say all, and after which one that is not heard of is gone.
BEAT = 2.0
LIFETIME = 7.0

# What the list of resources in one message may measure in bytes, before it is sealed
_LONGEST_LIST = 4000

# What this process believes of others at most
_MOST_PEERS = 1000
_MOST_RESOURCES = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """A resource that is connected to another process.

    Args:
        name: Its name.
        zone: Its zone.
        process: The process that has it.
        ours: Whether it speaks our wire.
    """

    name: str
    zone: str
    process: str
    ours: bool


@dataclass
class _Had:
    ours: bool
    since: int
    heard: float


@dataclass
class _Peer:
    address: str
    leads: bool
    heard: float
    resources: dict[tuple[str, str], _Had] = field(default_factory=dict)


class Peers:
    """What this process knows of the others, and tells them.

    Args:
        bus: How they talk.
        seals: Say who is one of them.
        address: Where others reach this process, as in `http://10.0.0.5:8471`.
        log: Where to say who came and went.
    """

    def __init__(self, bus: Bus, seals: Seals, address: str, log: FilteringBoundLogger) -> None:
        self.process = seals.process
        #: Called with name and zone when another process keeps a name that this one has as well.
        self.on_lost_name: Callable[[str, str], None] | None = None
        self._bus = bus
        self._seals = seals
        self._address = address
        self._log = log
        self._listeners: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._own: dict[tuple[str, str], _Had] = {}
        self._peers: dict[str, _Peer] = {}
        self._numbers: dict[str, tuple[int, float]] = {}
        self._number = 0
        self._leads = False
        self._beating: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()
        self._was_connected = False
        self._back = time.monotonic()

    async def open(self) -> None:
        """Come onto the bus and learn who is there."""
        self._bus.subscribe(TOPIC, self._take)
        await self._bus.open()
        await self._tell("who")
        self._beating = asyncio.create_task(self._beat())

    async def close(self) -> None:
        """Say goodbye and leave the bus."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating])
            await asyncio.gather(*self._telling, return_exceptions=True)
            await self._tell("bye")
        await self._bus.close()

    # -- what others have ---------------------------------------------------------------------------------------------

    def address_of(self, process: str) -> str | None:
        """Where a living process is reached."""
        peer = self._alive().get(process)
        return None if peer is None else peer.address

    def named(self, name: str) -> list[Place]:
        """The resources of a name that others have."""
        return [place for place in self._places() if place.name == name]

    def of_zone(self, zone: str) -> list[Place]:
        """The resources of a zone that others have, by name."""
        return sorted((place for place in self._places() if place.zone == zone), key=lambda place: place.name)

    def leader(self) -> str | None:
        """The other process that receives files for all, if one does."""
        return next((process for process, peer in self._alive().items() if peer.leads), None)

    def lost(self, process: str) -> None:
        """Take note that a process takes no connections: it is gone, unless it says otherwise."""
        if self._peers.pop(process, None) is not None:
            self._log.info("peer_lost", process=process)

    # -- what this process has ----------------------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        """Whether this process receives files for all."""
        return self._leads

    def lead(self) -> None:
        """Say that this process receives files for all, from now on."""
        self._leads = True
        self._soon("here")

    def have(self, name: str, zone: str, ours: bool) -> None:
        """Say that a resource is connected here."""
        self._own[name, zone] = _Had(ours, time.time_ns() // 1_000_000, 0.0)
        self._soon("here", resources=[self._entry((name, zone))])

    def have_not(self, name: str, zone: str) -> None:
        """Say that a resource is not connected here any more."""
        if self._own.pop((name, zone), None) is not None:
            self._soon("left", resources=[[name, zone]])

    # -- other news ---------------------------------------------------------------------------------------------------

    def listen(self, kind: str, take: Callable[[dict[str, Any]], None]) -> None:
        """Have a function called with each piece of news of a kind that another process tells."""
        self._listeners[kind] = take

    def tell(self, kind: str, **keys: Any) -> None:
        """Tell the other processes something small, without waiting; who does not hear it just now never does."""
        self._soon("news", kind=kind, **keys)

    # -- messages -----------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        while True:
            connected = self._bus.connected
            if connected and not self._was_connected:
                # what others said meanwhile was not heard
                self._back = time.monotonic()
                await self._tell("who")
            self._was_connected = connected
            for some in self._lists():
                await self._tell("here", address=self._address, leads=self._leads, resources=some)
            self._forget()
            await asyncio.sleep(BEAT)

    def _lists(self) -> list[list[list[Any]]]:
        lists: list[list[list[Any]]] = [[]]
        length = 0
        for key in self._own:
            entry = self._entry(key)
            length += len(json.dumps(entry)) + 1
            if length > _LONGEST_LIST:
                lists.append([])
                length = 0
            lists[-1].append(entry)
        return lists

    def _entry(self, key: tuple[str, str]) -> list[Any]:
        had = self._own[key]
        return [*key, had.ours, had.since]

    def _soon(self, kind: str, /, **keys: Any) -> None:
        if self._beating is None:
            return
        if kind == "here":
            keys = {"address": self._address, "leads": self._leads, "resources": [], **keys}
        task = asyncio.create_task(self._tell(kind, **keys))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, kind: str, /, **keys: Any) -> None:
        self._number += 1
        message = {
            "type": kind,
            "process": self.process,
            "number": self._number,
            "at": time.time_ns() // 1_000_000,
            **keys,
        }
        try:
            await self._bus.publish(TOPIC, self._seals.seal(message))
        except Unreachable:
            pass  # the bus says so itself, and all is said again when it is back
        except KacheryError as error:
            self._log.error("peers_not_told", reason=error.message)

    def _take(self, sealed: dict[str, Any]) -> None:
        message = self._seals.unseal(sealed)
        if message is None:
            self._log.debug("bus_message_of_others")
            return
        process, number = message.get("process"), message.get("number")
        if not isinstance(process, str) or type(number) is not int or process == self.process:
            return
        if not self._is_new(process, number, message.get("at")):
            return
        match message.get("type"):
            case "here":
                self._take_here(process, message)
            case "left" if process in self._peers:
                for name, zone in message["resources"]:
                    self._peers[process].resources.pop((name, zone), None)
            case "bye":
                if self._peers.pop(process, None) is not None:
                    self._log.info("peer_ended", process=process)
            case "news" if message.get("kind") in self._listeners:
                self._listeners[message["kind"]](message)
            case "who":
                for some in self._lists():
                    self._soon("here", resources=some)

    def _is_new(self, process: str, number: int, at: object) -> bool:
        last, _ = self._numbers.get(process, (0, 0.0))
        if type(at) is not int or number <= last:
            return False
        skew = abs(time.time() - at / 1000)
        if skew > WINDOW:
            self._log.warning("peer_clock", process=process, seconds=round(skew), hint="set the machines' clocks")
            return False
        self._numbers[process] = number, time.monotonic()
        return True

    def _take_here(self, process: str, message: dict[str, Any]) -> None:
        now = time.monotonic()
        peer = self._peers.get(process)
        if peer is None:
            if len(self._peers) >= _MOST_PEERS:
                return
            peer = self._peers[process] = _Peer("", False, now)
            self._log.info("peer_found", process=process, address=message["address"])
        peer.address, peer.leads, peer.heard = message["address"], message["leads"], now
        for name, zone, ours, since in message["resources"]:
            if (name, zone) in peer.resources or len(peer.resources) < _MOST_RESOURCES:
                peer.resources[name, zone] = _Had(ours, since, now)
            self._compare(process, name, zone, since)

    def _compare(self, process: str, name: str, zone: str, since: int) -> None:
        own = self._own.get((name, zone))
        if own is None:
            return
        if (own.since, self.process) > (since, process):
            self._log.warning("name_given_up", resource=name, zone=zone, process=process)
            if self.on_lost_name is not None:
                self.on_lost_name(name, zone)
        else:
            # so that the other one hears of it now
            self._soon("here", resources=[self._entry((name, zone))])

    # -- who lives ----------------------------------------------------------------------------------------------------

    def _limit(self) -> float:
        now = time.monotonic()
        if not self._bus.connected:
            return float("-inf")
        # after a pause of the bus everybody gets the time to be heard of again
        return float("-inf") if now - self._back < LIFETIME else now - LIFETIME

    def _alive(self) -> dict[str, _Peer]:
        limit = self._limit()
        return {process: peer for process, peer in self._peers.items() if peer.heard > limit}

    def _places(self) -> list[Place]:
        limit = self._limit()
        return [
            Place(name, zone, process, had.ours)
            for process, peer in self._alive().items()
            for (name, zone), had in peer.resources.items()
            if had.heard > limit
        ]

    def _forget(self) -> None:
        limit = self._limit()
        for process, peer in list(self._peers.items()):
            if peer.heard <= limit:
                del self._peers[process]
                self._log.info("peer_silent", process=process)
                continue
            for key in [key for key, had in peer.resources.items() if had.heard <= limit]:
                del peer.resources[key]
        # longer than any message of theirs is taken
        old = time.monotonic() - 3 * WINDOW
        for process in [process for process, (_, heard) in self._numbers.items() if heard < old]:
            del self._numbers[process]
