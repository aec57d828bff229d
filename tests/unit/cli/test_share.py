"""`kachery share` and `kachery-resource`, without a relay."""

from __future__ import annotations

import io
import json
import stat
from typing import TYPE_CHECKING

import pytest

from kachery.cli import main as kachery
from kachery.cli import resource
from kachery.node import config
from kachery.store import Store

if TYPE_CHECKING:
    from pathlib import Path

YAML = """\
resourceName: myres
kacheryZone: default
maxConcurrentUploads: 3
proxyUrl: https://p.example/
proxySecret: sek ret
"""


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "work"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_init_asks_upstreams_questions_in_their_order(
    working_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "myres", "", "3", "https://p.example/", "sek ret")
    assert resource.run(["init"]) == 0
    said = capsys.readouterr()
    assert said.out == "Wrote ./kachery-resource.yaml\n"
    assert [line for line in said.err.splitlines() if line] == [
        "? Resource name ",
        "? Kachery zone$ (use . for default zone) (.) ",
        "? Maximum concurrent uploads (2) ",
        "? Proxy URL ",
        "? Proxy secret ",
    ]
    path = working_directory / "kachery-resource.yaml"
    assert path.read_text() == YAML
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_init_keeps_what_is_there_for_empty_answers(
    working_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = working_directory / "kachery-resource.yaml"
    path.write_text(YAML + f"mine: 1\ngatewayKey: {'a' * 64}\n")
    typed(monkeypatch, "", "lab", "many", "", "")
    assert resource.run(["init"]) == 0
    assert config.read(path) == {
        "resourceName": "myres",
        "kacheryZone": "lab",
        "maxConcurrentUploads": 3,
        "proxyUrl": "https://p.example/",
        "proxySecret": "sek ret",
        "mine": 1,
        "gatewayKey": "a" * 64,
    }
    assert "sek ret" not in capsys.readouterr().err


def test_init_omits_what_has_no_value(working_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "", "", "", "", "")
    assert resource.run(["init"]) == 0
    assert config.read(working_directory / "kachery-resource.yaml") == {
        "kacheryZone": "default",
        "maxConcurrentUploads": 2,
    }


def test_another_relay_has_another_key(working_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = working_directory / "kachery-resource.yaml"
    path.write_text(YAML + f"gatewayKey: {'a' * 64}\n")
    typed(monkeypatch, "", "", "", "https://q.example", "")
    assert resource.run(["init"]) == 0
    assert "gatewayKey" not in config.read(path)


@pytest.mark.parametrize(
    "answers",
    [("a/b", "", "", "", ""), ("", "../x", "", "", ""), ("", "", "0", "", ""), ("", "", "", "ftp://x", "")],
)
def test_init_writes_nothing_that_makes_no_sense(
    working_directory: Path, monkeypatch: pytest.MonkeyPatch, answers: tuple[str, ...]
) -> None:
    typed(monkeypatch, *answers)
    assert resource.run(["init"]) == 2
    assert not list(working_directory.iterdir())


def test_init_that_is_not_answered_writes_nothing(working_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "myres")
    assert resource.run(["init"]) == 130
    assert not list(working_directory.iterdir())


@pytest.mark.parametrize(
    ("text", "zone", "says", "code"),
    [
        (None, None, "No config", 9),
        (YAML.replace("kacheryZone: default\n", ""), None, "No kachery zone in config", 9),
        (YAML, "lab", "Mismatch in kachery zone: default <> lab", 9),
        (YAML.replace("default", "lab"), None, "Mismatch in kachery zone: lab <> default", 9),
        (YAML.replace("proxyUrl: https://p.example/\n", ""), None, "proxyUrl", 9),
    ],
)
def test_share_that_cannot_begin_says_why(
    working_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str | None,
    zone: str | None,
    says: str,
    code: int,
) -> None:
    if text is not None:
        (working_directory / "kachery-resource.yaml").write_text(text)
    if zone is not None:
        monkeypatch.setenv("KACHERY_ZONE", zone)
    assert resource.run(["share"]) == code
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["shar"], 2), (["--help"], 0), (["init", "--help"], 0)])
def test_what_is_not_a_command(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert resource.run(arguments) == code
    said = capsys.readouterr()
    assert "kachery-resource init" in said.out + said.err


def test_a_dry_run_lists_what_would_be_shared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "work" / "kachery-resource.yaml").write_text(YAML)
    (tmp_path / "open").mkdir()
    for name in ("open/a.dat", "b.dat"):
        (tmp_path / name).write_bytes(name.encode())
        Store().link(tmp_path / name)
    assert kachery.run(["share", "--dry-run", "--json", "--dir", str(tmp_path / "open")]) == 0
    listed = {item["path"]: item for item in json.loads(capsys.readouterr().out)}
    assert listed[str(tmp_path / "open/a.dat")]["shared"] is True
    assert listed[str(tmp_path / "b.dat")]["shared"] is False
    assert kachery.run(["share", "--dry-run"]) == 0
    assert "2 files would be shared" in capsys.readouterr().err


def test_zones_share_the_files_of_their_own_directories(
    working_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["share", "--dry-run", "--json"]
    for zone in ("lab.private", "lab.public"):
        (working_directory / zone).write_bytes(zone.encode())
        Store(working_directory / "kachery" / zone).link(working_directory / zone)
        text = YAML.replace("default", zone) + f"kacheryCloudDir: kachery/{zone}\n"
        (working_directory / f"{zone}.yaml").write_text(text)
        arguments += ["--config", f"{zone}.yaml"]
    assert kachery.run(arguments) == 0
    said = capsys.readouterr()
    assert {item["zone"]: item["path"] for item in json.loads(said.out)} == {
        zone: str(working_directory / zone) for zone in ("lab.private", "lab.public")
    }
    assert "share the same files" not in said.err


def test_zones_that_share_the_same_files_are_named(working_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (working_directory / "a.yaml").write_text(YAML.replace("default", "lab.private"))
    (working_directory / "b.yaml").write_text(YAML.replace("default", "lab.public"))
    assert kachery.run(["share", "--dry-run", "--config", "a.yaml", "--config", "b.yaml"]) == 0
    assert "lab.private and lab.public share the same files" in capsys.readouterr().err


def test_without_a_file_the_zone_and_gateway_of_this_machine_are_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_environment: Path
) -> None:
    monkeypatch.setenv("KACHERY_GATEWAY_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("KACHERY_ZONE", "lab")
    assert kachery.run(["share"]) == 9
    assert "no client keys" in capsys.readouterr().err
    path = own_environment / "resources" / "lab.yaml"
    made = config.load(path)
    assert (made.zone, made.relay, made.secret) == ("lab", "http://127.0.0.1:9", None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # another gateway has another key; the name stays what it was called
    config.remember_gateway(made, "a" * 64)
    monkeypatch.setenv("KACHERY_GATEWAY_URL", "http://127.0.0.1:10")
    assert kachery.run(["share", "--dry-run"]) == 0
    assert kachery.run(["share", "--name", "other"]) == 9
    assert config.load(path).gateway_key is None
    assert config.load(path).name == "other"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--config", "missing.yaml"], 9),
        (["--config", "a.yaml", "--config", "a.yaml"], 2),
        (["--config", "a.yaml", "--dir", "missing"], 2),
        (["--json"], 2),
    ],
)
def test_options_that_make_no_sense(working_directory: Path, arguments: list[str], code: int) -> None:
    (working_directory / "a.yaml").write_text(YAML)
    assert kachery.run(["share", *arguments]) == code
