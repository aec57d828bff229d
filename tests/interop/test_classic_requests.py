"""The requests of the classic client (0.6.7), as they were recorded, against our classic server.

No release of it can be installed any more, so a peer sends the same bytes over a socket: `requests` of its time, its
headers, its signatures, and bodies in one piece, after the headers.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from rigs.gateway import Gateway, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HELLO = b"hello\n"
HASH = "f572d396fae9206628714fb2ce00f72e94f2258f"
MD5 = "b1946ac92492d2347c6235b4d2611184"
EMPTY = "da39a3ee5e6b4b0d3255bfef95601890afd80709"

# recorded signatures for HASH
SIGNATURES = {
    ("check", "public"): "90be08716d6fcd8040ec839046da61be507f3b7c",
    ("get", "public"): "2ef4bf0c97e554388c3d6f07b03afd3c78f07d89",
    ("set", "public"): "eead31340e798a5dc28553435ff270ba40164c24",
    ("check", "secret"): "947770afdb71b013c2db7fdb0f26aa073e667c32",
    ("get", "secret"): "15cec0f813d986c88ae01ddac2463bb727ef369d",
    ("set", "secret"): "690a20923f61017cd9fc9afaafff8337c149c0ae",
}

LARGE = {
    "name": "large",
    "maxFileSize": 1e11,
    "maxSimultaneous": 2,
    "maxNumFilesPerDay": 1e4,
    "maxNumBytesPerDay": 1e11,
}
CHANNELS = {
    "channels": [
        {"name": "public", "password": "public", "downloadQuotas": [LARGE], "uploadQuotas": [LARGE]},
        {"name": "neuro", "password": "secret", "downloadQuotas": [LARGE], "uploadQuotas": [LARGE]},
        {"name": "readonly", "password": "secret", "downloadQuotas": [LARGE], "uploadQuotas": []},
        {"name": "escaped", "password": 'a"b\\c/d', "downloadQuotas": [LARGE], "uploadQuotas": []},
        {"name": "umlaut", "password": "pässword", "downloadQuotas": [LARGE], "uploadQuotas": []},
        {
            "name": "daily",
            "password": "secret",
            "downloadQuotas": [],
            "uploadQuotas": [{**LARGE, "maxFileSize": 100, "maxNumFilesPerDay": 1}],
        },
    ]
}


@dataclass
class Answer:
    """What came back, to the last byte."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A classic server's address, and the path that it is below."""

    port: int
    prefix: str = ""

    def send(self, request: bytes) -> Answer:
        """Send bytes, and read until the connection ends or the answer does."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as peer:
            peer.sendall(request)
            with peer.makefile("rb") as stream:
                status = int(stream.readline().split()[1])
                headers = {}
                while line := stream.readline().strip():
                    name, _, value = line.decode("latin-1").partition(":")
                    headers[name.lower()] = value.strip()
                length = 0 if request.startswith(b"HEAD") else int(headers["content-length"])
                return Answer(status, headers, stream.read(length))

    def ask(self, method: str, target: str, body: bytes | None = None, *extra: str) -> Answer:
        """One request as the client's `requests` writes it."""
        lines = [
            f"{method} {self.prefix}{target} HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            "User-Agent: python-requests/2.25.1",
            "Accept-Encoding: gzip, deflate",
            "Accept: */*",
            "Connection: keep-alive",
            *extra,
        ]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        return self.send("\r\n".join([*lines, "", ""]).encode() + (body or b""))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, int]]:
    """A gateway with classic channels, and the port of their own."""
    directory = tmp_path_factory.mktemp("classic")
    config = directory / "kachery.json"
    config.write_text(json.dumps(CHANNELS))
    config.chmod(0o600)
    port = free_port()
    options = ("--classic", str(config), "--classic-port", str(port))
    with Gateway(directory, options=options) as gateway:
        yield gateway, port


@pytest.fixture(params=["a port of its own", "a prefix"])
def server(request: pytest.FixtureRequest, running: tuple[Gateway, int]) -> Server:
    gateway, port = running
    return Server(port) if request.param == "a port of its own" else Server(gateway.port, "/classic")


def address(endpoint: str, channel: str = "public", password: str = "public", **changes: str) -> str:
    """A recorded address for HASH."""
    signature = changes.get("signature", SIGNATURES[endpoint, password])
    return f"/{endpoint}/sha1/{HASH}?channel={channel}&signature={signature}"


def sign(endpoint: str, algorithm: str, hash_: str, password: str = "public") -> str:
    """An address signed as the client does it, from the recorded form of what is signed."""
    name = {"check": "check", "get": "download", "set": "upload"}[endpoint]
    text = f'{{"algorithm":"{algorithm}","hash":"{hash_}","name":"{name}","password":"{password}"}}'
    signature = hashlib.sha1(text.encode()).hexdigest()
    return f"/{endpoint}/{algorithm}/{hash_}?channel={password}&signature={signature}"


@pytest.mark.parametrize("password", ["public", "secret"])
def test_the_recorded_dialogue(server: Server, password: str) -> None:
    channel = {"public": "public", "secret": "neuro"}[password]
    stored = server.ask("POST", address("set", channel, password), HELLO)
    assert (stored.status, stored.body) == (200, b'{\n    "success": true\n}')
    checked = server.ask("GET", address("check", channel, password))
    assert checked.json == {"success": True, "found": True, "size": 6}
    got = server.ask("GET", address("get", channel, password))
    assert (got.status, got.body) == (200, HELLO)
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["accept-ranges"] == "bytes"
    assert got.headers["content-length"] == "6"
    head = server.ask("HEAD", address("get", channel, password))
    assert (head.status, head.headers["content-length"]) == (200, "6")
    again = server.ask("POST", address("set", channel, password), HELLO)
    assert again.status == 200


def test_ranges_as_the_client_reads_blocks(server: Server) -> None:
    server.ask("POST", address("set"), HELLO)
    some = server.ask("GET", address("get"), None, "Range: bytes=2-4")
    assert (some.status, some.body, some.headers["content-range"]) == (206, b"llo", "bytes 2-4/6")
    several = server.ask("GET", address("get"), None, "Range: bytes=0-0,2-3")
    assert (several.status, several.body) == (200, HELLO)
    none = server.ask("GET", address("get"), None, "Range: bytes=9-")
    assert (none.status, none.headers["content-range"]) == (500, "bytes */6")
    assert none.body == b"Error downloading file: Range Not Satisfiable"


def test_probe(server: Server) -> None:
    assert server.ask("GET", "/probe").json == {"success": True}
    assert server.ask("POST", "/log/write/x", b"").status == 404


def test_md5_and_empty_files(server: Server) -> None:
    recorded = f"/get/md5/{MD5}?channel=public&signature=714e726664211b2977e4b3de646150cb2644c546"
    assert server.ask("POST", sign("set", "md5", MD5), HELLO).status == 200
    assert server.ask("GET", recorded).body == HELLO
    assert server.ask("GET", sign("check", "md5", MD5)).json["size"] == 6
    assert server.ask("POST", sign("set", "sha1", EMPTY), b"").status == 200
    assert server.ask("GET", sign("check", "sha1", EMPTY)).json == {"success": True, "found": True, "size": 0}
    assert server.ask("GET", sign("get", "sha1", EMPTY)).body == b""


def test_a_large_file(server: Server) -> None:
    content = os.urandom(30_000_001)
    for algorithm in ("sha1", "md5"):
        hash_ = hashlib.new(algorithm, content).hexdigest()
        assert server.ask("POST", sign("set", algorithm, hash_), content).status == 200
        assert server.ask("GET", sign("get", algorithm, hash_)).body == content
        part = server.ask("GET", sign("get", algorithm, hash_), None, "Range: bytes=10485760-20971519")
        assert part.body == content[10485760:20971520]


@pytest.mark.parametrize(
    ("channel", "signature"),
    [
        ("escaped", "9c914dd5bf49daf8cb65e40f08a51fc2e325e0fc"),
        ("umlaut", "a04dfb0241a385e1f285a8633366d2116eae2f86"),
        ("umlaut", "42733b88db557a8c33bd1e057b7a446dffc96bd9"),
    ],
)
def test_passwords_that_are_escaped(server: Server, channel: str, signature: str) -> None:
    assert server.ask("GET", address("check", channel, signature=signature)).json["success"] is True


def test_every_refusal(server: Server) -> None:
    """The bodies that the client prints after `500`."""
    unsigned = "incorrect or missing signature"
    known = f"signature={SIGNATURES['check', 'public']}"
    absent = "0" * 40
    cases = [
        ("GET", address("check", "nothing"), None, "Channel not found in config: nothing"),
        ("GET", address("check", "constructor"), None, "Channel not found in config: constructor"),
        ("GET", f"/check/sha1/{HASH}?{known}", None, "Channel not found in config: undefined"),
        ("GET", address("check", "neuro"), None, unsigned),
        ("GET", f"/get/sha1/{HASH}?channel=public&{known}", None, unsigned),
        ("POST", f"/set/sha1/{HASH}?channel=public&{known}", HELLO, unsigned),
        ("GET", f"/check/sha1/{HASH}?channel=public", None, unsigned),
        ("GET", f"/get/sha1/{absent}?channel=public", None, unsigned),
        ("GET", sign("check", "sha1", HASH.upper()), None, "Invalid sha1 string"),
        ("GET", sign("check", "sha256", HASH), None, "Invalid sha256 string"),
        ("GET", sign("get", "md5", HASH), None, "Invalid md5 string"),
        ("POST", sign("set", "sha1", HASH[1:]), HELLO, "Invalid sha1 string"),
        ("GET", sign("get", "sha1", absent), None, "Not found."),
        ("POST", address("set", "readonly", "secret"), HELLO, "No relevant upload quota found"),
        ("GET", address("get", "daily", "secret"), None, "No relevant download quota found"),
    ]
    server.ask("POST", address("set"), HELLO)
    for method, target, body, text in cases:
        answer = server.ask(method, target, body)
        assert (answer.status, answer.body.decode()) == (500, text)
        assert answer.headers["content-type"].startswith("text/plain")


def test_a_length_is_needed(server: Server) -> None:
    chunked = server.ask("POST", address("set"), None, "Transfer-Encoding: chunked", "", "6", "hello\n", "0", "", "")
    assert (chunked.status, chunked.body) == (500, b"Missing or invalid content-length in request header")


def test_other_bytes_than_those_of_the_hash(server: Server) -> None:
    for algorithm in ("sha1", "md5"):
        hash_ = hashlib.new(algorithm, os.urandom(9)).hexdigest()
        answer = server.ask("POST", sign("set", algorithm, hash_), HELLO)
        assert answer.status == 422
        assert hash_ in answer.body.decode()
        assert server.ask("GET", sign("check", algorithm, hash_)).json == {"success": True, "found": False}


def test_json_is_content_like_any_other(server: Server) -> None:
    content = b'{"a": 1}'
    hash_ = hashlib.sha1(content).hexdigest()
    answer = server.ask("POST", sign("set", "sha1", hash_), content, "Content-Type: application/json")
    assert answer.status == 200
    assert server.ask("GET", sign("get", "sha1", hash_)).body == content


def test_paths_out_of_the_bucket(server: Server) -> None:
    """A hash of forty characters that climbs."""
    for hash_ in ("..%2F..%2F..%2F..%2F..%2F..%2Fetc%2Fpasswd", "../../../../../../../../../etc/passwd///"):
        answer = server.ask("GET", f"/check/sha1/{hash_}?channel=public&signature=x")
        assert answer.status in (404, 500)
        assert b"size" not in answer.body


def test_a_day_is_a_day_also_after_a_restart(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    # found without being named
    (data / "kachery.json").write_text(json.dumps({**CHANNELS, "zone": "lab"}))
    (data / "kachery.json").chmod(0o600)
    gateway = Gateway(tmp_path)

    def upload(content: bytes) -> Answer:
        hash_ = hashlib.sha1(content).hexdigest()
        target = sign("set", "sha1", hash_, "secret").replace("channel=secret", "channel=daily")
        return Server(gateway.port, "/classic").ask("POST", target, content)

    with gateway:
        assert upload(b"1").status == 200
        assert upload(b"1").status == 200
        # as a power cut would
        gateway.kill()
    with gateway:
        assert upload(b"1").status == 200
        assert upload(b"2").body == b"Exceeded number of files per day for this quota."


@pytest.mark.parametrize("algorithm", ["sha1", "md5"])
def test_a_gateway_that_dies_in_the_middle_of_an_upload(tmp_path: Path, algorithm: str) -> None:
    config = tmp_path / "kachery.json"
    config.write_text(json.dumps(CHANNELS))
    config.chmod(0o600)
    gateway = Gateway(tmp_path, options=("--classic", str(config)))
    content = os.urandom(20_000_000)
    hash_ = hashlib.new(algorithm, content).hexdigest()
    server = Server(gateway.port, "/classic")
    head = f"POST /classic{sign('set', algorithm, hash_)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    with gateway, socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as peer:
        peer.sendall(head.encode() + content[:15_000_000])
        gateway.kill()
    with gateway:
        assert server.ask("GET", sign("check", algorithm, hash_)).json["found"] is False
        assert server.ask("POST", sign("set", algorithm, hash_), content).status == 200
        assert server.ask("GET", sign("get", algorithm, hash_)).body == content
    staging = gateway.data / "buckets" / "default" / "staging"
    with gateway:
        assert list(staging.iterdir()) == []


PROGRAM = """
import sys, kachery as ka
from pathlib import Path
url, path, other = sys.argv[1:]
ka.set_config(to={"url": url, "channel": "public", "password": "public"})
uris = [ka.store_file(path), ka.store_text("text"), ka.store_dir(other), ka.store_file(path, algorithm="md5")]
print(*uris, sep="\\n")
"""

READER = """
import sys, kachery as ka
from pathlib import Path
url, path, *uris = sys.argv[1:]
with ka.config(fr={"url": url, "channel": "public", "password": "public"}):
    assert Path(ka.load_file(uris[0])).read_bytes() == Path(path).read_bytes()
    assert ka.load_text(uris[1]) == "text"
    assert ka.load_text(uris[2] + "/inner/note.txt") == "a note"
    assert Path(ka.load_file(uris[3])).read_bytes() == Path(path).read_bytes()
    assert ka.load_bytes(uris[0], 100, 200) == Path(path).read_bytes()[100:200]
try:
    with ka.config(fr={"url": url, "channel": "public", "password": "wrong"}):
        ka.load_text(uris[1].replace(uris[1][7:47], "0" * 40))
except PermissionError as error:
    print(error)
"""


def test_our_client_in_the_words_of_the_classic_one(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "recording.bin"
    path.write_bytes(os.urandom(12_000_000))
    (tmp_path / "trial" / "inner").mkdir(parents=True)
    (tmp_path / "trial" / "inner" / "note.txt").write_text("a note")
    url = f"http://127.0.0.1:{server.port}{server.prefix}"

    def run(program: str, machine: str, *arguments: str) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KACHERY_CLOUD_DIR": str(tmp_path / machine)}
        command = [sys.executable, "-c", program, url, str(path), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    uris = run(PROGRAM, "here", str(tmp_path / "trial")).split()
    assert [uri.partition(":")[0] for uri in uris] == ["sha1", "sha1", "sha1dir", "md5"]
    assert "incorrect or missing signature" in run(READER, "elsewhere", *uris)
