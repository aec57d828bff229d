"""Gateways that are down, slow, something else, or lie: one error each, and nothing half-written."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kachery.cli import zones
from kachery.store import keys
from rigs.gateway import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Done

    Kachery = Callable[..., Done]

CONTENT = b"measured " * 10
HASH = hashlib.sha1(CONTENT, usedforsecurity=False).hexdigest()
URI = f"sha1://{HASH}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        # a client that has heard enough hangs up
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*_)  # type: ignore[arg-type]


class Peer:
    """Something that answers HTTP as a test wants it to: status, headers and body for a method, path and request."""

    def __init__(self) -> None:
        self.answer: Callable[[str, str, Any], tuple[int, dict[str, str], bytes]] = lambda *_: (404, {}, b"")
        self.asked: list[str] = []
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = json.loads(body) if self.command == "POST" else None
                kind = request["payload"]["type"] if request else self.command
                peer.asked.append(kind)
                status, headers, reply = peer.answer(kind, self.path, request)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(reply)), "Connection": "close", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply)

            do_POST = do_PUT = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    """A gateway that a test scripts; this machine has keys, and knows it."""
    peer = Peer()
    monkeypatch.setenv("KACHERY_GATEWAY_URL", peer.url)
    keys.load_or_create()
    yield peer
    peer.close()


def reply(kind: str, **content: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps({"type": kind, **content}).encode()


def kept(directory: Path) -> list[str]:
    """What is in a store directory but keys."""
    return sorted(path.name for path in directory.rglob("*") if path.is_file() and path.suffix != ".pem")


@pytest.mark.parametrize("command", [["load", URI], ["cat", URI], ["info", URI], ["store", "x"], ["status"]])
@pytest.mark.parametrize(
    ("status", "body", "code", "says"),
    [
        (200, b"<!DOCTYPE html><p>Welcome to the hotel's network", 4, "sent an HTML page where JSON was expected"),
        (404, b"<html>nothing here", 4, "is not a kachery gateway"),
        (200, b'{"type": "somethingElse"}', 4, "somethingElse"),
        (200, b"[]", 4, ""),
        (200, b'{"type": "fin', 4, ""),
        (503, b"", 4, "is busy (HTTP 503)"),
        (500, b"Error: out of coffee", 4, "out of coffee"),
    ],
)
def test_what_is_no_gateway_is_said(
    kachery: Kachery,
    peer: Peer,
    own_environment: Path,
    command: list[str],
    status: int,
    body: bytes,
    code: int,
    says: str,
) -> None:
    peer.answer = lambda *_: (status, {}, body)
    Path("x").write_bytes(CONTENT)
    done = kachery(*command)
    assert done.code == code, done.err
    assert done.err.count("error: ") == 1
    assert says in done.err
    assert "hint: " in done.err
    assert "<" not in done.err
    assert kept(own_environment) == []


@pytest.mark.parametrize("command", [["load", URI], ["store", "x"], ["status"], ["init"]])
def test_a_gateway_that_is_down_is_said(
    kachery: Kachery, monkeypatch: pytest.MonkeyPatch, own_environment: Path, command: list[str]
) -> None:
    port = free_port()
    monkeypatch.setenv("KACHERY_GATEWAY_URL", f"http://127.0.0.1:{port}")
    keys.load_or_create()
    Path("x").write_bytes(CONTENT)
    done = kachery(*command)
    assert done.code == 4
    assert f"127.0.0.1:{port} cannot be reached" in done.err
    assert kept(own_environment) == []


def test_a_gateway_that_says_nothing_is_not_waited_for_ever(
    kachery: Kachery, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough = threading.Event()

    def silence(*_: object) -> tuple[int, dict[str, str], bytes]:
        enough.wait(60)
        return 200, {}, b""

    peer.answer = silence
    monkeypatch.setenv("KACHERY_TIMEOUT", "0.2")
    done = kachery("load", URI)
    enough.set()
    assert done.code == 4
    assert "did not answer in time" in done.err
    assert "KACHERY_TIMEOUT" in done.err


@pytest.mark.parametrize(
    ("size", "content", "code"),
    [
        (len(CONTENT), CONTENT[:-1] + b"!", 6),
        (len(CONTENT), CONTENT + b"more", 4),
        (len(CONTENT), CONTENT[:10], 4),
        (len(CONTENT) + 1, CONTENT, 4),
        (-1, CONTENT, 4),
        ("90", CONTENT, 4),
        (2_000_000, b"x" * 2_000_000, 6),
    ],
)
def test_a_gateway_that_lies_gives_nothing(
    kachery: Kachery, peer: Peer, own_environment: Path, size: Any, content: bytes, code: int
) -> None:
    def lie(kind: str, path: str, request: Any) -> tuple[int, dict[str, str], bytes]:
        if kind == "findFile":
            return reply(kind, found=True, size=size, url=f"{peer.url}/file")
        return 200, {}, content

    peer.answer = lie
    for command in (["load", URI], ["load", URI, "--dest", "copy"], ["cat", URI]):
        done = kachery(*command)
        assert done.code == code, done.err
        assert done.out == ""
        assert done.err.count("error: ") == 1
    assert not Path("copy").exists()
    assert [name for name in kept(own_environment) if name == HASH] == []
    assert kachery("verify").code == 0


def test_a_gateways_words_do_not_reach_the_terminal_as_they_are(kachery: Kachery, peer: Peer) -> None:
    peer.answer = lambda *_: (500, {}, b"Error: \x1b]0;owned\x07\x1b[2Jsorry")
    done = kachery("load", URI)
    assert "\x1b" not in done.err
    assert "\x07" not in done.err
    assert "sorry" in done.err


def test_an_upload_that_is_refused_is_said(kachery: Kachery, peer: Peer) -> None:
    Path("x").write_bytes(CONTENT)
    for status, code in ((413, 7), (422, 6), (403, 5)):

        def answer(kind: str, path: str, request: Any, status: int = status) -> tuple[int, dict[str, str], bytes]:
            if kind == "initiateFileUpload":
                return reply(kind, alreadyExists=False, signedUploadUrl=f"{peer.url}/put", objectKey="x")
            return status, {}, b"no"

        peer.answer = answer
        done = kachery("store", "x")
        assert (done.code, done.out) == (code, ""), done.err


def test_nothing_is_sent_when_one_of_the_files_is_missing(kachery: Kachery, peer: Peer) -> None:
    Path("x").write_bytes(CONTENT)
    assert kachery("store", "x", "missing").code == 3
    assert peer.asked == []


def test_what_was_stored_before_an_error_is_told(kachery: Kachery, peer: Peer) -> None:
    Path("x").write_bytes(CONTENT)
    Path("y").write_bytes(b"y")

    def answer(kind: str, path: str, request: Any) -> tuple[int, dict[str, str], bytes]:
        if request["payload"]["hash"] == HASH:
            return reply(kind, alreadyExists=True)
        return 500, {"Kachery-Error": "too_large"}, b"Error: over the quota (ask an administrator)"

    peer.answer = answer
    done = kachery("store", "x", "y", "--json")
    assert done.code == 7
    assert [item["file"] for item in done.document] == ["x"]
    assert done.error["hint"] == "ask an administrator"
    assert done.error["message"].endswith("over the quota")


class Registrar:
    """A gateway's registration: it knows a client after it was asked for it a few times."""

    def __init__(self, peer: Peer, after: int | None) -> None:
        self._peer = peer
        self._left = after

    def __call__(self, kind: str, path: str, request: Any) -> tuple[int, dict[str, str], bytes]:
        if kind == "register":
            return reply(kind, url=f"{self._peer.url}/register/code")
        if kind == "findFile":
            return reply(kind, found=False)
        if self._left is not None:
            self._left -= 1
        if self._left is None or self._left >= 0:
            return reply(kind, found=False)
        return reply(kind, found=True, client={"clientId": request["payload"]["clientId"], "ownerId": "anna"})


def test_init_waits_until_somebody_confirms(
    kachery: Kachery, peer: Peer, own_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KACHERY_GATEWAY_URL")
    monkeypatch.setattr(zones, "_PAUSE", 0.0)
    peer.answer = Registrar(peer, after=3)
    done = kachery("init", "--gateway", f"{peer.url}/", "--zone", "lab", "--label", "desk")
    assert done.code == 0
    first, *rest = done.out.splitlines()
    assert first == f"{peer.url}/register/code"
    assert rest[-1].split() == ["owner", "anna"]
    assert json.loads((own_environment / "kachery.json").read_text()) == {"gateway_url": peer.url, "zone": "lab"}
    again = kachery("init")
    assert again.code == 0
    assert "register/code" not in again.out
    assert kachery("status", "--json").document["ready"] is True


def test_init_does_not_wait_for_ever(kachery: Kachery, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zones, "_PATIENCE", 0.01)
    monkeypatch.setattr(zones, "_PAUSE", 0.005)
    peer.answer = Registrar(peer, after=None)
    done = kachery("init")
    assert done.code == 4
    assert done.out == f"{peer.url}/register/code\n"
    assert "run `kachery init` again" in done.err


def test_init_without_waiting_gives_the_page(kachery: Kachery, peer: Peer) -> None:
    peer.answer = Registrar(peer, after=None)
    done = kachery("init", "--no-wait")
    assert (done.code, done.out) == (0, f"{peer.url}/register/code\n")
    assert peer.asked.count("register") == 1


def test_init_survives_a_gateway_that_goes_away_for_a_while(
    kachery: Kachery, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zones, "_PAUSE", 0.0)
    registrar = Registrar(peer, after=1)
    failures = iter([False, False, False, True, True, True, True, True])

    def answer(kind: str, path: str, request: Any) -> tuple[int, dict[str, str], bytes]:
        return (503, {}, b"") if next(failures, False) else registrar(kind, path, request)

    peer.answer = answer
    done = kachery("init")
    assert done.code == 0
    assert "still waiting" in done.err


def test_init_remembers_no_gateway_that_does_not_answer(kachery: Kachery, peer: Peer, own_environment: Path) -> None:
    peer.answer = lambda *_: (200, {}, b"<html>")
    assert kachery("init", "--gateway", peer.url).code == 4
    assert not (own_environment / "kachery.json").exists()


def test_init_says_when_a_variable_wins(kachery: Kachery, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_GATEWAY_URL", "http://127.0.0.1:1")
    peer.answer = Registrar(peer, after=0)
    done = kachery("init", "--gateway", peer.url)
    assert done.code == 0
    assert "warning: KACHERY_GATEWAY_URL is set to http://127.0.0.1:1" in done.err


def test_init_says_when_a_zone_may_not_exist(kachery: Kachery, peer: Peer) -> None:
    registrar = Registrar(peer, after=None)

    def answer(kind: str, path: str, request: Any) -> tuple[int, dict[str, str], bytes]:
        if kind == "findFile":
            return 500, {"Kachery-Error": "not_registered"}, b"Error: not for you"
        return registrar(kind, path, request)

    peer.answer = answer
    done = kachery("init", "--zone", "typo", "--no-wait")
    assert done.code == 0
    assert "zone typo is private, or there is none of this name" in done.err
    told = kachery("status")
    assert told.code == 5
    assert "check the name of the zone" in told.err


def test_without_keys_one_may_load_and_not_store(
    kachery: Kachery, peer: Peer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / "fresh"))
    Path("x").write_bytes(CONTENT)

    def answer(kind: str, path: str, request: Any) -> tuple[int, dict[str, str], bytes]:
        if kind == "findFile":
            return reply(kind, found=True, size=len(CONTENT), url=f"{peer.url}/file")
        return reply(kind, found=False) if kind == "getClientInfo" else (200, {}, CONTENT)

    peer.answer = answer
    refused = kachery("store", "x")
    assert refused.code == 9
    assert refused.err == "error: this machine has no client keys\nhint: run `kachery init`\n"
    told = kachery("status")
    assert told.code == 9
    assert "it can load from, but not store in, zone default" in told.err
    assert Path(kachery("load", URI).out.strip()).read_bytes() == CONTENT
    assert not (tmp_path / "fresh" / "private.pem").exists()


def test_half_a_pair_of_keys_is_said(kachery: Kachery, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("x").write_bytes(CONTENT)
    monkeypatch.setenv("KACHERY_CLOUD_CLIENT_ID", "0" * 64)
    done = kachery("store", "x")
    assert done.code == 9
    assert "KACHERY_CLOUD_PRIVATE_KEY" in done.err
    monkeypatch.setenv("KACHERY_CLOUD_PRIVATE_KEY", "not hexadecimal")
    assert kachery("store", "x").code == 2


def test_a_damaged_key_file_is_said(kachery: Kachery, peer: Peer, own_environment: Path) -> None:
    Path("x").write_bytes(CONTENT)
    (own_environment / "private.pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----")
    done = kachery("store", "x")
    assert done.code == 9
    assert "private.pem is damaged" in done.err


def test_delete_asks_when_there_is_somebody_to_ask(
    kachery: Kachery, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.answer = lambda kind, *_: reply(kind, success=True)
    assert kachery("delete", URI, "--zone", "lab").code == 2
    assert peer.asked == []
    done = kachery("delete", URI, "--zone", "lab", "--yes")
    assert (done.code, done.out) == (0, "")
    assert f"removed {URI} from zone lab" in done.err
    assert peer.asked == ["deleteFile"]
