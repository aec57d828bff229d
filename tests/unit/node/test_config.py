"""`kachery-resource.yaml`: read as upstream's programs read it, written so that they read it, private."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kachery.errors import InvalidInput, KacheryError, NotConfigured
from kachery.node import config

UPSTREAM = """\
resourceName: myres
kacheryZone: default
maxConcurrentUploads: 3
proxyUrl: https://p.example/
proxySecret: sek ret
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / config.FILE_NAME


def test_upstreams_file(path: Path) -> None:
    path.write_text(UPSTREAM)
    found = config.load(path)
    assert (found.name, found.zone, found.relay) == ("myres", "default", "https://p.example")
    assert (found.uploads, found.secret, found.directories, found.gateway_key) == (3, "sek ret", (), None)
    assert found.url == "https://p.example/r/myres"
    assert "sek ret" not in repr(found)


def test_a_store_directory_of_its_own(path: Path) -> None:
    path.write_text(UPSTREAM)
    assert config.load(path).store is None
    path.write_text(UPSTREAM + "kacheryCloudDir: /data/kachery/lab.public\n")
    assert config.load(path).store == Path("/data/kachery/lab.public")
    path.write_text(UPSTREAM + "kacheryCloudDir: kachery\n")
    assert config.load(path).store == path.parent / "kachery"
    path.write_text(UPSTREAM + "kacheryCloudDir: [a, b]\n")
    with pytest.raises(NotConfigured, match="kacheryCloudDir"):
        config.load(path)


@pytest.mark.parametrize("text", ["no", "on", "12345", "0012", "1e3", "0x1f", "1_000", "1:30", "2024-01-01", "y"])
def test_texts_stay_texts(path: Path, text: str) -> None:
    path.write_text(UPSTREAM.replace("sek ret", text))
    assert config.load(path).secret == text


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])))
def test_whatever_is_written_is_read_again_in_both_versions_of_yaml(tmp_path_factory, text: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("config") / "a.yaml"
    config.write(path, {"proxySecret": text, "n": 1, "b": True})
    assert config.read(path) == {"proxySecret": text, "n": 1, "b": True}
    assert yaml.safe_load(path.read_text())["proxySecret"] == text


def test_the_file_is_private_and_keeps_what_it_does_not_know(path: Path) -> None:
    path.write_text(UPSTREAM + "note: mine\nlist: [1, {a: no}]\n")
    path.chmod(0o644)
    config.remember_gateway(config.load(path), "a" * 64)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert config.read(path)["note"] == "mine"
    assert config.read(path)["list"] == [1, {"a": "no"}]
    assert config.load(path).gateway_key == "a" * 64
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_link_to_the_file_stays_one(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(UPSTREAM)
    path.symlink_to(tmp_path / "elsewhere")
    config.remember_gateway(config.load(path), "a" * 64)
    assert path.is_symlink()
    assert config.load(path).gateway_key == "a" * 64


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "No config"),
        (UPSTREAM.replace("kacheryZone: default\n", ""), "No kachery zone in config"),
        (UPSTREAM.replace("proxyUrl: https://p.example/\n", ""), "proxyUrl"),
        (UPSTREAM.replace("resourceName: myres\n", ""), "resourceName"),
        (UPSTREAM.replace("https:", "ftp:"), "relay"),
        (UPSTREAM.replace("myres", "a/b"), "resource name"),
        (UPSTREAM.replace(": 3", ": 0"), "maxConcurrentUploads"),
        (UPSTREAM.replace(": 3", ": many"), "maxConcurrentUploads"),
        (UPSTREAM.replace(": default", ": ../x"), "zone"),
        ("[1, 2]", "keys and values"),
        ("a: b: c", "not YAML"),
        ("a: !!python/object/apply:os.system [id]", "not YAML"),
        (UPSTREAM + "gatewayKey: abc\n", "gatewayKey"),
        (UPSTREAM + "directories: /data\n", "directories"),
    ],
)
def test_what_is_wrong_is_said(path: Path, text: str, says: str) -> None:
    path.write_text(text)
    with pytest.raises(KacheryError, match=says) as caught:
        config.load(path)
    assert isinstance(caught.value, NotConfigured | InvalidInput)


def test_without_a_number_two_are_sent_at_once(path: Path) -> None:
    path.write_text(UPSTREAM.replace("maxConcurrentUploads: 3\n", ""))
    assert config.load(path).uploads == 2


def test_directories_are_those_beside_the_file(path: Path, tmp_path: Path) -> None:
    path.write_text(UPSTREAM + "directories: [raw, /data]\n")
    assert config.load(path).directories == (str(tmp_path / "raw"), "/data")
