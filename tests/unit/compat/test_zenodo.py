"""Uploading to Zenodo, against a stand-in for it."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

import kachery_cloud as kc
from kachery import web
from kachery.errors import BadReply, NotAllowed, NotConfigured, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

ABOUT = {"author": "A. Author", "affiliation": "A lab", "title": "Title", "description": "<p>What</p>"}


class Zenodo:
    def __init__(self) -> None:
        self.url = ""
        self.bucket = ""
        self.files: dict[str, bytes] = {}
        self.metadata: dict[str, Any] = {}
        self.paths: list[str] = []


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Zenodo]:
    known = Zenodo()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _reply(self, content: Any, status: int = 200) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _body(self) -> bytes | None:
            known.paths.append(self.path)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Authorization"] != "Bearer the token":
                self._reply({"message": "who are you"}, 401)
                return None
            return body

        def do_POST(self) -> None:
            if self._body() == b"{}":
                assert self.path == "/api/deposit/depositions"
                self._reply({"id": 17, "links": {"bucket": known.bucket or f"{known.url}/api/files/b"}}, 201)

        def do_PUT(self) -> None:
            body = self._body()
            if body is None:
                return
            if self.path == "/api/deposit/depositions/17":
                known.metadata = json.loads(body)
                self._reply({"links": {"latest_draft_html": f"{known.url}/deposit/17"}})
            else:
                known.files[self.path.removeprefix("/api/files/b/")] = body
                self._reply({}, 201)

        def do_GET(self) -> None:
            if self.path == "/api/records/5":
                self._reply({"files": [{"key": "old/x.txt", "links": {"self": f"{known.url}/raw"}}]})
            else:
                self._reply("old content")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        known.url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setitem(web.ZENODO, True, known.url)
        monkeypatch.setenv("ZENODO_SANDBOX_ACCESS_TOKEN", "the token")
        yield known
        server.shutdown()
        thread.join()


def test_uploading(site: Zenodo, capsys: pytest.CaptureFixture[str]) -> None:
    uploader = kc.initiate_zenodo_upload(**ABOUT)

    uri = uploader.upload_file(kc.store_text_local("content"), name="folder/a b.txt")
    empty = uploader.upload_file(kc.store_text_local(""), name="empty")
    uploader.finalize_upload()

    assert (uri, empty) == ("zenodo-sandbox://17/folder/a b.txt", "zenodo-sandbox://17/empty")
    assert site.files == {"folder/a%20b.txt": b"content", "empty": b""}
    assert site.metadata["metadata"] == {
        "title": "Title",
        "upload_type": "dataset",
        "description": "<p>What</p>",
        "creators": [{"name": "A. Author", "affiliation": "A lab"}],
    }
    assert f"{site.url}/deposit/17" in capsys.readouterr().out
    # addresses end up in logs, so the token is in none of them
    assert not any("token" in path for path in site.paths)


def test_uploading_what_a_file_refers_to(site: Zenodo) -> None:
    # D-55: with URIs of Zenodo, and each file once
    inner = kc.store_text_local("inner")
    middle = kc.store_json_local({"inner": inner})
    outer = kc.store_json_local([inner, {"a": middle}, "zenodo-sandbox://5/old/x.txt", "sha1://no", 1.5])

    uri = kc.initiate_zenodo_upload(**ABOUT).upload_file_recursive(outer, name="outer.json")

    hashes = [text.removeprefix("sha1://") for text in (inner, middle)]
    assert uri == "zenodo-sandbox://17/outer.json"
    assert json.loads(site.files["outer.json"]) == [
        f"zenodo-sandbox://17/{hashes[0]}",
        {"a": f"zenodo-sandbox://17/{hashes[1]}"},
        "zenodo-sandbox://17/5/old/x.txt",
        "sha1://no",
        1.5,
    ]
    assert site.files[hashes[0]] == b"inner"
    assert json.loads(site.files[hashes[1]]) == {"inner": f"zenodo-sandbox://17/{hashes[0]}"}
    assert site.files["5/old/x.txt"] == b'"old content"'
    assert site.paths.count(f"/api/files/b/{hashes[0]}") == 1
    # what was uploaded is the rewritten file, and is here as well
    rewritten = hashlib.sha1(site.files["outer.json"], usedforsecurity=False).hexdigest()
    assert kc.load_file(f"sha1://{rewritten}", local_only=True)


def test_failures(site: Zenodo, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        kc.initiate_zenodo_upload(**ABOUT).upload_file("/nowhere", name="x")
    with pytest.raises(ValueError, match="does not name a file"):
        kc.initiate_zenodo_upload(**ABOUT).upload_file(kc.store_text_local("x"), name="../x")
    site.bucket = "http://127.0.0.2:1/elsewhere"
    with pytest.raises(BadReply, match="elsewhere"):
        kc.initiate_zenodo_upload(**ABOUT)
    monkeypatch.setenv("ZENODO_SANDBOX_ACCESS_TOKEN", "another")
    with pytest.raises(NotAllowed, match="401"):
        kc.initiate_zenodo_upload(**ABOUT)
    monkeypatch.delenv("ZENODO_SANDBOX_ACCESS_TOKEN")
    with pytest.raises(NotConfigured, match="ZENODO_SANDBOX_ACCESS_TOKEN"):
        kc.initiate_zenodo_upload(**ABOUT)
    with pytest.raises(NotConfigured, match="ZENODO_ACCESS_TOKEN"):
        kc.initiate_zenodo_upload(**ABOUT, sandbox=False)
    assert site.files == {}
