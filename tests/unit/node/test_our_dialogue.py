"""Our own protocol, with our daemon on one side and a scripted relay on the other."""

from __future__ import annotations

import os
import secrets
import time
from typing import TYPE_CHECKING, Any

import pytest

from kachery.node import config as configuration
from kachery.node import our_wire
from kachery.node.daemon import Daemon
from kachery.node.sharing import Sharing
from kachery.signing import ClientKeys, verify
from kachery.store import Store, keys
from rigs.daemon import Line, ScriptedRelay, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kachery.node.config import ResourceConfig

GATEWAY = ClientKeys.from_seed(bytes(range(32)))
CHALLENGE = "0123456789abcdef" * 2


@pytest.fixture
def relay() -> Iterator[ScriptedRelay]:
    with ScriptedRelay(ours=True) as scripted:
        yield scripted


def connected(relay: ScriptedRelay) -> Line:
    line = relay.line()
    line.say(type="challenge", challenge=CHALLENGE)
    line.hear()
    line.say(type="welcome", gatewayKey=GATEWAY.client_id, keep=True)
    return line


def signed_offer(hash_: str, *, signer: ClientKeys = GATEWAY, **changes: Any) -> dict[str, Any]:
    request = {
        "type": "offer",
        "zone": "default",
        "resource": "res1",
        "hash": hash_,
        "timestamp": int(time.time() * 1000),
        "nonce": secrets.token_hex(16),
        **changes,
    }
    return {"type": "offer", "id": "o1", "hash": hash_, "request": request, "signature": signer.sign(request)}


def offer(line: Line, hash_: str, **changes: Any) -> dict[str, Any]:
    line.say(**signed_offer(hash_, **changes))
    return line.hear()


def linked(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return Store().link(path)[0]


def send(line: Line, hash_: str, start: int, end: int, url: str = "/api/v1/ranges/a?b=c") -> None:
    line.say(type="send", id="s1", hash=hash_, start=start, end=end, url=url)


def test_hello_with_a_secret(relay: ScriptedRelay, resource: Callable[..., ResourceConfig]) -> None:
    with running(Daemon(resource(relay.url))):
        line = relay.line()
        assert line.path == "/api/v1/resource"
        line.say(type="challenge", challenge=CHALLENGE)
        assert line.hear() == {
            "type": "hello",
            "version": 1,
            "resource": "res1",
            "zone": "default",
            "maxConcurrentUploads": 2,
            "proxySecret": "s3cret",
        }


def test_hello_of_a_client_is_signed_over_the_challenge(
    relay: ScriptedRelay, resource: Callable[..., ResourceConfig]
) -> None:
    own = keys.load_or_create()
    with running(Daemon(resource(relay.url, secret=None))):
        line = relay.line()
        line.say(type="challenge", challenge=CHALLENGE)
        hello = line.hear()
    assert "proxySecret" not in hello
    assert hello["clientId"] == own.client_id
    proof = {"type": "hello", "resource": "res1", "zone": "default", "challenge": CHALLENGE}
    assert verify(own.client_id, proof, hello["signature"])


def test_what_is_linked_is_offered_and_its_ranges_are_sent(
    relay: ScriptedRelay, resource: Callable[..., ResourceConfig], tmp_path: Path
) -> None:
    content = os.urandom(1_500_000)
    hash_ = linked(tmp_path / "session.dat", content)
    with running(Daemon(resource(relay.url))):
        line = connected(relay)
        assert offer(line, hash_) == {"type": "offered", "id": "o1", "found": True, "size": len(content)}
        send(line, hash_, 1_000_000, 1_400_001)
        got = relay.put()
        assert got.path == "/api/v1/ranges/a?b=c"
        assert got.content_range == "bytes 1000000-1400000/1500000"
        assert got.whole
        assert got.body == content[1_000_000:1_400_001]


@pytest.mark.parametrize(
    "name",
    [
        "two words.dat",
        'it\'s "quoted".dat',
        "$(touch executed).dat",
        "line\nbreak.dat",
        "-rf",
        "ünï;cødé&.dat",
        "`id`|x",
    ],
)
def test_any_name_is_served(
    relay: ScriptedRelay, resource: Callable[..., ResourceConfig], tmp_path: Path, name: str
) -> None:
    hash_ = linked(tmp_path / name, b"what it says")
    with running(Daemon(resource(relay.url))):
        line = connected(relay)
        assert offer(line, hash_)["found"] is True
        send(line, hash_, 0, 12)
        assert relay.put().body == b"what it says"
    assert not (tmp_path / "executed").exists()


def test_bytes_go_to_the_chosen_relay_whatever_the_address_says(
    relay: ScriptedRelay, resource: Callable[..., ResourceConfig], tmp_path: Path
) -> None:
    hash_ = linked(tmp_path / "session.dat", b"private")
    with ScriptedRelay(ours=True) as elsewhere, running(Daemon(resource(relay.url))):
        line = connected(relay)
        offer(line, hash_)
        send(line, hash_, 0, 7, url=f"{elsewhere.url}/stolen")
        assert relay.put().path == "/stolen"
        assert elsewhere.received.empty()


def test_what_nobody_has_is_not_found_without_a_reason(
    relay: ScriptedRelay, resource: Callable[..., ResourceConfig]
) -> None:
    with running(Daemon(resource(relay.url))):
        assert offer(connected(relay), "a" * 40) == {"type": "offered", "id": "o1", "found": False}


def test_a_changed_file_is_refused_with_a_reason_that_names_no_path(
    relay: ScriptedRelay, resource: Callable[..., ResourceConfig], tmp_path: Path
) -> None:
    hash_ = linked(tmp_path / "session.dat", b"before")
    (tmp_path / "session.dat").write_bytes(b"after!")
    with running(Daemon(resource(relay.url))):
        answer = offer(connected(relay), hash_)
    assert answer["found"] is False
    assert "changed" in answer["reason"]
    assert str(tmp_path) not in answer["reason"]


def test_a_file_that_changes_after_the_offer_is_not_sent(
    relay: ScriptedRelay, resource: Callable[..., ResourceConfig], tmp_path: Path
) -> None:
    hash_ = linked(tmp_path / "session.dat", b"before")
    with running(Daemon(resource(relay.url))):
        line = connected(relay)
        assert offer(line, hash_)["found"] is True
        (tmp_path / "session.dat").write_bytes(b"after!")
        send(line, hash_, 0, 6)
        answer = line.hear()
    assert (answer["type"], answer["id"]) == ("failed", "s1")
    assert "changed" in answer["reason"]
    assert relay.received.empty()


def test_a_file_that_changes_while_it_is_sent_is_broken_off(
    relay: ScriptedRelay, resource: Callable[..., ResourceConfig], tmp_path: Path
) -> None:
    size = 256 * 1024 * 1024
    path = tmp_path / "session.dat"
    path.write_bytes(b"")
    os.truncate(path, size)
    hash_ = Store().link(path)[0]

    def spoil() -> None:
        with path.open("r+b") as file:
            file.seek(size - 1)
            file.write(b"!")

    relay.on_put = spoil
    with running(Daemon(resource(relay.url))):
        line = connected(relay)
        assert offer(line, hash_)["found"] is True
        send(line, hash_, 0, size)
        answer = line.hear()
        assert answer["type"] == "failed"
        assert "changed" in answer["reason"]
        got = relay.put()
        assert not got.whole
        assert b"!" not in got.body


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"signer": ClientKeys.from_seed(bytes(32))}, "not signed"),
        ({"zone": "another"}, "another zone"),
        ({"resource": "res2"}, "another zone"),
        ({"hash": "b" * 40}, "another zone"),
        ({"timestamp": 1_600_000_000_000}, "too old"),
        ({"timestamp": "now"}, "form"),
        ({"nonce": ""}, "form"),
        ({"more": 1}, "form"),
    ],
)
def test_requests_that_the_gateway_did_not_make_are_refused(
    relay: ScriptedRelay,
    resource: Callable[..., ResourceConfig],
    tmp_path: Path,
    changes: dict[str, Any],
    reason: str,
) -> None:
    content = b"private"
    hash_ = linked(tmp_path / "session.dat", content)
    message = signed_offer(hash_, **changes)
    message["hash"] = hash_
    with running(Daemon(resource(relay.url))):
        line = connected(relay)
        line.say(**message)
        answer = line.hear()
        assert answer["found"] is False
        assert reason in answer["reason"]
        send(line, hash_, 0, 7)
        assert "signed request" in line.hear()["reason"]
        assert relay.received.empty()
        assert offer(line, hash_)["found"] is True


def test_a_request_is_obeyed_once(
    relay: ScriptedRelay, resource: Callable[..., ResourceConfig], tmp_path: Path
) -> None:
    message = signed_offer(linked(tmp_path / "session.dat", b"private"))
    with running(Daemon(resource(relay.url))):
        line = connected(relay)
        line.say(**message)
        assert line.hear()["found"] is True
        line.say(**message)
        assert "before" in line.hear()["reason"]
        line.hang_up()
        line = connected(relay)
        line.say(**message)
        assert "before" in line.hear()["reason"]


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (0, 8), (3, 3), (5, 2), ("0", 3), (True, 3)])
def test_ranges_that_the_file_does_not_have_are_refused(
    relay: ScriptedRelay, resource: Callable[..., ResourceConfig], tmp_path: Path, start: Any, end: Any
) -> None:
    hash_ = linked(tmp_path / "session.dat", b"private")
    with running(Daemon(resource(relay.url))):
        line = connected(relay)
        offer(line, hash_)
        send(line, hash_, start, end)
        assert line.hear()["type"] == "failed"
        send(line, hash_, 0, 7)
        assert relay.put().body == b"private"


def test_a_put_that_nobody_waits_for_is_no_failure(
    relay: ScriptedRelay, resource: Callable[..., ResourceConfig], tmp_path: Path
) -> None:
    hash_ = linked(tmp_path / "session.dat", b"private")
    relay.put_status = 409
    with running(Daemon(resource(relay.url))):
        line = connected(relay)
        offer(line, hash_)
        send(line, hash_, 0, 7)
        relay.put()
        assert offer(line, hash_)["type"] == "offered"


def test_the_gateway_key_is_learned_once_and_held_to(
    relay: ScriptedRelay, resource: Callable[..., ResourceConfig], tmp_path: Path
) -> None:
    made = resource(relay.url)
    configuration.write(made.path, {"resourceName": "res1", "kacheryZone": "default", "proxyUrl": relay.url, "mine": 1})
    with running(Daemon(made)):
        line = connected(relay)
        line.say(type="ping")
        assert line.hear() == {"type": "pong"}
        kept = configuration.read(made.path)
        assert kept["gatewayKey"] == GATEWAY.client_id
        assert kept["mine"] == 1
        line.hang_up()
        line = relay.line()
        line.say(type="challenge", challenge=CHALLENGE)
        line.hear()
        line.say(type="welcome", gatewayKey="f" * 64, keep=True)
        line.wait_until_closed()
        connected(relay)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"type":"offer"}',
        '{"type":"send","id":"x"}',
        '{"type":"offer","id":7,"hash":1,"request":1,"signature":1}',
    ],
)
def test_malformed_messages_end_the_connection_and_the_next_one_works(
    relay: ScriptedRelay, resource: Callable[..., ResourceConfig], text: str
) -> None:
    with running(Daemon(resource(relay.url))):
        line = connected(relay)
        line.say_text(text)
        line.wait_until_closed()
        assert offer(connected(relay), "a" * 40)["found"] is False


def test_a_message_that_is_too_long_ends_the_connection(
    relay: ScriptedRelay, resource: Callable[..., ResourceConfig]
) -> None:
    with running(Daemon(resource(relay.url))):
        line = connected(relay)
        line.say(type="x" * our_wire.LONGEST_MESSAGE)
        line.wait_until_closed()
        connected(relay)


def test_a_silent_relay_is_given_up(
    relay: ScriptedRelay, resource: Callable[..., ResourceConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(our_wire, "SILENCE", 0.2)
    with running(Daemon(resource(relay.url))):
        connected(relay).wait_until_closed()
        connected(relay)


def test_a_flood_of_offers_is_answered_or_refused_and_kills_nothing(
    relay: ScriptedRelay, resource: Callable[..., ResourceConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(our_wire, "MOST_WAITING", 3)
    hash_ = linked(tmp_path / "session.dat", b"private")
    with running(Daemon(resource(relay.url))):
        line = connected(relay)
        for _ in range(50):
            line.say(**signed_offer(hash_))
        answers = [line.hear() for _ in range(50)]
        assert all(answer["found"] or "busy" in answer["reason"] for answer in answers)
        assert offer(line, hash_)["found"] is True


def test_only_what_lies_in_the_shared_directories_is_offered(
    relay: ScriptedRelay, resource: Callable[..., ResourceConfig], tmp_path: Path
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "closed").mkdir()
    inside = linked(tmp_path / "open" / "a.dat", b"inside")
    outside = linked(tmp_path / "closed" / "b.dat", b"outside")
    with running(Daemon(resource(relay.url), Sharing([str(tmp_path / "open")]))):
        line = connected(relay)
        assert offer(line, inside)["found"] is True
        answer = offer(line, outside)
        assert answer["found"] is False
        assert "does not share" in answer["reason"]
        send(line, outside, 0, 7)
        assert line.hear()["type"] == "failed"
