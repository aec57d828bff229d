"""Disasters of several gateway processes that act as one: real processes, a real bus, a proxy in front of them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from rigs import postgresql
from rigs.gateway import KACHERY, OPEN, START, Gateway
from rigs.lab import SECRET, Lab
from rigs.nats import Nats
from rigs.nginx import Front

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 100

LARGE = 1024**3


class Cluster:
    """Some gateways on one data directory, and a proxy that gives each request to the next of them."""

    def __init__(self, directory: Path, bus: str, count: int = 3, *, options: tuple[str, ...] = ()) -> None:
        self.front = Front(directory / "front")
        self.gateways = [
            Gateway(
                directory / f"gateway-{number}",
                data=directory / "data",
                environment={"PROXY_SECRET": SECRET},
                options=("--bus", bus, "--public-url", self.front.url, "--log-level", "debug", *options),
            )
            for number in range(count)
        ]
        self.front.set_servers([gateway.port for gateway in self.gateways])
        self.url = self.front.url
        self.store = directory / "client"
        self._directory = directory
        self._clients = 0

    def __enter__(self) -> Cluster:
        with ExitStack() as stack:
            for gateway in self.gateways:
                stack.enter_context(gateway)
            stack.enter_context(self.front)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def begin(self, *arguments: str, url: str | None = None, store: Path | None = None) -> subprocess.Popen[str]:
        """Start a command of a client with an empty store; see `end`."""
        self._clients += 1
        self.store = store or self._directory / f"client-{self._clients}"
        variables = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.store),
            "KACHERY_CLOUD_DIR": str(self.store),
            "KACHERY_GATEWAY_URL": url or self.url,
            "KACHERY_ZONE": OPEN,
        }
        self.store.mkdir(exist_ok=True)
        return subprocess.Popen(
            [str(KACHERY), *arguments],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def load(self, uri: str, url: str | None = None) -> tuple[int, str]:
        """Load a file: the exit code, and all that was said."""
        return end(self.begin("load", uri, url=url))

    def holder(self, event: str = "resource_connected") -> Gateway:
        """The process whose log says last that something happened there."""
        found = [
            (line.split('"timestamp": "')[1], gateway)
            for gateway in self.gateways
            if gateway.log.exists()
            for line in gateway.log.read_text().splitlines()
            if f'"{event}"' in line
        ]
        return max(found, key=lambda each: each[0])[1]

    def others(self, gateway: Gateway) -> list[Gateway]:
        return [each for each in self.gateways if each is not gateway]


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        said = "".join(process.communicate(timeout=PATIENCE))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise AssertionError("the client did not end within its time") from None
    return process.returncode, said


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Nats]:
    with Nats(tmp_path / "nats") as server:
        yield server


@pytest.fixture(params=["directory", "nats", pytest.param("postgresql", marks=pytest.mark.slow)])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    if request.param == "postgresql":
        # the database and the bus in one
        with postgresql.running() as server:
            address = server.new_database()
            with Cluster(tmp_path, address, options=("--database", address)) as running:
                yield running
        return
    bus = str(tmp_path / "bus") if request.param == "directory" else request.getfixturevalue("nats").url
    with Cluster(tmp_path, bus) as running:
        yield running


@pytest.fixture
def lab(cluster: Cluster, tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path / "lab", cluster.url) as machine:
        yield machine


def small_file(lab: Lab) -> str:
    return lab.link(lab.file(f"{os.urandom(4).hex()}.dat", os.urandom(2_000_000)))


def large_file(lab: Lab) -> str:
    path = lab.file("large.dat", b"")
    os.truncate(path, LARGE)
    with path.open("r+b") as file:
        file.write(os.urandom(16))
    return lab.link(path)


def is_right(path: str, uri: str) -> bool:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest() == uri[7:]


def connections(lab: Lab) -> int:
    return lab.log.read_text().count(" info: connected ")


def is_connected(lab: Lab) -> bool:
    text = lab.log.read_text()
    return text.rfind(" info: connected ") > text.rfind("disconnected ")


def test_whoever_is_asked_the_file_comes(cluster: Cluster, lab: Lab) -> None:
    for gateway in cluster.gateways:
        code, said = cluster.load(small_file(lab), gateway.url)
        assert code == 0, said
    for _ in range(4):
        code, said = cluster.load(small_file(lab))
        assert code == 0, said


def test_uploads_through_any_of_them_and_one_that_dies(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "stored.dat"
    path.write_bytes(os.urandom(40_000_000))
    administrator = cluster.gateways[0].data.parent / "gateway-0" / "administrator"
    code, said = end(cluster.begin("store", str(path), store=administrator))
    assert code == 0, said
    code, loaded = cluster.load(said.strip().splitlines()[0])
    assert code == 0, loaded
    # the process that receives is killed: another one does, within its time
    receiving = cluster.holder("receives_for_all")
    receiving.kill()
    path.write_bytes(os.urandom(40_000_000))
    code, said = end(cluster.begin("store", str(path), store=administrator))
    assert code == 0, said
    assert cluster.holder("receives_for_all") is not receiving
    code, loaded = cluster.load(said.strip().splitlines()[0])
    assert code == 0, loaded


@pytest.mark.slow
def test_the_process_with_the_socket_is_killed_in_mid_transfer(cluster: Cluster, lab: Lab) -> None:
    uri = large_file(lab)
    holder = cluster.holder()
    loading = cluster.begin("load", uri, url=cluster.others(holder)[0].url)
    store = cluster.store
    until(lambda: any(path.stat().st_blocks for path in store.glob("tmp/*") if path.is_file()))
    holder.kill()
    code, said = end(loading)
    # the daemon comes back at another process, and the client goes on there, or has been told why not
    assert code in (0, 4), said
    until(lambda: connections(lab) >= 2)
    assert cluster.holder() is not holder
    for gateway in cluster.others(holder):
        code, said = cluster.load(uri, gateway.url)
        assert code == 0, said
        assert is_right(said.strip(), uri)


def test_a_killed_process_is_forgotten_and_its_daemon_found_elsewhere(cluster: Cluster, lab: Lab) -> None:
    holder = cluster.holder()
    holder.kill()
    until(lambda: connections(lab) >= 2)
    # found at once, wherever it is now
    for gateway in cluster.others(holder):
        code, said = cluster.load(small_file(lab), gateway.url)
        assert code == 0, said
    # without a connection to it, its silence is enough
    until(lambda: all("peer_" in gateway.log.read_text() for gateway in cluster.others(holder)))
    holder.start()
    code, said = cluster.load(small_file(lab), holder.url)
    assert code == 0, said


def test_a_second_daemon_of_the_same_name_never_disturbs_the_first(cluster: Cluster, lab: Lab, tmp_path: Path) -> None:
    seconds = [Lab(tmp_path / f"second-{number}", gateway.url) for number, gateway in enumerate(cluster.gateways)]
    for second in seconds:
        second.start(wait=False)
    try:
        until(lambda: all(each.log.read_text().count("connected already") >= 2 for each in seconds))
        assert connections(lab) == 1
        code, said = cluster.load(small_file(lab))
        assert code == 0, said
        assert lab.stop() == 0
        # one of them takes its place; of two that came in the same moment one gives way
        until(lambda: sum(map(is_connected, seconds)) == 1)
        chosen = next(second for second in seconds if is_connected(second))
        for gateway in cluster.gateways:
            code, said = cluster.load(small_file(chosen), gateway.url)
            assert code == 0, said
        until(lambda: [second for second in seconds if is_connected(second)] == [chosen])
    finally:
        for second in seconds:
            second.stop()


def test_the_bus_goes_away_and_comes_back(tmp_path: Path) -> None:
    nats = Nats(tmp_path / "nats")
    nats.start()
    try:
        with Cluster(tmp_path, nats.url, 2) as cluster, Lab(tmp_path / "lab", cluster.url) as lab:
            assert cluster.load(small_file(lab))[0] == 0
            nats.stop()
            until(lambda: all("bus_away" in gateway.log.read_text() for gateway in cluster.gateways))
            # what was known goes on, for longer than a silent process is believed in
            time.sleep(8)
            for gateway in cluster.gateways:
                code, said = cluster.load(small_file(lab), gateway.url)
                assert code == 0, said
            # a daemon that comes meanwhile is served by its own process
            other = Lab(tmp_path / "other", cluster.gateways[1].url, name="other")
            with other:
                code, said = cluster.load(small_file(other), cluster.gateways[1].url)
                assert code == 0, said
                nats.start()
                until(lambda: all("bus_back" in gateway.log.read_text() for gateway in cluster.gateways))
                uri = small_file(other)
                # heard of again within a beat
                until(lambda: cluster.load(uri, cluster.gateways[0].url)[0] == 0)
                assert connections(other) == connections(lab) == 1
    finally:
        nats.stop()


def test_two_processes_that_did_not_hear_each_other_claim_one_name(tmp_path: Path) -> None:
    nats = Nats(tmp_path / "nats")
    nats.start()
    try:
        with Cluster(tmp_path, nats.url, 2) as cluster:
            nats.stop()
            until(lambda: all("bus_away" in gateway.log.read_text() for gateway in cluster.gateways))
            first = Lab(tmp_path / "first", cluster.gateways[0].url)
            second = Lab(tmp_path / "second", cluster.gateways[1].url)
            with first, second:
                assert (connections(first), connections(second)) == (1, 1)
                nats.start()
                # the one that has had it longer keeps it
                until(lambda: "connected already" in second.log.read_text())
                assert connections(first) == 1
                uri = small_file(first)
                until(lambda: cluster.load(uri, cluster.gateways[1].url)[0] == 0)
                assert "disconnected" not in first.log.read_text()
    finally:
        nats.stop()


def test_the_directory_of_the_bus_is_removed(tmp_path: Path) -> None:
    with Cluster(tmp_path, str(tmp_path / "bus"), 2) as cluster, Lab(tmp_path / "lab", cluster.url) as lab:
        shutil.rmtree(tmp_path / "bus")
        until(lambda: len(list((tmp_path / "bus").glob("*.socket"))) == 2)
        for gateway in cluster.gateways:
            code, said = cluster.load(small_file(lab), gateway.url)
            assert code == 0, said


def test_without_a_bus_a_data_directory_is_one_process_alone(tmp_path: Path) -> None:
    with Cluster(tmp_path, str(tmp_path / "bus"), 1) as cluster:
        alone = Gateway(tmp_path / "alone", data=cluster.gateways[0].data)
        with pytest.raises(AssertionError, match="another gateway runs"):
            alone.start()
    with alone:
        shared = Gateway(tmp_path / "shared", data=alone.data, options=("--bus", str(tmp_path / "bus")))
        with pytest.raises(AssertionError, match="another gateway runs"):
            shared.start()
