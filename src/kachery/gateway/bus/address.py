"""Which bus an address means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InvalidInput

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from .contract import Bus


def make_bus(address: str, space: str, log: FilteringBoundLogger) -> Bus:
    """The bus at an address.

    Args:
        address: `nats://HOST:PORT` or `tls://HOST:PORT`, several separated by commas; `postgresql://HOST/NAME`; or a
            directory of this machine.
        space: What tells this gateway's messages from those of others.
        log: Where the bus says that it is away.

    Raises:
        InvalidInput: If it is none.
        NotConfigured: If a package for it is not installed.
        NotAllowed: If the directory cannot be used.
    """
    scheme, separator, _ = address.partition("://")
    if not separator:
        from .directory import DirectoryBus

        return DirectoryBus(Path(address).expanduser().absolute(), log)
    if scheme in ("nats", "tls"):
        from .nats import NatsBus

        return NatsBus(address, space, log)
    if scheme in ("postgresql", "postgres"):
        from .postgresql import PostgresBus

        return PostgresBus(address, space, log)
    raise InvalidInput(
        f"not a bus: {scheme}://…", hint="nats://HOST:PORT, postgresql://HOST/NAME, or a directory of this machine"
    )
