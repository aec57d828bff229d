"""A gateway with two zones and some people.

With `KACHERY_TEST_DATABASE=postgresql` it stands on a PostgreSQL server (`make test-postgresql`), with
`KACHERY_TEST_BUCKET=objects` or `direct` on an object store (`make test-objects`).
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from kachery.gateway.config import GatewayConfig
from kachery.gateway.databases import open_database
from kachery.gateway.logs import make_log
from kachery.gateway.runtime import open_gateway
from kachery.gateway.services import accounts, zones
from rigs import objects, postgresql
from rigs.asgi import Client, Driver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgresql.PostgresServer]:
    """A PostgreSQL server."""
    with postgresql.running() as server:
        yield server


@pytest.fixture(scope="session")
def object_store() -> Iterator[objects.ObjectStore]:
    """An S3-compatible object store."""
    with objects.running() as store:
        yield store


@pytest.fixture(scope="session")
def postgres_template(postgres_server: postgresql.PostgresServer) -> str:
    """The name of a database on it with the current schema, to make others from."""
    address = postgres_server.new_database()
    open_database(address).close()
    return address.rpartition("/")[2]


@contextmanager
def _on_server(request: pytest.FixtureRequest) -> Iterator[str]:
    server = request.getfixturevalue("postgres_server")
    address = server.new_database(request.getfixturevalue("postgres_template"))
    yield address
    server.drop(address)


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The address of a database on a server, where the tests are to use one."""
    if os.environ.get("KACHERY_TEST_DATABASE", "sqlite") == "sqlite":
        yield None
    else:
        with _on_server(request) as address:
            yield address


@pytest.fixture
def bucket_address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Where the gateway's files are to be, where that is not its own directory."""
    wanted = os.environ.get("KACHERY_TEST_BUCKET", "directory")
    if wanted == "directory":
        return None
    store: objects.ObjectStore = request.getfixturevalue("object_store")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", objects.KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", objects.SECRET)
    return f"s3://lab/{tmp_path.name}?endpoint={store.endpoint}&direct={int(wanted == 'direct')}"


@pytest.fixture
def driver(tmp_path: Path, database_url: str | None, bucket_address: str | None) -> Iterator[Driver]:
    """A gateway with a public zone `lab`, a private zone `unpublished`, both of `owner`, and the user `alice`."""
    config = GatewayConfig(data=tmp_path / "gateway", database_url=database_url, bucket_address=bucket_address)
    gateway = open_gateway(config, make_log("error"))

    def prepare(connection: Any) -> None:
        accounts.add_user(connection, "root", 1, is_admin=True)
        for name in ("owner", "alice", "mallory"):
            accounts.add_user(connection, name, 1)
        zones.create(connection, "lab", "owner", 1, private=False, public_upload=False)
        zones.create(connection, "unpublished", "owner", 1, private=True, public_upload=False)
        zones.grant(connection, "lab", "alice", ["upload"])

    gateway.database.write_now(prepare)
    driver = Driver(gateway)
    yield driver
    driver.close()


@pytest.fixture
def alice(driver: Driver) -> Client:
    """A client that may upload to the zone `lab`."""
    return Client(driver).register("alice")
