"""The database: its schema, its migrations, two processes at once, failures."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import select

from kachery.errors import KacheryError, NotAllowed, NotConfigured, TimedOut
from kachery.gateway.databases import schema, sqlite
from kachery.gateway.databases.sqlite import SqliteDatabase as Database
from kachery.gateway.databases.sqlite import prepare, schema_version
from kachery.gateway.models import SCHEMA, metadata, users
from kachery.gateway.services import accounts, zones

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    prepare(tmp_path / "data" / "kachery.sqlite")
    return tmp_path / "data" / "kachery.sqlite"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    opened = Database(path)
    yield opened
    opened.close()


def test_the_migrations_make_the_models(database: Database) -> None:
    def differences(connection: Any) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    assert database.read_now(differences) == []


def test_the_newest_migration_is_the_one_that_the_models_name() -> None:
    assert ScriptDirectory(str(files("kachery.gateway") / "migrations")).get_current_head() == SCHEMA


def test_a_current_database_needs_no_migration(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "migrate", lambda engine: pytest.fail("migrated again"))
    prepare(path)
    assert schema_version(path) == SCHEMA


def test_it_is_private_and_writes_ahead(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_directory_that_others_could_read_is_closed(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o755)
    prepare(directory / "kachery.sqlite")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_writes_are_all_or_nothing(database: Database) -> None:
    def half(connection: Any) -> None:
        accounts.add_user(connection, "alice", 1)
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        database.write_now(half)

    assert database.read_now(accounts.list_users) == []
    database.write_now(accounts.add_user, "alice", 1)
    assert [user.name for user in database.read_now(accounts.list_users)] == ["alice"]


def test_what_one_process_commits_another_sees(database: Database, path: Path) -> None:
    other = Database(path)
    assert database.read_now(accounts.list_users) == []

    other.write_now(accounts.add_user, "alice", 1)

    assert database.read_now(accounts.find_user, "alice") is not None
    other.close()


def test_many_writers_take_turns(database: Database, path: Path) -> None:
    other = Database(path)

    async def write() -> None:
        await asyncio.gather(
            *(database.write(accounts.add_user, f"a{index}", 1) for index in range(30)),
            *(other.write(accounts.add_user, f"b{index}", 1) for index in range(30)),
        )

    asyncio.run(write())
    assert len(database.read_now(accounts.list_users)) == 60
    other.close()


def test_a_writer_that_does_not_end_is_told(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.05)
    database = Database(path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")

    with pytest.raises(TimedOut, match="locked"):
        database.write_now(accounts.add_user, "alice", 1)
    assert database.read_now(accounts.list_users) == [], "reading waits for nobody"

    holder.execute("ROLLBACK")
    holder.close()
    database.write_now(accounts.add_user, "alice", 1)
    database.close()


def test_rows_that_others_need_cannot_be_removed(database: Database) -> None:
    database.write_now(accounts.add_user, "alice", 1)
    database.write_now(zones.create, "lab", "alice", 1, private=False, public_upload=False)

    with pytest.raises(KacheryError, match="FOREIGN KEY"):
        database.write_now(lambda connection: connection.execute(users.delete()))
    with pytest.raises(KacheryError, match="FOREIGN KEY"):
        database.write_now(zones.create, "other", "nobody", 1, private=False, public_upload=False)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(NotConfigured, match="is not a database of kachery"):
        prepare(tmp_path / "x.sqlite")


def test_a_database_of_a_newer_release(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()

    with pytest.raises(NotConfigured, match="newer kachery"):
        prepare(path)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KacheryError, match="could not write to"):
        prepare(tmp_path / "file" / "data" / "kachery.sqlite")


def test_a_database_that_went_away(path: Path) -> None:
    database = Database(path)
    for name in ("kachery.sqlite", "kachery.sqlite-wal", "kachery.sqlite-shm"):
        (path.parent / name).unlink(missing_ok=True)
    path.parent.rmdir()

    with pytest.raises(NotAllowed, match="unable to open"):
        database.read_now(lambda connection: connection.execute(select(users)).all())
    database.close()
