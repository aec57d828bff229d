"""Who may do what: every row of the table, closed by default, and nothing learned by asking."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from kachery.gateway.services import accounts, identity, zones
from rigs.asgi import Client, post, sha1

if TYPE_CHECKING:
    from rigs.asgi import Driver, Reply

CONTENT = b"unpublished data"
HASH = sha1(CONTENT)
NOWHERE = sha1(b"nobody has this")


@pytest.fixture
def owner(driver: Driver) -> Client:
    """The owner's client in the private zone, which has one file."""
    client = Client(driver, "unpublished").register("owner")
    client.store(CONTENT)
    return client


def anonymous(driver: Driver, zone: str, hash_: str = HASH) -> Reply:
    payload = {"type": "findFile", "hashAlg": "sha1", "hash": hash_, "zone": zone, "timestamp": int(time.time() * 1000)}
    return post(driver, {"payload": payload})


def may_upload(client: Client) -> bool:
    reply = client.call("initiateFileUpload", hashAlg="sha1", hash=NOWHERE, size=3)
    assert reply.status in (200, 500)
    return reply.status == 200


def may_download(client: Client) -> bool:
    reply = client.find(HASH)
    assert reply.status in (200, 500)
    return reply.status == 200


def may_delete(client: Client) -> bool:
    reply = client.call("deleteFile", hashAlg="sha1", hash=NOWHERE)
    assert reply.status in (200, 500)
    return reply.status == 200


def rights(client: Client) -> tuple[bool, bool, bool]:
    return may_upload(client), may_download(client), may_delete(client)


def test_anyone_reads_a_public_zone(driver: Driver, alice: Client) -> None:
    hash_ = alice.store(b"published")

    assert anonymous(driver, "lab", hash_).json()["found"] is True
    unregistered = Client(driver, "lab")
    assert unregistered.find(hash_).json()["found"] is True
    assert not may_upload(unregistered)
    assert not may_delete(unregistered)


def test_nobody_uploads_without_a_signature(driver: Driver, alice: Client) -> None:
    driver.write(zones.set_public, "lab", download=True, upload=True)
    for kind, extra in (("initiateFileUpload", {}), ("finalizeFileUpload", {"objectKey": "x"})):
        payload = {
            "type": kind,
            "hashAlg": "sha1",
            "hash": HASH,
            "size": 1,
            "zone": "lab",
            "timestamp": int(time.time() * 1000),
            **extra,
        }
        reply = post(driver, {"payload": payload})
        assert reply.status == 500
        assert "anonymous" in reply.text


@pytest.mark.parametrize(
    ("granted", "expected"),
    [
        ([], (False, False, False)),
        (["upload"], (True, False, False)),
        (["download"], (False, True, False)),
        (["upload", "download"], (True, True, False)),
        (["admin"], (True, True, True)),
    ],
)
def test_members_of_a_private_zone(
    driver: Driver, owner: Client, granted: list[str], expected: tuple[bool, bool, bool]
) -> None:
    if granted:
        driver.write(zones.grant, "unpublished", "alice", granted)

    assert rights(Client(driver, "unpublished").register("alice")) == expected

    if granted:
        driver.write(zones.grant, "unpublished", "alice", granted, granted=False)
        assert rights(Client(driver, "unpublished").register("alice")) == (False, False, False)
        assert driver.read(zones.list_members, "unpublished") == []


def test_owners_and_global_administrators_may_do_everything(driver: Driver, owner: Client) -> None:
    # D-14: upstream's owner of a zone could not administer it
    assert rights(owner) == (True, True, True)
    assert rights(Client(driver, "unpublished").register("root")) == (True, True, True)


def test_any_registered_client_uploads_where_that_is_public(driver: Driver, owner: Client) -> None:
    driver.write(zones.set_public, "unpublished", download=False, upload=True)

    assert rights(Client(driver, "unpublished").register("mallory")) == (True, False, False)
    assert rights(Client(driver, "unpublished")) == (False, False, False)


def test_registration_counts_in_one_zone(driver: Driver, owner: Client) -> None:
    in_lab = Client(driver, "lab").register("owner")
    elsewhere = Client(driver, "unpublished", keys=in_lab.keys)

    assert rights(elsewhere) == (False, False, False)


def test_what_was_changed_counts_at_once(driver: Driver, owner: Client) -> None:
    client = Client(driver, "unpublished").register("alice")
    assert not may_download(client)
    driver.write(zones.grant, "unpublished", "alice", ["download"])
    assert may_download(client)
    driver.write(zones.set_public, "unpublished", download=True, upload=False)
    assert anonymous(driver, "unpublished").json()["found"] is True
    driver.write(zones.set_public, "unpublished", download=False, upload=False)
    assert anonymous(driver, "unpublished").status == 500


@pytest.mark.parametrize("damage", ["NULL", "'yes'", "2", "-1", "'1; true'", "x'01'", "1.5"])
def test_damaged_settings_close_the_zone(driver: Driver, alice: Client, damage: str) -> None:
    # D-15
    hash_ = alice.store(b"published")
    stranger = Client(driver, "lab").register("mallory")
    driver.write(
        lambda c: c.exec_driver_sql(
            f"UPDATE zones SET allow_public_download = {damage}, allow_public_upload = {damage} WHERE name = 'lab'"
        )
    )
    driver.write(
        lambda c: c.exec_driver_sql(f"UPDATE members SET upload = {damage}, download = {damage}, admin = {damage}")
    )

    assert anonymous(driver, "lab", hash_).status == 500
    assert not may_upload(stranger)
    assert stranger.find(hash_).status == 500
    assert alice.find(hash_).status == 500
    assert not may_upload(alice)


def test_an_unknown_zone_and_a_closed_one_look_the_same(driver: Driver, owner: Client) -> None:
    def told(reply: Reply, zone: str) -> tuple[int, str, dict[str, str]]:
        headers = {name: value for name, value in reply.headers.items() if name != "content-length"}
        return reply.status, reply.text.replace(zone, "ZONE"), headers

    for hash_ in (HASH, NOWHERE):
        assert told(anonymous(driver, "unpublished", hash_), "unpublished") == told(
            anonymous(driver, "no-such-zone", hash_), "no-such-zone"
        )
    keys = Client(driver).keys
    closed, unknown = Client(driver, "unpublished", keys), Client(driver, "no-such-zone", keys)
    for kind, extra in (
        ("findFile", {}),
        ("initiateFileUpload", {"size": 16}),
        ("finalizeFileUpload", {"size": 16, "objectKey": "x"}),
        ("deleteFile", {}),
    ):
        replies = [client.call(kind, hashAlg="sha1", hash=HASH, **extra) for client in (closed, unknown)]
        assert told(replies[0], "unpublished") == told(replies[1], "no-such-zone")
        assert replies[0].status == 500


def test_not_there_and_not_yours_look_the_same(driver: Driver, owner: Client) -> None:
    client = Client(driver, "unpublished").register("mallory")

    assert client.find(HASH).text == client.find(NOWHERE).text


def test_a_hash_is_not_a_permission(driver: Driver, owner: Client) -> None:
    # the zone `lab` does not get the file of another zone by its hash alone
    client = Client(driver, "lab").register("alice")
    assert client.find(HASH).json()["found"] is False
    reply = client.call("initiateFileUpload", hashAlg="sha1", hash=HASH, size=len(CONTENT))
    assert reply.json()["alreadyExists"] is False


def test_deleting(driver: Driver, owner: Client) -> None:
    url = owner.find(HASH).json()["url"]

    assert owner.call("deleteFile", hashAlg="sha1", hash=NOWHERE).json()["success"] is False
    assert owner.call("deleteFile", hashAlg="sha1", hash=HASH).json() == {"type": "deleteFile", "success": True}

    assert owner.find(HASH).json()["found"] is False
    assert driver.request("GET", url).status == 404
    trash = driver.gateway.config.bucket_path / "trash" / "zones/unpublished/sha1" / HASH[:2] / HASH[2:4] / HASH[4:6]
    assert (trash / HASH).read_bytes() == CONTENT
    # and it can come back
    owner.store(CONTENT)
    assert owner.load(HASH) == CONTENT


def test_a_deletion_cannot_be_repeated_by_others(driver: Driver, owner: Client) -> None:
    # D-11: requests carry no nonce
    request = owner.envelope("deleteFile", hashAlg="sha1", hash=HASH)
    assert post(driver, request).json()["success"] is True
    owner.store(CONTENT)

    again = post(driver, request)

    assert again.status == 500
    assert "made before" in again.text
    assert owner.load(HASH) == CONTENT


def test_removing_a_client_ends_its_rights(driver: Driver, owner: Client) -> None:
    assert may_download(owner)
    driver.write(identity.remove_client, owner.keys.client_id)
    assert rights(owner) == (False, False, False)


def test_names_that_could_escape_are_not_names(driver: Driver) -> None:
    def make(name: str) -> Any:
        return driver.write(zones.create, name, "owner", 1, private=False, public_upload=False)

    for name in ("", ".", "..", "../x", "a/b", "a..b", ".hidden", "-x", "zöne", "a\nb", "a b", "x" * 201):
        with pytest.raises(ValueError, match="not a zone name"):
            make(name)
        with pytest.raises(ValueError, match="not a user name"):
            driver.write(accounts.add_user, name, 1)
