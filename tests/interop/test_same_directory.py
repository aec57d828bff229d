"""Our `kachery_cloud` and the released ones on one directory: what either writes, the other reads."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rigs.release import Client, ClientFailed, Release, ours

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = b"test-content\n"
# the releases keep the hashes of files above a million bytes
LARGE = bytes(range(256)) * 8_000

RECORDS = ("sha1", "linked_files", "mutables")


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@pytest.fixture(params=["they write", "we write"])
def pair(request: pytest.FixtureRequest, release: Release, tmp_path: Path) -> tuple[Client, Client]:
    """Who writes and who reads, on one directory, with no gateway to ask."""
    directory = tmp_path / "shared"
    # nobody listens on port 1
    clients = [Client(one, directory, {"KACHERY_GATEWAY_URL": "http://127.0.0.1:1"}) for one in (release, ours())]
    writer, reader = clients if request.param == "they write" else reversed(clients)
    return writer, reader


@pytest.fixture(params=[SMALL, LARGE, b""], ids=["small", "large", "empty"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "a b&c=é.dat"
    path.write_bytes(request.param)
    return path


def blob(directory: Path, hash_: str) -> Path:
    return directory / "sha1" / hash_[:2] / hash_[2:4] / hash_[4:6] / hash_


def link(directory: Path, hash_: str) -> Path:
    return directory / "linked_files" / "sha1" / hash_[:2] / hash_[2:4] / hash_[4:6] / hash_


def test_files(pair: tuple[Client, Client], source: Path, tmp_path: Path) -> None:
    writer, reader = pair
    uri = writer.call("store_file_local", str(source), label=source.name)

    path = reader.call("load_file", uri)

    assert path == str(blob(writer.directory, sha1(source.read_bytes())))
    assert Path(path).read_bytes() == source.read_bytes()
    assert reader.call("load_file", uri, dest=str(tmp_path / "copy")) == str(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    # and storing it again from the other side changes nothing
    before = Path(path).stat()
    assert reader.call("store_file_local", str(source), label=source.name) == uri
    assert Path(path).stat().st_ino == before.st_ino


def test_values(pair: tuple[Client, Client]) -> None:
    writer, reader = pair
    array = {"ndarray": [[1.5, -2.0], [0.0, 4.0]], "dtype": "float32"}
    values: list[tuple[str, Any]] = [
        ("text", "a\nb\tç 🧠"),
        ("json", {"b": [1, 2.5, None, True], "a": {"é": "\x7f"}}),
        ("npy", array),
    ]
    for kind, value in values:
        uri = writer.call(f"store_{kind}", value, local=True)
        assert reader.call(f"store_{kind}_local", value) == uri
        assert reader.call(f"load_{kind}", uri, local_only=True) == value


def test_pickles(pair: tuple[Client, Client]) -> None:
    writer, reader = pair
    value = {"a": [1, 2.5, "x", None], "b": {"c": True}}

    assert reader.call("load_pkl", writer.call("store_pkl_local", value)) == value


def test_links(pair: tuple[Client, Client], source: Path) -> None:
    writer, reader = pair
    uri = writer.call("link_file", str(source))
    record = link(writer.directory, sha1(source.read_bytes()))
    written = record.read_bytes()

    assert reader.call("load_file", uri) == str(source)
    assert reader.call("link_file", str(source), label="x") == f"{uri}?label=x"

    assert record.read_bytes() == written
    assert not (writer.directory / "sha1").exists()


def test_links_to_a_file_with_a_new_date(pair: tuple[Client, Client], source: Path) -> None:
    writer, reader = pair
    uri = writer.call("link_file", str(source))
    os.utime(source, (1_600_000_000.5, 1_600_000_000.5))

    # whoever notices writes the new date down for the other
    assert reader.call("load_file", uri) == str(source)
    assert json.loads(link(writer.directory, sha1(source.read_bytes())).read_bytes())["mtime"] == 1_600_000_000.5
    assert writer.call("load_file", uri) == str(source)


def test_links_to_a_file_that_changed(pair: tuple[Client, Client], source: Path) -> None:
    writer, reader = pair
    uri = writer.call("link_file", str(source))
    source.write_bytes(source.read_bytes() + b"more")

    assert reader.call("load_file", uri, local_only=True) is None


def test_the_links_of_2022(release: Release, tmp_path: Path) -> None:
    # D-56: where releases before 0.3.9 kept them, and no later one looks
    source = tmp_path / "source"
    source.write_bytes(SMALL)
    status = source.stat()
    record = {"path": str(source), "size": status.st_size, "mtime": status.st_mtime, "sha1": sha1(SMALL)}
    client = Client(ours(), tmp_path / "shared")

    # a mutable, written by a released client
    Client(release, tmp_path / "shared").call(
        "set_mutable_local", f"@linked_files/@sha1/{sha1(SMALL)}", json.dumps(record)
    )

    assert client.call("load_file", f"sha1://{sha1(SMALL)}") == str(source)


def test_places_in_uris(pair: tuple[Client, Client], tmp_path: Path) -> None:
    writer, reader = pair
    source = tmp_path / "a b.dat"
    source.write_bytes(LARGE)
    uri = writer.call("store_file_local", str(source), reference=True, label="x")

    assert uri == f"sha1://{sha1(LARGE)}?label=x&location={source}"
    assert reader.call("store_file_local", str(source), reference=True, label="x") == uri
    assert reader.call("load_file", uri) == str(source)
    source.write_bytes(b"other")
    assert reader.call("load_file", uri, local_only=True) is None


def test_mutables(pair: tuple[Client, Client]) -> None:
    writer, reader = pair
    values = {"single": "", "@a/b": "é 🧠", "@a/@b/c": "two\nlines", "@a/@b/@c/d": "x" * 100_000}
    for key, value in values.items():
        writer.call("set_mutable_local", key, value)
    for key, value in values.items():
        assert reader.call("get_mutable_local", key) == value
    reader.call("set_mutable_local", "@a/b", "new")
    assert writer.call("get_mutable_local", "@a/b") == "new"
    reader.call("delete_mutable_local", "single")
    assert writer.call("get_mutable_local", "single", "gone") == "gone"
    reader.call("delete_mutable_folder_local", "@a/@b")
    assert writer.call("get_mutable_local", "@a/@b/@c/d") is None
    assert writer.call("get_mutable_local", "@a/b") == "new"
    with pytest.raises(ClientFailed):
        writer.call("delete_mutable_folder_local", "@a/@b")


def test_keys(pair: tuple[Client, Client]) -> None:
    writer, reader = pair
    client_id = writer.make_keys()

    before = {name: (writer.directory / name).read_bytes() for name in ("private.pem", "public.pem")}

    assert reader.make_keys() == client_id
    assert {name: (writer.directory / name).read_bytes() for name in before} == before
    assert (writer.directory / "private.pem").stat().st_mode & 0o777 == 0o600


def test_signatures(pair: tuple[Client, Client]) -> None:
    writer, reader = pair
    writer.make_keys()
    payload = {"type": "findFile", "hash": sha1(SMALL), "zone": "é \x7f", "size": 13, "timestamp": 1.5}
    code = (
        "import json, sys; from kachery_cloud import _client_keys as k; p = json.loads(sys.argv[1]);"
        "print(k._sign_message_as_client(p) if len(sys.argv) == 2 else k._verify_signature(p, *sys.argv[2:]))"
    )

    def run(client: Client, *arguments: str) -> str:
        command = [str(client.release.python), "-c", code, json.dumps(payload), *arguments]
        return subprocess.run(
            command, env=client.variables(), capture_output=True, text=True, check=True
        ).stdout.strip()

    signature = run(writer)

    # Ed25519 has one signature for one message
    assert run(reader) == signature
    client_id = reader.make_keys()
    assert run(reader, client_id, signature) == "True"
    assert run(reader, client_id, "0" + signature[1:] if signature[0] != "0" else "1" + signature[1:]) == "False"


def test_kept_hashes(pair: tuple[Client, Client], tmp_path: Path) -> None:
    writer, reader = pair
    source = tmp_path / "large"
    source.write_bytes(LARGE)
    writer.call("store_file_local", str(source))
    record = writer.directory / "mutables" / "@compute_sha1_cache" / sha1(str(source).encode())
    written = record.read_bytes()

    reader.call("store_file_local", str(source))

    assert record.read_bytes() == written
    status = source.stat()
    assert json.loads(written) == {
        "path": str(source),
        "size": status.st_size,
        "mtime": status.st_mtime,
        "sha1": sha1(LARGE),
    }


def test_a_kept_hash_that_is_wrong(release: Release, tmp_path: Path) -> None:
    # D-23: another file with the same size and date has taken the place of the one that was hashed
    source = tmp_path / "large"
    source.write_bytes(LARGE)
    status = source.stat()
    Client(release, tmp_path / "shared").call("store_file_local", str(source))
    changed = LARGE[:-1] + b"!"
    source.write_bytes(changed)
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))

    uri = Client(ours(), tmp_path / "shared").call("store_file_local", str(source))

    assert uri == f"sha1://{sha1(changed)}"
    assert blob(tmp_path / "shared", sha1(changed)).read_bytes() == changed


def test_plain_directories(pair: tuple[Client, Client], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(LARGE)
    for client in pair:
        client.environment |= {
            "KACHERY_STORE_FILE_DIR": str(tmp_path / client.release.version),
            "KACHERY_STORE_FILE_PREFIX": "$dir",
        }
    writer, reader = pair

    uris = [[client.call("store_file", str(source), label="x"), client.call("store_json", {"a": 1})] for client in pair]

    assert uris[0] == uris[1]
    assert uris[0][0] == f"$dir/sha1/{sha1(source.read_bytes())}?label=x"
    trees = [files(tmp_path / client.release.version) for client in (writer, reader)]
    assert trees[0] == trees[1]
    assert trees[0].keys() == {f"sha1/{sha1(data)}" for data in (source.read_bytes(), b'{"a":1}')}


def test_sandboxes(pair: tuple[Client, Client], tmp_path: Path) -> None:
    # a parent and its child process may be of different releases
    for client in pair:
        client.environment |= {
            "KACHERY_CLOUD_USE_SANDBOX": "1",
            "KACHERY_CLOUD_SANDBOX_DIR": str(tmp_path / "sandbox"),
        }
    (tmp_path / "sandbox").mkdir()
    writer, reader = pair
    uri = writer.call("store_text_local", "x")

    assert reader.call("load_text", uri) == "x"
    assert str(reader.call("load_file", uri)).startswith(str(tmp_path / "sandbox"))
    assert reader.call("get_kachery_cloud_dir", respect_sandbox=False) == str(writer.directory)


def test_commands(pair: tuple[Client, Client], tmp_path: Path) -> None:
    writer, reader = pair
    source = tmp_path / "a b&c=é.dat"
    source.write_bytes(SMALL)
    commands: list[Callable[[Client], str]] = [
        lambda client: client.output("kachery-cloud-store-local", str(source)),
        lambda client: client.output("kachery-cloud-store-local", str(source), "--label", ""),
        lambda client: client.output("kachery-cloud-store-local", str(source), "--reference", "--label", "x"),
        lambda client: client.output("kachery-cloud-link", str(source)),
        lambda client: client.output("kachery-cloud", "link-file", "--label=y", str(source)),
    ]
    for command in commands:
        assert command(writer) == command(reader)
    uri = commands[0](writer)
    assert reader.output("kachery-cloud-load", uri) == writer.output("kachery-cloud-load", uri)
    dest = str(tmp_path / "there")
    assert reader.output("kachery-cloud-load", uri, "--dest", dest) == dest
    assert Path(dest).read_bytes() == source.read_bytes()
    assert reader.run("kachery-cloud-cat", uri).stdout == source.read_bytes()


def test_the_same_work_leaves_the_same_files(release: Release, source: Path, tmp_path: Path) -> None:
    made = {}
    for one in (release, ours()):
        client = Client(one, tmp_path / one.version)
        uri = client.call("store_file_local", str(source))
        client.call("link_file", str(source))
        client.call("store_json_local", {"a": [1, 2.5, "é"]})
        client.call("set_mutable_local", "@a/@b/c", "x")
        client.call("load_file", uri, dest=str(tmp_path / "dest"))
        client.make_keys()
        tree = files(tmp_path / one.version)
        made[one.version] = {name: data for name, data in tree.items() if name.split("/")[0] in RECORDS}
        assert {name for name in tree if "/" not in name} == {"private.pem", "public.pem"}

    assert made["ours"] == made[release.version]


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
