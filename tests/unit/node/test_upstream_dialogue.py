"""The published proxy's dialogue, frame by frame, with our daemon in the resource's role."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from kachery.node import jobs, upstream_wire
from kachery.node.daemon import Daemon
from kachery.store import Store
from rigs.daemon import Line, ScriptedRelay, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kachery.node.config import ResourceConfig

NOBODYS = "sha1://" + "a" * 40


@pytest.fixture
def proxy() -> Iterator[ScriptedRelay]:
    with ScriptedRelay(ours=False) as relay:
        yield relay


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> Uploads:
    """Takes the place of the zone: each upload waits until the test lets it go."""
    made = Uploads()
    monkeypatch.setattr("kachery.node.daemon.into_zone", lambda zone: made.send)
    return made


class Uploads:
    def __init__(self) -> None:
        self.begun: list[str] = []
        self.may_end = threading.Event()
        self.failure: Exception | None = None

    def send(self, shared: object, counter: jobs.Counter) -> None:
        self.begun.append(shared.hash)  # type: ignore[attr-defined]
        counter.advance(5)
        assert self.may_end.wait(30)
        if self.failure is not None:
            raise self.failure


def connected(proxy: ScriptedRelay) -> Line:
    line = proxy.line()
    line.hear()
    line.say(type="acknowledge")
    return line


def ask(line: Line, uri: str, wait: float = 1000, request_id: str = "RKCuTikUMn") -> None:
    inner = {"type": "fileUpload", "uri": uri, "timeoutMsec": wait}
    line.say(
        type="requestFromClient",
        resourceName="res1",
        zone="default",
        request=inner,
        timeoutMsec=wait + 1000,
        requestId=request_id,
    )


def linked(tmp_path: Path, content: bytes = b"x" * 50, name: str = "session.dat") -> str:
    path = tmp_path / name
    path.write_bytes(content)
    return Store().link(path)[0]


def test_initialize_is_byte_for_byte_that_of_the_published_daemon(
    proxy: ScriptedRelay, resource: Callable[..., ResourceConfig]
) -> None:
    with running(Daemon(resource(proxy.url))):
        line = proxy.line()
        assert line.path == "/"
        assert line.hear_text() == '{"type":"initialize","resourceName":"res1","zone":"default","proxySecret":"s3cret"}'


def test_pings_have_a_type_and_nothing_else(
    proxy: ScriptedRelay, resource: Callable[..., ResourceConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_wire, "PING_EVERY", 0.01)
    with running(Daemon(resource(proxy.url))):
        assert connected(proxy).hear_text() == '{"type":"ping"}'


def test_a_file_under_way_is_told_as_the_published_daemon_tells_it(
    proxy: ScriptedRelay, resource: Callable[..., ResourceConfig], uploads: Uploads, tmp_path: Path
) -> None:
    hash_ = linked(tmp_path)
    with running(Daemon(resource(proxy.url))):
        line = connected(proxy)
        ask(line, f"sha1://{hash_}", wait=300)
        text = line.hear_text()
        status = json.loads(text)["response"]["status"]
        assert text == (
            '{"type":"responseToClient","requestId":"RKCuTikUMn","response":{"type":"fileUpload","status":'
            '{"status":"running","size":50,"bytesUploaded":5,'
            f'"timestampRequested":{status["timestampRequested"]},"timestampStarted":{status["timestampStarted"]}}}}}}}'
        )
        uploads.may_end.set()
        ask(line, f"sha1://{hash_}", wait=30_000)
        status = line.hear()["response"]["status"]
        assert (status["status"], status["bytesUploaded"]) == ("completed", 50)
        assert status["timestampCompleted"] >= status["timestampStarted"]
        assert uploads.begun == [hash_]


@pytest.mark.parametrize("uri", ["sha1:/abc", "sha1://" + "a" * 39, NOBODYS + "/name", "sha256://" + "a" * 40, ""])
def test_an_invalid_uri_is_an_error_of_the_envelope(
    proxy: ScriptedRelay, resource: Callable[..., ResourceConfig], uri: str
) -> None:
    with running(Daemon(resource(proxy.url))):
        line = connected(proxy)
        ask(line, uri)
        assert line.hear_text() == (
            '{"type":"responseToClient","requestId":"RKCuTikUMn","response":{},'
            '"error":"Error handling request: Invalid URI"}'
        )


@pytest.mark.parametrize(
    "inner",
    [None, {}, {"type": "fileUpload", "uri": NOBODYS}, {"type": "fileUpload", "uri": 1, "timeoutMsec": 1}]
    + [{"type": "fileUpload", "uri": NOBODYS, "timeoutMsec": wait} for wait in ("1", True, None)]
    + [{"type": "fileUpload", "uri": NOBODYS, "timeoutMsec": 1, "more": 1}],
)
def test_an_inner_request_of_another_form_is_refused_and_the_next_one_works(
    proxy: ScriptedRelay, resource: Callable[..., ResourceConfig], inner: object
) -> None:
    with running(Daemon(resource(proxy.url))):
        line = connected(proxy)
        envelope = {"resourceName": "res1", "zone": "default", "timeoutMsec": 1, "requestId": "a"}
        line.say(type="requestFromClient", request=inner, **envelope)
        assert line.hear() == {
            "type": "responseToClient",
            "requestId": "a",
            "response": {},
            "error": "Invalid kachery resource request",
        }
        ask(line, NOBODYS)
        assert line.hear()["response"] == {"type": "fileUpload", "status": {"status": "not-found"}}


@pytest.mark.parametrize("text", ['{"type":"acknowledge","more":1}', '{"type":"cancelRequestFromClient"}', "[]", "7"])
def test_messages_that_are_not_known_are_passed_over(
    proxy: ScriptedRelay, resource: Callable[..., ResourceConfig], text: str
) -> None:
    with running(Daemon(resource(proxy.url))):
        line = connected(proxy)
        line.say_text(text)
        ask(line, NOBODYS)
        assert line.hear()["response"]["status"] == {"status": "not-found"}


@pytest.mark.parametrize("text", ['{"type":"ping"}', "hello", '{"type":"acknowledge","more":1}'])
def test_anything_before_the_acknowledgement_ends_the_connection_and_another_one_comes(
    proxy: ScriptedRelay, resource: Callable[..., ResourceConfig], text: str
) -> None:
    with running(Daemon(resource(proxy.url))):
        line = proxy.line()
        line.say_text(text)
        line.wait_until_closed()
        ask(connected(proxy), NOBODYS)


def test_what_is_no_json_ends_the_connection_and_another_one_comes(
    proxy: ScriptedRelay, resource: Callable[..., ResourceConfig]
) -> None:
    with running(Daemon(resource(proxy.url))):
        line = connected(proxy)
        line.say_text("{")
        line.wait_until_closed()
        line = connected(proxy)
        ask(line, NOBODYS)
        assert line.hear()["response"]["status"] == {"status": "not-found"}


def test_a_message_that_is_too_long_ends_the_connection_and_another_one_comes(
    proxy: ScriptedRelay, resource: Callable[..., ResourceConfig]
) -> None:
    with running(Daemon(resource(proxy.url))):
        line = connected(proxy)
        line.say(type="x" * (upstream_wire.LONGEST_MESSAGE + 1))
        line.wait_until_closed()
        ask(connected(proxy), NOBODYS)


def test_a_changed_file_is_an_error_that_names_no_path(
    proxy: ScriptedRelay, resource: Callable[..., ResourceConfig], tmp_path: Path, uploads: Uploads
) -> None:
    hash_ = linked(tmp_path)
    (tmp_path / "session.dat").write_bytes(b"y" * 50)
    with running(Daemon(resource(proxy.url))):
        line = connected(proxy)
        ask(line, f"sha1://{hash_}", wait=30_000)
        status = line.hear()["response"]["status"]
        assert status["status"] == "error"
        assert "changed" in status["error"]
        assert str(tmp_path) not in status["error"]
        assert not uploads.begun


def test_the_upload_outlives_the_connection(
    proxy: ScriptedRelay, resource: Callable[..., ResourceConfig], tmp_path: Path, uploads: Uploads
) -> None:
    hash_ = linked(tmp_path)
    with running(Daemon(resource(proxy.url))):
        line = connected(proxy)
        ask(line, f"sha1://{hash_}", wait=0)
        line.hear()
        line.hang_up()
        line = connected(proxy)
        uploads.may_end.set()
        ask(line, f"sha1://{hash_}", wait=30_000)
        assert line.hear()["response"]["status"]["status"] == "completed"
        assert uploads.begun == [hash_]
