"""What released clients left behind is taken over: what they stored and linked, by the URIs that they gave."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from rigs.gateway import OPEN, Gateway
from rigs.release import Client, Release, ours

if TYPE_CHECKING:
    from pathlib import Path

    from rigs.person import Person

LARGE = bytes(range(256)) * 8_000


@pytest.fixture
def left(release: Release, tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    """A released client's directory, and what its URIs stand for."""
    directory = tmp_path / "old" / "kachery-cloud"
    directory.mkdir(parents=True)
    client = Client(release, directory, {"KACHERY_GATEWAY_URL": "http://127.0.0.1:1"})
    client.make_keys()
    stored, linked = tmp_path / "a b.dat", tmp_path / "raw.dat"
    stored.write_bytes(LARGE)
    linked.write_bytes(LARGE[::-1])
    found = {
        client.call("store_file_local", str(stored), label="a b.dat"): LARGE,
        client.call("link_file", str(linked)): LARGE[::-1],
        client.call("store_json", {"b": [1, 2.5], "a": "é"}, local=True): b'{"a":"\\u00e9","b":[1,2.5]}',
        client.call("store_text", "a text", local=True): b"a text",
    }
    client.call("set_mutable_local", "@folder/name", "value")
    return directory, found


def test_into_our_store(left: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    directory, found = left
    mine = Client(ours(), tmp_path / "new" / "kachery-cloud", {"KACHERY_GATEWAY_URL": "http://127.0.0.1:1"})
    mine.directory.mkdir(parents=True)
    told = json.loads(mine.output("kachery", "import-from", str(directory), "--json"))
    results = {name: item["files"] for name, item in told["results"].items()}
    assert results == {"copied": 3, "linked": 1}
    assert told["problems"] == []
    assert told["left"] == ["local mutables", "the private key of its client or node"]
    for uri, content in found.items():
        assert mine.run("kachery", "cat", uri).stdout == content


def test_into_a_zone(
    left: tuple[Path, dict[str, bytes]], release: Release, gateway: Gateway, alice: Person, tmp_path: Path
) -> None:
    directory, found = left
    settings = {"KACHERY_GATEWAY_URL": gateway.url, "KACHERY_ZONE": OPEN}
    md5 = hashlib.md5(b"by its md5", usedforsecurity=False).hexdigest()
    by_md5 = directory / "md5" / md5[:2] / md5[2:4] / md5[4:6] / md5
    by_md5.parent.mkdir(parents=True)
    by_md5.write_bytes(b"by its md5")
    mine = Client(ours(), tmp_path / "new" / "kachery-cloud", settings)
    mine.directory.mkdir(parents=True)
    gateway.admin("client", "add", mine.make_keys(), "--owner", alice.name, "--zone", OPEN)
    told = json.loads(mine.output("kachery", "import-from", str(directory), "--to", OPEN, "--json"))
    assert sum(item["files"] for item in told["results"].values()) == 5
    assert told["problems"] == []
    assert mine.run("kachery", "cat", f"md5://{md5}").stdout == b"by its md5"
    again = json.loads(mine.output("kachery", "import-from", str(directory), "--to", OPEN, "--json"))
    assert {name: item["files"] for name, item in again["results"].items()} == {"present": 5}
    # by the released client, too, on a machine that has nothing
    theirs = Client(release, tmp_path / "elsewhere" / "kachery-cloud", settings)
    theirs.directory.mkdir(parents=True)
    theirs.make_keys()
    for uri, content in found.items():
        with open(theirs.call("load_file", uri), "rb") as file:
            assert file.read() == content
