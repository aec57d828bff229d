"""Keys, registration, and what the zone knows about a client."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import kachery_cloud as kc
from kachery.errors import InvalidInput, NotConfigured, NotRegistered, Unreachable
from kachery.signing import ClientKeys, verify
from kachery_cloud._client_keys import (
    _get_client_keys_hex,
    _sign_message,
    _sign_message_as_client,
    _verify_signature,
)
from kachery_cloud._get_kachery_gateway_url import _get_kachery_gateway_url
from kachery_cloud._kachery_gateway_request import _kachery_gateway_request

if TYPE_CHECKING:
    from .conftest import StandIn

SEED = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
CLIENT = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"


class Person(io.StringIO):
    """Presses Enter once, after doing something."""

    def __init__(self, act: object = None) -> None:
        super().__init__("\n")
        self._act = act

    def readline(self, *_: object) -> str:
        if callable(self._act):
            self._act()
        return super().readline()


def test_keys_are_made_only_when_asked(own_environment: Path) -> None:
    # D-02 and D-20
    assert kc.get_client_id() is None
    assert _get_client_keys_hex(False) == (None, None)
    assert not own_environment.exists()

    client = kc.get_client_id(generate_if_missing=True)

    assert client == kc.get_client_id()
    public, private = _get_client_keys_hex(False)
    assert public == client
    assert private is not None
    assert ClientKeys.from_seed(bytes.fromhex(private)).client_id == client
    assert (own_environment / "private.pem").stat().st_mode & 0o777 == 0o600
    assert len((own_environment / "private.pem").read_bytes()) == 118
    assert len((own_environment / "public.pem").read_bytes()) == 112


def test_as_in_0_4_2_asking_for_keys_makes_them() -> None:
    public, private = _get_client_keys_hex()

    assert (public, private) == _get_client_keys_hex(True)
    assert public == kc.get_client_id()


def test_keys_from_the_environment(monkeypatch: pytest.MonkeyPatch, own_environment: Path) -> None:
    monkeypatch.setenv("KACHERY_CLOUD_CLIENT_ID", CLIENT)
    with pytest.raises(NotConfigured):
        kc.get_client_id()
    monkeypatch.setenv("KACHERY_CLOUD_PRIVATE_KEY", SEED)

    assert kc.get_client_id() == CLIENT
    assert _get_client_keys_hex(False) == (CLIENT, SEED)
    assert not own_environment.exists()


def test_keys_do_not_live_in_a_sandbox(own_environment: Path) -> None:
    client = kc.get_client_id(generate_if_missing=True)
    kc.use_sandbox()
    try:
        assert kc.get_client_id() == client
        assert not (Path(kc.get_kachery_cloud_dir()) / "private.pem").exists()
    finally:
        kc.use_sandbox(False)


def test_signatures() -> None:
    message = {"type": "addClient"}
    signature = _sign_message(message, CLIENT, SEED)

    assert signature.startswith("a07d6de55bdd733e")
    assert _verify_signature(message, CLIENT, signature)
    assert not _verify_signature({"type": "other"}, CLIENT, signature)
    assert not _verify_signature(message, CLIENT, "00")
    kc.get_client_id(generate_if_missing=True)
    assert _verify_signature(message, kc.get_client_id() or "", _sign_message_as_client(message))


def test_client_info(rig: StandIn) -> None:
    assert kc.get_client_info() is None
    assert rig.calls == []
    client = kc.get_client_id(generate_if_missing=True)
    assert client is not None
    assert kc.get_client_info() is None
    rig.owners[client] = "alice"

    assert kc.get_client_info() == {
        "type": "getClientInfo",
        "found": True,
        "client": {"clientId": client, "ownerId": "alice", "timestampCreated": 1, "label": "rig"},
    }
    # nothing is remembered from a zone or a client that was in use before
    rig.owners.clear()
    assert kc.get_client_info() is None


@pytest.mark.usefixtures("nobody")
def test_client_info_from_nobody() -> None:
    kc.get_client_id(generate_if_missing=True)

    with pytest.raises(Unreachable):
        kc.get_client_info()


def test_registering(rig: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def register() -> None:
        shown = capsys.readouterr().out
        # the link is there before anybody is asked to press Enter, and it names the zone (D-37)
        match = re.search(
            rf"{rig.url}/registerClient/([0-9a-f]{{64}})\?signature=([0-9a-f]{{128}})&zone=lab&label=\S", shown
        )
        assert match
        assert verify(match[1], {"type": "addClient"}, match[2])
        rig.owners[match[1]] = "alice"

    monkeypatch.setattr("sys.stdin", Person(register))

    kc.init()

    shown = capsys.readouterr().out
    assert f"Client ID: {kc.get_client_id()}" in shown
    assert "Owner: alice" in shown
    assert f"{rig.url}/client/{kc.get_client_id()}?zone=lab" in shown


def test_registering_a_second_time(
    rig: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.owners[kc.get_client_id(generate_if_missing=True) or ""] = "alice"
    monkeypatch.setattr("sys.stdin", io.StringIO(""))

    kc.init()

    shown = capsys.readouterr().out
    assert "registerClient" not in shown
    assert "Owner: alice" in shown


@pytest.mark.parametrize(("stdin", "why"), [("", "nobody here"), ("\n", "still not registered")])
def test_registering_without_success(rig: StandIn, monkeypatch: pytest.MonkeyPatch, stdin: str, why: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))

    with pytest.raises(NotRegistered, match=why):
        kc.init()


def test_registering_with_a_custom_backend(capsys: pytest.CaptureFixture[str]) -> None:
    # D-53
    kc.set_custom_storage_backend(object())

    kc.init()

    assert "nothing to register" in capsys.readouterr().out


def test_no_gateway_and_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotConfigured, match="gateway"):
        kc.init()
    with pytest.raises(NotConfigured):
        _get_kachery_gateway_url()
    monkeypatch.setenv("KACHERY_GATEWAY_URL", "https://gateway.lab/")
    assert _get_kachery_gateway_url() == "https://gateway.lab"
    monkeypatch.setenv("KACHERY_GATEWAY_URL", "ftp://gateway.lab/")
    with pytest.raises(InvalidInput):
        _get_kachery_gateway_url()


def test_calling_the_gateway(rig: StandIn) -> None:
    client = kc.get_client_id(generate_if_missing=True)
    rig.owners[client or ""] = "alice"

    reply = _kachery_gateway_request({"type": "getClientInfo", "clientId": client})

    assert reply["client"]["ownerId"] == "alice"
    assert rig.calls[0]["zone"] == "lab"
    assert isinstance(rig.calls[0]["timestamp"], int)
