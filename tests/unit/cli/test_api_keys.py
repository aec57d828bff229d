"""`kachery admin api-key`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kachery.gateway.config import GatewayConfig
from kachery.gateway.databases import open_database
from kachery.gateway.services import accounts, api_keys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def admin(kachery: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """`kachery admin` on a data directory with the users `ada` and `bob`."""
    config = GatewayConfig(data=tmp_path / "gateway")
    database = open_database(config.database)
    for name in ("ada", "bob"):
        database.write_now(accounts.add_user, name, 1)
    database.close()
    return lambda *arguments: kachery("admin", "--data", str(config.data), "api-key", *arguments)


def holder(tmp_path: Path, token: str, purpose: str) -> api_keys.Holder | None:
    database = open_database(GatewayConfig(data=tmp_path / "gateway").database)
    try:
        return database.read_now(api_keys.holder, token, purpose)
    finally:
        database.close()


def test_keys_are_made_listed_and_ended(admin: Callable[..., Any], tmp_path: Path) -> None:
    key = admin("add", "ada", "--label", "rig 2").out.strip()
    manager = admin("add", "ada", "--management").out.strip()
    admin("add", "bob")
    found = holder(tmp_path, key, api_keys.FILES)
    assert found is not None
    assert found.user == "ada"
    assert holder(tmp_path, key, api_keys.MANAGEMENT) is None
    assert holder(tmp_path, manager, api_keys.MANAGEMENT) is not None

    listed = json.loads(admin("list", "ada", "--json").out)
    assert sorted((item["purpose"], item["label"]) for item in listed) == [("files", "rig 2"), ("management", "")]
    assert key not in admin("list").out
    assert len(json.loads(admin("list", "--json").out)) == 3

    admin("remove", "ada", "--id", found.key)
    assert holder(tmp_path, key, api_keys.FILES) is None
    assert holder(tmp_path, manager, api_keys.MANAGEMENT) is not None
    admin("remove", "ada")
    assert holder(tmp_path, manager, api_keys.MANAGEMENT) is None
    assert len(json.loads(admin("list", "--json").out)) == 1


def test_what_is_not_there(admin: Callable[..., Any]) -> None:
    for arguments in (("add", "carol"), ("list", "carol"), ("remove", "carol"), ("remove", "ada")):
        done = admin(*arguments)
        assert done.code == 3, arguments
