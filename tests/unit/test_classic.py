"""The client of a classic channel, held to the recorded signatures, against a server that may lie."""

from __future__ import annotations

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from kachery import classic, files, http
from kachery.classic import Channel, signature
from kachery.errors import (
    BadReply,
    InvalidInput,
    NotAllowed,
    NotConfigured,
    NotFound,
    TimedOut,
    TooLarge,
    Unreachable,
    WrongContent,
)
from kachery.progress import Silent
from kachery.store import Store
from rigs.classic import ClassicServer, refuse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rigs.liar import Exchange

HELLO = b"hello\n"
HASH = "f572d396fae9206628714fb2ce00f72e94f2258f"
LARGE = random.Random(9).randbytes(3 * 1024 * 1024 + 5)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_TIMEOUT", "0.5")
    monkeypatch.setattr(http, "pause", lambda *_: None)


@pytest.fixture(params=["", "/neuro1"])
def server(request: pytest.FixtureRequest) -> Iterator[ClassicServer]:
    with ClassicServer(request.param) as running:
        yield running


@pytest.fixture
def members(server: ClassicServer) -> Channel:
    return Channel(server.address, "members", "secret")


@pytest.mark.parametrize(
    ("operation", "password", "expected"),
    [
        ("check", "public", "90be08716d6fcd8040ec839046da61be507f3b7c"),
        ("get", "public", "2ef4bf0c97e554388c3d6f07b03afd3c78f07d89"),
        ("set", "public", "eead31340e798a5dc28553435ff270ba40164c24"),
        ("check", "secret", "947770afdb71b013c2db7fdb0f26aa073e667c32"),
        ("get", "secret", "15cec0f813d986c88ae01ddac2463bb727ef369d"),
        ("set", "secret", "690a20923f61017cd9fc9afaafff8337c149c0ae"),
        ("check", 'a"b\\c/d', "9c914dd5bf49daf8cb65e40f08a51fc2e325e0fc"),
        # as the server writes it; the classic client's own spelling is refused by every server
        ("check", "pässword", "a04dfb0241a385e1f285a8633366d2116eae2f86"),
    ],
)
def test_signatures_of_the_vectors(operation: str, password: str, expected: str) -> None:
    assert signature(operation, "sha1", HASH, password) == expected


def test_the_signature_of_an_md5() -> None:
    found = signature("get", "md5", "b1946ac92492d2347c6235b4d2611184", "public")
    assert found == "714e726664211b2977e4b3de646150cb2644c546"


def test_the_recorded_address() -> None:
    assert Channel("http://localhost:8080/", "public", "public").address("check", "sha1", HASH) == (
        f"http://localhost:8080/check/sha1/{HASH}?channel=public&signature=90be08716d6fcd8040ec839046da61be507f3b7c"
    )


def test_what_cannot_be_signed() -> None:
    with pytest.raises(InvalidInput):
        signature("check", "sha1", HASH, "\ud800")
    with pytest.raises(InvalidInput):
        Channel("kachery.lab.org", "public")


@pytest.mark.parametrize("data", [b"", HELLO, LARGE])
@pytest.mark.parametrize("algorithm", ["sha1", "md5"])
def test_a_file_goes_there_and_comes_back_verified(
    server: ClassicServer,
    members: Channel,
    data: bytes,
    algorithm: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "a.dat").write_bytes(data)
    hash_ = hashlib.new(algorithm, data).hexdigest()

    stored = files.store_file(tmp_path / "a.dat", to=members, algorithm=algorithm)

    assert stored.uri("a.dat") == f"{algorithm}://{hash_}/a.dat"
    assert server.files == {(algorithm, hash_): data}
    assert server.asked("POST")[0].headers["content-length"] == str(len(data))
    assert files.store_bytes(data, to=members, algorithm=algorithm) == stored
    assert len(server.asked("POST")) == 1
    assert Store().find(hash_, algorithm=algorithm) is None

    path = files.load_file(stored.uri("a.dat"), fr=members)
    assert path == Store().layout.blob(hash_, algorithm)
    with open(path, "rb") as file:
        assert file.read() == data
    asked = len(server.requests)
    assert files.load_file(stored.uri("a.dat"), fr=members) == path
    assert len(server.requests) == asked
    assert files.load_file(stored.uri("a.dat"), fr=members, remote_only=True) == path
    assert len(server.requests) > asked


def test_a_copy_may_be_kept(members: Channel, tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(LARGE)
    for algorithm in ("sha1", "md5"):
        stored = files.store_file(tmp_path / "a.dat", to=members, algorithm=algorithm, keep=True)
        found = Store().find(stored.hash, algorithm=algorithm)
        assert found is not None
        assert found.kind == "blob"


def test_parts_are_read_without_the_rest(server: ClassicServer, members: Channel) -> None:
    hash_ = server.add(LARGE)
    assert files.load_bytes(f"sha1://{hash_}", start=7, end=99, fr=members) == LARGE[7:99]
    assert Store().find(hash_) is None
    assert all(request.range is not None for request in server.requests if "/get/" in request.target)


def test_refusals(server: ClassicServer, tmp_path: Path) -> None:
    hash_ = server.add(HELLO)
    uri = f"sha1://{hash_}"
    for channel, kind in [
        (Channel(server.address, "members", "wrong"), NotAllowed),
        (Channel(server.address, "members", None), NotAllowed),
        (Channel(server.address, "strangers", "secret"), NotConfigured),
        (Channel(server.url + "/elsewhere", "public", "public"), BadReply),
    ]:
        with pytest.raises(kind) as caught:
            files.load_file(uri, fr=channel)
        assert "signature=" not in str(caught.value)
    public = Channel(server.address, "public", "public")
    with pytest.raises(NotAllowed, match="No relevant upload quota"):
        files.store_bytes(b"new", to=public)
    with pytest.raises(NotFound, match="does not have it"):
        files.load_file("sha1://" + "0" * 40, fr=public)
    with pytest.raises(NotFound):
        files.load_file("sha256://" + "0" * 64, fr=public)
    assert Store().find(hash_) is None


@pytest.mark.parametrize("data", [HELLO, LARGE])
def test_a_used_up_quota_is_told(server: ClassicServer, members: Channel, data: bytes) -> None:
    hash_ = server.add(data)
    server.lies["get"] = lambda exchange: refuse(exchange, "Exceeded number of bytes per day for this quota.")
    with pytest.raises(TooLarge, match="Exceeded number of bytes"):
        files.load_file(f"sha1://{hash_}", fr=members)


def test_a_channel_without_a_password(server: ClassicServer) -> None:
    server.channels["free"] = None
    hash_ = server.add(HELLO)
    assert files.load_bytes(f"sha1://{hash_}", fr=Channel(server.address, "free")) == HELLO


@pytest.mark.parametrize("data", [HELLO, LARGE])
def test_wrong_bytes_are_thrown_away(server: ClassicServer, members: Channel, data: bytes) -> None:
    hash_ = server.add(data)
    server.lies["get"] = lambda exchange: exchange.file(bytes(len(data)))
    with pytest.raises(WrongContent):
        files.load_file(f"sha1://{hash_}", fr=members)
    assert Store().find(hash_) is None


def test_a_download_that_breaks_off_continues(server: ClassicServer, members: Channel) -> None:
    hash_ = server.add(LARGE)

    def break_off(exchange: Exchange) -> None:
        del server.lies["get"]
        exchange.head(200, {"Content-Length": str(len(LARGE))})
        exchange.send(LARGE[: 2 * 1024 * 1024])
        exchange.hang_up()

    server.lies["get"] = break_off
    assert files.load_bytes(f"sha1://{hash_}", fr=members) == LARGE
    again = [request.range for request in server.requests if "/get/" in request.target][1:]
    assert again[0] is not None
    assert again[0][0] > 1024 * 1024


def test_many_at_once(server: ClassicServer, members: Channel, tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(LARGE)
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda _: files.store_file(tmp_path / "a.dat", to=members), range(16)))
        loaded = list(pool.map(lambda one: files.load_file(one.uri("a"), fr=members), stored))
    assert len(set(stored)) == 1
    assert set(loaded) == {Store().layout.blob(stored[0].hash)}
    assert list(server.files.values()) == [LARGE]


def test_lies(server: ClassicServer, members: Channel) -> None:
    hash_ = server.add(HELLO)
    lies: list[tuple[dict[str, object], type[Exception]]] = [
        ({"success": False}, BadReply),
        ({"success": True, "found": True}, BadReply),
        ({"success": True, "found": True, "size": -1}, BadReply),
        ({"success": True, "found": True, "size": 3}, Unreachable),
        ({"success": True, "found": True, "size": 2**60}, Exception),
    ]
    for said, kind in lies:

        def lie(exchange: Exchange, said: dict[str, object] = said) -> None:
            exchange.json(200, said)

        server.lies["check"] = lie
        with pytest.raises(kind):
            files.load_file(f"sha1://{hash_}", fr=members)
    server.lies["check"] = lambda exchange: exchange.json(200, {"success": True, "found": True, "size": 5})
    with pytest.raises(WrongContent):
        files.store_bytes(HELLO, to=members)
    server.lies["check"] = lambda exchange: exchange.silence()
    with pytest.raises(TimedOut):
        members.find(hash_)


def test_a_server_that_hangs_up_on_an_upload(server: ClassicServer, members: Channel) -> None:
    server.lies["set"] = lambda exchange: exchange.reset()
    with pytest.raises(Unreachable):
        files.store_bytes(HELLO, to=members)
    assert server.operations().count("set") == http.ATTEMPTS


def test_the_progress_of_a_failed_upload_is_taken_back(server: ClassicServer, members: Channel, tmp_path: Path) -> None:
    class Counted(Silent):
        moved = 0

        def advance(self, count: int) -> None:
            Counted.moved += count

    (tmp_path / "a").write_bytes(HELLO)
    server.lies["set"] = lambda exchange: exchange.reset()
    with open(tmp_path / "a", "rb") as file, pytest.raises(Unreachable):
        members.upload(file.fileno(), HASH, len(HELLO), Counted())
    assert Counted.moved == 0
    assert set(classic.OPERATIONS) == {"check", "get", "set"}
