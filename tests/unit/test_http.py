"""HTTP with peers that are silent, slow, busy, wrong or gone: one clear error, and no unbounded wait."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import os
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kachery import http
from kachery.errors import BadReply, InvalidInput, TimedOut, Unreachable
from rigs.liar import Exchange, Liar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OK: Callable[[Exchange], None] = lambda exchange: exchange.json(200, {"type": "ok"})  # noqa: E731


@pytest.fixture
def liar() -> Iterator[Liar]:
    with Liar(OK) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_TIMEOUT", "0.4")
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts, which nobody waits for."""
    taken: list[float] = []
    monkeypatch.setattr(http.time, "sleep", taken.append)
    return taken


def get(url: str, **options: object) -> http.Reply:
    return http.exchange("GET", url, **options)  # type: ignore[arg-type]


def test_connections_are_kept(liar: Liar) -> None:
    for number in range(5):
        reply = http.post_json(f"{liar.url}/api", {"number": number})
        assert (reply.status, reply.json()) == (200, {"type": "ok"})

    assert liar.connections == 1
    assert [request.json for request in liar.requests] == [{"number": number} for number in range(5)]
    assert liar.requests[0].headers["user-agent"] == http.user_agent()
    assert liar.requests[0].headers["accept-encoding"] == "identity"


def test_a_kept_connection_that_was_closed_meanwhile_is_made_anew(liar: Liar) -> None:
    def once(exchange: Exchange) -> None:
        OK(exchange)
        exchange.hang_up()

    liar.behave = once
    for _ in range(3):
        assert http.retrying(lambda: get(liar.url)).status == 200


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(Unreachable, match=f"127.0.0.1:{port} cannot be reached: Connection refused") as caught:
        get(f"http://127.0.0.1:{port}/secret?token=1")
    assert "secret" not in str(caught.value)


def test_a_silent_peer(liar: Liar) -> None:
    liar.behave = Exchange.silence
    with pytest.raises(TimedOut, match="did not answer in time"):
        get(liar.url)


def test_a_peer_that_falls_silent(liar: Liar) -> None:
    def half(exchange: Exchange) -> None:
        exchange.head(200, {"Content-Length": "100"})
        exchange.send(b"half")
        exchange.silence()

    liar.behave = half
    with pytest.raises(TimedOut):
        get(liar.url)


def test_a_peer_that_trickles_for_ever(liar: Liar) -> None:
    def trickle(exchange: Exchange) -> None:
        exchange.head(200, {"Content-Length": "1000000"})
        while not exchange.over.wait(0.05):
            exchange.send(b"x")

    liar.behave = trickle
    with pytest.raises(TimedOut, match="not finished"):
        get(liar.url)


@pytest.mark.parametrize("how", ["reset", "hang_up"])
def test_a_peer_that_breaks_off(liar: Liar, how: str) -> None:
    def half(exchange: Exchange) -> None:
        exchange.head(200, {"Content-Length": "100"})
        exchange.send(b"half")
        getattr(exchange, how)()

    liar.behave = half
    with pytest.raises(Unreachable, match=r"the connection to 127\.0\.0\.1:\d+ broke"):
        get(liar.url)
    liar.behave = lambda exchange: getattr(exchange, how)()
    with pytest.raises(Unreachable, match="broke"):
        get(liar.url)


def test_a_peer_that_speaks_something_else(liar: Liar) -> None:
    liar.behave = lambda exchange: exchange.send(b"220 mail.example.org ESMTP\r\n")
    with pytest.raises(Unreachable):
        get(liar.url)


def test_more_than_a_short_reply(liar: Liar) -> None:
    liar.behave = lambda exchange: exchange.reply(200, b"x" * 17 * 1024 * 1024)
    with pytest.raises(BadReply, match="short reply was expected"):
        get(liar.url)
    liar.behave = OK
    assert get(liar.url).status == 200


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"<html>", "an HTML page"), (b"", "something else"), (b"[]", "something else"), (b"\xff{", "else")],
)
def test_what_is_not_json(liar: Liar, body: bytes, kind: str) -> None:
    liar.behave = lambda exchange: exchange.reply(200, body)
    with pytest.raises(BadReply, match=kind):
        get(liar.url).json()


def test_json_that_is_nested_without_end(liar: Liar) -> None:
    liar.behave = lambda exchange: exchange.reply(200, b'{"a":' * 100_000)
    with pytest.raises(BadReply):
        get(liar.url).json()


def test_redirects_are_followed_only_where_that_was_asked_for(liar: Liar) -> None:
    def redirect(exchange: Exchange) -> None:
        if exchange.request.target == "/there":
            exchange.reply(200, b"there")
        else:
            exchange.reply(302, b"", {"Location": "/there"})

    liar.behave = redirect
    assert get(liar.url).status == 302
    assert get(liar.url, follow=True).body == b"there"


def test_redirects_without_end(liar: Liar) -> None:
    liar.behave = lambda exchange: exchange.reply(302, b"", {"Location": "/again"})
    with pytest.raises(BadReply, match="from address to address"):
        get(liar.url, follow=True)
    assert len(liar.requests) < 10


def test_redirects_to_what_is_no_web_address(liar: Liar) -> None:
    liar.behave = lambda exchange: exchange.reply(302, b"", {"Location": "file:///etc/passwd"})
    with pytest.raises((InvalidInput, BadReply)):
        get(liar.url, follow=True)


@pytest.mark.parametrize(
    "url",
    ["http://[::1/", "nonsense", "//127.0.0.1/", "http://host:port/", "ftp://127.0.0.1/", "http://", "http://a b/"],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises((InvalidInput, Unreachable)):
        get(url)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_peer_is_asked_again_when_it_wants(liar: Liar, pauses: list[float], status: int) -> None:
    def busy_twice(exchange: Exchange) -> None:
        if len(liar.requests) < 3:
            exchange.reply(status, b"", {"Retry-After": "7"})
        else:
            OK(exchange)

    def ask() -> http.Reply:
        reply = get(liar.url)
        reply.raise_if_busy()
        return reply

    liar.behave = busy_twice
    assert http.retrying(ask).status == 200
    assert pauses == [7.0, 7.0]


@pytest.mark.parametrize("after", ["99999999999", "soon", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "9" * 400])
def test_a_busy_peer_does_not_decide_for_ever(liar: Liar, pauses: list[float], after: str) -> None:
    liar.behave = lambda exchange: exchange.reply(503, b"", {"Retry-After": after})

    def ask() -> None:
        get(liar.url).raise_if_busy()

    with pytest.raises(http.Busy, match="is busy"):
        http.retrying(ask)
    assert len(liar.requests) == http.ATTEMPTS
    assert len(pauses) == http.ATTEMPTS - 1
    assert all(0 < pause <= 60 for pause in pauses)


def test_what_cannot_pass_is_not_tried_again(pauses: list[float]) -> None:
    calls = []

    def bad() -> None:
        calls.append(1)
        raise BadReply("no")

    with pytest.raises(BadReply):
        http.retrying(bad)
    assert (calls, pauses) == ([1], [])


def test_a_proxy_is_used_and_bypassed(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://anna:p%40ss@127.0.0.1:1")
    monkeypatch.setenv("http_proxy", f"http://anna:p%40ss@127.0.0.1:{liar.port}")
    assert get("http://gateway.example/api").status == 200
    (request,) = liar.requests
    assert request.target == "http://gateway.example/api"
    assert request.headers["proxy-authorization"] == "Basic " + base64.b64encode(b"anna:p@ss").decode()

    monkeypatch.setenv("no_proxy", "127.0.0.1,other.example")
    assert get(f"{liar.url}/direct").status == 200
    assert liar.requests[-1].target == "/direct"

    monkeypatch.setenv("no_proxy", "")
    assert get(f"{liar.url}/again").status == 200
    assert liar.requests[-1].target == f"{liar.url}/again"


def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "127.0.0.1:1")
    with pytest.raises(Unreachable):
        get("http://gateway.example/api")


def test_a_forked_child_makes_connections_of_its_own(liar: Liar) -> None:
    assert get(liar.url).status == 200
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if get(liar.url).status == 200 else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert get(liar.url).status == 200
    assert liar.connections == 2


def test_who_is_named() -> None:
    assert http.peer("https://user:secret@host:1/path?token=x") == "host:1"
    assert "secret" not in http.peer("http://[bad/?secret")


# --- certificates


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody trusts, and its key."""
    now = datetime.datetime.now(datetime.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "certificate.pem", tmp_path / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def test_a_certificate_counts_when_the_machine_trusts_it(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(*certificate)
    with Liar(OK, tls=server) as liar:
        url = liar.url.replace("http:", "https:")
        with pytest.raises(Unreachable, match="no certificate that this machine trusts") as caught:
            get(url)
        assert "clock" in (caught.value.hint or "")
        assert liar.requests == []
        # as a lab with an authority of its own does it
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        http._begin_anew()
        assert get(url).status == 200


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (Unreachable("gone"), http.ATTEMPTS),
        (TimedOut("silent"), 2),
        (http.Untrusted("no certificate"), 1),
        (BadReply("nonsense"), 1),
    ],
)
def test_what_may_pass_is_tried_again_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, error: Unreachable, attempts: int
) -> None:
    monkeypatch.setattr(http, "pause", lambda *_: None)
    asked = []

    def ask() -> None:
        asked.append(1)
        raise error

    with pytest.raises(type(error)):
        http.retrying(ask)
    assert len(asked) == attempts
