"""What a running gateway is made of."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..signing import ClientKeys
from .buckets.directory import DirectoryBucket
from .channels import ChannelTraffic
from .databases import open_database
from .receiving import Receiver
from .relay.asked import Asked
from .relay.connected import Registry, WaitingRoom
from .relay.on_demand import OnDemand
from .services import accounts
from .services.usage import Counters
from .tokens import TokenSigner

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from structlog.typing import FilteringBoundLogger

    from .buckets.contract import Bucket
    from .config import GatewayConfig
    from .databases.contract import Database


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
    counters: Counters = field(default_factory=Counters)
    waiting: WaitingRoom = field(default_factory=WaitingRoom)
    asked: Asked = field(default_factory=Asked)


def open_gateway(config: GatewayConfig, log: FilteringBoundLogger) -> Gateway:
    """The parts of a gateway on a data directory, which is created or brought up to date.

    Raises:
        KacheryError: If the directory cannot be used.
    """
    database = open_database(config.database)
    bucket = DirectoryBucket(config.bucket_path)
    receiver = Receiver(database, bucket, log)
    registry = Registry()
    return Gateway(
        config,
        database,
        bucket,
        receiver,
        TokenSigner(database.write_now(accounts.secret, "transfer addresses")),
        registry,
        OnDemand(database, bucket, receiver, registry, config.max_size, log),
        ChannelTraffic(database),
        database.write_now(relay_keys),
        os.environ.get("PROXY_SECRET") or database.write_now(proxy_secret),
        log,
    )


def proxy_secret(connection: Connection) -> str:
    """The secret of this gateway's relay where the environment gives none; made at the first use."""
    return accounts.secret(connection, "proxy secret").hex()


def relay_keys(connection: Connection) -> ClientKeys:
    """The keys that sign what this gateway asks of daemons; made at the first use."""
    return ClientKeys.from_seed(accounts.secret(connection, "relay signatures"))
