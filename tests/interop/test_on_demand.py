"""The released client loads files that only a lab's machine has, through our relay and our daemon."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rigs.gateway import KACHERY, OPEN, START, Gateway, free_port
from rigs.lab import SECRET, Lab
from rigs.networks import WORLD, two_networks
from rigs.release import Client, Release, installed, ours

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rigs.networks import Inside

GIBIBYTE = 1024**3
EMPTY = "sha1://da39a3ee5e6b4b0d3255bfef95601890afd80709"

# many files at once, by the released client itself: it prints each path it got
MANY = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
import kachery_cloud
uris = json.loads(sys.argv[1])
with ThreadPoolExecutor(len(uris)) as pool:
    paths = list(pool.map(kachery_cloud.load_file, uris))
open(sys.argv[2], "w").write(json.dumps(paths))
"""


@pytest.fixture(scope="module")
def release() -> Release:
    """The release that knows resources."""
    return installed("0.4.10")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gateway"), environment={"PROXY_SECRET": SECRET}) as running:
        yield running


@pytest.fixture
def lab(gateway: Gateway, tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path / "lab", gateway.url, name=f"lab-{uuid.uuid4().hex[:8]}") as machine:
        yield machine


@pytest.fixture
def client(release: Release, gateway: Gateway, lab: Lab, tmp_path: Path) -> Client:
    """Somebody elsewhere, whom nobody has registered."""
    directory = tmp_path / "elsewhere" / "kachery-cloud"
    directory.mkdir(parents=True)
    settings = {"KACHERY_GATEWAY_URL": gateway.url, "KACHERY_ZONE": OPEN, "KACHERY_RESOURCE_URL": lab.url}
    client = Client(release, directory, settings)
    client.make_keys()
    return client


def sha1_of(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


def test_a_linked_file(lab: Lab, client: Client) -> None:
    uri = lab.link(lab.file("session.dat", os.urandom(3_000_000)))
    assert f"sha1://{sha1_of(client.call('load_file', uri))}" == uri


def test_a_stored_file(lab: Lab, client: Client) -> None:
    uri = lab.keep(lab.file("session.dat", b"kept on the lab's machine only"))
    assert client.output("kachery-cloud-cat", uri) == "kept on the lab's machine only"


@pytest.mark.parametrize("name", ["two words.dat", 'it\'s "quoted".dat', "$(touch executed).dat", "line\nbreak.dat"])
def test_names_with_odd_characters(lab: Lab, client: Client, name: str) -> None:
    content = os.urandom(20)
    uri = lab.link(lab.file(name, content))
    assert Path(client.call("load_file", uri)).read_bytes() == content
    assert not list(lab.home.rglob("executed"))


def test_a_file_that_changed_is_none_with_a_reason(lab: Lab, client: Client) -> None:
    path = lab.file("session.dat", os.urandom(1000))
    uri = lab.link(path)
    path.write_bytes(os.urandom(1000))
    assert client.call("load_file", uri) is None
    assert "no longer what it was" in lab.log.read_text()
    # linked again, it is served under its new hash
    new = lab.link(path)
    assert f"sha1://{sha1_of(client.call('load_file', new))}" == new


def test_a_file_that_is_gone_is_none(lab: Lab, client: Client) -> None:
    path = lab.file("session.dat", os.urandom(1000))
    uri = lab.link(path)
    path.unlink()
    assert client.call("load_file", uri) is None


def test_a_file_that_nobody_has_is_none(client: Client) -> None:
    assert client.call("load_file", "sha1://" + "a" * 40) is None


def test_an_empty_file(lab: Lab, client: Client) -> None:
    assert lab.link(lab.file("empty.dat", b"")) == EMPTY
    path = client.call("load_file", EMPTY)
    assert os.path.getsize(path) == 0


def test_fifty_at_once(lab: Lab, client: Client, tmp_path: Path) -> None:
    uris = [lab.link(lab.file(f"{number}.dat", os.urandom(200_000))) for number in range(50)]
    script, reply = tmp_path / "many.py", tmp_path / "reply.json"
    script.write_text(MANY)
    done = subprocess.run(
        [str(client.release.python), str(script), json.dumps(uris), str(reply)],
        env=client.variables(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [f"sha1://{sha1_of(path)}" for path in json.loads(reply.read_text())] == uris


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_gibibyte(lab: Lab, client: Client) -> None:
    path = lab.file("large.dat", b"")
    with path.open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(GIBIBYTE // 64))
    uri = lab.link(path)
    loaded = client.call("load_file", uri, timeout=200)
    assert os.path.getsize(loaded) == GIBIBYTE
    assert f"sha1://{sha1_of(loaded)}" == uri


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[str]:
    """A relay that speaks upstream's protocol only, as the published proxy does."""
    port = free_port()
    environment = {"PATH": os.defpath, "HOME": str(tmp_path), "PROXY_SECRET": SECRET, "PORT": str(port)}
    process = subprocess.Popen(
        [str(KACHERY), "relay", "--host", "127.0.0.1"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"ready http://127.0.0.1:{port}\n"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=START)


def test_upstreams_protocol_all_the_way(gateway: Gateway, release: Release, proxy: str, tmp_path: Path) -> None:
    """Through a proxy that only relays messages, our daemon stores the file in the zone as a client with that right."""
    lab = Lab(tmp_path / "lab", proxy, environment={"KACHERY_GATEWAY_URL": gateway.url})
    keys = Client(ours(), tmp_path / "lab" / "kachery-cloud").make_keys()
    gateway.admin("user", "add", "lab")
    gateway.admin("grant", "lab", "--zone", OPEN, "upload,download")
    gateway.admin("client", "add", keys, "--owner", "lab", "--zone", OPEN)
    directory = tmp_path / "elsewhere" / "kachery-cloud"
    directory.mkdir(parents=True)
    settings = {"KACHERY_GATEWAY_URL": gateway.url, "KACHERY_ZONE": OPEN, "KACHERY_RESOURCE_URL": lab.url}
    client = Client(release, directory, settings)
    client.make_keys()
    with lab:
        path = lab.file("$(touch executed) it's.dat", os.urandom(3_000_000))
        uri = lab.link(path)
        assert f"sha1://{sha1_of(client.call('load_file', uri))}" == uri
        changed = lab.file("changed.dat", b"before")
        uri = lab.link(changed)
        changed.write_bytes(b"after!")
        assert client.call("load_file", uri) is None
        assert client.call("load_file", "sha1://" + "a" * 40) is None
        assert "wire=upstream" in lab.log.read_text()
    assert not list(lab.home.rglob("executed"))


@pytest.fixture
def networks() -> Iterator[tuple[Inside, Inside]]:
    with two_networks() as made:
        yield made


@pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="only root can make network namespaces")
def test_a_lab_without_any_reachable_port(release: Release, networks: tuple[Inside, Inside], tmp_path: Path) -> None:
    in_lab, in_world = networks
    gateway = Gateway(tmp_path / "gateway", environment={"PROXY_SECRET": SECRET}, host=WORLD, inside=in_world)
    directory = tmp_path / "elsewhere" / "kachery-cloud"
    directory.mkdir(parents=True)
    lab = Lab(tmp_path / "lab", gateway.url, inside=in_lab)
    settings = {"KACHERY_GATEWAY_URL": gateway.url, "KACHERY_ZONE": OPEN, "KACHERY_RESOURCE_URL": lab.url}
    client = Client(release, directory, settings)
    client.make_keys()
    content = os.urandom(5_000_000)
    uri = lab.link(lab.file("session.dat", content))
    with gateway, lab:
        listening = subprocess.run([*in_lab, "ss", "-Htuln"], capture_output=True, text=True, timeout=30, check=True)
        assert listening.stdout == ""
        done = subprocess.run(
            [*in_world, *client.argv("kachery-cloud-load", uri)],
            env=client.variables(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"sha1://{sha1_of(done.stdout.split()[-1])}" == uri
