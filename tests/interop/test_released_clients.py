"""Released clients against our gateway: Python API and console scripts, 0.4.2 and 0.4.10."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rigs.gateway import OPEN, PRIVATE
from rigs.person import Person
from rigs.release import Client, ClientFailed, Release

if TYPE_CHECKING:
    from collections.abc import Callable

    from rigs.gateway import Gateway

    Machine = Callable[..., Client]

EMPTY = "da39a3ee5e6b4b0d3255bfef95601890afd80709"


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def something(path: Path, size: int = 100_000) -> tuple[Path, str]:
    """A file that nobody has stored yet, and its hash."""
    data = os.urandom(size)
    path.write_bytes(data)
    return path, sha1(data)


def test_the_release_is_the_released_one(release: Release) -> None:
    # the tests below would prove nothing if both sides ran the same program
    code = (
        "from importlib import metadata; import kachery_cloud as k; "
        "print(k.__file__, *metadata.packages_distributions())"
    )
    done = subprocess.run([release.python, "-I", "-c", code], capture_output=True, text=True, check=True)
    path, *packages = done.stdout.split()

    assert Path(path).is_relative_to(release.prefix)
    assert "kachery_cloud" in packages
    assert "kachery" not in packages


def test_registration_through_the_page(gateway: Gateway, alice: Person, release: Release, tmp_path: Path) -> None:
    client = Client(release, tmp_path / "kachery-cloud", {"KACHERY_GATEWAY_URL": gateway.url, "KACHERY_ZONE": OPEN})

    said = alice.initialize(client)

    client_id = client.call("get_client_id")
    assert client_id in said
    assert "alice" in said
    # a second time there is nothing to do: no link, no question
    again = client.output("kachery-cloud-init")
    assert "alice" in again
    assert "/registerClient/" not in again
    path, hash_ = something(tmp_path / "after registration.bin")
    assert client.call("store_file", str(path)) == f"sha1://{hash_}"
    assert (client.directory / "private.pem").stat().st_mode & 0o077 == 0


def test_registration_in_a_private_zone(gateway: Gateway, alice: Person, release: Release, tmp_path: Path) -> None:
    client = Client(release, tmp_path / "kachery-cloud", {"KACHERY_GATEWAY_URL": gateway.url, "KACHERY_ZONE": PRIVATE})

    assert "alice" in alice.initialize(client)

    path, hash_ = something(tmp_path / "private.bin")
    assert client.call("store_file", str(path)) == f"sha1://{hash_}"


def test_an_invitation_is_used_once(gateway: Gateway) -> None:
    guest = Person(gateway, "guest-of-the-lab")
    guest.accept_invitation()

    thief = Person.__new__(Person)
    thief.__dict__.update(guest.__dict__)
    thief.browser = type(guest.browser)()
    page = thief.browser.visit(guest.invitation)

    assert page.status >= 400
    assert not any("password" in form.fields for form in page.forms if form.action == guest.invitation)


@pytest.mark.parametrize("reader", ["the same release", "ours"])
def test_commands(machine: Machine, alice: Person, release: Release, reader: str, tmp_path: Path) -> None:
    writer = machine(release, alice)
    second = machine(release if reader == "the same release" else None, alice)
    path, hash_ = something(tmp_path / "a recording.bin")

    uri = writer.output("kachery-cloud-store", str(path))
    assert uri == f"sha1://{hash_}?label=a%20recording.bin"

    loaded = Path(second.output("kachery-cloud-load", uri))
    assert loaded == second.directory / "sha1" / hash_[:2] / hash_[2:4] / hash_[4:6] / hash_
    assert loaded.read_bytes() == path.read_bytes()

    info = json.loads(second.output("kachery-cloud-load-info", uri))
    assert info["found"] is True
    assert info["size"] == path.stat().st_size

    catted = machine(second.release, alice).run("kachery-cloud-cat", uri)
    assert catted.returncode == 0
    assert catted.stdout == path.read_bytes()

    destination = tmp_path / "copy.bin"
    assert second.output("kachery-cloud-load", uri, "--dest", str(destination)) == str(destination)
    assert destination.read_bytes() == path.read_bytes()

    labelled = writer.output("kachery-cloud-store", str(path), "--label", "b&c.bin")
    assert labelled == f"sha1://{hash_}?label=b%26c.bin"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", "voltage clamp, é, 膜電位"),
        ("json", {"b": "é", "a": [1, 2.5, None, True]}),
        ("npy", {"ndarray": [[1, 2, 3], [4, 5, 6]], "dtype": "int16"}),
    ],
)
@pytest.mark.parametrize("direction", ["between releases", "to ours", "from ours"])
def test_values(machine: Machine, alice: Person, release: Release, kind: str, value: Any, direction: str) -> None:
    writer = machine(None if direction == "from ours" else release, alice)
    reader = machine(None if direction == "to ours" else release, alice)

    uri = writer.call(f"store_{kind}", value, label="x")

    assert uri.endswith("?label=x")
    assert reader.call(f"load_{kind}", uri) == value


def test_pickles(machine: Machine, alice: Person, release: Release) -> None:
    value = {"rate": 50_000.0, "units": ["A", "s"], "gain": 2}

    uri = machine(release, alice).call("store_pkl", value)

    assert machine(release, alice).call("load_pkl", uri) == value
    assert machine(None, alice).call("load_pkl", uri) == value


def test_ranges_of_a_file(machine: Machine, alice: Person, release: Release, tmp_path: Path) -> None:
    path, _ = something(tmp_path / "ranges.bin", 5_000)
    uri = machine(release, alice).call("store_file", str(path))

    got = machine(release, alice).call("load_bytes", uri, 100, 200)

    assert base64.b64decode(got["base64"]) == path.read_bytes()[100:200]


@pytest.mark.parametrize("interface", ["command", "function"])
def test_an_empty_file(machine: Machine, alice: Person, release: Release, interface: str, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    writer, reader = machine(release, alice), machine(release, alice)

    if interface == "command":
        uri = writer.output("kachery-cloud-store", str(path))
        loaded = Path(reader.output("kachery-cloud-load", uri))
    else:
        uri = writer.call("store_file", str(path))
        loaded = Path(reader.call("load_file", uri))

    assert uri.startswith(f"sha1://{EMPTY}")
    assert loaded.read_bytes() == b""
    assert reader.call("load_file_info", uri)["size"] == 0


def test_storing_twice_sends_once(machine: Machine, alice: Person, release: Release, tmp_path: Path) -> None:
    path, _ = something(tmp_path / "twice.bin")

    first = machine(release, alice).call("store_file", str(path))
    second = machine(release, alice).call("store_file", str(path))

    assert first == second


def test_what_nobody_has_is_not_found(machine: Machine, alice: Person, release: Release) -> None:
    client = machine(release, alice)
    uri = "sha1://" + sha1(os.urandom(16))

    assert client.call("load_file", uri) is None
    assert client.call("load_file_info", uri) is None
    assert client.output("kachery-cloud-load", uri) == ""


def test_a_private_zone(machine: Machine, alice: Person, release: Release, tmp_path: Path) -> None:
    path, hash_ = something(tmp_path / "unpublished.bin")
    uri = machine(release, alice, PRIVATE).output("kachery-cloud-store", str(path))

    loaded = machine(release, alice, PRIVATE).output("kachery-cloud-load", uri)

    assert sha1(Path(loaded).read_bytes()) == hash_
    # one zone's files are not another's
    assert machine(release, alice, OPEN).call("load_file", uri) is None


def test_a_client_without_rights(
    machine: Machine, alice: Person, mallory: Person, release: Release, tmp_path: Path
) -> None:
    path, hash_ = something(tmp_path / "secret.bin")
    uri = machine(release, alice, PRIVATE).call("store_file", str(path))
    stranger = machine(release, mallory, PRIVATE)

    for function in ("load_file", "load_file_info"):
        with pytest.raises(ClientFailed) as refused:
            stranger.call(function, uri)
        assert "findFile" in refused.value.message
    # the refusal does not tell whether the file exists
    with pytest.raises(ClientFailed) as other:
        stranger.call("load_file_info", "sha1://" + sha1(os.urandom(16)))
    assert other.value.message == refused.value.message
    assert stranger.run("kachery-cloud-load", uri).returncode != 0
    assert hash_ not in "".join(os.listdir(stranger.directory))

    for zone in (OPEN, PRIVATE):
        client = machine(release, mallory, zone)
        with pytest.raises(ClientFailed) as refused:
            client.call("store_file", str(something(tmp_path / "mine.bin")[0]))
        assert "initiateFileUpload" in refused.value.message
        stored = client.run("kachery-cloud-store", str(path))
        assert stored.returncode != 0
        assert stored.stdout == b""


def test_a_right_that_is_revoked(
    gateway: Gateway, machine: Machine, mallory: Person, release: Release, tmp_path: Path
) -> None:
    client = machine(release, mallory)
    gateway.admin("grant", "mallory", "--zone", OPEN, "upload")
    try:
        path, hash_ = something(tmp_path / "granted.bin")
        assert client.call("store_file", str(path)) == f"sha1://{hash_}"
    finally:
        gateway.admin("revoke", "mallory", "--zone", OPEN, "upload")

    with pytest.raises(ClientFailed):
        client.call("store_file", str(something(tmp_path / "revoked.bin")[0]))


def test_a_client_that_nobody_registered(machine: Machine, alice: Person, release: Release, tmp_path: Path) -> None:
    path, hash_ = something(tmp_path / "public.bin")
    uri = machine(release, alice).call("store_file", str(path))
    unknown = machine(release, None)
    unknown.make_keys()

    # what anybody may read, they may
    assert sha1(Path(unknown.call("load_file", uri)).read_bytes()) == hash_
    with pytest.raises(ClientFailed):
        unknown.call("store_file", str(something(tmp_path / "unknown.bin")[0]))
    if release.version != "0.4.2":
        assert unknown.call("get_client_info") is None


def test_client_info(machine: Machine, alice: Person, release: Release) -> None:
    client = machine(release, alice)
    client_id = client.call("get_client_id")

    said = client.output("kachery-cloud-init")
    assert client_id in said
    assert "alice" in said
    if release.version == "0.4.2":
        # the function is younger than this release
        return
    info = client.call("get_client_info")
    assert info["found"] is True
    assert info["client"]["clientId"] == client_id
    assert info["client"]["ownerId"] == "alice"
    assert "privateKeyHex" not in info["client"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_gibibytes(machine: Machine, alice: Person, release: Release, tmp_path: Path) -> None:
    path = tmp_path / "long.bin"
    digest = hashlib.sha1(usedforsecurity=False)
    block = os.urandom(1 << 20)
    with path.open("wb") as stream:
        for number in range(2048):
            piece = number.to_bytes(8) + block[8:]
            digest.update(piece)
            stream.write(piece)

    # above 100 MB they say on stdout that they compute a hash; the URI comes last
    uri = machine(release, alice).output("kachery-cloud-store", str(path), timeout=600).splitlines()[-1]
    assert uri == f"sha1://{digest.hexdigest()}?label=long.bin"
    path.unlink()

    reader = machine(release, alice)
    loaded = Path(reader.output("kachery-cloud-load", uri, timeout=600).splitlines()[-1])
    assert loaded.stat().st_size == 2 << 30
    with loaded.open("rb") as stream:
        assert hashlib.file_digest(stream, "sha1").hexdigest() == digest.hexdigest()
    loaded.unlink()
