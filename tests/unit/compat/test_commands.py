"""The `kachery-cloud` commands: data on stdout, reasons on stderr, exit codes that tell failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import kachery_cloud as kc
from kachery_cloud import cli

from .conftest import CONTENT, ELSEWHERE, SHA1, URI

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import StandIn

    Said = tuple[int, bytes, str]

SCRIPTS: dict[str, Callable[[list[str]], int]] = {
    "init": cli.init,
    "store-file": cli.store_file,
    "store-file-local": cli.store_file_local,
    "link-file": cli.link_file,
    "load-file": cli.load_file,
    "load-file-info": cli.load_file_info,
    "cat-file": cli.cat_file,
    "admin-delete-file": cli.admin_delete_file,
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a b.txt"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(params=["script", "sub-command"])
def run(request: pytest.FixtureRequest, capfdbinary: Any) -> Callable[..., Said]:
    """Runs a command, as a script of its own and as a sub-command; gives exit code, stdout and stderr."""

    def run(command: str, *arguments: str) -> Said:
        capfdbinary.readouterr()
        try:
            code = SCRIPTS[command](list(arguments)) if request.param == "script" else cli.main([command, *arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
        shown = capfdbinary.readouterr()
        return code, shown.out, shown.err.decode()

    return run


def test_storing(run: Callable[..., Said], rig: StandIn, source: Path, own_environment: Path) -> None:
    kc.get_client_id(generate_if_missing=True)
    labelled = f"{URI}?label=a%20b.txt\n".encode()

    assert run("store-file", str(source)) == (0, labelled, "")
    assert rig.files == {SHA1: CONTENT}
    # an empty label is no label, and every URI gets one
    assert run("store-file", str(source), "--label", "") == (0, labelled, "")
    assert run("store-file", "--label=x", str(source), "--cache-locally") == (0, f"{URI}?label=x\n".encode(), "")
    assert (own_environment / "sha1" / "b9" / "71" / "c6" / SHA1).exists()
    assert run("store-file-local", str(source)) == (0, labelled, "")
    reference = f"{URI}?label=a%20b.txt&location={source}\n".encode()
    assert run("store-file-local", str(source), "--reference") == (0, reference, "")
    assert run("link-file", str(source), "--label", "y") == (0, f"{URI}?label=y\n".encode(), "")


def test_loading(run: Callable[..., Said], rig: StandIn, tmp_path: Path, own_environment: Path) -> None:
    rig.files[SHA1] = CONTENT
    path = own_environment / "sha1" / "b9" / "71" / "c6" / SHA1

    assert run("load-file", f"{URI}?label=x") == (0, f"{path}\n".encode(), "")
    dest = tmp_path / "there"
    assert run("load-file", URI, "--dest", str(dest)) == (0, f"{dest}\n".encode(), "")
    assert dest.read_bytes() == CONTENT
    assert run("cat-file", URI) == (0, CONTENT, "")
    code, shown, _ = run("load-file-info", URI)
    assert code == 0
    assert shown.decode() == json.dumps(kc.load_file_info(URI), indent=4) + "\n"


def test_a_path_that_is_no_text(run: Callable[..., Said], tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.txt"
    with open(path, "wb") as file:
        file.write(CONTENT)

    code, shown, _ = run("store-file-local", os.fsdecode(path), "--reference", "--label", "x")

    assert (code, shown) == (0, f"{URI}?label=x&location=".encode() + path + b"\n")


@pytest.mark.parametrize("command", ["load-file", "load-file-info", "cat-file"])
def test_nobody_has_it(run: Callable[..., Said], rig: StandIn, command: str) -> None:
    # D-17: the releases say nothing and succeed
    code, shown, reason = run(command, ELSEWHERE)

    assert (code, shown) == (3, b"")
    assert reason.startswith("Error: ")
    assert "lab" in reason


@pytest.mark.parametrize("command", ["load-file", "load-file-info", "cat-file"])
def test_the_zone_refuses(run: Callable[..., Said], rig: StandIn, command: str) -> None:
    rig.refuse = "user is not authorized to download from this zone"

    code, shown, reason = run(command, URI)

    assert (code, shown) == (5, b"")
    assert "not authorized" in reason


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("command", ["load-file", "load-file-info", "cat-file"])
def test_nobody_can_be_reached(run: Callable[..., Said], command: str) -> None:
    code, shown, reason = run(command, URI)

    assert (code, shown) == (4, b"")
    assert "cannot be reached" in reason


def test_wrong_content(run: Callable[..., Said], rig: StandIn) -> None:
    rig.files[SHA1] = b"TEST-content\n"

    code, shown, reason = run("cat-file", URI)

    assert (code, shown) == (6, b"")
    assert "Error: " in reason


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["store-file-local", "/nowhere/at/all"], 3),
        (["link-file", "/"], 2),
        (["load-file", "foo://x"], 2),
        (["load-file"], 2),
        (["load-file", "--bogus", "x"], 2),
        (["admin-delete-file", URI], 9),
        (["init"], 9),
    ],
)
def test_other_failures(run: Callable[..., Said], arguments: list[str], expected: int) -> None:
    code, shown, reason = run(*arguments)

    assert (code, shown) == (expected, b"")
    assert reason


def test_help(run: Callable[..., Said]) -> None:
    for command in SCRIPTS:
        code, shown, reason = run(command, "--help")
        assert (code, reason) == (0, "")
        assert b"usage: kachery-cloud" in shown


def test_without_a_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    assert all(command in shown.err for command in SCRIPTS)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["bogus"])


def test_registering_with_nobody_there(rig: StandIn) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from kachery_cloud import cli; sys.exit(cli.init())"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 5
    assert "/registerClient/" in done.stdout
    assert "press Enter" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_enough(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"line\n" * 1_000_000)
    uri = kc.link_file(str(tmp_path / "long"))
    script = "import sys; from kachery_cloud import cli; sys.exit(cli.cat_file([sys.argv[1]]))"
    with subprocess.Popen(
        [sys.executable, "-c", script, uri], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
