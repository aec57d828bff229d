"""The user's named servers: every shape that classic kachery had, and passwords that nobody else reads."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from kachery import files, servers, settings
from kachery.classic import Channel
from kachery.errors import InvalidInput, NotConfigured
from kachery.zone import Zone

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://kachery.lab.org/neuro1"

SERVER = {
    "name": "lab",
    "url": URL,
    "default_read_channel": "public",
    "default_write_channel": "members",
    "channels": [{"name": "public", "password": "public"}, {"name": "members", "password": None}],
}
CONFIGURATIONS = {
    "default_readonly": {"url": URL, "channel": "public", "password": "public"},
    "default_readwrite": {"url": URL, "channel": "members", "password": {"env": "KACHERY_DEFAULT_PASSWORD"}},
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def write(content: Any) -> None:
    settings.servers_path().parent.mkdir(parents=True, exist_ok=True)
    settings.servers_path().write_text(json.dumps(content))


@pytest.mark.parametrize(
    "content", [{"servers": [SERVER]}, SERVER, {"servers": [SERVER, {**SERVER, "url": "http://second"}]}]
)
def test_servers_with_channels(content: Any) -> None:
    write(content)
    public = {"url": URL, "channel": "public", "password": "public"}
    assert servers.find("lab", writing=False) == public
    assert servers.find("lab~public", writing=True) == public
    with pytest.raises(NotConfigured, match="kachery-set-password lab~members"):
        servers.find("lab", writing=True)
    servers.set_password("lab~members", "secret")
    assert servers.find("lab", writing=True) == {"url": URL, "channel": "members", "password": "secret"}
    with pytest.raises(NotConfigured, match="Unable to find channel nobody in server lab"):
        servers.find("lab~nobody", writing=True)
    assert servers.find("unknown", writing=True) is None
    assert servers.names() == ["lab"]


def test_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    write({"configurations": CONFIGURATIONS})
    found = servers.find("default_readwrite", writing=True)
    assert found == CONFIGURATIONS["default_readwrite"]
    with pytest.raises(NotConfigured, match="You need to set the KACHERY_DEFAULT_PASSWORD environment variable"):
        files.open_place("default_readwrite", writing=True)
    monkeypatch.setenv("KACHERY_DEFAULT_PASSWORD", "secret")
    channel = files.open_place("default_readwrite", writing=True)
    assert isinstance(channel, Channel)
    assert channel.address("set", "sha1", "f572d396fae9206628714fb2ce00f72e94f2258f").endswith(
        "/set/sha1/f572d396fae9206628714fb2ce00f72e94f2258f?channel=members"
        "&signature=690a20923f61017cd9fc9afaafff8337c149c0ae"
    )


def test_the_default_password_is_for_default_servers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_DEFAULT_PASSWORD", "secret")
    write({"servers": [SERVER, {**SERVER, "name": "default_readwrite", "default_read_channel": "members"}]})
    found = servers.find("default_readwrite", writing=False)
    assert found is not None
    assert servers.password(found["password"]) == "secret"
    with pytest.raises(NotConfigured, match="No password found"):
        servers.find("lab", writing=True)


def test_a_password_that_was_set_for_classic_kachery(home: Path) -> None:
    write({"servers": [SERVER]})
    (home / ".kachery").mkdir()
    kept = [{"server_name": "lab", "channel_name": "members", "password": "old"}]
    (home / ".kachery" / "server_passwords.json").write_text(json.dumps(kept, indent=4))
    found = servers.find("lab", writing=True)
    assert found is not None
    assert found["password"] == "old"


def test_passwords_are_private_and_drop_nothing_else(home: Path) -> None:
    place = servers.set_password("lab~public", "1")
    assert place == home / ".config" / "kachery" / "server_passwords.json"
    servers.set_password("lab~members", "2")
    servers.set_password("other~members", "3")
    servers.set_password("lab~members", "4")
    kept = {(entry["server_name"], entry["channel_name"]): entry["password"] for entry in json.loads(place.read_text())}
    assert kept == {("lab", "public"): "1", ("lab", "members"): "4", ("other", "members"): "3"}
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_two_who_set_passwords_at_once() -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: servers.set_password(f"lab~{number}", str(number)), range(40)))
    kept = json.loads((settings.user_directory() / "server_passwords.json").read_text())
    assert {entry["channel_name"] for entry in kept} == {str(number) for number in range(40)}


@pytest.mark.parametrize("name", ["", "lab", "~", "lab~", "~public", "a~b~c"])
def test_names_of_channels(name: str) -> None:
    with pytest.raises(InvalidInput, match="server~channel"):
        servers.set_password(name, "x")


@pytest.mark.parametrize(
    "content",
    [
        [],
        3,
        {"configurations": {"lab": None}, "servers": [{"name": "lab"}]},
        {"configurations": {"lab": {"url": "ftp://x", "channel": "c", "password": "p"}}},
        {"configurations": {"lab": {"url": URL, "password": "p"}}},
        {"configurations": {"lab": {"url": URL, "channel": "c", "password": {"env": 3}}}},
        {"configurations": {"lab": {"url": URL, "channel": "c", "password": 3}}},
        {"servers": [{**SERVER, "channels": None}]},
        {"servers": [{**SERVER, "default_read_channel": None}]},
    ],
)
def test_what_makes_no_sense(content: Any) -> None:
    write(content)
    with pytest.raises(NotConfigured):
        servers.find("lab", writing=False)


def test_a_damaged_file() -> None:
    write({})
    settings.servers_path().write_text("{")
    with pytest.raises(NotConfigured, match=r"servers\.json"):
        servers.find("lab", writing=False)


def test_a_name_is_a_servers_or_else_a_zones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="Unable to find server: lab"):
        files.open_place("lab", writing=False)
    monkeypatch.setenv("KACHERY_GATEWAY_URL", "http://127.0.0.1:1")
    zone = files.open_place("lab", writing=False)
    assert isinstance(zone, Zone)
    assert zone.name == "lab"
    write({"servers": [SERVER]})
    assert isinstance(files.open_place("lab", writing=False), Channel)
    assert isinstance(files.open_place({"zone": "lab"}, writing=False), Zone)
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text("{}")
    monkeypatch.setenv("KACHERY_SERVERS", str(elsewhere))
    assert isinstance(files.open_place("lab", writing=False), Zone)
