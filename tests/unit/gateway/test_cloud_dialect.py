"""`/api/gateway`: forms, signatures, time, answers."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kachery import signing
from kachery.errors import StorageFull
from kachery.gateway.dialects import cloud
from kachery.gateway.services import resources, usage, zones
from rigs.asgi import BASE, HOST, Client, post, sha1

if TYPE_CHECKING:
    from rigs.asgi import Driver

SEED = bytes(range(32))
HASH = "b971c6ef19b1d70ae8f0feb989b106c319b36230"
CLIENT = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"

# specs: signed by the released client for 1700000000000
VECTORS = [
    (
        {"hash": HASH, "hashAlg": "sha1", "timestamp": 1700000000000, "type": "findFile", "zone": "default"},
        "f264c100f8452a1f764d98896cd772b4040c495794ad02a274aa040dd0da74035a214f8e5c2a03567989d80b54f90ec4fdd703192ff9ac8a737448359414b604",
    ),
    (
        {
            "hash": HASH,
            "hashAlg": "sha1",
            "size": 13,
            "timestamp": 1700000000000,
            "type": "initiateFileUpload",
            "zone": "default",
        },
        "81b85fcfabe2c3ba784cfa72b512a777418d3909b3a382e7e8b434e9bd30a342446faaef879527e74f7a8b4695f9d1b6e7c5abbfebe0a21b616626a5b5200000",
    ),
    (
        {
            "hash": HASH,
            "hashAlg": "sha1",
            "objectKey": f"sha1/b9/71/c6/{HASH}",
            "size": 13,
            "timestamp": 1700000000000,
            "type": "finalizeFileUpload",
            "zone": "default",
        },
        "2fdb3d2711fd3b87b8c4643724e8791f053e5da24279aac19b65145ee6c6480d5c559ffc17dabf94d45d58059257f9a1c2d2663f8d8a0337019e20c87fdc3a03",
    ),
]


@pytest.mark.parametrize(("payload", "signature"), VECTORS)
def test_signatures_of_the_released_client_are_accepted(payload: dict[str, Any], signature: str) -> None:
    request = {"payload": payload, "fromClientId": CLIENT, "signature": signature}

    assert cloud.is_request(request)
    assert cloud.authenticate(request, 1700000000000) == CLIENT
    changed = {**request, "payload": {**payload, "hash": "0" * 40}}
    with pytest.raises(PermissionError, match="invalid signature"):
        cloud.authenticate(changed, 1700000000000)


def test_both_canonical_forms_are_accepted(driver: Driver) -> None:
    client = Client(driver).register("alice")
    payload = {
        "type": "getClientInfo",
        "clientId": client.keys.client_id,
        "zone": "läb",
        "timestamp": time.time() * 1000 // 1,
    }
    for text in (signing.canonical_json(payload), signing.javascript_json(payload)):
        digest = hashlib.sha1(text.encode(), usedforsecurity=False).digest()
        signature = Ed25519PrivateKey.from_private_bytes(client.keys.seed).sign(digest).hex()
        reply = post(driver, {"payload": payload, "fromClientId": client.keys.client_id, "signature": signature})
        assert reply.status == 200, reply.text


def test_a_file_goes_in_and_comes_out(alice: Client) -> None:
    content = b"test-content\n"

    begun = alice.initiate(content)
    assert set(begun) == {"type", "alreadyExists", "objectKey", "signedUploadUrl"}
    assert begun["alreadyExists"] is False
    assert begun["objectKey"] == f"zones/lab/sha1/b9/71/c6/{HASH}"
    assert alice.find(HASH).json() == {"type": "findFile", "found": False}
    assert alice.put(begun["signedUploadUrl"], content).status == 200
    assert alice.find(HASH).json() == {"type": "findFile", "found": False}, "findable before it was finalized"
    assert alice.finalize(content).json() == {"type": "finalizeFileUpload"}

    found = alice.find(HASH).json()
    assert set(found) == {"type", "found", "size", "bucketUri", "objectKey", "url", "cacheHit"}
    assert (found["found"], found["size"], found["cacheHit"]) == (True, 13, False)
    assert found["url"].startswith(f"{BASE}/transfer/d/")
    assert alice.load(HASH) == content
    assert alice.initiate(content) == {"type": "initiateFileUpload", "alreadyExists": True}
    # a second answer to the same request is the same
    assert alice.finalize(content).status == 200


def test_the_zone_default_keeps_its_files_at_the_root(driver: Driver) -> None:
    driver.write(zones.create, "default", "owner", 1, private=False, public_upload=False)
    client = Client(driver, "default").register("owner")
    hash_ = client.store(b"x")

    anonymous = post(
        driver,
        {"payload": {"type": "findFile", "hashAlg": "sha1", "hash": hash_, "timestamp": int(time.time() * 1000)}},
    )

    assert anonymous.json()["objectKey"] == f"sha1/{hash_[:2]}/{hash_[2:4]}/{hash_[4:6]}/{hash_}"
    assert (driver.gateway.config.bucket_path / anonymous.json()["objectKey"]).read_bytes() == b"x"


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["payload"].update(extra=1),
        lambda r: r.update(extra=1),
        lambda r: r["payload"].update(zone=None),
        lambda r: r["payload"].update(hashAlg="crc32"),
        lambda r: r["payload"].update(hash=7),
        lambda r: r["payload"].update(timestamp="now"),
        lambda r: r["payload"].update(timestamp=True),
        lambda r: r["payload"].pop("timestamp"),
        lambda r: r["payload"].pop("hash"),
        lambda r: r["payload"].update(type="findfile"),
        lambda r: r["payload"].update(type=["findFile"]),
        lambda r: r.update(fromClientId="ab"),
        lambda r: r.update(signature="zz"),
        lambda r: r.update(fromClientId=None),
        lambda r: r.update(payload=[]),
        lambda r: r.pop("payload"),
    ],
)
def test_what_is_not_exactly_a_request_is_refused(driver: Driver, alice: Client, change: Any) -> None:
    request = alice.envelope("findFile", hashAlg="sha1", hash=HASH)
    change(request)

    reply = post(driver, request)

    assert reply.status == 400
    assert reply.text == "Invalid request: " + json.dumps(request)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 20000, b'{"payload": NaN}', b"9" * 5000, b"<html>", b" " * 70000],
)
def test_rubbish_is_refused(driver: Driver, body: bytes) -> None:
    reply = post(driver, body)

    assert reply.status in (400, 500)
    assert "\n" not in reply.text


def test_infinite_numbers_are_refused(driver: Driver) -> None:
    body = b'{"payload":{"type":"findFile","hashAlg":"sha1","hash":"x","timestamp":1e999}}'

    assert post(driver, body).status == 400


@pytest.mark.parametrize(
    ("skew", "words"),
    [
        (-126_000, "126 s behind"),
        (126_000, "126 s ahead of"),
        (-86_400_000, "86400 s behind"),
        (86_400_000, "86400 s ahead of"),
    ],
)
def test_the_clock_must_be_near_ours(skew: int, words: str) -> None:
    payload = {"type": "findFile", "hashAlg": "sha1", "hash": HASH, "timestamp": 1700000000000 + skew}

    with pytest.raises(PermissionError, match=f"it is {words} this gateway's clock, at most 125 s"):
        cloud.authenticate({"payload": payload}, 1700000000000)


def test_a_wrong_clock_is_told_in_text(driver: Driver) -> None:
    reply = post(driver, {"payload": {"type": "findFile", "hashAlg": "sha1", "hash": HASH, "timestamp": 1}})

    assert reply.status == 500
    assert reply.text.startswith("Error: invalid timestamp: it is ")


def test_a_clock_that_is_two_minutes_off_is_near_enough(driver: Driver) -> None:
    for seconds in (-120, 120):
        stamp = int((time.time() + seconds) * 1000)
        payload = {"type": "findFile", "hashAlg": "sha1", "hash": HASH, "zone": "lab", "timestamp": stamp}
        assert post(driver, {"payload": payload}).status == 200


def test_a_client_must_sign(driver: Driver, alice: Client) -> None:
    request = alice.envelope("findFile", hashAlg="sha1", hash=HASH)
    del request["signature"]
    assert post(driver, request).text == "Error: fromClientId without a signature"

    request = alice.envelope("findFile", hashAlg="sha1", hash=HASH)
    request["payload"]["zone"] = "unpublished"
    reply = post(driver, request)
    assert (reply.status, reply.text) == (500, "Error: invalid signature")
    assert reply.headers["kachery-error"] == "not_allowed"


def test_a_client_id_in_capitals_is_the_same_client(driver: Driver, alice: Client) -> None:
    request = alice.envelope("initiateFileUpload", hashAlg="sha1", hash=HASH, size=1)
    request["fromClientId"] = request["fromClientId"].upper()

    assert post(driver, request).status == 200


def test_identities_of_others_are_not_taken(driver: Driver) -> None:
    payload = {"type": "findFile", "hashAlg": "sha1", "hash": HASH, "zone": "lab", "timestamp": int(time.time() * 1000)}

    reply = post(driver, {"payload": payload, "githubUserId": "alice", "githubAccessToken": "gho_secret"})

    assert reply.status == 500
    assert "GitHub" in reply.text


@pytest.mark.parametrize("hash_", [HASH.upper(), HASH[:39], HASH + "0", "", "../../etc/passwd", "%2e%2e"])
def test_what_is_not_a_hash_is_not_found(alice: Client, hash_: str) -> None:
    assert alice.find(hash_).json() == {"type": "findFile", "found": False}
    reply = alice.call("initiateFileUpload", hashAlg="sha1", hash=hash_, size=1)
    assert reply.status == 500
    assert reply.text.startswith("Error: not a SHA-1 hash")


@pytest.mark.parametrize("size", [-1, 1.5, 2**63, 1e300])
def test_what_is_not_a_size_is_refused(alice: Client, size: float) -> None:
    reply = alice.call("initiateFileUpload", hashAlg="sha1", hash=HASH, size=size)

    assert reply.status == 500
    assert reply.text.startswith("Error: not a size")


def test_sizes_above_what_upstream_took_are_fine(
    driver: Driver, alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(driver.gateway.bucket), "room", lambda self: 10**13)
    assert alice.ok("initiateFileUpload", hashAlg="sha1", hash=HASH, size=9 * 10**12)["alreadyExists"] is False
    reply = alice.call("initiateFileUpload", hashAlg="sha1", hash=HASH, size=10**14)
    assert (reply.status, reply.headers["kachery-error"]) == (500, "too_large")


def test_a_file_for_which_there_is_no_room_is_refused_at_once(
    driver: Driver, alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(driver.gateway.bucket), "room", lambda self: 99)
    reply = alice.call("initiateFileUpload", hashAlg="sha1", hash=HASH, size=100)
    assert (reply.status, reply.headers["kachery-error"]) == (500, "storage_full")


def test_the_object_key_is_ours(alice: Client) -> None:
    content = b"D-04"
    begun = alice.initiate(content)
    alice.put(begun["signedUploadUrl"], content)
    for key in ("zones/lab/sha1/00/00/00/" + "0" * 40, begun["objectKey"] + "/..", "gateway.lock", ""):
        reply = alice.finalize(content, objectKey=key)
        assert reply.status == 500
        assert "objectKey" in reply.text
    assert alice.find(sha1(content)).json()["found"] is False
    assert alice.finalize(content).status == 200


def test_a_wrong_size_at_the_end_deletes_nothing(alice: Client) -> None:
    hash_ = alice.store(b"precious")

    reply = alice.finalize(b"precious", size=7)

    assert reply.status == 500
    assert alice.load(hash_) == b"precious"


def test_nothing_is_finalized_that_was_not_begun_or_not_sent(alice: Client) -> None:
    assert "begun" in alice.finalize(b"never begun").text
    alice.initiate(b"never sent")
    reply = alice.finalize(b"never sent")
    assert reply.status == 500
    assert "have not arrived" in reply.text


def test_an_upload_belongs_to_the_client_that_began_it(driver: Driver, alice: Client) -> None:
    content = b"alice's"
    alice.put(alice.initiate(content)["signedUploadUrl"], content)
    other = Client(driver).register("owner")

    assert other.finalize(content).status == 500
    assert other.find(sha1(content)).json()["found"] is False
    assert alice.finalize(content).status == 200


def test_two_clients_at_once_both_succeed(driver: Driver, alice: Client) -> None:
    # D-05: the second to end used to delete the only copy
    content = b"stored twice"
    other = Client(driver).register("owner")
    first, second = alice.initiate(content), other.initiate(content)
    assert alice.put(first["signedUploadUrl"], content).status == 200
    assert other.put(second["signedUploadUrl"], content).status == 200

    assert alice.finalize(content).status == 200
    assert other.finalize(content).status == 200

    assert alice.load(sha1(content)) == content
    assert list(driver.gateway.bucket.staged()) == []


def test_the_upload_address_is_of_no_use_after_the_end(alice: Client) -> None:
    # D-07: what was finalized could be overwritten for half an hour
    content = b"final"
    begun = alice.initiate(content)
    alice.put(begun["signedUploadUrl"], content)
    alice.finalize(content)

    assert alice.put(begun["signedUploadUrl"], b"other").status in (404, 422)
    assert alice.load(sha1(content)) == content


def test_zone_and_client_information(driver: Driver, alice: Client) -> None:
    stamp = int(time.time() * 1000)
    zone = post(driver, {"payload": {"type": "getZoneInfo", "zoneName": "lab", "timestamp": stamp}})
    assert zone.json() == {"type": "getZoneInfo", "found": True, "kacheryGatewayUrl": f"http://{HOST}"}

    wanted = {"type": "getClientInfo", "clientId": alice.keys.client_id, "zone": "lab", "timestamp": stamp}
    assert post(driver, {"payload": wanted}).json() == {
        "type": "getClientInfo",
        "found": True,
        "client": {"clientId": alice.keys.client_id, "ownerId": "alice", "timestampCreated": 1, "label": "a machine"},
    }
    # registered in this zone only
    for elsewhere in ("unpublished", "no such zone"):
        assert post(driver, {"payload": {**wanted, "zone": elsewhere}}).json() == {
            "type": "getClientInfo",
            "found": False,
        }


def test_resource_information(driver: Driver, alice: Client) -> None:
    driver.write(resources.add, "lab", "rig 3", "alice", "https://proxy.example.org", 5)
    driver.write(resources.add, "unpublished", "rig 4", "owner", "https://proxy.example.org", 5)

    assert alice.ok("getResourceInfo", resourceName="rig 3") == {
        "type": "getResourceInfo",
        "found": True,
        "resource": {
            "resourceName": "rig 3",
            "ownerId": "alice",
            "timestampCreated": 5,
            "proxyUrl": "https://proxy.example.org",
        },
    }
    assert alice.ok("getResourceInfo", resourceName="rig 9") == {"type": "getResourceInfo", "found": False}
    stranger = Client(driver, "unpublished")
    assert stranger.ok("getResourceInfo", resourceName="rig 4") == {"type": "getResourceInfo", "found": False}


def test_parts_are_mentioned_only_to_who_asks(alice: Client) -> None:
    assert alice.initiate(b"x", parts=True)["parts"] is True
    assert "parts" not in alice.initiate(b"x")


@pytest.mark.parametrize("origin", ["https://figurl.org", "http://localhost:3000"])
def test_known_origins_may_send_credentials(driver: Driver, origin: str) -> None:
    reply = driver.request("OPTIONS", f"{BASE}/api/gateway", headers={"Origin": origin})
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == origin
    assert reply.headers["access-control-allow-credentials"] == "true"


def test_other_origins_may_call_without(driver: Driver) -> None:
    reply = driver.request("OPTIONS", f"{BASE}/api/gateway", headers={"Origin": "https://evil.example"})
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in reply.headers


def test_a_log_or_counter_that_fails_breaks_nothing(
    driver: Driver, alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # D-40
    class Broken:
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

        def isatty(self) -> bool:
            return False

    def fail(*args: Any) -> None:
        raise StorageFull("no room for the account book")

    with monkeypatch.context() as broken:
        broken.setattr(sys, "stderr", Broken())
        broken.setattr(usage, "write", fail)
        hash_ = alice.store(b"stored all the same")
        driver.run(driver.application.flush())

    assert alice.load(hash_) == b"stored all the same"
    # what could not be written is written later
    driver.run(driver.application.flush())
    (line,) = [line for line in driver.read(usage.read, "lab") if line.uploads]
    assert (line.user, line.uploads, line.upload_bytes) == ("alice", 1, 19)
