"""Addresses for bytes: what they allow, what is verified, ranges, parts."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from kachery.gateway import receiving
from kachery.gateway.buckets import directory
from kachery.gateway.dialects import transfer
from kachery.gateway.services import files
from kachery.gateway.tokens import DownloadToken, TokenSigner, UploadToken
from rigs.asgi import BASE, Client, Reply, sha1

if TYPE_CHECKING:
    from rigs.asgi import Driver

LARGE = os.urandom(3 * 1024 * 1024 + 17)


def staged(driver: Driver) -> list[str]:
    return [name for name, _ in driver.gateway.bucket.staged()]


def begin(client: Client, content: bytes, *, parts: bool = False) -> str:
    url: str = client.initiate(content, parts=parts)["signedUploadUrl"]
    return url


# -- whole files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"a", LARGE[: 1024 * 1024], LARGE[: 1024 * 1024 + 1], LARGE])
@pytest.mark.parametrize("chunked", [False, True])
def test_all_sizes_go_in_and_come_out(driver: Driver, alice: Client, content: bytes, chunked: bool) -> None:
    pieces = [content[i : i + 70_000] for i in range(0, len(content), 70_000)] or [b""]
    headers = {} if chunked else {"Content_Length": str(len(content))}

    assert alice.put(begin(alice, content), pieces, **headers).status == 200
    assert alice.finalize(content).status == 200

    assert alice.load(sha1(content)) == content
    assert staged(driver) == []
    rows = driver.read(lambda c: c.exec_driver_sql("SELECT sha1, sha256, size FROM content").all())
    assert [tuple(row) for row in rows] == [(sha1(content), hashlib.sha256(content).hexdigest(), len(content))]


@pytest.mark.parametrize("size", [1000, len(LARGE)])
def test_wrong_content_is_refused_and_nothing_is_kept(driver: Driver, alice: Client, size: int) -> None:
    content = LARGE[:size]
    url = begin(alice, content)
    wrong = bytearray(content)
    wrong[size // 2] ^= 1

    reply = alice.put(url, bytes(wrong))

    assert reply.status == 422
    assert "SHA-1" in reply.text
    assert "\n" not in reply.text
    assert staged(driver) == []
    assert alice.finalize(content).status == 500
    assert alice.find(sha1(content)).json()["found"] is False
    # the address still serves who sends the right bytes
    assert alice.put(url, content).status == 200
    assert alice.finalize(content).status == 200


@pytest.mark.parametrize("size", [1000, len(LARGE)])
@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize("told", [False, True])
def test_a_wrong_size_is_refused(driver: Driver, alice: Client, size: int, change: int, told: bool) -> None:
    content = LARGE[:size]
    url = begin(alice, content)
    sent = content[:change] if change < 0 else content + b"x"

    reply = alice.put(url, [sent], **({"Content_Length": str(len(sent))} if told else {}))

    assert reply.status == 422
    assert staged(driver) == []


def test_a_body_longer_than_announced_is_cut_off(driver: Driver, alice: Client) -> None:
    url = begin(alice, LARGE)
    taken = []

    class Endless(list[bytes]):
        def pop(self, index: Any = -1) -> bytes:
            taken.append(1)
            return bytes(1024 * 1024)

        def __bool__(self) -> bool:
            return True

    reply = alice.driver.run(_request_endless(driver, url, Endless([b"x"])))

    assert reply.status == 422
    assert reply.headers["connection"] == "close"
    # three of the announced size, and a little for the sender's sake
    assert len(taken) < 30
    assert staged(driver) == []


async def _request_endless(driver: Driver, url: str, pieces: list[bytes]) -> Any:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "PUT",
        "path": urlsplit(url).path,
        "headers": [],
        "scheme": "http",
        "server": None,
    }
    await driver.application(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Reply(sent[0]["status"], headers, b"")


@pytest.mark.parametrize("size", [1000, len(LARGE)])
def test_a_sender_who_goes_away_leaves_nothing(driver: Driver, alice: Client, size: int) -> None:
    content = LARGE[:size]
    url = begin(alice, content)

    driver.request("PUT", url, [content[: size // 2]], {"Content-Length": str(size)}, hang_up=True)

    assert staged(driver) == []
    assert alice.put(url, content).status == 200


def test_a_silent_sender_is_let_go(driver: Driver, alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kachery.gateway.http.PATIENCE", 0.05)
    url = begin(alice, LARGE)

    async def wait() -> Any:
        sent: list[Any] = []

        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        path = urlsplit(url).path
        scope = {"type": "http", "method": "PUT", "path": path, "headers": [], "scheme": "http", "server": None}
        await driver.application(scope, receive, send)
        return sent[0]["status"]

    assert driver.run(wait()) == 408
    assert staged(driver) == []


# -- addresses --------------------------------------------------------------------------------------------------------


def test_addresses_allow_one_thing(driver: Driver, alice: Client) -> None:
    content = b"content"
    up = begin(alice, content)
    hash_ = alice.store(content)
    down = alice.find(hash_).json()["url"]
    up_token, down_token = up.rsplit("/", 1)[-1], down.split("/")[-2]

    def get(url: str, method: str = "GET") -> int:
        return driver.request(method, url, b"x" if method == "PUT" else b"").status

    assert get(down) == 200
    assert get(down.replace(hash_, "0" * 40)) == 403
    assert get(f"{BASE}/transfer/d/{up_token}/{hash_}") == 403
    assert get(f"{BASE}/transfer/u/{down_token}", "PUT") == 403
    assert get(down, "PUT") == 405
    assert get(up, "POST") == 405
    assert get(f"{BASE}/transfer/d/{down_token[:-1]}{'A' if down_token[-1] != 'A' else 'B'}x/{hash_}") == 403
    for nonsense in ("", "x", "A" * 500, "%00", "é"):
        assert get(f"{BASE}/transfer/d/{nonsense}/{hash_}") == 403
    assert get(f"{BASE}/transfer/x/y") == 404
    assert get(f"{BASE}/transfer/") == 404


@pytest.mark.parametrize("position", range(0, 120, 7))
def test_a_changed_token_is_worth_nothing(position: int) -> None:
    signer = TokenSigner(b"k" * 32)
    text = signer.download(DownloadToken("lab", "0" * 40, 5, 1, 2000))
    position %= len(text) - 1
    changed = text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :]

    assert signer.read_download(text, "0" * 40, 1000).size == 5
    with pytest.raises(PermissionError):
        signer.read_download(changed, "0" * 40, 1000)


def test_tokens_expire_and_belong_to_one_gateway() -> None:
    signer = TokenSigner(b"k" * 32)
    text = signer.upload(UploadToken("u1", "lab", "0" * 40, 5, 2000))

    assert signer.read_upload(text, 2000) == UploadToken("u1", "lab", "0" * 40, 5, 2000)
    with pytest.raises(PermissionError, match="expired 1 s ago"):
        signer.read_upload(text, 2001)
    with pytest.raises(PermissionError, match="not made by this gateway"):
        TokenSigner(b"l" * 32).read_upload(text, 1000)


def test_expired_addresses_are_refused(driver: Driver, alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    url = begin(alice, b"late")
    hash_ = alice.store(b"early")
    down = alice.find(hash_).json()["url"]
    later = receiving.now() + 3601 * 1000
    monkeypatch.setattr(transfer, "now", lambda: later)

    assert alice.put(url, b"late").status == 403
    assert driver.request("GET", down).status == 403


# -- downloads --------------------------------------------------------------------------------------------------------


@pytest.fixture
def url(alice: Client) -> str:
    """The address of a large file."""
    found = alice.find(alice.store(LARGE)).json()
    return str(found["url"])


def test_a_download_is_never_a_page(driver: Driver, url: str) -> None:
    reply = driver.request("GET", url)

    assert reply.body == LARGE
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-disposition"] == "attachment"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in reply.headers["content-security-policy"]
    assert reply.headers["etag"] == f'"{sha1(LARGE)}"'
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "Content-Range" in reply.headers["access-control-expose-headers"]
    assert "content-encoding" not in reply.headers


SIZE = len(LARGE)


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, SIZE),
        ("bytes=5-9", 5, 10),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        (f"bytes=100-{SIZE * 2}", 100, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
        ("bytes=262143-262145", 262143, 262146),
        ("bytes=1000-2000000", 1000, 2000001),
    ],
)
def test_ranges(driver: Driver, url: str, asked: str, start: int, end: int) -> None:
    for method in ("GET", "HEAD"):
        reply = driver.request(method, url, headers={"Range": asked})
        assert reply.status == 206
        assert reply.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
        assert reply.headers["content-length"] == str(end - start)
        assert reply.body == (LARGE[start:end] if method == "GET" else b"")


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=-0", "bytes=9999999999999-"])
def test_ranges_beyond_the_end(driver: Driver, url: str, asked: str) -> None:
    reply = driver.request("GET", url, headers={"Range": asked})

    assert reply.status == 416
    assert reply.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize("asked", ["bytes=5-3", "bytes=a-b", "items=0-1", "bytes=-", "bytes=0-1,5-6", ""])
def test_ranges_that_make_no_sense_are_ignored(driver: Driver, url: str, asked: str) -> None:
    reply = driver.request("GET", url, headers={"Range": asked})

    assert reply.status == 200
    assert reply.body == LARGE


def test_conditions(driver: Driver, url: str) -> None:
    etag = f'"{sha1(LARGE)}"'
    assert driver.request("GET", url, headers={"If-None-Match": etag}).status == 304
    assert driver.request("GET", url, headers={"If-None-Match": '"other"'}).status == 200
    assert driver.request("GET", url, headers={"If-Range": etag, "Range": "bytes=0-1"}).status == 206
    assert driver.request("GET", url, headers={"If-Range": '"other"', "Range": "bytes=0-1"}).status == 200


def test_reading_falls_back_to_a_thread(driver: Driver, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory._FileReader, "read_now", lambda self, offset, count: None)

    assert driver.request("GET", url).body == LARGE


def test_a_lost_or_damaged_object_is_told(driver: Driver, alice: Client, url: str) -> None:
    path = driver.gateway.config.bucket_path / alice.find(sha1(LARGE)).json()["objectKey"]
    path.write_bytes(LARGE[:-1])
    assert driver.request("GET", url).status == 500
    path.unlink()
    assert driver.request("GET", url).status == 404
    # whoever has the file can bring it back
    alice.store(LARGE)
    assert driver.request("GET", url).body == LARGE


def download(driver: Driver, url: str, send: Any, receive: Any) -> None:
    path = urlsplit(url).path
    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "scheme": "http", "server": None}
    driver.run(driver.application(scope, receive, send))


async def forever() -> Any:
    await asyncio.Event().wait()


def test_a_reader_who_takes_nothing_is_let_go(driver: Driver, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PATIENCE", 0.05)
    taken: list[Any] = []

    async def send(message: Any) -> None:
        taken.append(message)
        if len(taken) == 3:
            await forever()

    download(driver, url, send, forever)

    assert len(taken) == 3
    assert all(message.get("more_body", True) for message in taken)


def test_nothing_is_read_for_a_reader_who_is_gone(driver: Driver, url: str) -> None:
    taken: list[Any] = []
    gone = asyncio.Event()

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        taken.append(message)
        if len(taken) == 3:
            gone.set()
        await asyncio.sleep(0)

    download(driver, url, send, receive)

    assert len(taken) < 8, "of 13 pieces"


def test_a_file_that_becomes_shorter_is_not_ended_as_if_whole(driver: Driver, alice: Client, url: str) -> None:
    path = driver.gateway.config.bucket_path / alice.find(sha1(LARGE)).json()["objectKey"]
    taken: list[Any] = []

    async def send(message: Any) -> None:
        taken.append(message)
        if len(taken) == 2:
            path.write_bytes(b"")

    download(driver, url, send, forever)

    assert sum(len(message.get("body", b"")) for message in taken) < SIZE
    assert taken[-1]["more_body"] is True


def test_preflight(driver: Driver, url: str) -> None:
    reply = driver.request("OPTIONS", url, headers={"Origin": "https://figurl.org"})
    assert reply.status == 200
    assert "Range" in reply.headers["access-control-allow-headers"]
    assert "PUT" in reply.headers["access-control-allow-methods"]


# -- parts ------------------------------------------------------------------------------------------------------------

STEP = 1_000_000


def spans() -> list[tuple[int, int]]:
    return [(start, min(start + STEP, SIZE)) for start in range(0, SIZE, STEP)]


def received(driver: Driver, url: str) -> Any:
    reply = driver.request("GET", url)
    assert reply.status == 200
    assert reply.json()["size"] == SIZE
    return reply.json()["received"]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]])
def test_parts_in_any_order(driver: Driver, alice: Client, order: list[int]) -> None:
    url = begin(alice, LARGE, parts=True)
    assert received(driver, url) == []
    for index in order:
        assert alice.part(url, LARGE, *spans()[index]).status == 200
    assert received(driver, url) == [[0, SIZE]]

    assert alice.finalize(LARGE).status == 200

    assert alice.load(sha1(LARGE)) == LARGE
    assert staged(driver) == []


def test_parts_several_at_once(driver: Driver, alice: Client) -> None:
    url = begin(alice, LARGE, parts=True)
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda span=span: statuses.append(alice.part(url, LARGE, *span).status))
        for span in spans()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [200] * len(threads)
    assert alice.finalize(LARGE).status == 200
    assert alice.load(sha1(LARGE)) == LARGE


def test_an_upload_is_continued(driver: Driver, alice: Client) -> None:
    url = begin(alice, LARGE, parts=True)
    alice.part(url, LARGE, *spans()[1])
    # an interruption in the middle of a part: what arrived counts
    half = {"Content-Range": f"bytes 0-999999/{SIZE}", "Content-Length": "1000000"}
    driver.request("PUT", url, [LARGE[:400_000]], half, hang_up=True)

    again = begin(alice, LARGE, parts=True)

    assert received(driver, again) == [[0, 400_000], [1_000_000, 2_000_000]]
    assert alice.part(again, LARGE, 400_000, 1_000_000).status == 200
    assert alice.part(again, LARGE, 2_000_000, SIZE).status == 200
    assert alice.finalize(LARGE).status == 200
    assert alice.load(sha1(LARGE)) == LARGE


def test_an_upload_is_continued_after_a_restart(driver: Driver, alice: Client) -> None:
    url = begin(alice, LARGE, parts=True)
    alice.part(url, LARGE, *spans()[2])
    alice.part(url, LARGE, *spans()[0])
    driver.run(driver.gateway.receiver.close())
    driver.run(driver.gateway.receiver.recover())

    assert received(driver, url) == [[0, STEP], [2 * STEP, 3 * STEP]]
    for index in (1, 3):
        assert alice.part(url, LARGE, *spans()[index]).status == 200
    driver.run(driver.gateway.receiver.close())
    assert alice.finalize(LARGE).status == 200
    assert alice.load(sha1(LARGE)) == LARGE


def test_a_hole_is_told_and_can_be_filled(alice: Client) -> None:
    url = begin(alice, LARGE, parts=True)
    for index in (0, 2, 3):
        alice.part(url, LARGE, *spans()[index])

    reply = alice.finalize(LARGE)
    assert reply.status == 500
    assert f"bytes {STEP} to {2 * STEP} of {SIZE} have not arrived" in reply.text

    alice.part(url, LARGE, *spans()[1])
    assert alice.finalize(LARGE).status == 200


def test_what_was_received_cannot_be_swapped(driver: Driver, alice: Client) -> None:
    # digested already: writing it again would publish other bytes than those of the hash
    url = begin(alice, LARGE, parts=True)
    for span in spans():
        alice.part(url, LARGE, *span)
    other = bytes(SIZE)
    assert alice.part(url, other, *spans()[0]).status == 200, "a repeated part is taken, and dropped"
    assert alice.part(url, other, STEP // 2, STEP * 3 // 2).status in (200, 409)
    assert alice.finalize(LARGE).status == 200
    assert alice.load(sha1(LARGE)) == LARGE


def test_overlapping_parts_are_refused(driver: Driver, alice: Client) -> None:
    url = begin(alice, LARGE, parts=True)
    alice.part(url, LARGE, 100_000, 200_000)

    reply = alice.part(url, LARGE, 150_000, 250_000)

    assert reply.status == 409
    assert "bytes 100000 to 200000 are there already" in reply.text
    assert received(driver, url) == [[100_000, 200_000]]


def test_wrong_parts_end_the_upload(driver: Driver, alice: Client) -> None:
    url = begin(alice, LARGE, parts=True)
    alice.part(url, LARGE, 0, STEP)
    alice.part(url, bytes(SIZE), STEP, SIZE)

    reply = alice.finalize(LARGE)

    assert reply.status == 500
    assert reply.headers["kachery-error"] == "wrong_content"
    assert staged(driver) == []
    assert driver.read(files.all_uploads) == []
    assert alice.find(sha1(LARGE)).json()["found"] is False
    alice.store(LARGE)


@pytest.mark.parametrize(
    "content_range",
    ["bytes 0-9", "bytes 0-9/*", f"bytes 9-0/{SIZE}", f"bytes 0-{SIZE}/{SIZE}", "bytes 0-9/10", "0-9/10", ""],
)
def test_content_ranges_that_make_no_sense(alice: Client, content_range: str) -> None:
    url = begin(alice, LARGE, parts=True)

    assert alice.put(url, LARGE[:10], Content_Range=content_range).status == 400


@pytest.mark.parametrize("sent", [9, 11])
def test_a_part_of_another_length(driver: Driver, alice: Client, sent: int) -> None:
    url = begin(alice, LARGE, parts=True)

    reply = alice.put(url, [LARGE[:sent]], Content_Range=f"bytes 0-9/{SIZE}")

    assert reply.status == 422


def test_parts_after_the_end_are_dropped(driver: Driver, alice: Client) -> None:
    # two processes of one client send the same file
    url = begin(alice, LARGE, parts=True)
    for span in spans():
        alice.part(url, LARGE, *span)
    alice.finalize(LARGE)

    assert received(driver, url) == [[0, SIZE]]
    assert alice.part(url, LARGE, 0, STEP).status == 200
    assert alice.finalize(LARGE).status == 200
    assert alice.load(sha1(LARGE)) == LARGE


def test_a_whole_file_may_replace_parts(driver: Driver, alice: Client) -> None:
    url = begin(alice, LARGE, parts=True)
    alice.part(url, LARGE, 0, STEP)

    assert alice.put(url, LARGE).status == 200
    assert alice.finalize(LARGE).status == 200
    assert alice.load(sha1(LARGE)) == LARGE
    assert staged(driver) == []
