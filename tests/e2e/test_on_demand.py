"""What the people of a lab do to share files on demand, with our own programs on every machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rigs.gateway import KACHERY, OPEN, PRIVATE, START, Gateway
from rigs.lab import SECRET, Lab
from rigs.person import Person
from rigs.release import Client, ours

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT = b"what only the lab's machine has" * 100_000

# an HDF5 library reads like this: a little here, a little there
READ_A_LITTLE = """
import sys, kachery
with kachery.open(sys.argv[1]) as file:
    file.seek(int(sys.argv[2]))
    sys.stdout.buffer.write(file.read(100))
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gateway"), environment={"PROXY_SECRET": SECRET}) as running:
        running.admin("zone", "create", PRIVATE, "--private")
        yield running


@pytest.fixture(scope="module")
def alice(gateway: Gateway) -> Person:
    person = Person(gateway, "alice")
    gateway.admin("grant", "alice", "--zone", PRIVATE, "upload,download")
    return person


def machine(gateway: Gateway, directory: Path, zone: str, owner: Person | None) -> Client:
    """Somebody's machine with our programs; registered for its owner if it has one."""
    directory.mkdir(parents=True)
    settings = {"KACHERY_GATEWAY_URL": gateway.url, "KACHERY_ZONE": zone}
    client = Client(ours(), directory / "kachery-cloud", settings)
    if owner is not None:
        gateway.admin("client", "add", client.make_keys(), "--owner", owner.name, "--zone", zone)
    return client


def kachery(client: Client, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(KACHERY), *arguments],
        env=client.variables(),
        cwd=client.directory.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START,
        check=False,
    )


def test_the_recipe(gateway: Gateway, alice: Person, tmp_path: Path) -> None:
    """Link, share, load elsewhere: no secret, no address of a resource, in a zone for members only."""
    lab = machine(gateway, tmp_path / "lab", PRIVATE, alice)
    member = machine(gateway, tmp_path / "member", PRIVATE, alice)
    stranger = machine(gateway, tmp_path / "stranger", PRIVATE, None)
    (tmp_path / "session 7.dat").write_bytes(CONTENT)
    uri = kachery(lab, "link", str(tmp_path / "session 7.dat")).stdout.strip()
    gateway.admin("resource", "add", "lab-pc", "--zone", PRIVATE, "--owner", "alice")
    sharing = subprocess.Popen(
        [str(KACHERY), "share", "--name", "lab-pc"],
        env=lab.variables(),
        cwd=lab.directory.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert sharing.stdout is not None
        assert sharing.stdout.readline() == f"Resource URL: {gateway.url}/r/lab-pc\n"
        refused = kachery(stranger, "load", uri)
        assert refused.returncode == 5, refused.stderr
        loaded = kachery(member, "load", uri)
        assert loaded.returncode == 0, loaded.stderr
        assert Path(loaded.stdout.strip()).read_bytes() == CONTENT
    finally:
        sharing.terminate()
        _, log = sharing.communicate(timeout=START)
    assert sharing.returncode == 0
    assert "wire=ours" in log
    assert "session 7.dat" in log


def test_a_machine_without_the_right_may_not_share(gateway: Gateway, alice: Person, tmp_path: Path) -> None:
    lab = machine(gateway, tmp_path / "lab", PRIVATE, alice)
    sharing = subprocess.Popen(
        [str(KACHERY), "share", "--name", "somebody-elses"],
        env=lab.variables(),
        cwd=lab.directory.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert sharing.stderr is not None
        assert "may not share as 'somebody-elses'" in sharing.stderr.readline()
    finally:
        sharing.terminate()
        sharing.communicate(timeout=START)


def test_a_little_out_of_a_large_file_moves_a_little(gateway: Gateway, tmp_path: Path) -> None:
    with Lab(tmp_path / "lab", gateway.url, name="large") as lab:
        path = lab.file("large.dat", b"")
        os.truncate(path, 1024**3)
        with path.open("r+b") as file:
            file.seek(700_000_000)
            file.write(b"here" * 25)
        uri = lab.link(path)
        reader = machine(gateway, tmp_path / "reader", OPEN, None)
        before = _sent_by(gateway.pid)
        done = subprocess.run(
            [str(reader.release.python), "-c", READ_A_LITTLE, uri, "700000000"],
            env=reader.variables(),
            capture_output=True,
            timeout=START,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout == b"here" * 25
        # some pieces are brought ahead of the reader, and not the rest
        assert _sent_by(gateway.pid) - before < 100_000_000


def _sent_by(pid: int) -> int:
    """Bytes that a process wrote, to disk or network."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("wchar:")).split()[1])
