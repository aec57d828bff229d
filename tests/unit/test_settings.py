"""Settings: where they come from, and that they are read at each call."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from kachery import settings
from kachery.errors import InvalidInput, NotConfigured
from kachery.store import configuration

if TYPE_CHECKING:
    from pathlib import Path


def test_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KACHERY_CLOUD_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert settings.store_dir() == tmp_path / ".kachery-cloud"
    assert settings.zone() == "default"
    assert settings.gateway_url_or_none() is None
    assert settings.resource_url() is None
    assert settings.key_pair() is None
    assert settings.store_file_dir() is None
    assert not settings.multi_user()
    assert not settings.durable()
    assert settings.progress() == "auto"
    assert settings.timeout() == 60.0
    assert settings.transfers() == 4
    assert not list(tmp_path.iterdir())


def test_no_public_host_is_ever_assumed() -> None:
    with pytest.raises(NotConfigured, match="no gateway is configured"):
        settings.gateway_url()


def test_variables_are_read_at_each_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("one", "other"):
        monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / name))
        monkeypatch.setenv("KACHERY_ZONE", name)
        monkeypatch.setenv("KACHERY_GATEWAY_URL", f"http://{name}/")
        monkeypatch.setenv("KACHERY_RESOURCE_URL", f"http://{name}/r/x/")
        assert settings.store_dir() == tmp_path / name
        assert settings.zone() == name
        assert settings.gateway_url() == f"http://{name}"
        assert settings.resource_url() == f"http://{name}/r/x"


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "KACHERY_ZONE",
        "KACHERY_GATEWAY_URL",
        "KACHERY_TIMEOUT",
        "KACHERY_DURABILITY",
        "KACHERY_STORE_FILE_DIR",
    ):
        monkeypatch.setenv(name, "")

    assert settings.zone() == "default"
    assert settings.gateway_url_or_none() is None
    assert settings.timeout() == 60.0
    assert not settings.durable()
    assert settings.store_file_dir() is None


def test_the_environment_wins_over_the_file_and_an_argument_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    configuration.write(gateway_url="http://configured/", zone="configured")
    assert (settings.gateway_url(), settings.zone()) == ("http://configured", "configured")

    monkeypatch.setenv("KACHERY_GATEWAY_URL", "http://named")
    monkeypatch.setenv("KACHERY_ZONE", "named")
    assert (settings.gateway_url(), settings.zone()) == ("http://named", "named")
    assert settings.zone("given") == "given"


def test_what_is_not_given_stays_configured() -> None:
    configuration.write(gateway_url="http://one", zone="one")
    configuration.write(zone="other")

    assert json.loads(settings.config_path().read_text()) == {"gateway_url": "http://one", "zone": "other"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe{", b"[" * 100_000])
def test_a_damaged_file_is_said_to_be_one(own_environment: Path, content: bytes) -> None:
    own_environment.mkdir()
    settings.config_path().write_bytes(content)

    with pytest.raises(NotConfigured, match=r"kachery\.json"):
        settings.gateway_url()


def test_a_directory_in_the_files_place_is_said_to_be_one(own_environment: Path) -> None:
    settings.config_path().mkdir(parents=True)

    with pytest.raises(NotConfigured, match=r"kachery\.json"):
        settings.zone()


def test_values_of_another_type_are_ignored(own_environment: Path) -> None:
    own_environment.mkdir()
    settings.config_path().write_text('{"zone": 7, "gateway_url": null}')

    assert settings.zone() == "default"
    assert settings.gateway_url_or_none() is None


@pytest.mark.parametrize("url", ["ftp://x", "x.org", "javascript:1", "//x"])
def test_a_gateway_has_a_web_address(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("KACHERY_GATEWAY_URL", url)

    with pytest.raises(InvalidInput, match="http"):
        settings.gateway_url()


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon", "1e999", "٣x"])
def test_numbers_that_make_no_sense(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("KACHERY_TIMEOUT", text)
    monkeypatch.setenv("KACHERY_TRANSFERS", text)

    with pytest.raises(InvalidInput, match="KACHERY_TIMEOUT"):
        settings.timeout()
    with pytest.raises(InvalidInput, match="KACHERY_TRANSFERS"):
        settings.transfers()


def test_transfers_stay_within_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, number in [("0.5", 1), ("3", 3), ("1000", 32)]:
        monkeypatch.setenv("KACHERY_TRANSFERS", text)
        assert settings.transfers() == number


def test_durability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_DURABILITY", "sync")
    assert settings.durable()
    monkeypatch.setenv("KACHERY_DURABILITY", "perhaps")
    with pytest.raises(InvalidInput, match="KACHERY_DURABILITY"):
        settings.durable()


@pytest.mark.parametrize("name", ["KACHERY_CLOUD_CLIENT_ID", "KACHERY_CLOUD_PRIVATE_KEY"])
def test_half_a_key_pair_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "00" * 32)

    with pytest.raises(NotConfigured, match="both or neither"):
        settings.key_pair()


def test_a_sandbox_takes_the_place_of_the_store_but_not_of_keys(
    monkeypatch: pytest.MonkeyPatch, own_environment: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("KACHERY_CLOUD_SANDBOX_DIR", str(tmp_path / "sandbox"))
    assert settings.store_dir() == own_environment
    monkeypatch.setenv("KACHERY_CLOUD_USE_SANDBOX", "1")
    assert settings.store_dir() == tmp_path / "sandbox"
    assert settings.store_dir(respect_sandbox=False) == own_environment
    assert settings.config_path().parent == own_environment
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KACHERY_CLOUD_SANDBOX_DIR", "relative")
    assert settings.store_dir() == tmp_path / "relative"
    monkeypatch.delenv("KACHERY_CLOUD_SANDBOX_DIR")
    assert settings.store_dir() == own_environment


def test_a_store_directory_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KACHERY_CLOUD_DIR", "~/store")
    assert settings.store_dir() == tmp_path / "store"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KACHERY_CLOUD_DIR", "relative")
    assert settings.store_dir() == tmp_path / "relative"
    monkeypatch.setenv("KACHERY_CLOUD_DIR", "~nobody-of-this-name/store")
    with pytest.raises(InvalidInput, match="KACHERY_CLOUD_DIR"):
        settings.store_dir()


def test_the_documented_variables_are_those_that_are_read() -> None:
    import inspect
    import re

    documented = set(re.findall(r"`(KACHERY_\w+)`", inspect.getdoc(settings) or ""))
    source = inspect.getsource(settings).split('"""', 2)[2]
    read = set(re.findall(r'"(KACHERY_\w+)"', source))

    assert read == documented
    assert "KACHERY_CLOUD_DIR" in os.environ
