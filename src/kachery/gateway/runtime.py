"""What a running gateway is made of."""

from __future__ import annotations

import asyncio
import os
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import Conflict, Unreachable
from ..signing import ClientKeys
from .buckets.directory import DirectoryBucket
from .buckets.places import open_bucket
from .bus.address import make_bus
from .channels import ChannelTraffic
from .databases import open_database
from .forwarding import Forwarder
from .lead import Lead
from .peers import Peers
from .receiving import Receiver
from .relay.asked import Asked
from .relay.connected import Others, Registry, WaitingRoom
from .relay.on_demand import OnDemand
from .seals import Seals
from .services import accounts, notes, zones
from .services.usage import Counters
from .tokens import TokenSigner

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from structlog.typing import FilteringBoundLogger

    from .buckets.contract import Bucket
    from .bus.contract import Bus
    from .config import GatewayConfig
    from .databases.contract import Database
    from .services.zones import Zone

# the note that says where the files are
_BUCKET = "bucket"

# Seconds that a caller waits for a process that receives, while it changes, and that it may take to verify a file
_CHANGING = 10.0
_RECEIVING = 3600.0


@dataclass(frozen=True)
class Gateway:
    """One gateway process's parts.

    Args:
        config: Its settings.
        database: Users, zones, files.
        bucket: The bytes of files.
        receiver: Files on their way in.
        signer: Makes transfer addresses.
        registry: The resources that are connected.
        on_demand: Files that they bring.
        traffic: What goes through classic channels.
        relay_keys: Sign what is asked of daemons.
        proxy_secret: What resources must know that prove nothing else.
        log: Where to say what happened.
        others: The gateway's other processes; `None` where there is one alone.
        lead: Which of them receives files; `None` where there is one alone.
    """

    config: GatewayConfig
    database: Database
    bucket: Bucket
    receiver: Receiver
    signer: TokenSigner
    registry: Registry
    on_demand: OnDemand
    traffic: ChannelTraffic
    relay_keys: ClientKeys
    proxy_secret: str
    log: FilteringBoundLogger
    others: Others | None = None
    lead: Lead | None = None
    counters: Counters = field(default_factory=Counters)
    waiting: WaitingRoom = field(default_factory=WaitingRoom)
    asked: Asked = field(default_factory=Asked)

    async def receiving_process(self) -> str | None:
        """The other process that receives files for all; `None` if this one does.

        Raises:
            Unreachable: If none does just now.
        """
        if self.others is None:
            return None
        deadline = asyncio.get_running_loop().time() + _CHANGING
        while not self.others.peers.leads:
            process = self.others.peers.leader()
            if process is not None:
                return process
            if asyncio.get_running_loop().time() > deadline:
                raise Unreachable("no process of this gateway receives files just now", hint="try again in a moment")
            await asyncio.sleep(0.1)
        return None

    async def finalize(self, zone: Zone, sha1: str, size: int, client: str) -> int | None:
        """As `Receiver.finalize`, in the process that receives."""
        process = await self.receiving_process()
        if process is None or self.others is None:
            return await self.receiver.finalize(zone, sha1, size, client)
        asked = {"zone": zone.name, "hash": sha1, "size": size, "client": client}
        said = await self.others.forwarder.call(process, "finalize", asked, _RECEIVING)
        return None if said["stored"] is None else int(said["stored"])

    async def finalize_for_another(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What `finalize` of another process asks for."""
        zone = await self.database.read(zones.find, asked["zone"])
        if zone is None or await self.receiving_process() is not None:
            raise Unreachable("this process of the gateway does not receive files", hint="try again")
        return {"stored": await self.receiver.finalize(zone, asked["hash"], asked["size"], asked["client"])}


def open_gateway(
    config: GatewayConfig, log: FilteringBoundLogger, bus: Bus | str | None = None, address: str = ""
) -> Gateway:
    """The parts of a gateway on a data directory, which is created or brought up to date.

    Args:
        config: Its settings.
        log: Where to say what happened.
        bus: How it talks with others on the same data directory, or the bus's address; `None` if it is alone.
        address: Where they reach this process, as in `http://10.0.0.5:8471`; with `{here}` for what the bus says that
            this machine is called.

    Raises:
        KacheryError: If the directory, or the bus, cannot be used.
    """
    database = open_database(config.database)
    bucket = _open_bucket(config, database.write_now(remember_bucket, config.bucket_address))
    receiver = Receiver(database, bucket, log)
    others = None
    if bus is not None:
        key = database.write_now(accounts.secret, "between processes")
        others = open_others(key, bus, address, log)
    registry = Registry(others)
    return Gateway(
        config,
        database,
        bucket,
        receiver,
        TokenSigner(database.write_now(accounts.secret, "transfer addresses")),
        registry,
        OnDemand(database, bucket, receiver, registry, config.max_size, log, others),
        ChannelTraffic(database),
        database.write_now(relay_keys),
        os.environ.get("PROXY_SECRET") or database.write_now(proxy_secret),
        log,
        others,
        Lead(config.data / "receiving.lock") if others is not None else None,
        asked=Asked(others.peers if others is not None else None),
    )


def _open_bucket(config: GatewayConfig, address: str | None) -> Bucket:
    return DirectoryBucket(config.bucket_path) if address is None else open_bucket(address, config.spool_path)


def remember_bucket(connection: Connection, address: str | None) -> str | None:
    """Where this gateway's files are: the given address, or the one of its last start; `None` for its own directory.

    Raises:
        Conflict: If its files are elsewhere than at the given address.
    """
    known = notes.read(connection, _BUCKET)
    if address is None or address == known:
        return known
    if known is None and not zones.sizes(connection):
        notes.write(connection, _BUCKET, address)
        return address
    raise Conflict(
        f"the files of this gateway are in {known or 'its data directory'}, not in {address}",
        hint="start it without --bucket, or a new one with another --data directory or --database",
    )


def open_others(key: bytes, bus: Bus | str, address: str, log: FilteringBoundLogger) -> Others:
    """What a process needs to work with others.

    Args:
        key: What all of them share, at least 32 bytes.
        bus: How they talk, or where.
        address: Where others reach this process; with `{here}` as in `open_gateway`.
        log: Where to say what happened.

    Raises:
        InvalidInput, NotConfigured, NotAllowed: If the bus cannot be used.
    """
    seals = Seals(key, secrets.token_hex(8))
    made = make_bus(bus, seals.space, log) if isinstance(bus, str) else bus
    here = f"[{made.here}]" if ":" in made.here else made.here
    peers = Peers(made, seals, address.replace("{here}", here), log)
    return Others(peers, Forwarder(peers, seals), seals)


def proxy_secret(connection: Connection) -> str:
    """The secret of this gateway's relay where the environment gives none; made at the first use."""
    return accounts.secret(connection, "proxy secret").hex()


def relay_keys(connection: Connection) -> ClientKeys:
    """The keys that sign what this gateway asks of daemons; made at the first use."""
    return ClientKeys.from_seed(accounts.secret(connection, "relay signatures"))
