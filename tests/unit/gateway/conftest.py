"""A gateway with two zones and some people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kachery.gateway.config import GatewayConfig
from kachery.gateway.logs import make_log
from kachery.gateway.runtime import open_gateway
from kachery.gateway.services import accounts, zones
from rigs.asgi import Client, Driver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    """A gateway with a public zone `lab`, a private zone `unpublished`, both of `owner`, and the user `alice`."""
    config = GatewayConfig(data=tmp_path / "gateway")
    gateway = open_gateway(config, make_log("error"))

    def prepare(connection: Any) -> None:
        accounts.add_user(connection, "root", 1, is_admin=True)
        for name in ("owner", "alice", "mallory"):
            accounts.add_user(connection, name, 1)
        zones.create(connection, "lab", "owner", 1, private=False, public_upload=False)
        zones.create(connection, "unpublished", "owner", 1, private=True, public_upload=False)
        zones.grant(connection, "lab", "alice", ["upload"])

    gateway.database.write_now(prepare)
    driver = Driver(gateway)
    yield driver
    driver.close()


@pytest.fixture
def alice(driver: Driver) -> Client:
    """A client that may upload to the zone `lab`."""
    return Client(driver).register("alice")
