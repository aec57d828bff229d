"""What only our own clients ask for: uploads begun before their hash is known, small files in the answer itself."""

from __future__ import annotations

import base64
import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from kachery.gateway.dialects.cloud import ENCLOSED
from kachery.gateway.services import files, usage
from rigs.asgi import Client, sha1

if TYPE_CHECKING:
    from rigs.asgi import Driver, Reply

CONTENT = os.urandom(300_000)


def ask(client: Client, what: str, kind: str, **payload: Any) -> Reply:
    signed = {"type": kind, "zone": client.zone, "timestamp": int(time.time() * 1000), **payload}
    body = {"payload": signed, "fromClientId": client.keys.client_id, "signature": client.keys.sign(signed)}
    return client.driver.request("POST", f"/api/v1/{what}", json.dumps(body).encode())


def begin(client: Client, content: bytes) -> dict[str, Any]:
    reply = ask(client, "uploads", "beginUpload", size=len(content))
    assert reply.status == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def name(client: Client, upload: str, hash_: str) -> Reply:
    return ask(client, "uploads/name", "nameUpload", upload=upload, hash=hash_)


def send(client: Client, url: str, content: bytes, start: int, end: int) -> int:
    headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}
    return client.driver.request("PUT", url, content[start:end], headers).status


def test_sent_while_it_is_hashed(driver: Driver, alice: Client) -> None:
    begun = begin(alice, CONTENT)
    assert send(alice, begun["url"], CONTENT, 0, 100_000) == 200
    assert name(alice, begun["upload"], sha1(CONTENT)).json() == {"alreadyExists": False}
    assert send(alice, begun["url"], CONTENT, 100_000, len(CONTENT)) == 200

    assert alice.finalize(CONTENT).status == 200

    assert alice.load(sha1(CONTENT)) == CONTENT


def test_once_named_it_is_continued_like_any_other(driver: Driver, alice: Client) -> None:
    begun = begin(alice, CONTENT)
    assert send(alice, begun["url"], CONTENT, 0, 100_000) == 200
    name(alice, begun["upload"], sha1(CONTENT))

    again = alice.initiate(CONTENT, parts=True)["signedUploadUrl"]

    assert driver.request("GET", again).json() == {"size": len(CONTENT), "received": [[0, 100_000]]}


def test_a_false_name_publishes_nothing(driver: Driver, alice: Client) -> None:
    other = os.urandom(len(CONTENT))
    begun = begin(alice, CONTENT)
    assert send(alice, begun["url"], CONTENT, 0, len(CONTENT)) == 200
    name(alice, begun["upload"], sha1(other))

    reply = alice.finalize(other)

    assert (reply.status, reply.headers["kachery-error"]) == (500, "wrong_content")
    assert not alice.find(sha1(other)).json()["found"]
    assert not alice.find(sha1(CONTENT)).json()["found"]


def test_without_a_name_nothing_is_published(driver: Driver, alice: Client) -> None:
    begun = begin(alice, CONTENT)
    assert send(alice, begun["url"], CONTENT, 0, len(CONTENT)) == 200

    assert alice.finalize(CONTENT).status == 500
    assert not alice.find(sha1(CONTENT)).json()["found"]


def test_without_a_name_it_takes_parts_only(driver: Driver, alice: Client) -> None:
    begun = begin(alice, CONTENT)

    assert driver.request("PUT", begun["url"], CONTENT).status == 400


def test_two_of_the_same_size_are_two_uploads(driver: Driver, alice: Client) -> None:
    assert begin(alice, CONTENT)["upload"] != begin(alice, CONTENT)["upload"]


def test_a_size_that_the_zone_has_asks_for_the_hash_first(driver: Driver, alice: Client) -> None:
    alice.store(CONTENT)

    assert begin(alice, CONTENT) == {"sizeKnown": True}
    assert "url" in begin(alice, CONTENT[1:])


def test_who_may_not_upload_may_not_begin(driver: Driver) -> None:
    stranger = Client(driver)
    assert ask(stranger, "uploads", "beginUpload", size=9).json()["error"]["code"] == "not_registered"
    mallory = Client(driver).register("mallory")
    assert ask(mallory, "uploads", "beginUpload", size=9).json()["error"]["code"] == "not_allowed"
    assert driver.read(files.all_uploads) == []


def test_nobody_else_names_it(driver: Driver, alice: Client) -> None:
    begun = begin(alice, CONTENT)
    second = Client(driver).register("alice")

    assert name(second, begun["upload"], sha1(CONTENT)).status == 404
    assert name(alice, begun["upload"], sha1(CONTENT)).status == 200
    assert name(alice, begun["upload"], sha1(b"another")).status == 404


@pytest.mark.parametrize("size", [0, -1, 2**63, 1.5, "9", None, True])
def test_sizes_that_are_none(driver: Driver, alice: Client, size: object) -> None:
    assert ask(alice, "uploads", "beginUpload", size=size).status == 400


@pytest.mark.parametrize("hash_", ["", "A" * 40, "0" * 39, "../" * 13 + "x"])
def test_hashes_that_are_none(driver: Driver, alice: Client, hash_: str) -> None:
    assert name(alice, begin(alice, CONTENT)["upload"], hash_).status == 400


def find(client: Client, hash_: str, accept: str | None) -> dict[str, Any]:
    body = json.dumps(client.envelope("findFile", hashAlg="sha1", hash=hash_)).encode()
    headers = {"Kachery-Accept": accept} if accept else {}
    answer: dict[str, Any] = client.driver.request("POST", "/api/gateway", body, headers).json()
    return answer


@pytest.mark.parametrize("content", [b"", b"small", os.urandom(ENCLOSED)])
def test_small_content_comes_with_the_answer_for_those_who_ask(driver: Driver, alice: Client, content: bytes) -> None:
    alice.store(content)

    assert base64.b64decode(find(alice, sha1(content), "content")["content"]) == content
    assert "content" not in find(alice, sha1(content), None)
    assert "content" not in find(alice, sha1(content), "parts")


def test_larger_content_does_not(driver: Driver, alice: Client) -> None:
    content = os.urandom(ENCLOSED + 1)
    alice.store(content)

    assert "content" not in find(alice, sha1(content), "content")


def test_content_in_the_answer_counts_as_a_download(driver: Driver, alice: Client) -> None:
    alice.store(b"small")
    find(alice, sha1(b"small"), "content")

    driver.run(driver.application.flush())
    lines = driver.read(usage.read, "lab")
    assert sum(line.downloads for line in lines) == 1
    assert sum(line.download_bytes for line in lines) == 5


def test_lost_or_damaged_content_is_left_out(driver: Driver, alice: Client) -> None:
    alice.store(b"small")
    path = (
        driver.gateway.bucket.root
        / f"zones/lab/sha1/{sha1(b'small')[:2]}/{sha1(b'small')[2:4]}/{sha1(b'small')[4:6]}/{sha1(b'small')}"
    )
    path.chmod(0o600)
    path.write_bytes(b"smal")
    assert "content" not in find(alice, sha1(b"small"), "content")
    path.unlink()
    assert "content" not in find(alice, sha1(b"small"), "content")
