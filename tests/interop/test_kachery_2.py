"""Released kachery 2.x against our gateway: Python API and console scripts, 2.0.1, 2.0.2 and 2.0.3."""

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
from rigs.release import Client, ClientFailed, Release, installed

if TYPE_CHECKING:
    from collections.abc import Callable

    from rigs.gateway import Gateway
    from rigs.person import Person

    Program = Callable[..., Client]

EMPTY = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
TEXT = "d9e989f651cdd269d7f9bb8a215d024d8d283688"
MB = 10**6


@pytest.fixture(scope="session", params=["2.0.1", "2.0.2", "2.0.3"])
def release(request: pytest.FixtureRequest) -> Release:
    """A released client, unmodified, in an environment of its own."""
    return installed(request.param)


@pytest.fixture(scope="session")
def newest() -> Release:
    """2.0.3."""
    return installed("2.0.3")


@pytest.fixture
def program(gateway: Gateway, alice: Person, tmp_path: Path) -> Program:
    """Makes a user's machine: a directory of its own, set up for a zone.

    Called with the release, the person whose key it has (`None` for a machine without one) and the zone.
    """
    count = 0

    def make(release: Release, person: Person | None = None, zone: str = OPEN, **environment: str) -> Client:
        nonlocal count
        count += 1
        home = tmp_path / f"home-{count}"
        home.mkdir()
        # 2.0.1 knows no other server than upstream's
        address = "INSTEAD_OF_VERCEL" if release.version == "2.0.1" else "KACHERY_BASE_URL"
        variables = {"KACHERY_DIR": str(home / ".kachery"), address: gateway.url, "KACHERY_ZONE": zone}
        if person is not None:
            variables["KACHERY_API_KEY"] = gateway.admin("api-key", "add", person.name)
        return Client(release, home / ".kachery", {**variables, **environment})

    return make


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def something(path: Path, size: int = 100_000) -> tuple[Path, str]:
    """A file that nobody has stored yet, and its hash."""
    data = os.urandom(size)
    path.write_bytes(data)
    return path, sha1(data)


def uri_of(release: Release, hash_: str, label: str, zone: str = OPEN) -> str:
    """What a release makes of a file that it has just stored."""
    if release.version == "2.0.1":
        # it says the label twice
        return f"sha1://{hash_}?label={label}?label={label}"
    return f"kachery:{zone}:sha1:{hash_}:{label}"


def test_the_release_is_the_released_one(release: Release) -> None:
    code = "import kachery; print(kachery.__version__, kachery.__file__)"
    done = subprocess.run([release.python, "-I", "-c", code], capture_output=True, text=True, check=True)
    version, path = done.stdout.split()
    assert version == release.version
    assert Path(path).is_relative_to(release.prefix)


def test_a_file_goes_in_and_comes_out(
    program: Program, alice: Person, release: Release, newest: Release, tmp_path: Path
) -> None:
    here, elsewhere = program(release, alice), program(newest)
    path, hash_ = something(tmp_path / "recording.bin")

    uri = here.call("store_file", str(path), label="recording.bin")

    assert uri == uri_of(release, hash_, "recording.bin")
    loaded = Path(elsewhere.call("load_file", uri))
    assert loaded.read_bytes() == path.read_bytes()
    assert here.call("store_file", str(path), label="recording.bin").startswith(uri[:50]), "a second time"


def test_values_have_the_same_hashes(program: Program, alice: Person, newest: Release) -> None:
    here, elsewhere = program(newest, alice), program(newest)
    array = {"ndarray": [[1, 2, 3], [4, 5, 6]], "dtype": "int16"}

    text = here.call("store_text", "example text", label="example.txt")
    document = here.call("store_json", {"example": "dict"})
    numbers = here.call("store_npy", array)

    assert text == f"kachery:{OPEN}:sha1:{TEXT}:example.txt"
    assert document.split(":")[3] == "d0d9555e376ff13a08c6d56072808e27ca32d54a"
    assert numbers.split(":")[3] == "bb55205a2482c6db2ace544fc7d8397551110701"
    assert elsewhere.call("load_text", text) == "example text"
    assert elsewhere.call("load_json", document) == {"example": "dict"}
    assert elsewhere.call("load_npy", numbers) == array
    assert elsewhere.call("load_bytes", text, 0, 7) == {"base64": base64.b64encode(b"example").decode()}
    # the type of URI before 2.0.2
    assert here.call("store_text", "example text", label="example.txt", uri_type=1) == (
        f"sha1://{TEXT}?label=example.txt"
    )
    assert elsewhere.call("load_text", f"sha1://{TEXT}?label=example.txt") == "example text"


def test_an_empty_file(program: Program, alice: Person, release: Release, newest: Release, tmp_path: Path) -> None:
    here = program(release, alice)
    (tmp_path / "empty").touch()
    here.call("store_file", str(tmp_path / "empty"), label="empty")
    loaded = program(newest).call("load_file", f"kachery:{OPEN}:sha1:{EMPTY}:empty")
    assert Path(loaded).read_bytes() == b""


def test_a_big_file(program: Program, alice: Person, newest: Release, tmp_path: Path) -> None:
    path, hash_ = something(tmp_path / "big", 150 * MB)
    uri = program(newest, alice).call("store_file", str(path))
    dest = tmp_path / "copy"
    assert program(newest).call("load_file", uri, dest=str(dest)) == str(dest)
    assert sha1(dest.read_bytes()) == hash_


def test_information(program: Program, alice: Person, newest: Release, tmp_path: Path) -> None:
    path, hash_ = something(tmp_path / "x", 1234)
    here = program(newest, alice)
    uri = here.call("store_file", str(path))
    info = here.call("load_file_info", uri)
    assert (info["found"], info["size"]) == (True, 1234)
    assert info["objectKey"].endswith(f"/sha1/{hash_[:2]}/{hash_[2:4]}/{hash_[4:6]}/{hash_}")
    assert here.call("load_file_info", f"kachery:{OPEN}:sha1:{'0' * 40}") is None


def test_what_is_not_there(program: Program, alice: Person, release: Release) -> None:
    absent = f"sha1://{sha1(os.urandom(8))}"
    assert program(release, alice).call("load_file", absent) is None
    assert program(release).call("load_file", absent) is None


def test_a_private_zone(program: Program, alice: Person, mallory: Person, newest: Release, tmp_path: Path) -> None:
    path, _ = something(tmp_path / "x")
    member, stranger, nobody = (program(newest, who, PRIVATE) for who in (alice, mallory, None))
    stale = program(newest, None, PRIVATE, KACHERY_API_KEY="x" * 32)
    uri = member.call("store_file", str(path))
    assert uri.startswith(f"kachery:{PRIVATE}:")
    assert Path(program(newest, alice).call("load_file", uri)).read_bytes() == path.read_bytes()

    for client, text in (
        (stranger, "(401) Unauthorized: "),
        (nobody, "User API token must be provided when zone does not allow public download"),
        (stale, "Unauthorized - no user for token"),
    ):
        with pytest.raises(ClientFailed, match="findFileRequest") as told:
            client.call("load_file", uri)
        assert text in told.value.message
    # in the open zone nobody finds it
    assert program(newest).call("load_file", uri.replace(PRIVATE, OPEN)) is None


def test_who_may_not_store(program: Program, alice: Person, mallory: Person, newest: Release, tmp_path: Path) -> None:
    path, hash_ = something(tmp_path / "x")
    for client, text in (
        (program(newest, mallory), "This user is not allowed to upload files to this zone"),
        (program(newest, None, KACHERY_API_KEY="x" * 32), "Unauthorized - no user for token"),
        (program(newest, alice, "nowhere"), "Zone not found: nowhere"),
    ):
        with pytest.raises(ClientFailed) as told:
            client.call("store_file", str(path))
        assert text in told.value.message
    with pytest.raises(ClientFailed):
        program(newest).call("store_file", str(path))
    with pytest.raises(ClientFailed, match="token must be provided for zone scratch"):
        program(newest, None, "scratch").call("store_file", str(path))
    assert program(newest).call("load_file", f"sha1://{hash_}") is None


def test_a_stale_key_does_not_close_the_open_zone(
    program: Program, alice: Person, newest: Release, tmp_path: Path
) -> None:
    path, _ = something(tmp_path / "x")
    uri = program(newest, alice).call("store_file", str(path))
    stale = program(newest, None, KACHERY_API_KEY="x" * 32)
    assert Path(stale.call("load_file", uri)).read_bytes() == path.read_bytes()


def test_what_2_0_3_sends_for_the_public_zones(
    gateway: Gateway, program: Program, alice: Person, newest: Release, tmp_path: Path
) -> None:
    if "default " not in gateway.admin("zone", "list"):
        gateway.admin("zone", "create", "default")
    gateway.admin("grant", "alice", "--zone", "default", "upload")
    path, hash_ = something(tmp_path / "x")
    client = program(newest, alice, "default", KACHERY_ALLOW_PUBLIC_ZONES="1")
    assert client.call("store_file", str(path)) == f"kachery:default:sha1:{hash_}"


def test_caching_locally(program: Program, alice: Person, newest: Release, tmp_path: Path) -> None:
    path, hash_ = something(tmp_path / "x")
    data = path.read_bytes()
    here = program(newest, alice)
    uri = here.call("store_file", str(path), cache_locally=True)
    assert uri == f"kachery:{OPEN}:sha1:{hash_}"
    assert Path(program(newest).call("load_file", uri)).read_bytes() == data


def test_the_console_scripts(program: Program, alice: Person, newest: Release, tmp_path: Path) -> None:
    path, hash_ = something(tmp_path / "rig 2.bin", 5000)
    here, elsewhere = program(newest, alice), program(newest)

    uri = here.output("kachery-store", str(path))

    assert uri == f"kachery:{OPEN}:sha1:{hash_}:rig%202.bin"
    assert Path(elsewhere.output("kachery-load", uri).splitlines()[-1]).read_bytes() == path.read_bytes()
    dest = tmp_path / "dest.bin"
    assert elsewhere.output("kachery-load", uri, "--dest", str(dest)).splitlines()[-1] == str(dest)
    assert dest.read_bytes() == path.read_bytes()
    assert program(newest).run("kachery-cat", uri).stdout == path.read_bytes()
    info = json.loads(elsewhere.output("kachery-load-info", uri))
    assert (info["found"], info["size"]) == (True, 5000)
    assert here.output("kachery", "store-file", str(path), "--label", "other") == f"kachery:{OPEN}:sha1:{hash_}:other"
    refused = program(newest, None, PRIVATE).run("kachery-load", uri.replace(OPEN, PRIVATE))
    assert refused.returncode == 1
    assert b"User API token must be provided" in refused.stderr


def test_ours_and_theirs_share_a_zone(
    machine: Callable[..., Any], program: Program, alice: Person, newest: Release, tmp_path: Path
) -> None:
    path, hash_ = something(tmp_path / "theirs")
    uri = program(newest, alice).call("store_file", str(path))
    ours = machine(None, None)
    copy = tmp_path / "copy"
    ours.output("kachery", "load", uri, "--dest", str(copy))
    assert copy.read_bytes() == path.read_bytes()
    path, hash_ = something(tmp_path / "ours")
    machine(None, alice).output("kachery", "store", str(path))
    loaded = program(newest).call("load_file", f"sha1://{hash_}/ours")
    assert Path(loaded).read_bytes() == path.read_bytes()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    ours.output("kachery", "load", f"sha256://{sha256}", "--dest", str(tmp_path / "by sha256"))
    assert (tmp_path / "by sha256").read_bytes() == path.read_bytes()


def test_a_file_is_stored_and_found_by_its_md5(
    machine: Callable[..., Any], alice: Person, gateway: Gateway, tmp_path: Path
) -> None:
    path, _ = something(tmp_path / "recording.bin", 3 * MB)
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    here, elsewhere = machine(None, alice), machine(None, None)
    store = (
        "import sys, kachery; by = {'algorithm': 'md5'}; "
        "print(kachery.store_file(sys.argv[1], **by), kachery.store_text('é', **by))"
    )
    load = "import sys, kachery; print(kachery.load_file(sys.argv[1]), kachery.load_text(sys.argv[2]))"
    uri, text = here.output("python", "-c", store, str(path)).split()
    assert uri == f"md5://{md5}/recording.bin"
    loaded, said = elsewhere.output("python", "-c", load, uri, text).split()
    assert Path(loaded).read_bytes() == path.read_bytes()
    assert said == "é"
    missing = elsewhere.run("python", "-c", load, f"md5://{'0' * 32}", text)
    assert b"does not have it" in missing.stderr
