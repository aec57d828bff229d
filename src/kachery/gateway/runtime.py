"""What a running gateway is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .buckets.directory import DirectoryBucket
from .database import Database, prepare
from .receiving import Receiver
from .services import accounts
from .services.usage import Counters
from .tokens import TokenSigner

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from .buckets.contract import Bucket
    from .config import GatewayConfig


@dataclass(frozen=True)
class Gateway:
    """One gateway process's parts.

    Args:
        config: Its settings.
        database: Users, zones, files.
        bucket: The bytes of files.
        receiver: Files on their way in.
        signer: Makes transfer addresses.
        counters: What was counted since it was last written.
        log: Where to say what happened.
    """

    config: GatewayConfig
    database: Database
    bucket: Bucket
    receiver: Receiver
    signer: TokenSigner
    log: FilteringBoundLogger
    counters: Counters = field(default_factory=Counters)


def open_gateway(config: GatewayConfig, log: FilteringBoundLogger) -> Gateway:
    """The parts of a gateway on a data directory, which is created or brought up to date.

    Raises:
        KacheryError: If the directory cannot be used.
    """
    prepare(config.database_path)
    database = Database(config.database_path)
    bucket = DirectoryBucket(config.bucket_path)
    key = database.write_now(accounts.secret, "transfer addresses")
    return Gateway(config, database, bucket, Receiver(database, bucket, log), TokenSigner(key), log)
