"""The protocol of kachery 2.x: forms, keys, proof of work, answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from kachery.gateway import models
from kachery.gateway.dialects.keys import is_work
from kachery.gateway.services import api_keys, usage, zones
from rigs.asgi import BASE, Client, Driver, sha1

if TYPE_CHECKING:
    from rigs.asgi import Reply

HELLO = "f572d396fae9206628714fb2ce00f72e94f2258f"
EMPTY = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
CONTENT = b"test-content\n"
HASH = "b971c6ef19b1d70ae8f0feb989b106c319b36230"
WORK = {HELLO: "00000000000040f8", HASH: "0000000000002792", EMPTY: "00000000000051ae"}


@dataclass
class Program:
    """A program of kachery 2.x with a key, or without one."""

    driver: Driver
    key: str = ""

    def post(self, name: str, request: Any, **headers: str) -> Reply:
        if self.key:
            headers.setdefault("authorization", f"Bearer {self.key}")
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        return self.driver.request("POST", f"{BASE}/api/{name}", body, {"content-type": "application/json", **headers})

    def call(self, name: str, /, **request: Any) -> Reply:
        return self.post(name, {"type": f"{name}Request", **request})

    def ok(self, name: str, /, **request: Any) -> dict[str, Any]:
        reply = self.call(name, **request)
        assert reply.status == 200, reply.text
        answer: dict[str, Any] = reply.json()
        assert answer.pop("type") == f"{name}Response"
        return answer

    def refused(self, name: str, /, **request: Any) -> tuple[int, str]:
        reply = self.call(name, **request)
        assert set(reply.json()) == {"error"}
        return reply.status, reply.json()["error"]

    def find(self, hash_: str = HASH, zone: str = "lab") -> dict[str, Any]:
        return self.ok("findFile", hashAlg="sha1", hash=hash_, zoneName=zone)

    def store(self, content: bytes, zone: str = "lab") -> None:
        hash_ = sha1(content)
        begun = self.ok("initiateFileUpload", **upload(content, zone))
        if begun["alreadyExists"]:
            return
        assert self.driver.request("PUT", begun["signedUploadUrl"], content).status == 200
        ended = {"objectKey": begun["objectKey"], "hashAlg": "sha1", "hash": hash_, "zoneName": zone}
        assert self.ok("finalizeFileUpload", size=len(content), **ended) == {"success": True}


def work(hash_: str) -> str:
    return WORK.get(hash_) or next(str(number) for number in range(10**6) if is_work(hash_, str(number)))


def upload(content: bytes, zone: str = "lab") -> dict[str, Any]:
    hash_ = sha1(content)
    return {"size": len(content), "hashAlg": "sha1", "hash": hash_, "zoneName": zone, "workToken": work(hash_)}


def key(driver: Driver, user: str, purpose: str = api_keys.FILES) -> Program:
    return Program(driver, driver.write(api_keys.add, user, purpose, "", 1))


@pytest.fixture
def alice(driver: Driver) -> Program:
    """Whose user may upload to `lab`."""
    return key(driver, "alice")


@pytest.fixture
def root(driver: Driver) -> Program:
    """Who manages the gateway."""
    return key(driver, "root", api_keys.MANAGEMENT)


@pytest.mark.parametrize(
    ("hash_", "token", "valid"),
    [
        (HELLO, "00000000000040f8", True),
        (HASH, "0000000000002792", True),
        (EMPTY, "00000000000051ae", True),
        (HELLO, "2683", True),
        (HELLO, "50134", False),
        (HELLO, "0000000000000000", False),
        (HELLO.upper(), "00000000000040f8", False),
    ],
)
def test_proofs_of_work(hash_: str, token: str, valid: bool) -> None:
    assert is_work(hash_, token) is valid


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_file_goes_in_and_comes_out(driver: Driver, alice: Program) -> None:
    assert alice.find() == {"found": False}
    begun = alice.ok("initiateFileUpload", **upload(CONTENT))
    assert set(begun) == {"alreadyExists", "alreadyPending", "signedUploadUrl", "objectKey"}
    assert (begun["alreadyExists"], begun["alreadyPending"]) == (False, False)
    assert begun["objectKey"] == f"zones/lab/sha1/b9/71/c6/{HASH}"
    assert driver.request("PUT", begun["signedUploadUrl"], CONTENT).status == 200
    assert alice.find() == {"found": False}, "findable before it was finalized"
    ended = {"objectKey": begun["objectKey"], "hashAlg": "sha1", "hash": HASH, "zoneName": "lab", "size": 13}
    assert alice.ok("finalizeFileUpload", **ended) == {"success": True}
    assert alice.ok("finalizeFileUpload", **ended) == {"success": True}, "a second time changes nothing"

    found = Program(driver).find()
    assert set(found) == {"found", "url", "size", "bucketUri", "objectKey"}
    assert (found["found"], found["size"], found["bucketUri"]) == (True, 13, "directory://default")
    assert driver.request("GET", found["url"]).body == CONTENT
    again = alice.ok("initiateFileUpload", **upload(CONTENT))
    assert again == {"alreadyExists": True, "alreadyPending": False}


def test_what_2_0_3_adds_is_accepted_and_decides_nothing(driver: Driver, alice: Program) -> None:
    for allowed in (True, False):
        assert alice.ok("initiateFileUpload", allowPublicZones=allowed, **upload(b"x"))["alreadyExists"] is False
    mallory = key(driver, "mallory")
    assert mallory.call("initiateFileUpload", allowPublicZones=True, **upload(b"x")).status == 401
    assert alice.refused("initiateFileUpload", allowPublicZones=1, **upload(b"x")) == (400, "Invalid request")


def test_an_empty_file_comes_in_chunks(driver: Driver, alice: Program) -> None:
    begun = alice.ok("initiateFileUpload", **upload(b""))
    # as `requests` sends an empty file
    sent = driver.request("PUT", begun["signedUploadUrl"], [b""], {"transfer-encoding": "chunked"})
    assert sent.status == 200
    ended = {"objectKey": begun["objectKey"], "hashAlg": "sha1", "hash": EMPTY, "zoneName": "lab", "size": 0}
    assert alice.ok("finalizeFileUpload", **ended) == {"success": True}
    assert alice.find(EMPTY)["size"] == 0


def test_nothing_is_found_that_is_not_what_it_claims(driver: Driver, alice: Program) -> None:
    begun = alice.ok("initiateFileUpload", **upload(CONTENT))
    ended = {"objectKey": begun["objectKey"], "hashAlg": "sha1", "hash": HASH, "zoneName": "lab", "size": 13}

    assert alice.call("finalizeFileUpload", **ended).status == 422, "nothing was sent"
    assert driver.request("PUT", begun["signedUploadUrl"], b"Test-content\n").status == 422
    assert driver.request("PUT", begun["signedUploadUrl"], CONTENT + b"x").status == 422
    assert alice.call("finalizeFileUpload", **ended).status == 422
    assert alice.call("finalizeFileUpload", **{**ended, "size": 12}).status == 404
    assert alice.find() == {"found": False}
    assert driver.request("PUT", begun["signedUploadUrl"], CONTENT).status == 200
    other = key(driver, "owner")
    assert other.call("finalizeFileUpload", **ended).status == 404, "another key's upload"
    assert alice.refused("finalizeFileUpload", **{**ended, "objectKey": "x"})[0] == 400
    alice.ok("finalizeFileUpload", **ended)
    assert alice.find()["found"] is True


def test_what_may_not_be_uploaded(driver: Driver, alice: Program) -> None:
    good = upload(CONTENT)
    cases = [
        (Program(driver), {}, 400, "User API token must be provided for zone lab"),
        (Program(driver), {"zoneName": "scratch"}, 400, "User API token must be provided for zone scratch"),
        (Program(driver, "x" * 32), {}, 401, "Unauthorized - no user for token"),
        (Program(driver, "x" * 32), {"workToken": "0"}, 400, "Invalid work token"),
        (alice, {"hash": HASH.upper()}, 400, "Invalid hash"),
        (alice, {"hash": "../" + HASH[3:]}, 400, "Invalid hash"),
        (alice, {"hashAlg": "md5"}, 400, "Invalid hash"),
        (alice, {"workToken": "0000000000000000"}, 400, "Invalid work token"),
        (alice, {"zoneName": "nowhere"}, 400, "Zone not found: nowhere"),
        (alice, {"zoneName": "unpublished"}, 401, "This user is not allowed to upload files to this zone"),
        (key(driver, "mallory"), {}, 401, "This user is not allowed to upload files to this zone"),
        (alice, {"size": 2**50}, 413, f"File size exceeds maximum for zone: {2**50} > {16 * 1024**4}"),
    ]
    for program, change, status, text in cases:
        assert program.refused("initiateFileUpload", **{**good, **change}) == (status, text)
    for size in (-1, 1.5, 2**70):
        assert alice.call("initiateFileUpload", **{**good, "size": size}).status in (400, 413)
    assert alice.ok("initiateFileUpload", **{**good, "size": 13.0})["alreadyExists"] is False


@pytest.mark.parametrize(
    "change",
    [
        {"type": "findFile"},
        {"type": None},
        {"extra": 1},
        {"zoneName": None},
        {"zoneName": 1},
        {"zoneName": "\ud800"},
        {"zoneName": "lab\0"},
        {"hash": ["a"]},
        {"timestamp": 1},
    ],
)
def test_forms_are_strict(alice: Program, change: dict[str, Any]) -> None:
    request = {"type": "findFileRequest", "hashAlg": "sha1", "hash": HASH, "zoneName": "lab"}
    reply = alice.post("findFile", {**request, **change})
    assert (reply.status, reply.json()) == (400, {"error": "Invalid request"})
    for missing in request:
        shorter = {name: value for name, value in request.items() if name != missing}
        assert alice.post("findFile", shorter).json() == {"error": "Invalid request"}


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"type": NaN}', b"[" * 5000, b"\xff"])
def test_bodies_that_are_no_requests(alice: Program, body: bytes) -> None:
    reply = alice.post("findFile", body)
    assert (reply.status, reply.json()) == (400, {"error": "Invalid request"})


def test_who_may_find(driver: Driver, alice: Program) -> None:
    owner, stale = key(driver, "owner"), Program(driver, "y" * 32)
    owner.store(CONTENT, "unpublished")
    private = {"hashAlg": "sha1", "hash": HASH, "zoneName": "unpublished"}
    closed = "User API token must be provided when zone does not allow public download"

    assert owner.ok("findFile", **private)["found"] is True
    assert alice.refused("findFile", **private) == (401, "This user is not allowed to download files from this zone")
    assert Program(driver).refused("findFile", **private) == (401, closed)
    assert stale.refused("findFile", **private) == (401, "Unauthorized - no user for token")
    # what is there and closed looks like what is not there
    absent = {**private, "zoneName": "nowhere"}
    assert Program(driver).refused("findFile", **absent) == (401, closed)
    assert stale.refused("findFile", **absent) == (401, "Unauthorized - no user for token")
    assert alice.refused("findFile", **absent) == (400, "Zone not found: nowhere")
    # other zones do not know the file
    assert alice.find() == {"found": False}
    driver.write(zones.grant, "unpublished", "alice", ["download"])
    assert alice.ok("findFile", **private)["found"] is True


def test_a_stale_key_does_not_close_what_is_public(driver: Driver, alice: Program) -> None:
    alice.store(CONTENT)
    assert Program(driver, "y" * 32).find()["found"] is True


def test_keys_end_at_once_and_are_for_one_purpose(driver: Driver, alice: Program, root: Program) -> None:
    assert alice.refused("getZones") == (401, "Unauthorized"), "a key for files manages nothing"
    manager = Program(driver, root.key)
    assert manager.refused("initiateFileUpload", **upload(b"x")) == (401, "Unauthorized - no user for token")
    driver.write(api_keys.remove, "alice")
    assert alice.refused("initiateFileUpload", **upload(b"x")) == (401, "Unauthorized - no user for token")


def test_keys_are_stored_as_hashes(driver: Driver, alice: Program) -> None:
    assert len(alice.key) == 32
    assert alice.key.isalnum()
    stored = driver.read(lambda connection: connection.execute(select(models.api_keys)).fetchall())
    assert len(stored) == 1
    assert alice.key not in str(stored)


def test_the_account_book_counts_what_was_stored_once(driver: Driver, alice: Program) -> None:
    alice.store(CONTENT)
    alice.store(CONTENT)
    driver.run(driver.application.flush())
    lines = driver.read(usage.by_day, zone="lab", user="alice")
    assert [(line.uploads, line.upload_bytes) for line in lines] == [(1, 13)]


def test_other_origins_and_methods(driver: Driver) -> None:
    asked = driver.request("OPTIONS", f"{BASE}/api/findFile", headers={"origin": "https://figurl.org"})
    assert (asked.status, asked.body) == (200, b"")
    assert asked.headers["access-control-allow-origin"] == "*"
    assert "Authorization" in asked.headers["access-control-allow-headers"]
    for name in ("findFile", "addZone", "usage"):
        reply = driver.request("GET", f"{BASE}/api/{name}")
        assert (reply.status, reply.json()) == (405, {"error": "Method not allowed"})
    assert Program(driver).post("findFile", b"x").headers["access-control-allow-origin"] == "*"
    assert driver.request("POST", f"{BASE}/api/elsewhere", b"{}").status == 404


def test_both_protocols_share_a_zone(driver: Driver, alice: Program) -> None:
    client = Client(driver).register("alice")
    client.store(b"from the cloud's client")
    alice.store(CONTENT)
    assert client.load(HASH) == CONTENT
    assert alice.ok("initiateFileUpload", **upload(b"from the cloud's client"))["alreadyExists"] is True


# -- management -------------------------------------------------------------------------------------------------------


def test_users(driver: Driver, root: Program) -> None:
    alice = key(driver, "alice", api_keys.MANAGEMENT)
    assert alice.ok("getUser", userId="alice")["user"] == {
        "userId": "alice",
        "name": "",
        "email": "",
        "researchDescription": "",
        "apiKey": "",
    }
    assert alice.ok("setUserInfo", userId="alice", name="Alice", email="a@lab", researchDescription="rats") == {}
    made = alice.ok("resetUserApiKey", userId="alice")["apiKey"]
    assert len(made) == 32
    shown = alice.ok("getUser", userId="alice")["user"]
    assert (shown["name"], shown["email"], shown["apiKey"]) == ("Alice", "a@lab", "********")
    files = Program(driver, made)
    files.store(CONTENT)
    again = alice.ok("resetUserApiKey", userId="alice")["apiKey"]
    assert files.refused("initiateFileUpload", **upload(b"x")) == (401, "Unauthorized - no user for token")
    Program(driver, again).store(CONTENT)

    assert alice.refused("getUser", userId="root") == (401, "Unauthorized")
    assert alice.refused("setUserInfo", userId="root", name="x") == (401, "Unauthorized")
    assert alice.refused("resetUserApiKey", userId="root") == (401, "Unauthorized")
    assert root.refused("resetUserApiKey", userId="alice") == (401, "Unauthorized"), "keys are their user's alone"
    assert alice.refused("getUsers") == (401, "Unauthorized")
    assert alice.refused("setUserInfo", userId="alice", name="x" * 201) == (400, "Invalid name")
    assert alice.refused("setUserInfo", userId="alice", email="x" * 201) == (400, "Invalid email")
    assert alice.refused("setUserInfo", userId="alice", researchDescription="x" * 2001) == (
        400,
        "Invalid research description",
    )
    listed = root.call("getUsers")
    assert [user["userId"] for user in listed.json()["users"]] == ["alice", "mallory", "owner", "root"]
    assert again not in listed.text
    assert root.ok("computeUserStats", userId="alice") == {"userStats": {"userId": "alice"}}


def test_accounts_are_made_by_administrators(driver: Driver, root: Program) -> None:
    alice = key(driver, "alice", api_keys.MANAGEMENT)
    assert alice.refused("addUser", userId="alice") == (400, "User already exists")
    assert alice.refused("addUser", userId="bob") == (401, "Unauthorized")
    assert root.ok("addUser", userId="bob") == {}
    assert root.refused("addUser", userId="../x")[0] == 400
    assert root.ok("getUser", userId="bob")["user"]["userId"] == "bob"
    assert root.refused("getUser", userId="carol") == (404, "User not found: carol")


def test_zones(driver: Driver, root: Program) -> None:
    alice, owner = key(driver, "alice", api_keys.MANAGEMENT), key(driver, "owner", api_keys.MANAGEMENT)
    assert alice.refused("addZone", zoneName="new", userId="alice") == (401, "Only admin can add zones")
    assert root.refused("addZone", zoneName="new", userId="alice") == (401, "Unauthorized")
    assert root.refused("addZone", zoneName="a/b", userId="root")[0] == 400
    assert root.ok("addZone", zoneName="new", userId="root") == {}
    assert root.refused("addZone", zoneName="new", userId="root") == (409, "Zone with this name already exists.")
    assert root.ok("getZone", zoneName="new")["zone"] == {
        "zoneName": "new",
        "userId": "root",
        "users": [],
        "publicDownload": True,
        "publicUpload": False,
        "bucketUri": "directory://default",
        "directory": "zones/new",
    }
    member = {"userId": "alice", "admin": True, "uploadFiles": True, "downloadFiles": False}
    assert root.ok("setZoneInfo", zoneName="new", users=[member], publicDownload=False, publicUpload=True) == {}
    shown = alice.ok("getZone", zoneName="new")["zone"]
    assert shown["users"] == [member]
    assert (shown["publicDownload"], shown["publicUpload"]) == (False, True)
    assert owner.refused("setZoneInfo", zoneName="new", publicDownload=True) == (
        401,
        "User owner is not authorized to modify this zone.",
    )
    assert owner.refused("setZoneInfo", zoneName="nowhere", publicDownload=True)[0] == 401
    assert alice.refused("setZoneInfo", zoneName="new", users=[{**member, "userId": "carol"}])[0] == 404
    assert alice.ok("getZone", zoneName="new")["zone"]["users"] == [member], "half of a change"
    assert alice.refused("setZoneInfo", zoneName="new", users=[{"userId": "alice"}]) == (400, "Invalid request")
    assert root.refused("setZoneInfo", zoneName="new", credentials='{"secretAccessKey": "x"}')[0] == 501
    assert root.ok("setZoneInfo", zoneName="new", bucketUri="", directory="zones/new", credentials="") == {}
    assert alice.refused("deleteZone", zoneName="new")[0] == 401, "the owner's to do"
    assert root.ok("deleteZone", zoneName="new") == {}
    assert root.refused("getZone", zoneName="new") == (404, "Zone not found: new")


def test_a_zone_with_files_is_not_forgotten(driver: Driver) -> None:
    key(driver, "owner").store(CONTENT)
    owner = key(driver, "owner", api_keys.MANAGEMENT)
    assert owner.refused("deleteZone", zoneName="lab")[0] == 409
    assert owner.ok("deleteZone", zoneName="unpublished") == {}


def test_who_sees_which_zone(driver: Driver, root: Program) -> None:
    mallory, nobody = key(driver, "mallory", api_keys.MANAGEMENT), Program(driver)
    assert nobody.refused("getZones") == (401, "Unauthorized")
    assert Program(driver, "z" * 32).refused("getZone", zoneName="lab") == (401, "Unauthorized")
    assert nobody.ok("getZone", zoneName="lab")["zone"] == {
        "zoneName": "lab",
        "userId": "owner",
        "users": [],
        "publicDownload": True,
        "publicUpload": False,
    }
    for program in (nobody, mallory):
        assert program.refused("getZone", zoneName="unpublished") == (404, "Zone not found: unpublished")
        assert program.refused("getZone", zoneName="nowhere") == (404, "Zone not found: nowhere")
    assert [zone["zoneName"] for zone in mallory.ok("getZones")["zones"]] == ["lab"]
    assert [zone["zoneName"] for zone in root.ok("getZones", userId="owner")["zones"]] == ["lab", "unpublished"]
    assert root.ok("getZones", userId="alice") == {"zones": []}


def test_usage_is_shown_to_whom_it_is_about(driver: Driver, root: Program) -> None:
    key(driver, "alice").store(CONTENT)
    driver.run(driver.application.flush())
    alice = key(driver, "alice", api_keys.MANAGEMENT)
    (line,) = alice.ok("usage", userId="alice")["userZoneDayUsages"]
    del line["day"]
    assert line == {
        "zoneName": "lab",
        "userId": "alice",
        "numDownloads": 0,
        "numUploads": 1,
        "numBytesDownloaded": 0,
        "numBytesUploaded": 13,
    }
    assert alice.refused("usage") == (401, "Unauthorized")
    assert alice.refused("usage", userId="owner") == (401, "Unauthorized")
    assert len(root.ok("usage", zoneName="lab")["userZoneDayUsages"]) == 1
