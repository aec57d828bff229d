"""A gateway of ours, released clients in their own environments, and people who use them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from rigs.gateway import OPEN, PRIVATE, Gateway
from rigs.person import Person
from rigs.release import Client, Release, installed, ours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VERSIONS = ["0.4.2", "0.4.10"]


@pytest.fixture(scope="session", params=VERSIONS)
def release(request: pytest.FixtureRequest) -> Release:
    """A released client, unmodified, in an environment of its own."""
    return installed(request.param)


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A running gateway with an open and a private zone."""
    with Gateway(tmp_path_factory.mktemp("gateway"), zone=OPEN) as running:
        running.admin("zone", "create", PRIVATE, "--private")
        yield running


@pytest.fixture(scope="session")
def alice(gateway: Gateway) -> Person:
    """A user who may store in and load from both zones."""
    person = Person(gateway, "alice")
    gateway.admin("grant", "alice", "--zone", OPEN, "upload,download")
    gateway.admin("grant", "alice", "--zone", PRIVATE, "upload,download")
    return person


@pytest.fixture(scope="session")
def mallory(gateway: Gateway) -> Person:
    """A user with an account and without any right."""
    return Person(gateway, "mallory")


@pytest.fixture(scope="session")
def identities(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Release, Person], Path]:
    """Directories with the keys of a release's client, registered in both zones for a person; made once each."""
    made: dict[tuple[str, str], Path] = {}

    def identity(release: Release, person: Person) -> Path:
        key = (release.version, person.name)
        if key not in made:
            directory = tmp_path_factory.mktemp("identity") / "kachery-cloud"
            client_id = Client(release, directory).make_keys()
            for zone in (OPEN, PRIVATE):
                gateway.admin("client", "add", client_id, "--owner", person.name, "--zone", zone)
            made[key] = directory
        return made[key]

    return identity


@pytest.fixture
def machine(
    gateway: Gateway,
    tmp_path: Path,
    identities: Callable[[Release, Person], Path],
) -> Callable[..., Client]:
    """Makes a user's machine: a store directory of its own, set up for a zone.

    Called with the release (`None` for ours), the person whose registered client it is (`None` for a machine
    without keys) and the zone.
    """
    count = 0

    def make(release: Release | None, person: Person | None, zone: str = OPEN) -> Client:
        nonlocal count
        count += 1
        used = release or ours()
        directory = tmp_path / f"machine-{count}" / "kachery-cloud"
        directory.mkdir(parents=True)
        if person is not None:
            for name in ("private.pem", "public.pem"):
                shutil.copy2(identities(used, person) / name, directory / name)
        return Client(used, directory, {"KACHERY_GATEWAY_URL": gateway.url, "KACHERY_ZONE": zone})

    return make
