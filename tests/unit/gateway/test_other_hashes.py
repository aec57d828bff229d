"""Files of a zone by their SHA-256 and their MD5."""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from kachery.gateway.services import aliases, zones
from rigs.asgi import BASE, Client, post, sha1

if TYPE_CHECKING:
    from rigs.asgi import Driver, Reply

CONTENT = os.urandom(300_000)
HASHES = {name: hashlib.new(name, CONTENT).hexdigest() for name in ("sha1", "sha256", "md5")}


def find(client: Client, algorithm: str, hash_: str | None = None) -> Reply:
    return client.call("findFile", hashAlg=algorithm, hash=HASHES[algorithm] if hash_ is None else hash_)


def record(client: Client, hash_: str = HASHES["sha1"], algorithm: str = "md5", **payload: Any) -> Reply:
    values = {"type": "recordAlias", "zone": client.zone, "hash": hash_, "algorithm": algorithm}
    signed = {**values, "timestamp": int(time.time() * 1000), **payload}
    body = {"payload": signed, "fromClientId": client.keys.client_id, "signature": client.keys.sign(signed)}
    return client.driver.request("POST", f"{BASE}/api/v1/aliases", json.dumps(body).encode())


def test_a_file_is_found_by_its_sha256(driver: Driver, alice: Client) -> None:
    assert find(alice, "sha256").json() == {"type": "findFile", "found": False}
    alice.store(CONTENT)
    found = find(alice, "sha256").json()
    assert (found["found"], found["sha1"], found["size"]) == (True, HASHES["sha1"], len(CONTENT))
    assert driver.request("GET", found["url"]).body == CONTENT
    assert "sha1" not in find(alice, "sha1").json(), "released clients take no key that they do not know"
    for wrong in ("", "x" * 64, HASHES["sha256"].upper(), HASHES["sha1"]):
        assert find(alice, "sha256", wrong).json() == {"type": "findFile", "found": False}


def test_an_md5_is_recorded_by_the_gateway_itself(alice: Client) -> None:
    alice.store(CONTENT)
    assert find(alice, "md5").json()["found"] is False
    assert record(alice).json() == {"algorithm": "md5", "hash": HASHES["md5"]}
    assert record(alice).status == 200
    assert find(alice, "md5").json()["sha1"] == HASHES["sha1"]


def test_what_is_not_recorded(driver: Driver, alice: Client) -> None:
    assert record(alice).status == 404
    alice.store(CONTENT)
    for algorithm in ("sha256", "crc32", ""):
        assert record(alice, algorithm=algorithm).status == 400
    for hash_ in ("", "../x", "0" * 40):
        assert record(alice, hash_).status == 404
    assert record(alice, extra=1).status == 400
    mallory = Client(driver).register("mallory")
    assert record(mallory).status == 403
    path = driver.gateway.config.bucket_path / f"zones/lab/sha1/{HASHES['sha1'][:2]}"
    (damaged,) = [file for file in path.rglob("*") if file.is_file()]
    damaged.chmod(0o600)
    damaged.write_bytes(b"x" * len(CONTENT))
    assert record(alice).status == 422
    assert find(alice, "md5").json()["found"] is False


def test_a_second_content_with_an_md5_is_refused(driver: Driver, alice: Client) -> None:
    alice.store(b"another")
    alice.store(CONTENT)
    # MD5 is broken: as if another file of the zone had this one, too
    driver.write(aliases.record, "md5", HASHES["md5"], sha1(b"another"), 1)
    assert record(alice).json()["error"]["code"] == "collision"
    assert find(alice, "md5").json()["sha1"] == sha1(b"another")


def test_other_zones_reveal_nothing(driver: Driver, alice: Client) -> None:
    owner = Client(driver, "unpublished").register("owner")
    owner.store(CONTENT)
    assert record(owner).status == 200
    for algorithm in HASHES:
        assert find(alice, algorithm).json() == {"type": "findFile", "found": False}
        assert find(owner, algorithm).json()["found"] is True
    assert record(alice).status == 404
    # in the private zone a hash is no permission, whatever its algorithm
    stranger = Client(driver, "unpublished").register("mallory")
    told = {find(stranger, algorithm).text for algorithm in HASHES}
    told |= {find(stranger, algorithm, "0" * len(HASHES[algorithm])).text for algorithm in HASHES}
    assert len(told) == 1
    driver.write(zones.grant, "unpublished", "mallory", ["download"])
    assert find(stranger, "sha256").json()["found"] is True


def test_deleted_files_are_not_found_by_any_hash(driver: Driver) -> None:
    owner = Client(driver).register("owner")
    owner.store(CONTENT)
    record(owner)
    assert owner.call("deleteFile", hashAlg="sha1", hash=HASHES["sha1"]).json()["success"] is True
    for algorithm in HASHES:
        assert find(owner, algorithm).json()["found"] is False


@pytest.mark.parametrize("kind", ["initiateFileUpload", "finalizeFileUpload", "deleteFile"])
def test_only_finding_knows_other_hashes(alice: Client, kind: str) -> None:
    payload = {"hashAlg": "sha256", "hash": HASHES["sha256"], "size": 1, "objectKey": "x"}
    wanted = {"initiateFileUpload": ("size",), "finalizeFileUpload": ("size", "objectKey"), "deleteFile": ()}[kind]
    request = alice.envelope(kind, **{key: payload[key] for key in ("hashAlg", "hash", *wanted)})
    assert post(alice.driver, request).status == 400
