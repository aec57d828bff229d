"""Disasters of files on demand: each ends in a clear error within its time, and the next request works."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from kachery import http
from kachery.zone import RemoteFile, Zone
from rigs.gateway import OPEN, START, Gateway
from rigs.lab import SECRET, Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds within which a client must have given up, whatever happened.
PATIENCE = 100

LARGE = 1024**3


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with Gateway(tmp_path / "gateway", environment={"PROXY_SECRET": SECRET}) as running:
        yield running


@pytest.fixture
def lab(gateway: Gateway, tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path / "lab", gateway.url) as machine:
        yield machine


class Client:
    """Somebody elsewhere, with our command line.

    Args:
        directory: Their home.
        gateway: The gateway.
        environment: What else their shell sets.
    """

    def __init__(self, directory: Path, gateway: Gateway, environment: dict[str, str] | None = None) -> None:
        directory.mkdir(parents=True)
        self.store = directory / "kachery-cloud"
        self._variables = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(directory),
            "KACHERY_CLOUD_DIR": str(self.store),
            "KACHERY_GATEWAY_URL": gateway.url,
            "KACHERY_ZONE": OPEN,
            **(environment or {}),
        }

    def begin(self, uri: str) -> subprocess.Popen[str]:
        """Start to load a file; see `end`."""
        return subprocess.Popen(
            [str(Path(sys.prefix) / "bin" / "kachery"), "load", uri],
            env=self._variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def load(self, uri: str) -> tuple[int, str]:
        """Load a file: the exit code, and all that was said."""
        return end(self.begin(uri))


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a client: its exit code, and all that it said."""
    try:
        said = "".join(process.communicate(timeout=PATIENCE))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise AssertionError("the client did not end within its time") from None
    return process.returncode, said


@pytest.fixture
def client(gateway: Gateway, tmp_path: Path) -> Client:
    return Client(tmp_path / "elsewhere", gateway)


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + START
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def large_file(lab: Lab, name: str = "large.dat") -> str:
    path = lab.file(name, b"")
    os.truncate(path, LARGE)
    with path.open("r+b") as file:
        file.write(os.urandom(16))
    return lab.link(path)


def small_file(lab: Lab) -> str:
    return lab.link(lab.file(f"{os.urandom(4).hex()}.dat", os.urandom(2_000_000)))


def is_loading(client: Client) -> bool:
    """Whether some of a file has arrived."""
    return any(path.stat().st_blocks for path in client.store.glob("tmp/*") if path.is_file())


def connections(lab: Lab) -> int:
    return lab.log.read_text().count(" info: connected ")


@pytest.mark.slow
def test_the_daemon_is_killed_while_it_sends(lab: Lab, client: Client) -> None:
    uri = large_file(lab)
    loading = client.begin(uri)
    until(lambda: is_loading(client))
    lab.kill()
    code, said = end(loading)
    assert code == 4, said
    assert "resource" in said
    assert client.load(uri)[0] in (3, 4)
    lab.start()
    code, said = client.load(uri)
    assert code == 0, said
    assert os.path.getsize(said.strip()) == LARGE


def test_the_daemon_is_stopped_while_it_sends_and_ends_at_once(lab: Lab, client: Client) -> None:
    uri = large_file(lab)
    loading = client.begin(uri)
    until(lambda: is_loading(client))
    assert lab.stop() == 0
    code, said = end(loading)
    assert code == 4, said
    lab.start()
    assert client.load(small_file(lab))[0] == 0


def test_the_relay_is_killed_and_started_again(gateway: Gateway, lab: Lab, client: Client) -> None:
    uri = small_file(lab)
    gateway.kill()
    code, said = client.load(uri)
    assert code == 4, said
    gateway.start()
    until(lambda: connections(lab) == 2)
    code, said = client.load(uri)
    assert code == 0, said


@pytest.mark.slow
def test_the_relay_is_killed_while_it_relays(gateway: Gateway, lab: Lab, client: Client) -> None:
    uri = large_file(lab)
    loading = client.begin(uri)
    until(lambda: is_loading(client))
    gateway.kill()
    assert end(loading)[0] == 4
    gateway.start()
    until(lambda: connections(lab) == 2)
    code, said = client.load(uri)
    assert code == 0, said


def test_a_file_changes_while_it_is_sent(lab: Lab, client: Client) -> None:
    uri = large_file(lab)
    loading = client.begin(uri)
    until(lambda: is_loading(client))
    with (lab.home / "data" / "large.dat").open("r+b") as file:
        file.seek(LARGE - 1)
        file.write(b"!")
    code, said = end(loading)
    assert code != 0
    assert "changed" in said
    code, said = client.load(uri)
    assert code != 0
    assert "changed" in said
    assert client.load(small_file(lab))[0] == 0


def test_a_wrong_secret_is_said_on_both_sides(gateway: Gateway, tmp_path: Path, client: Client) -> None:
    lab = Lab(tmp_path / "lab", gateway.url, secret="wrong")
    uri = small_file(lab)
    lab.start(wait=False)
    try:
        until(lambda: "refuses" in lab.log.read_text())
        assert "secret" in lab.log.read_text()
        assert "wrong" not in lab.log.read_text().replace("secret is wrong", "")
        code, said = client.load(uri)
        assert code in (3, 4), said
    finally:
        lab.stop()
    with Lab(tmp_path / "lab", gateway.url):
        assert client.load(uri)[0] == 0


def test_a_second_daemon_of_the_same_name_never_disturbs_the_first(
    gateway: Gateway, lab: Lab, tmp_path: Path, client: Client
) -> None:
    second = Lab(tmp_path / "second", gateway.url)
    uri = small_file(lab)
    second.start(wait=False)
    try:
        until(lambda: second.log.read_text().count("connected already") >= 2)
        assert client.load(uri)[0] == 0
        assert connections(lab) == 1
        # once the first has left, the other takes its place
        lab.stop()
        until(lambda: connections(second) == 1)
        assert client.load(small_file(second))[0] == 0
    finally:
        second.stop()


@pytest.mark.parametrize("path", ["", "/api/v1/resource"])
def test_peers_that_break_every_rule(gateway: Gateway, lab: Lab, client: Client, path: str) -> None:
    address = gateway.url.replace("http", "ws", 1) + path
    hostile: list[str | bytes] = [
        "{",
        "[]",
        "7",
        b"\xff\xfe",
        json.dumps({"type": "initialize"}),
        json.dumps({"type": "hello", "version": 1, "resource": 1, "zone": [], "maxConcurrentUploads": "x"}),
        json.dumps({"type": "initialize", "resourceName": "__proto__", "zone": OPEN, "proxySecret": "x"}),
        "x" * 200_000,
        json.dumps({"type": "x" * 60_000}),
    ]
    for frame in hostile:
        with connect(address, open_timeout=START, max_size=None) as peer, suppress(ConnectionClosed):
            peer.send(frame)
            while True:
                peer.recv(timeout=START)
    # frames that no web socket may have: reserved bits set
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=START) as raw:
        raw.sendall(
            f"GET {path or '/'} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b"101" in raw.recv(4096)
        raw.sendall(b"\xf1\x80aaaa")
        with suppress(ConnectionResetError):
            while raw.recv(4096):
                pass
    # many that say nothing
    with ExitStack() as silent:
        for _ in range(50):
            silent.enter_context(connect(address, open_timeout=START))
        code, said = client.load(small_file(lab))
        assert code == 0, said


@pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="only root can mount a small file system")
def test_a_bucket_that_refuses(tmp_path: Path) -> None:
    """The gateway's disk is full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(disk)], check=True, timeout=START)
    try:
        with (
            Gateway(disk / "gateway", environment={"PROXY_SECRET": SECRET}) as gateway,
            Lab(tmp_path / "lab", gateway.url) as lab,
        ):
            client = Client(tmp_path / "elsewhere", gateway)
            # no room for a single piece: with some room the client would have the file after a few attempts
            free = os.statvfs(disk)
            filler = disk / "filler"
            filler.write_bytes(bytes(free.f_bavail * free.f_frsize - 1_000_000))
            code, said = client.load(large_file(lab))
            assert code != 0
            assert "room" in said or "space" in said, said
            filler.unlink()
            uri = small_file(lab)
            # a range that was just coming holds its room for a moment longer
            until(lambda: client.load(uri)[0] == 0)
    finally:
        subprocess.run(["umount", str(disk)], check=True, timeout=START)


def test_many_who_ask_for_one_file_cost_one_read(gateway: Gateway, lab: Lab, tmp_path: Path) -> None:
    path = lab.file("shared.dat", os.urandom(20_000_000))
    uri = lab.link(path)
    before = _read_by(lab.pid)
    clients = [Client(tmp_path / f"client-{number}", gateway) for number in range(10)]
    loading = [each.begin(uri) for each in clients]
    assert [end(process)[0] for process in loading] == [0] * 10
    # what the daemon read, verification included, is about the file, not ten times the file
    assert _read_by(lab.pid) - before < 3 * 20_000_000


def test_a_hundred_at_once_cost_one_read(gateway: Gateway, lab: Lab) -> None:
    content = os.urandom(5_000_000)
    uri = lab.link(lab.file("wanted.dat", content))
    found = Zone(OPEN, gateway.url).request_file(uri[7:])
    assert isinstance(found, RemoteFile)
    before = _read_by(lab.pid)
    with ThreadPoolExecutor(100) as readers:
        replies = list(readers.map(lambda _: http.exchange("GET", found.url), range(100)))
    assert {reply.status for reply in replies} == {200}
    assert {reply.body for reply in replies} == {content}
    assert _read_by(lab.pid) - before < 3 * len(content)


def _read_by(pid: int) -> int:
    """Bytes that a process read, from whatever cache."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar:")).split()[1])


@pytest.mark.slow
def test_the_daemon_keeps_within_its_memory(lab: Lab, client: Client) -> None:
    code, said = client.load(large_file(lab))
    assert code == 0, said
    status = Path(f"/proc/{lab.pid}/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])
    assert peak < 150 * 1024
