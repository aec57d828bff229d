"""What every database promises, held against both of them; and what only a server can get wrong."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select

from kachery.errors import InvalidInput, KacheryError, NotConfigured, Unreachable
from kachery.gateway.databases import open_database, postgresql
from kachery.gateway.models import metadata, users
from kachery.gateway.services import accounts, identity, zones
from rigs.postgresql import PostgresServer, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kachery.gateway.databases.contract import Database


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """Where an empty database may be."""
    if request.param == "sqlite":
        yield tmp_path / "data" / "kachery.sqlite"
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        address = server.new_database()
        yield address
        server.drop(address)


@pytest.fixture
def database(place: Path | str) -> Iterator[Database]:
    opened = open_database(place)
    yield opened
    opened.close()


@pytest.fixture
def address(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """A database with the current schema on a PostgreSQL server."""
    made = postgres_server.new_database(postgres_template)
    yield made
    postgres_server.drop(made)


def _count(connection: Any) -> int:
    return int(connection.execute(select(func.count()).select_from(users)).scalar_one())


def test_the_migrations_make_the_models(database: Database) -> None:
    def differences(connection: Any) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    assert database.read_now(differences) == []


def test_those_that_start_at_once_migrate_once(place: Path | str) -> None:
    script = (
        "import sys; from pathlib import Path; from kachery.gateway.databases import open_database\n"
        "place = sys.argv[1]; open_database(place if '://' in place else Path(place)).close()"
    )
    started = [subprocess.Popen([sys.executable, "-c", script, str(place)], stderr=subprocess.PIPE) for _ in range(3)]
    with ThreadPoolExecutor(2) as pool:
        # and threads of one process
        for database in pool.map(lambda _: open_database(place), range(2)):
            database.close()

    for process in started:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint.decode()
    database = open_database(place)
    assert database.read_now(accounts.list_users) == []
    database.close()


def test_a_write_that_fails_leaves_nothing(database: Database) -> None:
    def half(connection: Any) -> None:
        accounts.add_user(connection, "alice", 1)
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        database.write_now(half)

    assert database.read_now(accounts.list_users) == []


def test_what_one_process_commits_another_sees(database: Database, place: Path | str) -> None:
    other = open_database(place)
    assert database.read_now(accounts.list_users) == []

    other.write_now(accounts.add_user, "alice", 1)

    assert asyncio.run(database.read(accounts.find_user, "alice")) is not None
    other.close()


def test_what_a_writer_saw_holds_when_it_commits(database: Database, place: Path | str) -> None:
    other = open_database(place)

    def one_more(connection: Any) -> None:
        # each reads all rows and adds one that depends on what it read
        accounts.add_user(connection, f"user{_count(connection)}", 1)

    async def race() -> None:
        await asyncio.gather(*(place.write(one_more) for place in (database, other) for _ in range(10)))

    asyncio.run(race())
    names = {user.name for user in database.read_now(accounts.list_users)}
    assert names == {f"user{index}" for index in range(20)}
    other.close()


def test_something_that_may_happen_once_happens_once(database: Database, place: Path | str) -> None:
    other = open_database(place)

    async def race() -> list[bool]:
        uses = (place.write(identity.use_once, "n", 10, 1) for place in (database, other) for _ in range(8))
        return await asyncio.gather(*uses)

    assert sorted(asyncio.run(race())) == [False] * 15 + [True]
    other.close()


def test_rows_that_others_need_cannot_be_removed(database: Database) -> None:
    database.write_now(accounts.add_user, "alice", 1)
    database.write_now(zones.create, "lab", "alice", 1, private=False, public_upload=False)

    with pytest.raises(KacheryError, match=r"(?i)foreign key"):
        database.write_now(lambda connection: connection.execute(users.delete()))


@pytest.mark.parametrize("name", ["x" * 5000, "é", "'; DROP TABLE users; --", "%s", "%(name)s"])
def test_odd_texts_are_found_nowhere(database: Database, name: str) -> None:
    assert database.read_now(zones.find, name) is None


def test_texts_that_a_server_does_not_take(address: str) -> None:
    database = open_database(address)
    with pytest.raises(InvalidInput, match="does not take"):
        database.read_now(zones.find, "a\0b")
    database.close()


def test_a_database_of_a_newer_release(database: Database, place: Path | str) -> None:
    database.write_now(lambda connection: connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(NotConfigured, match="newer kachery"):
        open_database(place)


@pytest.mark.parametrize(
    "wrong", ["mysql://x/y", "postgresql://host", "not an address", "postgresql://", "sqlite:///x"]
)
def test_what_is_no_address(wrong: str) -> None:
    with pytest.raises(InvalidInput, match="not the address"):
        open_database(wrong)


def test_a_server_that_is_not_there_and_a_password_that_nobody_sees() -> None:
    with pytest.raises(Unreachable, match="cannot be reached") as caught:
        open_database("postgresql://kachery:very-secret@127.0.0.1:1/kachery")
    assert "very-secret" not in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint


def test_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "psycopg", None)
    with pytest.raises(NotConfigured, match="driver") as caught:
        open_database("postgresql://127.0.0.1/kachery")
    assert "pip install" in (caught.value.hint or "")


def test_a_server_that_goes_away_and_comes_back() -> None:
    with running() as server:
        database = open_database(server.new_database())
        database.write_now(accounts.add_user, "alice", 1)
        server.stop()

        with pytest.raises(Unreachable, match="cannot be reached"):
            database.read_now(accounts.find_user, "alice")
        with pytest.raises(Unreachable, match="cannot be reached"):
            database.write_now(accounts.add_user, "bob", 1)

        server.start()
        assert database.read_now(accounts.find_user, "alice") is not None
        database.write_now(accounts.add_user, "bob", 1)
        database.close()


def test_connections_that_the_server_has_cut(address: str, postgres_server: PostgresServer) -> None:
    database = open_database(address)
    for name in ("alice", "bob"):
        database.write_now(accounts.add_user, name, 1)
        with psycopg.connect(postgres_server.address, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                [address.rpartition("/")[2]],
            )
    assert database.read_now(zones.find, "lab") is None, "a prepared lookup, which goes past SQLAlchemy"
    assert database.read_now(_count) == 2
    database.close()


def test_a_user_who_may_not_write(address: str) -> None:
    with psycopg.connect(address, autocommit=True) as admin:
        admin.execute("ALTER DATABASE {} SET default_transaction_read_only = on".format(address.rpartition("/")[2]))
    database = open_database(address)
    with pytest.raises(KacheryError, match="does not let kachery do that"):
        database.write_now(accounts.add_user, "alice", 1)
    assert database.read_now(accounts.list_users) == []
    database.close()
