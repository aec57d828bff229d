"""The command line as people use it: a gateway, and clients with directories of their own, each in its own process."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rigs.gateway import KACHERY, OPEN, PRIVATE, Gateway
from rigs.person import Person

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds that a command may take on a busy machine.
PATIENCE = 100.0


@dataclass
class Machine:
    """A machine of somebody: a home directory, and the command `kachery`."""

    home: Path

    def variables(self, **more: str) -> dict[str, str]:
        path = os.environ.get("PATH", os.defpath)
        return {"PATH": f"{KACHERY.parent}:{path}", "HOME": str(self.home), "LANG": "C.UTF-8", **more}

    def run(self, *arguments: str, stdin: bytes = b"", **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [KACHERY, *arguments],
            env=self.variables(**variables),
            cwd=self.home,
            input=stdin,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in err
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [KACHERY, *arguments],
            env=self.variables(**variables),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kachery(self, *arguments: str) -> str:
        """Run a command that must succeed; gives its stdout without blanks around it."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def program(self, name: str, *arguments: str) -> str:
        """As `kachery`, for another of the installed commands."""
        command = [KACHERY.with_name(name), *arguments]
        done = subprocess.run(
            command, env=self.variables(), cwd=self.home, capture_output=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    @property
    def store(self) -> Path:
        return self.home / ".kachery-cloud"

    def kept(self) -> list[str]:
        """The names of all blobs and of everything unfinished."""
        folders = ("sha1", "tmp", "linked_files")
        return sorted(path.name for folder in folders for path in (self.store / folder).rglob("*") if path.is_file())

    def client_id(self) -> str:
        document = json.loads(self.run("status", "--json").stdout)
        assert isinstance(document["client_id"], str)
        return document["client_id"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gateway")) as running:
        running.admin("zone", "create", PRIVATE, "--private")
        yield running


@pytest.fixture
def new(tmp_path: Path) -> Machine:
    """A machine that nobody has used kachery on."""
    (tmp_path / "new").mkdir()
    return Machine(tmp_path / "new")


@pytest.fixture
def member(tmp_path: Path, gateway: Gateway) -> Machine:
    """A machine of a member of both zones, who may upload."""
    (tmp_path / "member").mkdir()
    machine = Machine(tmp_path / "member")
    name = f"member-{hashlib.sha1(str(tmp_path).encode(), usedforsecurity=False).hexdigest()[:8]}"
    gateway.admin("user", "add", name)
    machine.kachery("init", "--gateway", gateway.url, "--zone", OPEN, "--no-wait")
    for zone in (OPEN, PRIVATE):
        gateway.admin("grant", name, "upload,download", "--zone", zone)
        gateway.admin("client", "add", machine.client_id(), "--owner", name, "--zone", zone)
    return machine


def test_from_an_empty_machine_to_a_file_on_another(
    new: Machine, member: Machine, gateway: Gateway, recording: Path
) -> None:
    uri = member.kachery("store", str(recording))
    hash_ = hashlib.sha1(recording.read_bytes(), usedforsecurity=False).hexdigest()
    assert uri == f"sha1://{hash_}/{recording.name}"
    # sent, and not kept
    assert member.kept() == []

    assert new.run("load", uri).returncode == 3
    assert new.run("status").returncode == 9
    new.kachery("init", "--gateway", gateway.url, "--zone", OPEN, "--no-wait")
    told = json.loads(new.kachery("info", uri, "--json"))
    assert (told["size"], told["zone"], told["local"]) == (recording.stat().st_size, OPEN, None)
    path = Path(new.kachery("load", uri))
    assert path.read_bytes() == recording.read_bytes()
    assert new.kept() == [hash_]
    assert new.store in path.parents
    assert json.loads(new.kachery("info", uri, "--json"))["local"] == {"path": str(path), "kind": "blob"}
    assert new.run("verify").returncode == 0
    (listed,) = json.loads(new.kachery("ls", "--json"))
    assert listed["uri"] == f"sha1://{hash_}"
    # what the machine has needs no gateway
    assert new.run("load", uri, KACHERY_GATEWAY_URL="http://127.0.0.1:1").stdout.strip() == str(path)


def test_init_through_the_page(new: Machine, gateway: Gateway) -> None:
    (new.home / "file").write_text("mine")
    person = Person(gateway, "anna")
    gateway.admin("grant", "anna", "upload", "--zone", OPEN)
    process = new.start(
        "init", "--gateway", gateway.url, "--zone", OPEN, "--label", "Anna’s desk", PYTHONUNBUFFERED="1"
    )
    guard = threading.Timer(PATIENCE, process.kill)
    guard.start()
    try:
        assert process.stdout is not None
        page = process.stdout.readline().strip()
        assert page.startswith(gateway.url)
        assert person.register(page).status == 200
        out, err = process.communicate()
    finally:
        guard.cancel()
        process.kill()
        process.communicate()
    assert process.returncode == 0, err
    assert dict(line.split(maxsplit=1) for line in out.splitlines())["owner"] == "anna"
    assert new.kachery("store", "file").startswith("sha1://")
    told = json.loads(new.kachery("status", "--json"))
    assert (told["owner"], told["label"], told["ready"]) == ("anna", "Anna’s desk", True)
    assert (new.store / "private.pem").stat().st_mode & 0o777 == 0o600


def test_init_ends_with_ctrl_c_and_says_how_to_go_on(new: Machine, gateway: Gateway) -> None:
    process = new.start("init", "--gateway", gateway.url, "--zone", OPEN)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(gateway.url)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "run `kachery init` again" in err
    assert "Traceback" not in err


def test_streams_in_and_out(new: Machine, member: Machine, gateway: Gateway) -> None:
    data = os.urandom(5_000_000)
    done = member.run("store", "-", "--label", "piped.dat", "--keep", stdin=data)
    uri = done.stdout.strip()
    assert uri.endswith("/piped.dat")
    assert len(member.kept()) == 1
    new.kachery("init", "--gateway", gateway.url, "--zone", OPEN, "--no-wait")
    part = subprocess.run(
        [KACHERY, "cat", uri, "--start", "1000000", "--end", "1000010"],
        env=new.variables(), capture_output=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert part.stdout == data[1_000_000:1_000_010]
    # a part is fetched without the rest
    assert new.kept() == []
    whole = subprocess.run(
        [KACHERY, "cat", uri], env=new.variables(), capture_output=True, check=True, timeout=PATIENCE
    )
    assert whole.stdout == data
    # the reader takes ten bytes and goes
    piped = subprocess.run(
        ["bash", "-c", 'set -o pipefail; kachery cat "$0" | head -c 10', uri],
        env=new.variables(), capture_output=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert piped.stdout == data[:10]
    assert piped.stderr == b""
    assert piped.returncode == 141


def test_output_that_cannot_be_written_is_an_error(new: Machine) -> None:
    (new.home / "x").write_text("x")
    uri = new.kachery("store", "--local", "x")
    for command in (["cat", uri], ["ls"], ["du"], ["load", uri], ["--help"], ["--version"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [KACHERY, *command], env=new.variables(), stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert done.returncode == 7, command
        assert done.stderr.startswith("error: ")
        assert "No space left on device" in done.stderr
        assert "Exception ignored" not in done.stderr


def test_a_command_that_is_asked_to_end_leaves_nothing_behind(new: Machine) -> None:
    process = subprocess.Popen(
        [KACHERY, "store", "--local", "-"], env=new.variables(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(os.urandom(4_000_000))
    process.stdin.flush()
    while not any((new.store / "tmp").glob("incoming.*")):
        assert process.poll() is None
    process.terminate()
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM
    assert out == b""
    assert new.kept() == []


@pytest.mark.parametrize(
    ("redirection", "arguments", "code"),
    [(">&-", "ls", 0), ("2>&-", "load x", 2), (">&- 2>&-", "load x", 2), ("<&-", "store --local -", 2)],
)
def test_closed_streams_are_no_surprise(new: Machine, redirection: str, arguments: str, code: int) -> None:
    done = subprocess.run(
        ["bash", "-c", f"kachery {arguments} {redirection}"],
        env=new.variables(), capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == code
    assert "unexpected" not in done.stderr


def test_a_file_that_the_zone_has_is_not_sent_again(member: Machine, gateway: Gateway) -> None:
    (member.home / "x").write_bytes(os.urandom(100_000))

    def uploaded() -> int:
        lines = json.loads(gateway.admin("usage", "--zone", OPEN, "--json"))
        return sum(line["upload_bytes"] for line in lines if line["client"] == member.client_id())

    first = member.kachery("store", "x")
    assert member.kachery("store", "x", "--label", "another name").partition("/another")[0] in first
    # the gateway writes its book now and then
    deadline = threading.Event()
    while uploaded() == 0:
        assert not deadline.wait(0.2)
    deadline.wait(2.5)
    assert uploaded() == 100_000


def test_who_may_not(new: Machine, member: Machine, gateway: Gateway) -> None:
    (new.home / "x").write_text("x")
    (member.home / "secret").write_text("not published yet")
    uri = member.kachery("store", "secret", "--zone", PRIVATE)
    new.kachery("init", "--gateway", gateway.url, "--zone", OPEN, "--no-wait")
    for arguments, code in (
        (["store", "x"], 5),
        (["load", uri, "--zone", PRIVATE], 5),
        (["cat", uri, "--zone", PRIVATE], 5),
        (["info", uri, "--zone", PRIVATE], 5),
        (["load", uri], 3),
        (["load", uri, "--zone", "no-such-zone"], 5),
        (["store", "x", "--zone", "no-such-zone"], 5),
        (["delete", uri, "--zone", PRIVATE, "--yes"], 5),
        (["status"], 5),
    ):
        done = new.run(*arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert done.stderr.startswith("error: ")
        assert "\nhint: " in done.stderr
    assert new.kept() == []
    # a member may load, and not delete
    assert Path(member.kachery("load", uri, "--zone", PRIVATE)).read_text() == "not published yet"
    assert member.run("delete", uri, "--zone", PRIVATE, "--yes").returncode == 5


def test_an_administrator_deletes(new: Machine, gateway: Gateway) -> None:
    administrator = gateway.data.parent / "administrator"
    (new.home / "x").write_text("to be removed")
    stored = new.run("store", "x", KACHERY_CLOUD_DIR=str(administrator))
    assert stored.returncode == 0, stored.stderr
    uri = stored.stdout.strip()
    removed = new.run("delete", uri, "--zone", OPEN, "--yes", KACHERY_CLOUD_DIR=str(administrator))
    assert removed.returncode == 0, removed.stderr
    assert new.run("load", uri, KACHERY_CLOUD_DIR=str(administrator)).returncode == 3
    again = new.run("delete", uri, "--zone", OPEN, "--yes", KACHERY_CLOUD_DIR=str(administrator))
    assert again.returncode == 3


def test_a_download_that_was_interrupted_continues(new: Machine, member: Machine, gateway: Gateway) -> None:
    data = os.urandom(48 * 1024 * 1024)
    (member.home / "large").write_bytes(data)
    uri = member.kachery("store", "large")
    hash_ = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    new.kachery("init", "--gateway", gateway.url, "--zone", OPEN, "--no-wait")
    for how, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = new.start("load", uri)
        part = new.store / "tmp" / f"sha1.{hash_}.part"
        while process.poll() is None and not (part.exists() and part.stat().st_size):
            pass
        process.send_signal(how)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode in (code, 0), err
        assert "Traceback" not in err
        if process.returncode:
            assert out == ""
            assert hash_ not in new.kept()
    path = Path(new.kachery("load", uri))
    assert path.read_bytes() == data
    assert new.kept() == [hash_]
    assert new.run("verify").returncode == 0


def test_a_gateway_that_is_gone(tmp_path: Path, new: Machine) -> None:
    (new.home / "x").write_text("x")
    with Gateway(tmp_path / "short-lived") as gateway:
        new.kachery("init", "--gateway", gateway.url, "--zone", OPEN, "--no-wait")
    for arguments in (["store", "x"], ["load", "sha1://" + "0" * 40], ["status"]):
        done = new.run(*arguments)
        assert done.returncode == 4, (arguments, done.stderr)
        assert "cannot be reached" in done.stderr
        assert "\nhint: " in done.stderr
    assert new.kept() == []
    assert new.kachery("store", "--local", "x").startswith("sha1://")


def make_session(home: Path, recording: Path) -> Path:
    session = home / "session7"
    for probe in ("probe0", "probe1"):
        (session / probe).mkdir(parents=True)
        for number in range(20):
            (session / probe / f"unit{number:02d}.csv").write_text(f"{probe},{number}\n")
    (session / "empty").mkdir()
    (session / "recording.nwb").write_bytes(recording.read_bytes())
    return session


def content(directory: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None for path in directory.rglob("*")
    }


def test_a_directory_on_another_machine(new: Machine, member: Machine, gateway: Gateway, recording: Path) -> None:
    session = make_session(member.home, recording)
    uri = member.kachery("store", "session7")
    assert uri.startswith("sha1dir://")
    assert uri.endswith(".session7")
    assert member.kachery("store", "session7/") == uri
    assert member.kept() == []

    new.kachery("init", "--gateway", gateway.url, "--zone", OPEN, "--no-wait")
    assert new.kachery("ls", uri).splitlines() == ["empty/", "probe0/", "probe1/", "recording.nwb"]
    manifest = uri[10:50]
    assert new.kachery("cat", f"{uri}/probe1/unit07.csv") == "probe1,7"
    # of all the directory holds, one file was moved
    assert new.kept() == sorted([manifest, hashlib.sha1(b"probe1,7\n", usedforsecurity=False).hexdigest()])
    told = json.loads(new.kachery("info", uri, "--json"))
    assert (told["files"], told["dirs"]) == (41, 3)
    assert new.kachery("load", uri, "--dest", "copy") == "copy"
    assert content(new.home / "copy") == content(session)
    assert new.kachery("load", f"{uri}/probe0", "--dest", "probe") == "probe"
    assert content(new.home / "probe") == content(session / "probe0")
    assert new.run("load", uri, "--dest", "copy").returncode == 10
    assert sorted(path.name for path in new.home.iterdir() if path.name != ".kachery-cloud") == ["copy", "probe"]


def test_a_directory_by_md5_in_a_zone(new: Machine, member: Machine, gateway: Gateway, recording: Path) -> None:
    session = make_session(member.home, recording)
    uri = member.program("kachery-store", "-a", "md5", "session7")
    assert uri.startswith("md5dir://")
    new.kachery("init", "--gateway", gateway.url, "--zone", OPEN, "--no-wait")
    new.kachery("load", uri, "--dest", "copy")
    assert content(new.home / "copy") == content(session)
    assert new.program("kachery-cat", f"{uri}/probe0/unit03.csv") == "probe0,3"
    assert new.program("kachery-ls", uri) == "empty/\nprobe0/\nprobe1/\nrecording.nwb"


def test_a_directory_of_which_the_zone_lost_a_file(new: Machine, member: Machine, gateway: Gateway) -> None:
    (member.home / "data").mkdir()
    for name in ("kept", "lost"):
        (member.home / "data" / name).write_text(f"{name} of {member.client_id()}")
    uri = member.kachery("store", "data")
    lost = hashlib.sha1((member.home / "data" / "lost").read_bytes(), usedforsecurity=False).hexdigest()
    owner = f"member-{hashlib.sha1(str(member.home.parent).encode(), usedforsecurity=False).hexdigest()[:8]}"
    gateway.admin("grant", owner, "admin", "--zone", OPEN)
    member.kachery("delete", f"sha1://{lost}", "--zone", OPEN, "--yes")
    new.kachery("init", "--gateway", gateway.url, "--zone", OPEN, "--no-wait")
    done = new.run("load", uri, "--dest", "copy")
    assert done.returncode == 3
    assert "lost: " in done.stderr
    assert not (new.home / "copy").exists()
    assert new.kachery("cat", f"{uri}/kept").startswith("kept of")
