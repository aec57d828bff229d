"""`kachery relay`, and what the administrator says about relays, resources and what zones keep."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kachery.gateway.config import GatewayConfig, record_address
from kachery.gateway.logs import make_log
from kachery.gateway.runtime import open_gateway
from kachery.gateway.services import accounts
from rigs.relay import http_request

if TYPE_CHECKING:
    from collections.abc import Callable

KACHERY = Path(sys.prefix) / "bin" / "kachery"


@pytest.fixture
def admin(kachery: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`kachery admin` on a data directory with the user `owner`."""
    monkeypatch.delenv("PROXY_SECRET", raising=False)
    config = GatewayConfig(data=tmp_path / "gateway")
    gateway = open_gateway(config, make_log("error"))
    gateway.database.write_now(accounts.add_user, "owner", 1)
    record_address(config, "http://127.0.0.1:8471")
    gateway.database.close()
    return lambda *arguments: kachery("admin", "--data", str(config.data), *arguments)


def test_what_a_resource_needs(admin: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = json.loads(admin("relay", "--json").out)
    assert shown["proxyUrl"] == "http://127.0.0.1:8471"
    assert len(shown["proxySecret"]) == len(shown["gatewayKey"]) == 64
    assert json.loads(admin("relay", "--json").out) == shown
    assert shown["proxySecret"] in admin("relay").out
    monkeypatch.setenv("PROXY_SECRET", "sek ret")
    assert json.loads(admin("relay", "--json").out)["proxySecret"] == "sek ret"


def test_what_a_zone_keeps(admin: Callable[..., Any]) -> None:
    def keeps() -> dict[str, bool]:
        return {zone["zone"]: zone["keep_on_demand"] for zone in json.loads(admin("zone", "list", "--json").out)}

    assert admin("zone", "create", "passing", "--keep-nothing", "--owner", "owner").code == 0
    assert admin("zone", "create", "keeping", "--owner", "owner").code == 0
    assert keeps() == {"passing": False, "keeping": True}
    assert admin("zone", "set", "passing", "--keep").code == 0
    assert admin("zone", "set", "keeping", "--keep-nothing").code == 0
    assert admin("zone", "set", "keeping", "--private").code == 0
    assert keeps() == {"passing": True, "keeping": False}


def test_a_resource_of_this_gateway(admin: Callable[..., Any]) -> None:
    admin("zone", "create", "lab", "--owner", "owner")
    assert admin("resource", "add", "nas", "--zone", "lab", "--owner", "owner").code == 0
    assert admin("resource", "add", "far", "https://proxy.example.org", "--zone", "lab", "--owner", "owner").code == 0
    assert admin("resource", "add", "odd", "ftp://x", "--zone", "lab", "--owner", "owner").code == 2
    listed = json.loads(admin("resource", "list", "--zone", "lab", "--json").out)
    assert [each["proxy_url"] for each in listed] == ["https://proxy.example.org", "this gateway"]


def test_a_relay_without_a_secret(kachery: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROXY_SECRET", raising=False)
    done = kachery("relay")
    assert done.code == 9
    assert "Environment variable not set: PROXY_SECRET" in done.err


def test_a_relay_alone_reads_what_the_published_proxy_reads() -> None:
    environment = {**os.environ, "PROXY_SECRET": "s3cret", "PORT": "0"}
    relay = subprocess.Popen(
        [KACHERY, "relay", "--host", "127.0.0.1"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert relay.stdout is not None
        url = relay.stdout.readline().removeprefix("ready ").strip()
        assert http_request("GET", f"{url}/probe")[::2] == (200, b"running.")
        relay.send_signal(signal.SIGINT)
        assert relay.wait(30) == 0
    finally:
        relay.kill()
        relay.communicate()
