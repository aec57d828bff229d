"""The broker's protocol, with the requests of its contract: sign-in by code, names, hashes, visibility, ranges."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from kachery.gateway.config import GatewayConfig
from kachery.gateway.dialects.broker import speaks
from kachery.gateway.logs import make_log
from kachery.gateway.runtime import open_gateway
from kachery.gateway.services import accounts, api_keys, devices, identity, shared_files, zones
from rigs.asgi import BASE, Client, Driver, Reply, sha1

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = b"analysis of session 7" * 1000
LARGE = os.urandom(3_000_000)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Spyglass:
    """The client, as its contract has it."""

    driver: Driver
    token: str | None = None

    def request(self, method: str, path: str, value: Any = None, **headers: str) -> Reply:
        given = {"authorization": f"Bearer {self.token}"} if self.token else {}
        body = b"" if value is None else json.dumps(value).encode()
        return self.driver.request(method, f"{BASE}/api/v1{path}", body, {**given, **headers})

    def ok(self, method: str, path: str, value: Any = None) -> Any:
        reply = self.request(method, path, value)
        assert reply.status == 200, reply.text
        return reply.json()

    def describe(self, content: bytes, name: str, scope: str, *teams: str) -> dict[str, Any]:
        return {
            "sha256": sha256(content),
            "size_bytes": len(content),
            "spyglass_name": name,
            "file_class": "analysis",
            "visibility": {"scope": scope, "teams": list(teams)},
        }

    def share(self, content: bytes, name: str, scope: str = "private", *teams: str) -> str:
        given = self.ok("POST", "/file", self.describe(content, name, scope, *teams))
        if not given["deduplicated"]:
            reply = self.driver.request("PUT", given["upload_url"], content, given["upload_headers"])
            assert reply.status == 200, reply.text
        return str(given["file_id"])

    def resolve(self, **query: str) -> Reply:
        return self.request("GET", "/file/resolve?" + "&".join(f"{key}={quote(value)}" for key, value in query.items()))

    def content(self, file_id: str, **headers: str) -> Reply:
        reply = self.request("GET", f"/file/{file_id}/content")
        if reply.status != 307:
            return reply
        # the address knows nothing of the token
        return self.driver.request("GET", reply.headers["location"], b"", headers)


@pytest.fixture
def driver(tmp_path: Path, database_url: str | None) -> Iterator[Driver]:
    """A gateway with a zone for shared files, a lab's private zone and its public one."""
    config = GatewayConfig(data=tmp_path / "gateway", database_url=database_url, broker="store")
    gateway = open_gateway(config, make_log("error"))

    def prepare(connection: Any) -> None:
        accounts.add_user(connection, "root", 1, is_admin=True)
        for name in ("alice", "bob", "carol", "mallory"):
            accounts.add_user(connection, name, 1)
        zones.create(connection, "store", "root", 1, private=True, public_upload=False)
        zones.create(connection, "lab", "root", 1, private=True, public_upload=False)
        zones.create(connection, "lab.public", "root", 1, private=False, public_upload=False)
        for name in ("alice", "bob"):
            zones.grant(connection, "store", name, ["upload"])
            zones.grant(connection, "lab.public", name, ["upload"])
        zones.grant(connection, "lab", "alice", ["upload", "download"])
        zones.grant(connection, "lab", "carol", ["download"])

    gateway.database.write_now(prepare)
    driver = Driver(gateway)
    yield driver
    driver.close()


def signed_in(driver: Driver, user: str) -> Spyglass:
    return Spyglass(driver, driver.write(api_keys.add, user, api_keys.FILES, "test", 1))


@pytest.fixture
def alice(driver: Driver) -> Spyglass:
    return signed_in(driver, "alice")


# --- signing in


def test_the_device_flow(driver: Driver) -> None:
    client = Spyglass(driver)
    codes = client.ok("POST", "/auth/device")
    assert set(codes) == {"device_code", "user_code", "verification_uri", "interval", "expires_in"}
    assert codes["verification_uri"] == f"{BASE}/device"
    assert (codes["interval"], codes["expires_in"]) == (5, 900)
    waiting = client.request("POST", "/auth/token", {"device_code": codes["device_code"]})
    assert (waiting.status, waiting.headers["retry-after"]) == (428, "5")
    assert waiting.json()["detail"]
    now = 2**45
    with pytest.raises(FileNotFoundError):
        driver.write(devices.approve, codes["user_code"], "alice", now)
    typed = codes["user_code"].lower().replace("-", " ")
    driver.write(devices.approve, typed, "alice", 1)
    with pytest.raises(FileNotFoundError):
        driver.write(devices.approve, typed, "mallory", 1)
    given = client.ok("POST", "/auth/token", {"device_code": codes["device_code"]})
    assert (given["tier"], given["github_login"]) == ("trusted", "alice")
    assert client.request("POST", "/auth/token", {"device_code": codes["device_code"]}).status == 401
    client.token = given["access_token"]
    assert client.resolve(name="x").status == 404
    assert [key.user for key in driver.read(api_keys.list_all)] == ["alice"]
    driver.write(api_keys.remove, "alice")
    assert client.resolve(name="x").status == 401


@pytest.mark.parametrize(("user", "tier"), [("root", "admin"), ("alice", "trusted"), ("mallory", "verified")])
def test_tiers(driver: Driver, user: str, tier: str) -> None:
    client = Spyglass(driver)
    codes = client.ok("POST", "/auth/device")
    driver.write(devices.approve, codes["user_code"], user, 1)
    assert client.ok("POST", "/auth/token", {"device_code": codes["device_code"]})["tier"] == tier


def test_codes_that_are_none(driver: Driver) -> None:
    client = Spyglass(driver)
    codes = client.ok("POST", "/auth/device")
    for code in ("", "x", codes["user_code"]):
        assert client.request("POST", "/auth/token", {"device_code": code}).status == 401
    for value in ({}, {"device_code": 5}, {"device_code": "x", "more": 1}, [], "x"):
        assert client.request("POST", "/auth/token", value).status == 400
    for code in ("", "-", "BCDF-GHJK"):
        with pytest.raises(FileNotFoundError):
            driver.write(devices.approve, code, "alice", 1)


def test_too_many_waiting_programs_are_refused(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_MOST_WAITING", 2)
    client = Spyglass(driver)
    assert [client.request("POST", "/auth/device").status for _ in range(3)] == [200, 200, 413]
    # those whose time is over make room
    driver.write(devices.begin, 2**45)


@pytest.mark.parametrize("header", ["Bearer ", "Bearer x", "Basic eDp5", "x", "Bearer é"])
def test_tokens_that_are_none(driver: Driver, header: str) -> None:
    reply = driver.request("GET", f"{BASE}/api/v1/file/resolve?name=x", b"", {"authorization": header})
    assert reply.status == 401
    assert "sign in again" in reply.json()["detail"]


# --- sharing and reading


@pytest.mark.parametrize("content", [CONTENT, LARGE, b""], ids=["small", "large", "empty"])
def test_a_file_is_shared_found_and_read(driver: Driver, alice: Spyglass, content: bytes) -> None:
    assert alice.ok("GET", "/info") == {"upload_digests": ["sha256"]}
    asked = alice.describe(content, "minirec20230622_ABC.nwb", "private")
    given = alice.ok("POST", "/file", {**asked, "content_md5": "1B2M2Y8AsgTpgAmY7PhCfg=="})
    assert set(given) == {"file_id", "deduplicated", "upload_url", "upload_headers", "visibility"}
    assert given["deduplicated"] is False
    # not there before its content is
    assert alice.resolve(sha256=sha256(content)).status == 404
    assert alice.content(given["file_id"]).status == 404
    assert driver.request("PUT", given["upload_url"], content, given["upload_headers"]).status == 200
    expected = {
        "file_id": given["file_id"],
        "sha256": sha256(content),
        "size_bytes": len(content),
        "spyglass_name": "minirec20230622_ABC.nwb",
        "file_class": "analysis",
        "visibility": {"scope": "private", "teams": []},
    }
    assert alice.resolve(sha256=sha256(content)).json() == expected
    assert alice.resolve(name="minirec20230622_ABC.nwb").json() == expected
    assert alice.content(given["file_id"]).body == content
    if content:
        part = alice.content(given["file_id"], range="bytes=5-9")
        assert (part.status, part.body) == (206, content[5:10])
    # again: nothing to be sent
    again = alice.ok("POST", "/file", asked)
    assert (again["file_id"], again["deduplicated"]) == (given["file_id"], True)
    assert "upload_url" not in again


def test_what_is_sent_must_be_what_was_announced(driver: Driver, alice: Spyglass) -> None:
    given = alice.ok("POST", "/file", alice.describe(CONTENT, "a.nwb", "private"))
    for wrong in (CONTENT[:-1] + b"!", CONTENT[:-1], CONTENT + b"!", b""):
        assert driver.request("PUT", given["upload_url"], wrong).status == 422
    assert driver.request("PUT", given["upload_url"], [CONTENT[:100]], hang_up=True).status == 0
    assert alice.resolve(name="a.nwb").status == 404
    other = alice.ok("POST", "/file", alice.describe(LARGE, "b.nwb", "private"))
    swapped = other["upload_url"].replace(other["file_id"], given["file_id"])
    assert driver.request("PUT", swapped, CONTENT).status == 403
    assert driver.request("PUT", given["upload_url"][:-3] + "abc", CONTENT).status == 403
    # the other kind of address is none for this
    token = given["upload_url"].rpartition("/")[2]
    assert driver.request("PUT", f"{BASE}/transfer/u/{token}", CONTENT).status in (403, 404)
    assert driver.request("PUT", given["upload_url"], CONTENT).status == 200
    assert driver.request("PUT", given["upload_url"], CONTENT).status == 200
    assert alice.content(given["file_id"]).body == CONTENT
    assert list(driver.gateway.bucket.staged()) == []


def test_several_send_the_same_at_once(driver: Driver, alice: Spyglass) -> None:
    bob = signed_in(driver, "bob")
    one = alice.ok("POST", "/file", alice.describe(LARGE, "a.nwb", "private"))
    two = bob.ok("POST", "/file", bob.describe(LARGE, "b.nwb", "private"))
    for given in (one, two, one):
        assert driver.request("PUT", given["upload_url"], LARGE).status == 200
    assert alice.content(one["file_id"]).body == bob.content(two["file_id"]).body == LARGE
    assert alice.content(two["file_id"]).status == 404


# --- who may


def test_private_files_are_their_owners(driver: Driver, alice: Spyglass) -> None:
    file_id = alice.share(CONTENT, "a.nwb")
    for user in ("bob", "carol", "mallory"):
        other = signed_in(driver, user)
        absent = other.content("0" * 32)
        assert other.content(file_id).status == other.resolve(name="a.nwb").status == 404
        assert other.resolve(sha256=sha256(CONTENT)).status == 404
        assert other.content(file_id).body == absent.body
        assert other.request("PATCH", f"/file/{file_id}/visibility", {"scope": "public"}).status == 404
    anonymous = Spyglass(driver)
    assert anonymous.content(file_id).status == anonymous.resolve(name="a.nwb").status == 401
    # the owner of the zone may read all that is in it
    assert signed_in(driver, "root").content(file_id).body == CONTENT


def test_a_hash_is_no_permission(driver: Driver, alice: Spyglass) -> None:
    alice.share(CONTENT, "a.nwb")
    bob = signed_in(driver, "bob")
    given = bob.ok("POST", "/file", bob.describe(CONTENT, "mine.nwb", "private"))
    assert given["deduplicated"] is False
    assert bob.resolve(sha256=sha256(CONTENT)).status == 404
    assert bob.content(given["file_id"]).status == 404
    assert driver.request("PUT", given["upload_url"], CONTENT).status == 200
    assert bob.resolve(sha256=sha256(CONTENT)).json()["spyglass_name"] == "mine.nwb"


def test_teams_are_zones(driver: Driver, alice: Spyglass) -> None:
    file_id = alice.share(CONTENT, "a.nwb", "group", "lab", "lab")
    carol, mallory = signed_in(driver, "carol"), signed_in(driver, "mallory")
    assert carol.content(file_id).body == CONTENT
    # whose it is and who else may read it is its owner's business
    assert "visibility" not in carol.resolve(name="a.nwb").json()
    assert alice.resolve(name="a.nwb").json()["visibility"] == {"scope": "group", "teams": ["lab"]}
    assert mallory.content(file_id).status == 404
    assert carol.request("PATCH", f"/file/{file_id}/visibility", {"scope": "public"}).status == 403
    narrower = alice.ok("PATCH", f"/file/{file_id}/visibility", {"scope": "private", "teams": []})
    assert narrower["visibility"] == {"scope": "private", "teams": []}
    assert carol.content(file_id).status == 404
    alice.ok("PATCH", f"/file/{file_id}/visibility", {"scope": "group", "teams": ["lab"]})
    assert carol.content(file_id).body == CONTENT
    driver.write(zones.grant, "lab", "carol", ["download"], granted=False)
    assert carol.content(file_id).status == 404
    alice.ok("PATCH", f"/file/{file_id}/visibility", {"scope": "public"})
    for reader in (carol, mallory, Spyglass(driver)):
        assert reader.content(file_id).body == CONTENT
        assert reader.resolve(sha256=sha256(CONTENT)).json()["file_id"] == file_id


@pytest.mark.parametrize(
    "change",
    [
        {"visibility": {"scope": "group", "teams": []}},
        {"visibility": {"scope": "group", "teams": ["store2"]}},
        {"visibility": {"scope": "group", "teams": ["lab"] * 60}},
        {"visibility": {"scope": "everyone", "teams": []}},
        {"visibility": {"scope": "group", "teams": ["\0"]}},
        {"visibility": {"scope": "\0", "teams": []}},
        {"visibility": {"scope": "group", "teams": "lab"}},
        {"visibility": "public"},
        {"sha256": "x"},
        {"sha256": "A" * 64},
        {"size_bytes": -1},
        {"size_bytes": 1.5},
        {"size_bytes": True},
        {"size_bytes": 2**63},
        {"spyglass_name": ""},
        {"spyglass_name": "x" * 501},
        {"spyglass_name": "a\nb"},
        {"spyglass_name": "\ud800"},
        {"file_class": "video"},
        {"content_md5": 5},
        {"more": 1},
    ],
)
def test_requests_that_make_no_sense(alice: Spyglass, change: dict[str, Any]) -> None:
    reply = alice.request("POST", "/file", {**alice.describe(CONTENT, "a.nwb", "private"), **change})
    assert reply.status in (400, 413)
    assert isinstance(reply.json()["detail"], str)


def test_strangers_of_a_team_cannot_name_it(driver: Driver, alice: Spyglass) -> None:
    bob = signed_in(driver, "bob")
    told = [
        bob.request("POST", "/file", bob.describe(CONTENT, "a.nwb", "group", team)).json()["detail"].replace(team, "T")
        for team in ("lab", "nowhere")
    ]
    assert told[0] == told[1]


def test_only_those_who_may_upload_share(driver: Driver) -> None:
    for user in ("carol", "mallory"):
        client = signed_in(driver, user)
        assert client.request("POST", "/file", client.describe(CONTENT, "a.nwb", "private")).status == 403
    anonymous = Spyglass(driver)
    assert anonymous.request("POST", "/file", anonymous.describe(CONTENT, "a.nwb", "public")).status == 401


# --- what zones have already


def put_into(driver: Driver, zone: str, owner: str, content: bytes) -> str:
    client = Client(driver, zone)
    driver.write(identity.register_client, zone, client.keys.client_id, owner, "a machine", 1)
    return client.store(content)


def test_what_a_zone_has_is_found_by_its_sha256(driver: Driver, alice: Spyglass) -> None:
    put_into(driver, "lab", "alice", CONTENT)
    put_into(driver, "lab.public", "alice", LARGE)
    carol, mallory, anonymous = signed_in(driver, "carol"), signed_in(driver, "mallory"), Spyglass(driver)
    found = carol.resolve(sha256=sha256(CONTENT)).json()
    assert found == {
        "file_id": f"lab.{sha1(CONTENT)}",
        "sha256": sha256(CONTENT),
        "size_bytes": len(CONTENT),
        "spyglass_name": "",
        "file_class": "analysis",
    }
    assert carol.content(found["file_id"]).body == CONTENT
    assert mallory.resolve(sha256=sha256(CONTENT)).status == mallory.content(found["file_id"]).status == 404
    public = anonymous.resolve(sha256=sha256(LARGE)).json()
    assert public["file_id"] == f"lab.public.{sha1(LARGE)}"
    assert anonymous.content(public["file_id"], range="bytes=0-3").body == LARGE[:4]
    refused = alice.request("PATCH", f"/file/{public['file_id']}/visibility", {"scope": "private"})
    assert refused.status == 403


def test_what_a_zone_has_need_not_move(driver: Driver, alice: Spyglass) -> None:
    put_into(driver, "lab", "alice", CONTENT)
    asked = alice.describe(CONTENT, "session7.nwb", "private")
    given = alice.ok("POST", "/file", asked)
    assert given["deduplicated"] is True
    assert alice.content(given["file_id"]).body == CONTENT
    assert alice.resolve(name="session7.nwb").json()["file_id"] == given["file_id"]
    # who may load it from the zone by its hash may do so here
    assert signed_in(driver, "carol").resolve(name="session7.nwb").status == 200
    assert signed_in(driver, "bob").resolve(name="session7.nwb").status == 404
    assert alice.request("POST", "/file", {**asked, "size_bytes": 5}).status == 400
    # what is gone from the zone is gone
    driver.run(driver.gateway.receiver.delete(driver.read(zones.require, "lab"), sha1(CONTENT)))
    assert alice.resolve(name="session7.nwb").status == 404
    again = alice.ok("POST", "/file", asked)
    assert (again["file_id"], again["deduplicated"]) == (given["file_id"], False)
    assert driver.request("PUT", again["upload_url"], CONTENT).status == 200
    assert alice.content(again["file_id"]).body == CONTENT


def test_what_anybody_may_read_is_public(driver: Driver, alice: Spyglass) -> None:
    put_into(driver, "lab.public", "alice", CONTENT)
    given = alice.ok("POST", "/file", alice.describe(CONTENT, "a.nwb", "private"))
    assert given["visibility"] == {"scope": "public", "teams": []}
    refused = alice.request("PATCH", f"/file/{given['file_id']}/visibility", {"scope": "private"})
    assert refused.status == 400
    assert "anybody may read" in refused.json()["detail"]


def test_names_need_not_be_unique(driver: Driver, alice: Spyglass) -> None:
    bob = signed_in(driver, "bob")
    bob.share(b"bob's", "raw.nwb", "public")
    assert alice.content(alice.resolve(name="raw.nwb").json()["file_id"]).body == b"bob's"
    alice.share(b"alice's", "raw.nwb")
    assert alice.content(alice.resolve(name="raw.nwb").json()["file_id"]).body == b"alice's"
    assert Spyglass(driver).resolve(name="raw.nwb").json()["sha256"] == sha256(b"bob's")
    alice.share(b"made again", "raw.nwb")
    assert alice.content(alice.resolve(name="raw.nwb").json()["file_id"]).body == b"made again"


def test_files_that_never_came_are_forgotten(driver: Driver, alice: Spyglass) -> None:
    given = alice.ok("POST", "/file", alice.describe(CONTENT, "a.nwb", "private"))
    zone = driver.read(zones.require, "store")
    private = shared_files.Visibility("private")
    driver.write(shared_files.register, "alice", zone, "b", "raw", "0" * 64, 5, private, 2**45)
    assert driver.request("PUT", given["upload_url"], CONTENT).status == 404


# --- addresses


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/file/resolve", 400),
        ("/file/resolve?name=a&sha256=b", 400),
        ("/file/resolve?name=", 400),
        ("/file/resolve?sha256=x", 404),
        ("/file/x", 404),
        ("/file/x/y/z", 404),
        ("/file//content", 404),
        ("/auth/x", 404),
        ("/file/lab./content", 404),
        ("/file/.%2e/content", 404),
        ("/file/%00/content", 404),
        ("/file/resolve?name=%00", 404),
        ("/file/resolve?sha256=%00", 404),
        ("/file/resolve?name=%ff%ed%a0%80", 404),
    ],
)
def test_addresses_that_are_none(alice: Spyglass, path: str, status: int) -> None:
    reply = alice.request("GET", path)
    assert reply.status == status
    assert set(reply.json()) == {"detail"}


def test_the_others_addresses_stay_theirs() -> None:
    assert all(speaks(f"/api/v1/{path}") for path in ("file", "file/x/content", "auth/device", "info"))
    assert not any(speaks(f"/api/{path}") for path in ("v1/uploads", "v1/requests", "gateway", "v1/filed", "findFile"))


def test_without_a_zone_for_it_the_protocol_is_not_spoken(tmp_path: Path) -> None:
    driver = Driver(open_gateway(GatewayConfig(data=tmp_path / "plain"), make_log("error")))
    assert driver.request("POST", f"{BASE}/api/v1/auth/device").status == 404
    assert driver.request("GET", f"{BASE}/device").status == 404
    driver.close()
