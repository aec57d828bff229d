"""From verified bytes to a file: collisions, damage, races, crashes in between."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from kachery.errors import StorageFull
from kachery.gateway.buckets.contract import Digests
from kachery.gateway.services import files, zones
from rigs.asgi import Client, sha1

if TYPE_CHECKING:
    from pathlib import Path

    from rigs.asgi import Driver

CONTENT = os.urandom(1_500_000)
HASH = sha1(CONTENT)


def send(client: Client, content: bytes = CONTENT) -> None:
    assert client.put(client.initiate(content)["signedUploadUrl"], content).status == 200


def object_path(driver: Driver, hash_: str = HASH) -> Path:
    return driver.gateway.config.bucket_path / f"zones/lab/sha1/{hash_[:2]}/{hash_[2:4]}/{hash_[4:6]}/{hash_}"


def staged(driver: Driver) -> list[str]:
    return [name for name, _ in driver.gateway.bucket.staged()]


def know(driver: Driver, sha256: str, size: int = len(CONTENT)) -> None:
    driver.write(
        lambda c: c.exec_driver_sql("INSERT INTO content VALUES (?, ?, ?)", (HASH, sha256, size)),
    )


def test_a_collision_is_refused_and_changes_nothing(driver: Driver, alice: Client) -> None:
    know(driver, "0" * 64)
    send(alice)

    reply = alice.finalize(CONTENT)

    assert reply.status == 500
    assert reply.headers["kachery-error"] == "collision"
    assert alice.find(HASH).json()["found"] is False
    assert not object_path(driver).exists()
    assert staged(driver) == []
    assert driver.read(files.all_uploads) == []


def test_a_collision_with_an_object_is_refused(driver: Driver, alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    send(alice)
    path = object_path(driver)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    bucket = type(driver.gateway.bucket)
    monkeypatch.setattr(bucket, "digests", lambda self, key: Digests(HASH, "f" * 64, len(CONTENT)))

    assert alice.finalize(CONTENT).headers["kachery-error"] == "collision"
    assert path.read_bytes() == CONTENT
    assert alice.find(HASH).json()["found"] is False


def test_a_right_object_that_is_there_is_kept(driver: Driver, alice: Client) -> None:
    send(alice)
    path = object_path(driver)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    inode = path.stat().st_ino

    assert alice.finalize(CONTENT).status == 200

    assert path.stat().st_ino == inode
    assert alice.load(HASH) == CONTENT


@pytest.mark.parametrize("damage", [b"", CONTENT[:-1], CONTENT[:-1] + b"!"])
def test_a_damaged_object_that_is_there_is_replaced(driver: Driver, alice: Client, damage: bytes) -> None:
    send(alice)
    path = object_path(driver)
    path.parent.mkdir(parents=True)
    path.write_bytes(damage)

    assert alice.finalize(CONTENT).status == 200
    assert alice.load(HASH) == CONTENT


def test_a_lost_object_can_be_stored_again(driver: Driver, alice: Client) -> None:
    alice.store(CONTENT)
    object_path(driver).unlink()

    assert alice.initiate(CONTENT)["alreadyExists"] is False
    alice.store(CONTENT)

    assert alice.load(HASH) == CONTENT


def test_an_object_that_appears_in_the_last_moment(
    driver: Driver, alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(alice)
    path = object_path(driver)
    bucket = type(driver.gateway.bucket)
    original = bucket.stat
    looks = []

    def stat(self: Any, key: str) -> int | None:
        size = original(self, key)
        looks.append(size)
        if len(looks) == 1:
            path.parent.mkdir(parents=True)
            path.write_bytes(b"damaged")
        return size

    monkeypatch.setattr(bucket, "stat", stat)

    assert alice.finalize(CONTENT).status == 200
    assert looks[:2] == [None, 7]
    assert path.read_bytes() == CONTENT


def test_many_finalize_at_once(driver: Driver, alice: Client) -> None:
    clients = [alice, *(Client(driver).register(name) for name in ("owner", "root", "alice", "owner"))]
    for client in clients:
        send(client)
    zone = driver.read(zones.require, "lab")
    receiver = driver.gateway.receiver

    async def all_at_once() -> list[int | None]:
        calls = [receiver.finalize(zone, HASH, len(CONTENT), c.keys.client_id) for c in clients for _ in range(3)]
        return await asyncio.gather(*calls)

    stored = driver.run(all_at_once())

    assert stored.count(len(CONTENT)) >= 1
    assert alice.load(HASH) == CONTENT
    assert object_path(driver).stat().st_nlink == 1
    assert staged(driver) == []
    assert driver.read(files.all_uploads) == []


def crash_while_committing(driver: Driver, alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what a process leaves that dies after publishing an object and before committing its file."""

    class Died(BaseException):
        pass

    def die(*args: Any, **kwargs: Any) -> None:
        raise Died

    with monkeypatch.context() as dying:
        dying.setattr(files, "add_file", die)
        dying.setattr(type(driver.gateway.bucket), "withdraw", lambda self, name, key: False)
        zone = driver.read(zones.require, "lab")
        with pytest.raises(Died):
            driver.run(driver.gateway.receiver.finalize(zone, HASH, len(CONTENT), alice.keys.client_id))


def test_a_crash_between_publishing_and_committing(
    driver: Driver, alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(alice)
    crash_while_committing(driver, alice, monkeypatch)
    assert object_path(driver).exists()
    assert alice.find(HASH).json()["found"] is False

    driver.run(driver.gateway.receiver.recover())

    assert not object_path(driver).exists(), "an object that is no file was left"
    # what was received is still there, and the client's next try ends it
    assert alice.finalize(CONTENT).status == 200
    assert alice.load(HASH) == CONTENT


def test_a_failure_while_committing_is_undone(driver: Driver, alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise StorageFull("no room")

    send(alice)
    with monkeypatch.context() as full:
        full.setattr(files, "add_file", fail)
        reply = alice.finalize(CONTENT)
    assert reply.headers["kachery-error"] == "storage_full"
    assert not object_path(driver).exists()
    assert alice.finalize(CONTENT).status == 200


def test_a_crash_while_deleting(driver: Driver, alice: Client) -> None:
    alice.store(CONTENT)
    zone = driver.read(zones.require, "lab")
    driver.write(files.begin_deletion, zone, HASH, 1)
    assert object_path(driver).exists()

    driver.run(driver.gateway.receiver.recover())

    assert not object_path(driver).exists()
    assert (driver.gateway.config.bucket_path / "trash" / zone.key(HASH)).read_bytes() == CONTENT


def test_storing_again_while_the_old_object_is_on_its_way_to_the_trash(driver: Driver, alice: Client) -> None:
    alice.store(CONTENT)
    zone = driver.read(zones.require, "lab")
    driver.write(files.begin_deletion, zone, HASH, 1)
    alice.store(CONTENT)

    # the late end of the deletion must not take the new object away
    driver.run(driver.gateway.receiver.recover())

    assert alice.load(HASH) == CONTENT


def test_a_restart_removes_what_belongs_to_nothing(driver: Driver, alice: Client) -> None:
    staging = driver.gateway.config.bucket_path / "staging"
    url = alice.initiate(CONTENT, parts=True)["signedUploadUrl"]
    alice.part(url, CONTENT, 0, 1000)
    kept = staged(driver)
    (staging / "orphan").write_bytes(b"x")
    (staging / f"{kept[0]}.0123abcd").write_bytes(b"half of a whole")
    driver.run(driver.gateway.receiver.close())

    driver.run(driver.gateway.receiver.recover())

    assert staged(driver) == kept
    assert alice.part(url, CONTENT, 1000, len(CONTENT)).status == 200
    assert alice.finalize(CONTENT).status == 200


def test_uploads_that_nobody_continues_are_given_up(driver: Driver, alice: Client) -> None:
    url = alice.initiate(CONTENT, parts=True)["signedUploadUrl"]
    alice.part(url, CONTENT, 0, 1000)
    send(alice)
    driver.run(driver.gateway.receiver.close())
    driver.run(driver.gateway.receiver.clean())
    assert len(staged(driver)) == 2
    driver.write(lambda c: c.exec_driver_sql("UPDATE uploads SET expires = 1"))

    driver.run(driver.gateway.receiver.clean(older_than=0))

    assert staged(driver) == []
    assert driver.read(files.all_uploads) == []


def test_sha256_stands_beside_sha1(driver: Driver, alice: Client) -> None:
    alice.store(CONTENT)
    row = driver.read(lambda c: c.exec_driver_sql("SELECT sha256 FROM content WHERE sha1 = ?", (HASH,)).one())
    assert row.sha256 == hashlib.sha256(CONTENT).hexdigest()
