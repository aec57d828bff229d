"""Files that connected resources have and their zones lack: who offers one, bringing it, keeping it.

    ask ──▶ offer to each daemon of the zone ──▶ a delivery ──▶ readers
                                                    │ complete: digests compared
                                                    └──▶ published in the zone, or held while somebody reads it

Everything here is of one process and in memory. A process that dies leaves staging objects, which the next one removes.
Where several processes are one gateway, the one that has a daemon's socket brings its files, and the others are told by
it what it can bring (`Brought`) and pass their readers on to it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ...errors import Conflict, KacheryError, NotFound, SourceChanged, StorageFull, TooLarge, Unreachable, WrongContent
from ..services import resources, zones
from .connected import Connected
from .delivery import Delivery, Dispatcher, Send

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from ..buckets.contract import Bucket, Digests
    from ..databases.contract import Database
    from ..receiving import Receiver
    from ..services.zones import Zone
    from ..streams import Body
    from .connected import Others, Registry

#: Seconds that a daemon has to answer an offer.
OFFER_PATIENCE = 10.0

#: Seconds after which a daemon is asked anew; it sends what it was asked for within the last day.
OFFER_LIFETIME = 6 * 3600.0

#: Seconds after which a file that nobody reads is let go of.
IDLE = 600.0

#: The most files that are brought or held at once.
MOST_DELIVERIES = 512

#: Seconds that another process may take to say what its daemons offer, and for which it is not asked again.
ELSEWHERE_PATIENCE = OFFER_PATIENCE + 5.0
ELSEWHERE_LIFETIME = 60.0


@dataclass(frozen=True, slots=True)
class Offer:
    """What a daemon says about one file: whether it has it, its size in bytes, and otherwise why not.

    Attributes:
        answered: Whether that is what the daemon said, or what is said because it says nothing.
    """

    found: bool
    size: int = 0
    reason: str = ""
    answered: bool = True


@dataclass(frozen=True, slots=True)
class Brought:
    """A file that another process of this gateway brings: which one, its size in bytes, and the resource's name."""

    process: str
    size: int
    resource: str


class Daemon(Connected):
    """A connected daemon of ours.

    Args:
        name: The resource's name.
        zone: Its zone.
        slots: How many ranges it sends at once.
        owner: Whose files it brings.
    """

    ours = True

    def __init__(self, name: str, zone: str, slots: int, owner: str) -> None:
        super().__init__(name, zone)
        self.slots = slots
        self.owner = owner

    @abstractmethod
    async def offer(self, sha1: str) -> Offer:
        """Ask whether it has a file.

        Raises:
            TimedOut: If it does not answer in time.
            Unreachable: If it is gone.
        """

    @abstractmethod
    def tell_to_send(self, send: Send) -> None:
        """Have it send a range, without waiting."""


@dataclass
class NotOffered:
    """Nobody who is connected has a file.

    Args:
        reasons: What each resource said, for people.
        offline: Resources of the zone that are not connected.
        of_upstream: Those that are, and speak upstream's wire.
        elsewhere: Addresses of resources of the zone that other relays serve, as in `https://host/r/name`.
    """

    reasons: list[str] = field(default_factory=list)
    offline: list[str] = field(default_factory=list)
    of_upstream: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def error(self) -> KacheryError:
        """The same as an error, for a file that was offered before."""
        if self.reasons and not self.offline:
            return NotFound("; ".join(self.reasons))
        names = ", ".join(self.offline)
        missing = f"the resource {names} is not" if names else "no resource of the zone is"
        return Unreachable(f"{missing} connected", hint="try again later, or ask the people who share the files")


class OnDemand:
    """The files on demand of one gateway process.

    Args:
        database: The gateway's database.
        bucket: Where staging objects are.
        receiver: Publishes what is complete.
        registry: Who is connected.
        max_size: The largest file, in bytes.
        log: Where to say what happened.
        others: The gateway's other processes; without them there is this one alone.
    """

    def __init__(
        self,
        database: Database,
        bucket: Bucket,
        receiver: Receiver,
        registry: Registry,
        max_size: int,
        log: FilteringBoundLogger,
        others: Others | None = None,
    ) -> None:
        self._database = database
        self._bucket = bucket
        self._receiver = receiver
        self._registry = registry
        self._max_size = max_size
        self._log = log
        self._others = others
        self._process = others.peers.process if others is not None else ""
        # what others bring, and when they said so
        self._elsewhere: dict[tuple[str, str], tuple[Brought, float]] = {}
        self._dispatchers: dict[Daemon, Dispatcher] = {}
        self._deliveries: dict[tuple[str, str], Delivery] = {}
        self._opening: dict[tuple[str, str], asyncio.Task[Delivery | NotOffered]] = {}
        self._fetching: dict[tuple[str, str], asyncio.Task[KacheryError | None]] = {}
        # why whole files did not come that nobody waited for just then; told to the next who asks
        self._failed: dict[tuple[str, str], KacheryError] = {}
        self._sends: dict[str, Send] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- daemons ------------------------------------------------------------------------------------------------------

    async def connect(self, daemon: Daemon) -> bool:
        """Take a daemon in; says whether its name was free."""
        # before anybody can find it
        dispatcher = self._dispatchers[daemon] = Dispatcher(daemon, self._sends, self._process)
        free = False
        try:
            free = await self._registry.add(daemon)
        finally:
            if not free:
                dispatcher.close()
                del self._dispatchers[daemon]
        return free

    def disconnect(self, daemon: Daemon) -> None:
        """A daemon is gone: whoever waits for it is told at once."""
        self._registry.remove(daemon)
        dispatcher = self._dispatchers.pop(daemon, None)
        if dispatcher is not None:
            dispatcher.close()
            gone = Unreachable(
                f"the resource {daemon.name} has disconnected",
                hint="try again in a moment, or ask the people who share the files",
            )
            for delivery in self._deliveries.values():
                if delivery.brought_by(dispatcher):
                    delivery.interrupt(gone)

    def not_sent(self, daemon: Daemon, send_id: str, reason: str) -> None:
        """A daemon says that it does not send a range, and why."""
        send = self._sends.get(send_id)
        if send is None or send.dispatcher is not self._dispatchers.get(daemon):
            return
        delivery = send.delivery
        self._log.warning(
            "not_sent", zone=delivery.zone.name, sha1=delivery.sha1, resource=daemon.name, reason=reason[:300]
        )
        send.dispatcher.over(send)
        self._drop(delivery, SourceChanged(f"the resource {daemon.name} does not send it: {reason[:300]}"))

    async def receive(self, send_id: str, start: int, end: int, size: int, body: Body) -> None:
        """Receive a range that a daemon was told to send.

        Raises:
            NotFound: If nobody waits for it, or not any more.
            Conflict: If it is coming already, or is another range.
            WrongContent, StorageFull, Unreachable: As `receive_range`.
        """
        send = self._sends.get(send_id)
        if send is None or send.delivery.failure is not None:
            raise NotFound("nobody waits for these bytes any more")
        if send.begun or (start, end, size) != (send.start, send.end, send.delivery.size):
            raise Conflict(f"bytes {send.start} to {send.end} of {send.delivery.size} were asked for, once")
        try:
            await send.delivery.receive(send, body)
        except StorageFull as error:
            # what came of it makes room for the next
            self._drop(send.delivery, error)
            raise

    # -- files --------------------------------------------------------------------------------------------------------

    async def find(self, zone: Zone, sha1: str) -> Delivery | Brought | NotOffered:
        """A file that somebody can bring, to this process or to another one of the gateway."""
        found = await self.find_here(zone, sha1)
        if isinstance(found, NotOffered) and self._others is not None:
            return await self._find_elsewhere(self._others, zone, sha1, found)
        return found

    async def find_here(self, zone: Zone, sha1: str) -> Delivery | NotOffered:
        """A file that a daemon of this process can bring; however many ask, the daemons are asked once."""
        key = zone.name, sha1
        known = self._deliveries.get(key)
        if known is not None and (
            known.complete or (known.attached and time.monotonic() - known.offered < OFFER_LIFETIME)
        ):
            known.used = time.monotonic()
            return known
        opening = self._opening.get(key)
        if opening is None:
            opening = self._opening[key] = asyncio.create_task(self._open(zone, sha1))
            opening.add_done_callback(lambda _: self._opening.pop(key, None))
        return await asyncio.shield(opening)

    async def _find_elsewhere(
        self, others: Others, zone: Zone, sha1: str, missing: NotOffered
    ) -> Delivery | Brought | NotOffered:
        key = zone.name, sha1
        places = [place for place in others.peers.of_zone(zone.name) if place.ours]
        processes = {place.process for place in places}
        known = self._elsewhere.get(key)
        if known is not None and known[0].process in processes and time.monotonic() - known[1] < ELSEWHERE_LIFETIME:
            return known[0]
        self._elsewhere.pop(key, None)
        asked = {"zone": zone.name, "hash": sha1}
        calls = (others.forwarder.call(each, "find", asked, ELSEWHERE_PATIENCE) for each in sorted(processes))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        # whoever asked at the same moment has the same list
        missing = replace(missing, reasons=list(missing.reasons), offline=list(missing.offline))
        for process, said in zip(sorted(processes), answers, strict=True):
            if isinstance(said, KacheryError):
                # a process that has just ended, and its resources with it
                self._log.warning("process_not_asked", process=process, reason=said.message)
                missing.offline += [place.name for place in places if place.process == process]
            elif isinstance(said, BaseException):
                raise said
            elif said["found"]:
                brought = Brought(process, said["size"], said["resource"])
                if len(self._elsewhere) >= MOST_DELIVERIES:
                    # the one that was heard of first
                    del self._elsewhere[next(iter(self._elsewhere))]
                self._elsewhere[key] = brought, time.monotonic()
                return brought
            else:
                missing.reasons += said["reasons"]
        return missing

    def not_elsewhere(self, zone: str, sha1: str) -> None:
        """Take note that another process does not bring a file any more; it is looked for anew."""
        self._elsewhere.pop((zone, sha1), None)

    def process_of(self, send_id: str) -> str:
        """The process that told a daemon to send a range."""
        return send_id.rpartition("-")[0]

    async def held_elsewhere(self, zone: str, sha1: str) -> int | None:
        """As `held`, of the gateway's other processes."""
        if self._others is None:
            return None
        processes = {place.process for place in self._others.peers.of_zone(zone) if place.ours}
        asked = {"zone": zone, "hash": sha1}
        calls = (self._others.forwarder.call(each, "held", asked, OFFER_PATIENCE) for each in processes)
        for said in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(said, dict) and isinstance(said["size"], int):
                return said["size"]
        return None

    def held(self, zone: str, sha1: str) -> int | None:
        """The size in bytes of a file that is complete and not in its zone, or `None`."""
        known = self._deliveries.get((zone, sha1))
        return known.size if known is not None and known.complete else None

    async def _open(self, zone: Zone, sha1: str) -> Delivery | NotOffered:
        daemons = [each for each in self._registry.of_zone(zone.name) if isinstance(each, Daemon)]
        offers = await asyncio.gather(*(self._ask(daemon, sha1) for daemon in daemons))
        willing = [(daemon, offer) for daemon, offer in zip(daemons, offers, strict=True) if offer.found]
        known = self._deliveries.get((zone.name, sha1))
        if known is not None:
            willing = [(daemon, offer) for daemon, offer in willing if offer.size == known.size]
        for daemon, offer in willing:
            dispatcher = self._dispatchers.get(daemon)
            if dispatcher is None:
                continue
            if known is None:
                known = await self._begin(zone, sha1, offer.size)
            known.attach(dispatcher)
            known.offered = time.monotonic()
            known.used = time.monotonic()
            self._log.info("offered", zone=zone.name, sha1=sha1, size=offer.size, resource=daemon.name)
            if not known.missing():
                # an empty file
                self._complete(known)
            return known
        missing = await self._absent(zone.name)
        missing.reasons = [
            f"the resource {daemon.name} says: {offer.reason or 'it does not have it'}"
            for daemon, offer in zip(daemons, offers, strict=True)
        ]
        # a machine that lost its network is still connected as far as anybody knows
        missing.offline += [daemon.name for daemon, offer in zip(daemons, offers, strict=True) if not offer.answered]
        return missing

    async def _ask(self, daemon: Daemon, sha1: str) -> Offer:
        try:
            return await daemon.offer(sha1)
        except Unreachable as error:
            return Offer(False, 0, error.message, answered=False)

    async def _absent(self, zone: str) -> NotOffered:
        connected = self._registry.names_of_zone(zone)
        known = [each for each in await self._database.read(resources.list_all, zone) if each.name not in connected]
        return NotOffered(
            of_upstream=[name for name, ours in connected.items() if not ours],
            offline=[each.name for each in known if not each.proxy_url],
            elsewhere=[f"{each.proxy_url.rstrip('/')}/r/{each.name}" for each in known if each.proxy_url],
        )

    async def _begin(self, zone: Zone, sha1: str, size: int) -> Delivery:
        if size > self._max_size:
            raise TooLarge(f"the file has {size} bytes; this gateway accepts at most {self._max_size}")
        if len(self._deliveries) >= MOST_DELIVERIES:
            await self.clean(older_than=0.0)
        if len(self._deliveries) >= MOST_DELIVERIES:
            raise Unreachable(f"{MOST_DELIVERIES} files are being brought already", hint="try again later")
        name = secrets.token_hex(16)
        self._receiver.protect(name)
        try:
            staging = await asyncio.to_thread(self._bucket.stage, name)
        except BaseException:
            self._receiver.release(name)
            raise
        delivery = self._deliveries[zone.name, sha1] = Delivery(zone, sha1, size, staging)
        delivery.on_complete = self._complete
        return delivery

    # -- complete files -----------------------------------------------------------------------------------------------

    def _complete(self, delivery: Delivery) -> None:
        delivery.on_complete = None
        task = asyncio.create_task(self._finish(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, delivery: Delivery) -> None:
        zone, sha1, kept = delivery.zone, delivery.sha1, False
        try:
            digests = await asyncio.to_thread(delivery.staging.digests, delivery.size)
            if digests.sha1 != sha1:
                raise WrongContent(f"what came has SHA-1 {digests.sha1}, not {sha1}", hint="it changed meanwhile")
            delivery.digests = digests
            kept = await self._keep(delivery, digests)
        except KacheryError as error:
            self._log.error("not_brought", zone=zone.name, sha1=sha1, error=error.code, reason=error.message)
            if isinstance(error, WrongContent):
                self._drop(delivery, error)
            # else it is right and could not be kept: whoever reads it gets it
            delivery.not_kept = error
        else:
            self._log.info("brought", zone=zone.name, sha1=sha1, size=delivery.size, kept=kept)
        delivery.completed = time.time_ns() // 1_000_000
        delivery.over.set()
        delivery.wake()

    async def _keep(self, delivery: Delivery, digests: Digests) -> bool:
        zone = await self._database.read(zones.find, delivery.zone.name)
        if zone is None or not zone.keep_on_demand:
            return False
        await asyncio.to_thread(delivery.staging.sync)
        await self._receiver.adopt(zone, delivery.sha1, delivery.staging.name, digests, self._owner(delivery))
        # readers keep what they have open
        self._forget(delivery)
        return True

    def _owner(self, delivery: Delivery) -> str:
        for daemon in self._registry.of_zone(delivery.zone.name):
            if isinstance(daemon, Daemon) and delivery.brought_by(self._dispatchers.get(daemon)):
                return daemon.owner
        return delivery.zone.owner

    def _drop(self, delivery: Delivery, error: KacheryError) -> None:
        delivery.fail(error)
        self._forget(delivery)
        self._bucket.discard(delivery.staging.name)

    def _forget(self, delivery: Delivery) -> None:
        key = delivery.zone.name, delivery.sha1
        if self._deliveries.get(key) is delivery:
            del self._deliveries[key]
        self._receiver.release(delivery.staging.name)
        # a range that is just coming still writes
        self._close_when_quiet(delivery)

    def _close_when_quiet(self, delivery: Delivery) -> None:
        loop = asyncio.get_running_loop()
        if delivery.assembly.claimed():
            loop.call_later(1.0, self._close_when_quiet, delivery)
        else:
            loop.run_in_executor(None, delivery.close)

    async def clean(self, older_than: float = IDLE) -> None:
        """Let go of files that nobody has read for a while.

        Args:
            older_than: How long, in seconds.
        """
        self._failed.clear()
        limit = time.monotonic() - older_than
        for key, delivery in list(self._deliveries.items()):
            idle = not delivery.readers and key not in self._fetching and not delivery.assembly.claimed()
            if idle and delivery.used <= limit and (delivery.complete or delivery.on_complete is not None):
                self._drop(delivery, NotFound("nobody read this file for a while", hint="ask for it again"))

    async def close(self) -> None:
        """Let go of everything; what is incomplete is removed."""
        tasks: list[asyncio.Task[Any]] = [*self._fetching.values(), *self._opening.values(), *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for daemon in list(self._dispatchers):
            self.disconnect(daemon)
        for delivery in list(self._deliveries.values()):
            delivery.fail(Unreachable("the gateway is being ended"))
            await asyncio.to_thread(delivery.close)
            self._bucket.discard(delivery.staging.name)
        self._deliveries.clear()

    # -- upstream's way: the whole file into the zone -----------------------------------------------------------------

    async def upload_status(self, zone_name: str, sha1: str, seconds: float) -> dict[str, Any]:
        """Have a file brought into its zone, and say how far it is, as upstream's daemons do.

        Args:
            zone_name: The zone.
            sha1: The file.
            seconds: How long to wait for its end before answering.

        Returns:
            `status` (`not-found`, `queued`, `running`, `completed` or `error`), `size`, `bytesUploaded`, `error` and
            times in milliseconds since the epoch.
        """
        zone = await self._database.read(zones.find, zone_name)
        if zone is None:
            return {"status": "not-found"}
        size = await self._receiver.has_file(zone, sha1)
        if size is not None:
            return {"status": "completed", "size": size, "bytesUploaded": size}
        try:
            found = await self.find_here(zone, sha1)
        except KacheryError as error:
            return {"status": "error", "size": 0, "bytesUploaded": 0, "error": error.message}
        if isinstance(found, NotOffered):
            return {"status": "not-found"}
        key = zone_name, sha1
        earlier = self._failed.pop(key, None)
        fetching = self._fetching.get(key)
        if fetching is None and earlier is None and not found.over.is_set():
            fetching = self._fetching[key] = asyncio.create_task(self._fetch(found))
            fetching.add_done_callback(lambda task: self._fetched(key, task))
        if fetching is not None:
            await asyncio.wait([fetching], timeout=seconds)
            if fetching.done():
                self._failed.pop(key, None)
                earlier = None if fetching.cancelled() else fetching.result()
        return _status(found, earlier)

    async def _fetch(self, delivery: Delivery) -> KacheryError | None:
        position = 0
        try:
            while position < delivery.size:
                position = await delivery.available(position, delivery.size)
            await delivery.over.wait()
        except KacheryError as error:
            return error
        return delivery.failure or delivery.not_kept

    def _fetched(self, key: tuple[str, str], task: asyncio.Task[KacheryError | None]) -> None:
        self._fetching.pop(key, None)
        error = None if task.cancelled() else task.result()
        if error is not None and len(self._failed) < MOST_DELIVERIES:
            self._failed[key] = error


def _status(delivery: Delivery, error: KacheryError | None) -> dict[str, Any]:
    status: dict[str, Any] = {"size": delivery.size, "bytesUploaded": delivery.present()}
    status["timestampRequested"] = delivery.requested
    if delivery.started:
        status["timestampStarted"] = delivery.started
    error = delivery.failure or delivery.not_kept or error
    if error is not None:
        return {"status": "error", **status, "error": error.message}
    if delivery.over.is_set():
        ended = {"bytesUploaded": delivery.size, "timestampCompleted": delivery.completed}
        return {"status": "completed", **status, **ended}
    return {"status": "running" if delivery.started else "queued", **status}
