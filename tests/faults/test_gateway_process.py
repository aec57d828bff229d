"""A real gateway process: starting, ending, starting twice, being administered while it runs."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rigs.gateway import KACHERY, Gateway, free_port
from rigs.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A running gateway with the zone `lab`."""
    with Gateway(tmp_path / "gateway") as running:
        yield running


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A running gateway for tests that change nothing."""
    with Gateway(tmp_path_factory.mktemp("unchanged")) as running:
        yield running


def run(*arguments: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.defpath,
        "HOME": str(home),
        "KACHERY_CLOUD_DIR": str(home / "kachery-cloud"),
        "LANG": "C.UTF-8",
        **variables,
    }
    return subprocess.run(
        [str(KACHERY), *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_data_directory_is_nobody_elses(unchanged: Gateway) -> None:
    for path in (unchanged.data, unchanged.data / "kachery.sqlite", unchanged.data / "gateway.lock"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_the_first_start_says_how_to_sign_in_and_the_next_does_not(gateway: Gateway) -> None:
    first = gateway.log.read_text()
    assert first.count(f"{gateway.url}/invitation/") == 1
    assert gateway.stop() == 0
    gateway.log.write_text("")

    gateway.start()

    assert "/invitation/" not in gateway.log.read_text()


def test_this_machine_is_configured_and_registered(gateway: Gateway, tmp_path: Path) -> None:
    directory = tmp_path / "gateway" / "administrator"
    config = json.loads((directory / "kachery.json").read_text())
    assert config == {"gateway_url": gateway.url, "zone": "lab"}

    (client,) = json.loads(gateway.admin("client", "list", "--json"))

    assert client["zone"] == "lab"
    (user,) = json.loads(gateway.admin("user", "list", "--json"))
    assert user == {"name": client["owner"], "administrator": True, "password": False}


def test_a_configured_machine_keeps_its_gateway(gateway: Gateway, tmp_path: Path) -> None:
    config = tmp_path / "gateway" / "administrator" / "kachery.json"
    config.write_text('{"gateway_url": "https://kachery.example.org", "zone": "mine"}')
    gateway.stop()
    gateway.start()

    assert json.loads(config.read_text()) == {"gateway_url": "https://kachery.example.org", "zone": "mine"}


def test_a_second_gateway_on_the_same_data_is_refused(unchanged: Gateway, tmp_path: Path) -> None:
    done = run("up", "--data", str(unchanged.data), "--port", "0", home=tmp_path)

    assert done.returncode == 10
    assert done.stdout == ""
    assert "error: another gateway runs on" in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_refused_and_leaves_no_trace(unchanged: Gateway, tmp_path: Path) -> None:
    done = run("up", "--data", str(tmp_path / "other"), "--port", str(unchanged.port), home=tmp_path)

    assert done.returncode == 10
    assert f"error: port {unchanged.port} of 127.0.0.1 is in use" in done.stderr
    assert not (tmp_path / "other" / "kachery.sqlite").exists()
    assert not (tmp_path / "kachery-cloud").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--host", "203.0.113.7"], 2, "not an address of this machine"),
        (["--host", "no such host"], 2, "cannot listen on"),
        (["--zone", "../x"], 2, "not a zone name"),
        (["--log-level", "loud"], 2, "unknown log level"),
        (["--public-url", "ftp://x"], 2, "not an address that a gateway can have"),
        (["--data", "/proc/nothing"], 3, "could not write to /proc/nothing"),
        (["--port", "70000"], 2, "--port"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    done = run("up", "--data", str(tmp_path / "data"), "--port", "0", *arguments, home=tmp_path)

    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_data_directory_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kachery.sqlite").write_bytes(b"this is not a database, whatever its name says" * 100)

    done = run("up", "--data", str(tmp_path / "data"), "--port", "0", home=tmp_path)

    assert done.returncode == 9
    assert "is not a database of kachery" in done.stderr


def test_data_of_a_newer_release(gateway: Gateway, tmp_path: Path) -> None:
    gateway.stop()
    connection = sqlite3.connect(gateway.data / "kachery.sqlite")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()

    done = run("up", "--data", str(gateway.data), "--port", "0", home=tmp_path)

    assert done.returncode == 9
    assert "newer kachery" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_it_is_told(gateway: Gateway, number: signal.Signals) -> None:
    # a connection that is kept open must not keep the gateway
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    connection.request("GET", "/probe")
    assert json.loads(connection.getresponse().read())["kachery"] == "gateway"

    assert gateway._end(number) == 0

    connection.close()
    assert "Traceback" not in gateway.log.read_text()
    gateway.start()


def test_counts_are_written_at_the_end(gateway: Gateway) -> None:
    sender = Sender(gateway, gateway.zone)
    hash_ = sender.store(b"counted")
    assert sender.load(hash_) == b"counted"
    gateway.stop()

    lines = json.loads(gateway.admin("usage", "--zone", "lab", "--json"))

    assert sum(line["uploads"] for line in lines) == 1
    assert sum(line["upload_bytes"] for line in lines) == 7
    assert sum(line["downloads"] for line in lines) == 1
    assert sum(line["download_bytes"] for line in lines) == 7


def test_administration_while_it_runs(gateway: Gateway, tmp_path: Path) -> None:
    gateway.admin("zone", "create", "unpublished", "--private")
    link = gateway.admin("user", "add", "alice")
    assert re.fullmatch(rf"{gateway.url}/invitation/[\w-]+", link)
    sender = Sender(gateway, "unpublished", owner="alice")
    assert sender.call("findFile", hashAlg="sha1", hash="0" * 40)[0] == 500

    gateway.admin("grant", "alice", "--zone", "unpublished", "upload,download")
    assert sender.load(sender.store(b"private")) == b"private"

    gateway.admin("revoke", "alice", "--zone", "unpublished", "upload,download")
    assert sender.call("findFile", hashAlg="sha1", hash="0" * 40)[0] == 500
    gateway.admin("grant", "alice", "--zone", "unpublished", "admin")
    gateway.admin("client", "remove", sender.keys.client_id)
    assert sender.call("findFile", hashAlg="sha1", hash="0" * 40)[0] == 500
    listed = {zone["zone"]: zone for zone in json.loads(gateway.admin("zone", "list", "--json"))}
    assert listed["unpublished"]["files"] == 1
    assert listed["unpublished"]["public_download"] is False
    assert listed["lab"]["public_download"] is True


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["user", "add", "../x"], 2, "not a user name"),
        (["user", "invite", "nobody"], 3, "no user 'nobody'"),
        (["zone", "create", "lab"], 10, "there is a zone 'lab' already"),
        (["zone", "create", "a/b"], 2, "not a zone name"),
        (["grant", "nobody", "upload"], 3, "no zone 'default'"),
        (["grant", "nobody", "--zone", "lab", "upload"], 3, "no user 'nobody'"),
        (["grant", "nobody", "--zone", "lab", "uplaod"], 2, "unknown right 'uplaod'"),
        (["client", "add", "abc", "--owner", "nobody", "--zone", "lab"], 2, "not a client id"),
        (["client", "add", "a" * 64, "--owner", "nobody", "--zone", "lab"], 3, "no user 'nobody'"),
        (["client", "remove", "a" * 64], 3, "is not registered"),
        (["usage", "--zone", "nowhere"], 3, "no zone 'nowhere'"),
        (["resource", "remove", "rig", "--zone", "lab"], 3, "no resource 'rig'"),
        (["resource", "add", "rig", "not-an-address", "--owner", "nobody", "--zone", "lab"], 2, "not the address"),
    ],
)
def test_bad_administration(unchanged: Gateway, tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    done = run("admin", "--data", str(unchanged.data), *arguments, home=tmp_path)

    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_administration_of_nothing(tmp_path: Path) -> None:
    done = run("admin", "--data", str(tmp_path / "nothing"), "zone", "list", home=tmp_path)

    assert done.returncode == 9
    assert "no gateway's data" in done.stderr
    assert not (tmp_path / "nothing").exists()


def test_the_data_directory_comes_from_the_environment(unchanged: Gateway, tmp_path: Path) -> None:
    done = run("admin", "zone", "list", home=tmp_path, KACHERY_DATA=str(unchanged.data))
    assert "lab" in done.stdout


def test_resources(gateway: Gateway) -> None:
    (user,) = json.loads(gateway.admin("user", "list", "--json"))
    gateway.admin("resource", "add", "rig-3", "https://proxy.example.org", "--owner", user["name"], "--zone", "lab")
    (resource,) = json.loads(gateway.admin("resource", "list", "--zone", "lab", "--json"))
    assert resource["proxy_url"] == "https://proxy.example.org"
    gateway.admin("resource", "remove", "rig-3", "--zone", "lab")
    assert json.loads(gateway.admin("resource", "list", "--zone", "lab", "--json")) == []


def test_an_interrupted_upload_is_continued_after_kill(gateway: Gateway) -> None:
    sender = Sender(gateway, gateway.zone)
    content = os.urandom(3_000_000)
    url = sender.begin(content, parts=True)
    assert sender.part(url, content, 0, 1_000_000) == 200
    gateway.kill()
    gateway.start()

    url = sender.begin(content, parts=True)
    assert sender.get_json(url) == {"size": 3_000_000, "received": [[0, 1_000_000]]}
    assert sender.part(url, content, 1_000_000, 3_000_000) == 200
    assert sender.finalize(content) == 200
    assert sender.load(sender.sha1(content)) == content


def test_strangers_who_say_nothing_keep_nobody_waiting(gateway: Gateway) -> None:
    silent = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(20)]
    for index, connection in enumerate(silent):
        connection.sendall(b"POST /api/gateway HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"[: 10 + 4 * index])
    sender = Sender(gateway, gateway.zone)
    url = sender.begin(b"z" * 2_000_000)
    slow = socket.create_connection(("127.0.0.1", gateway.port))
    slow.sendall(
        f"PUT {url.split(str(gateway.port))[1]} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\nzzz".encode()
    )

    assert sender.load(sender.store(b"meanwhile")) == b"meanwhile"

    for connection in (*silent, slow):
        connection.close()


def test_a_truncated_upload_leaves_nothing(gateway: Gateway) -> None:
    sender = Sender(gateway, gateway.zone)
    content = os.urandom(4_000_000)
    url = sender.begin(content)
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        head = f"PUT {url.split(str(gateway.port))[1]} HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n"
        connection.sendall(head.encode() + content[:2_000_000])
    assert sender.finalize(content) == 500
    assert sender.put(url, content) == 200
    assert sender.finalize(content) == 200
    staging = gateway.data / "buckets" / "default" / "staging"
    sender.wait_until(lambda: not list(staging.iterdir()))


def test_a_refused_upload_gets_its_answer(gateway: Gateway) -> None:
    # an answer that comes while the body is still being sent must not be lost in a broken connection
    sender = Sender(gateway, gateway.zone)
    content = os.urandom(8_000_000)
    url = sender.begin(content)
    for wrong in (content[:-1] + b"!", content + b"!", content[:-1]):
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
        connection.request("PUT", url.split(str(gateway.port))[1], wrong)
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        assert reply.status == 422, text
        assert "content has" in text


def test_logs_hold_no_secrets(gateway: Gateway) -> None:
    sender = Sender(gateway, gateway.zone)
    hash_ = sender.store(b"secret?")
    status, found = sender.call("findFile", hashAlg="sha1", hash=hash_)
    assert status == 200
    assert sender.load(hash_) == b"secret?"
    token = found["url"].split("/")[-2]
    link = gateway.admin("user", "add", "alice")
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    for path in (
        f"/transfer/d/{token}x/{hash_}",
        link.split(str(gateway.port))[1],
        "/nothing?signature=abcdef0123456789",
    ):
        connection.request("GET", path)
        connection.getresponse().read()
    connection.close()
    gateway.stop()

    lines: list[Any] = [line for line in gateway.log.read_text().splitlines() if line.startswith("{")]
    said = "\n".join(lines)
    assert len(lines) >= 3
    for line in lines:
        assert {"event", "level", "timestamp"} <= set(json.loads(line))
    for secret in (token, link.rsplit("/", 1)[-1], "abcdef0123456789", sender.last_signature):
        assert secret not in said


def test_memory_does_not_grow_with_the_file(gateway: Gateway) -> None:
    sender = Sender(gateway, gateway.zone)
    size = 400_000_000
    sha1, url = sender.begin_zeros(size)
    sender.put_zeros(url, size)
    assert sender.finalize_size(sha1, size) == 200
    assert sender.discard(sha1) == size

    status = Path(f"/proc/{gateway.pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    assert int(peak[1]) * 1024 < 150_000_000


def test_help_is_quick_to_import() -> None:
    # the server's packages are not needed to say what there is
    heavy = ["sqlalchemy", "starlette", "uvicorn", "jinja2", "alembic", "structlog"]
    code = f"import sys, kachery.cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_any_address_is_not_given_to_others(tmp_path: Path) -> None:
    port = free_port()
    process = subprocess.Popen(
        [str(KACHERY), "up", "--data", str(tmp_path / "data"), "--host", "0.0.0.0", "--port", str(port)],
        env={"PATH": os.defpath, "HOME": str(tmp_path), "KACHERY_CLOUD_DIR": str(tmp_path / "kc")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"ready http://0.0.0.0:{port}\n"
        recorded = json.loads((tmp_path / "data" / "gateway.json").read_text())
        assert recorded["url"] == f"http://{socket.gethostname()}:{port}"
    finally:
        process.terminate()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
