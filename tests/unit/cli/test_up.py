"""`kachery up`, as far as it comes before it serves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kachery.cli import up
from kachery.errors import NotConfigured
from kachery.gateway.config import GatewayConfig, read_channels
from kachery.gateway.logs import make_log
from kachery.gateway.runtime import Gateway, open_gateway
from kachery.gateway.services import accounts, zones

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that was never started."""
    made = open_gateway(GatewayConfig(data=tmp_path / "gateway"), make_log("error"))
    yield made
    made.database.close()


def channels(tmp_path: Path, zone: str) -> Any:
    quota = {"name": "all", "maxFileSize": 1e9, "maxSimultaneous": 2}
    channel = {"name": "c", "password": "p", "zone": zone, "downloadQuotas": [quota], "uploadQuotas": []}
    path = tmp_path / "kachery.json"
    path.write_text(json.dumps({"channels": [channel]}))
    return read_channels(path, "lab")


def test_a_first_start_that_fails_makes_nothing(gateway: Gateway, tmp_path: Path) -> None:
    # the link of the invitation is shown by a start that succeeds, and never again
    with pytest.raises(NotConfigured, match="that anybody may read"):
        up._prepare(gateway, "lab", None, "lab")
    with pytest.raises(NotConfigured, match="does not have"):
        up._prepare(gateway, "lab", channels(tmp_path, "elsewhere"), None)
    assert gateway.database.read_now(accounts.list_users) == []
    assert gateway.database.read_now(zones.list_all) == []

    token = up._prepare(gateway, "lab", channels(tmp_path, "lab"), "shared")

    assert token is not None
    assert gateway.database.read_now(accounts.invited_user, token, 1) == up.system_user_name()
    assert [zone.name for zone in gateway.database.read_now(zones.list_all)] == ["lab", "shared"]
    assert up._prepare(gateway, "lab", None, "shared") is None, "told twice"
