"""Clients, ours and released ones, with a gateway whose files are in an object store."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from rigs import objects
from rigs.gateway import OPEN, Gateway
from rigs.person import Person
from rigs.release import Client, installed, ours

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def store() -> Iterator[objects.ObjectStore]:
    with objects.running() as running:
        yield running


@pytest.fixture(scope="module", params=["through the gateway", "directly"])
def gateway(
    request: pytest.FixtureRequest, store: objects.ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A running gateway with its files in the store."""
    direct = int(request.param == "directly")
    address = f"s3://lab/{direct}?endpoint={store.endpoint}&direct={direct}"
    keys = {"AWS_ACCESS_KEY_ID": objects.KEY, "AWS_SECRET_ACCESS_KEY": objects.SECRET}
    options = ("--bucket", address)
    with Gateway(tmp_path_factory.mktemp("gateway"), OPEN, environment=keys, options=options) as running:
        yield running


@pytest.fixture(scope="module")
def alice(gateway: Gateway) -> Person:
    person = Person(gateway, "alice")
    gateway.admin("grant", "alice", "--zone", OPEN, "upload,download")
    return person


@pytest.mark.parametrize("writer", ["the release", "ours"])
@pytest.mark.parametrize("size", [0, 300_000, 70_000_000])
def test_stored_here_loaded_there(gateway: Gateway, alice: Person, writer: str, size: int, tmp_path: Path) -> None:
    release = installed("0.4.10")
    settings = {"KACHERY_GATEWAY_URL": gateway.url, "KACHERY_ZONE": OPEN}
    clients = [Client(each, tmp_path / name / "dir", settings) for name, each in (("a", release), ("b", ours()))]
    if writer == "ours":
        clients.reverse()
    for client in clients:
        client.directory.parent.mkdir()
        gateway.admin("client", "add", client.make_keys(), "--owner", alice.name, "--zone", OPEN)
    content = os.urandom(size)
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    hash_ = hashlib.sha1(content, usedforsecurity=False).hexdigest()

    assert clients[0].call("store_file", str(path)) == f"sha1://{hash_}"
    loaded = clients[1].call("load_file", f"sha1://{hash_}")

    assert os.path.getsize(loaded) == size
    with open(loaded, "rb") as file:
        assert file.read() == content
    assert list((gateway.data / "spool" / "staging").iterdir()) == []
    assert not (gateway.data / "buckets").exists()
