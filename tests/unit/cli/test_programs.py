"""`kachery-store`, `kachery-load` and the other programs of earlier generations, and `--to` and `--fr`."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

from kachery import files, servers
from kachery.cli import main, programs
from kachery.store import Store, keys
from rigs.classic import ClassicServer
from rigs.cloud import Cloud

from .conftest import Done

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Run = Callable[..., Done]

HASH = "37aa63c77398d954473262e1a0057c1e632eda77"
MD5 = "552e21cd4cd9918678e3c1a0df491bc3"
NEST = "sha1dir://dc0f3393b67605198b7f8dcde564af98809acdd5.nest"


@pytest.fixture
def run(kachery: Run, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs one of the programs by its name in an empty directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    functions = {
        "kachery-store": programs.store,
        "kachery-store-local": programs.store_local,
        "kachery-load": programs.load,
        "kachery-load-dir": programs.load_dir,
        "kachery-load-info": programs.load_info,
        "kachery-cat": programs.cat,
        "kachery-ls": programs.ls,
        "kachery-info": programs.info,
        "kachery-set-password": programs.set_password,
    }

    def program(name: str, *arguments: str) -> Done:
        app = typer.Typer()
        app.command()(functions[name])
        capfd.readouterr()
        code = main.run(arguments, app, name)
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return program


@pytest.fixture
def server(run: Run) -> Iterator[ClassicServer]:
    with ClassicServer("/neuro1") as running:
        lab = {
            "name": "lab",
            "url": running.address,
            "default_read_channel": "public",
            "default_write_channel": "members",
            "channels": [{"name": "public", "password": "public"}, {"name": "members", "password": None}],
        }
        place = Path(os.environ["HOME"]) / ".config" / "kachery" / "servers.json"
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps({"servers": [lab]}))
        yield running


@pytest.fixture
def nest(kachery: Run) -> Path:
    Path("nest/sub").mkdir(parents=True)
    Path("nest/a.txt").write_text("hello\n")
    Path("nest/sub/b.txt").write_text("world\n")
    return Path("nest").absolute()


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / "other machine"))


def test_every_program_is_installed() -> None:
    installed = {script.name: script.value for script in entry_points(group="console_scripts")}
    named = [name for name in dir(programs) if name.endswith("_program")]
    assert len(named) == 9
    for name in named:
        script = "kachery-" + name.removesuffix("_program").replace("_", "-")
        assert installed[script] == f"kachery.cli.programs:{name}"
        done = subprocess.run(
            [str(Path(sys.prefix) / "bin" / script), "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0
        assert done.stdout.startswith(f"Usage: {script} ")


def test_files(run: Run) -> None:
    Path("a.txt").write_text("some text")
    assert run("kachery-store", "a.txt").out == f"sha1://{HASH}/a.txt\n"
    assert run("kachery-store", "a.txt", "-a", "md5", "--use-hard-links").out == f"md5://{MD5}/a.txt\n"
    assert run("kachery-store", "a.txt", "--label", "b", "--cache-locally").out == f"sha1://{HASH}/b\n"
    assert run("kachery-store-local", "a.txt", "--label", "").out == f"sha1://{HASH}/a.txt\n"
    path = Store().layout.blob(HASH)
    assert run("kachery-load", f"sha1://{HASH}").out == f"{path}\n"
    assert run("kachery-load", f"md5://{MD5}/a.txt", "--dest", "copy").out == "copy\n"
    assert Path("copy").read_text() == "some text"
    assert run("kachery-load", "copy").out == f"{Path('copy').absolute()}\n"
    assert run("kachery-cat", f"sha1://{HASH}").out == "some text"
    assert run("kachery-cat", f"sha1://{HASH}", "--start", "5").out == "text"
    assert run("kachery-cat", f"sha1://{HASH}", "--start", "0", "--end", "4").out == "some"
    shown = run("kachery-info", f"sha1://{HASH}/a.txt").out
    assert shown == json.dumps({"path": path, "size": 9, "sha1": HASH}, indent=4) + "\n"


def test_directories(run: Run, nest: Path) -> None:
    assert run("kachery-store", str(nest)).out == f"{NEST}\n"
    assert run("kachery-store", f"{nest}/", "--label", "x").out == f"{NEST.removesuffix('nest')}x\n"
    assert run("kachery-ls", NEST).out == "sub/\na.txt\n"
    assert run("kachery-ls", f"{NEST}/sub").out == "b.txt\n"
    assert run("kachery-ls", str(nest)).out == "sub/\na.txt\n"
    assert run("kachery-cat", f"{NEST}/sub/b.txt").out == "world\n"
    assert run("kachery-info", f"{NEST}/sub/b.txt").document["size"] == 6
    assert run("kachery-load-dir", NEST, "--dest", "copy").out == "Done.\n"
    assert Path("copy/sub/b.txt").read_text() == "world\n"
    assert run("kachery-store", str(nest), "-a", "md5").out.startswith("md5dir://")


def test_a_server_by_its_name(
    run: Run, server: ClassicServer, nest: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = run("kachery-store", str(nest), "--to", "lab")
    assert (done.code, done.out) == (9, "")
    assert "kachery-set-password lab~members" in done.err
    assert run("kachery-set-password", "lab~members", "--password", "secret").out == ""
    place = Path(os.environ["HOME"]) / ".config" / "kachery" / "server_passwords.json"
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert run("kachery-store", str(nest), "--to", "lab").out == f"{NEST}\n"
    assert len(server.files) == 3
    Path("a.txt").write_text("some text")
    assert run("kachery-store", "a.txt", "-t", "lab~members", "--remote-only").code == 0
    assert Store().find(HASH) is None
    elsewhere(monkeypatch, tmp_path)
    assert run("kachery-ls", NEST, "--fr", "lab").out == "sub/\na.txt\n"
    assert run("kachery-cat", f"{NEST}/sub/b.txt", "-f", "lab").out == "world\n"
    assert run("kachery-info", f"sha1://{HASH}", "-f", "lab~public").document["url"].startswith(server.address)
    assert run("kachery-load", f"sha1://{HASH}", "--fr", "lab").code == 0
    asked = len(server.requests)
    assert run("kachery-load", f"sha1://{HASH}", "--fr", "lab", "--remote-only").code == 0
    assert len(server.requests) > asked


def test_a_server_by_its_address(
    run: Run, server: ClassicServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Path("a.txt").write_text("some text")
    where = ["--url", server.address, "-c", "members", "-p", "secret"]
    assert run("kachery-store", "a.txt", *where).code == 0
    elsewhere(monkeypatch, tmp_path)
    assert run("kachery-cat", f"sha1://{HASH}", *where).out == "some text"
    for name in ("kachery-load", "kachery-cat", "kachery-ls", "kachery-info"):
        done = run(name, f"sha1://{HASH}", "--fr", "lab", *where)
        assert (done.code, done.out) == (2, "")
        assert "--url" in done.err
    assert run("kachery-store", "a.txt", "--url", server.address).code == 9


def test_what_is_not_there(run: Run) -> None:
    nothing, no_directory = "sha1://" + "0" * 40, f"sha1dir://{'0' * 40}.x"
    for arguments, code in [
        (["kachery-load", nothing], 3),
        (["kachery-load", NEST], 2),
        (["kachery-cat", nothing], 3),
        (["kachery-cat", nothing, "--start", "1", "--end", "2"], 3),
        (["kachery-info", nothing], 3),
        (["kachery-info", NEST], 3),
        (["kachery-ls", no_directory], 3),
        (["kachery-ls", nothing], 2),
        (["kachery-load-dir", no_directory, "--dest", "copy"], 3),
        (["kachery-load-info", nothing], 9),
        (["kachery-store", "nothing"], 3),
        (["kachery-store", "."], 0),
        (["kachery-store", ".", "-a", "sha256"], 2),
        (["kachery-set-password", "lab", "--password", "x"], 2),
        (["kachery-load"], 2),
    ]:
        done = run(*arguments)
        assert done.code == code, (arguments, done.err)
        if code:
            assert done.out == ""
            assert "error: " in done.err
    assert not Path("copy").exists()


def test_the_none_of_old_programs_is_no_path(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_MISSING", "none")
    done = run("kachery-load", "sha1://" + "0" * 40)
    assert (done.code, done.out) == (3, "")


def test_the_commands_of_kachery_2(kachery: Run, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.txt").write_text("some text")
    assert kachery("store-file-local", "a.txt").out == f"sha1://{HASH}/a.txt\n"
    assert kachery("cat-file", f"sha1://{HASH}").out == "some text"
    assert kachery("load-file", f"sha1://{HASH}", "--dest", "b").out == "b\n"
    with Cloud() as cloud:
        monkeypatch.setenv("KACHERY_GATEWAY_URL", cloud.url)
        monkeypatch.setenv("KACHERY_ZONE", "lab")
        keys.load_or_create()
        assert kachery("store-file", "a.txt", "--label", "c").out == f"sha1://{HASH}/c\n"
        assert cloud.files == {HASH: b"some text"}
        told = kachery("load-file-info", f"kachery:lab:sha1:{HASH}").document
        assert told == run("kachery-load-info", f"kachery:lab:sha1:{HASH}").document
        assert (told["found"], told["size"]) == (True, 9)


def test_to_and_fr_of_kachery(
    kachery: Run,
    run: Run,
    server: ClassicServer,
    nest: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    servers.set_password("lab~members", "secret")
    Path("a.txt").write_text("some text")
    assert kachery("store", "--to", "lab", "a.txt", str(nest)).out == f"sha1://{HASH}/a.txt\n{NEST}\n"
    assert Store().find(HASH) is not None
    assert len(server.files) == 4
    elsewhere(monkeypatch, tmp_path)
    assert kachery("ls", NEST, "--fr", "lab").out == "sub/\na.txt\n"
    assert kachery("cat", f"sha1://{HASH}", "-f", "lab", "--start", "5").out == "text"
    assert kachery("info", f"sha1://{HASH}", "-f", "lab", "--json").document["size"] == 9
    assert kachery("info", NEST, "-f", "lab", "--json").document["files"] == 2
    assert kachery("load", NEST, "--fr", "lab", "--dest", "copy").out == "copy\n"
    assert kachery("load", f"sha1://{HASH}", "--fr", "lab").code == 0
    assert kachery("cat", f"sha1://{HASH}", "--fr", "lab").out == "some text"
    for arguments in (["--to", "lab", "--local"], ["--to", "lab", "--zone", "x"]):
        assert kachery("store", "a.txt", *arguments).code == 2
    assert kachery("load", f"sha1://{HASH}", "--fr", "nobody").code == 9


def test_without_a_gateway_files_stay_here_and_that_is_said(kachery: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.txt").write_text("some text")
    monkeypatch.setattr(files.opening, "_said", False)
    done = kachery("store", "a.txt")
    assert (done.code, done.out) == (0, f"sha1://{HASH}/a.txt\n")
    assert "on this machine only: no gateway is configured" in done.err


def test_standard_input_goes_to_a_server(
    kachery: Run, run: Run, server: ClassicServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.set_password("lab~members", "secret")
    Path("a.txt").write_text("some text")
    with open("a.txt") as file:
        monkeypatch.setattr("sys.stdin", file)
        assert kachery("store", "-", "--to", "lab").out == f"sha1://{HASH}\n"
    assert server.files == {("sha1", HASH): b"some text"}


def test_passwords_stay_where_they_belong(run: Run, server: ClassicServer) -> None:
    done: Any = run("kachery-load", f"sha1://{HASH}", "--url", server.address, "-c", "members", "-p", "wrong-private")
    assert done.code == 5
    assert "wrong-private" not in done.err
    assert "signature=" not in done.err
