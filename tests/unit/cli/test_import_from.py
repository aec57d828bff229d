"""`kachery import-from`: every kind of old directory, damaged ones too, and that none of them is touched."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kachery import http
from kachery.store import Store, keys
from rigs.cloud import Cloud

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Done

    Kachery = Callable[..., Done]

SMALL, LARGE, EMPTY = b"small", os.urandom(700_000), b""


def hash_of(content: bytes, algorithm: str = "sha1") -> str:
    return hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()


def fan(hash_: str) -> str:
    return f"{hash_[:2]}/{hash_[2:4]}/{hash_[4:6]}/{hash_}"


def put(path: Path, content: bytes | object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def snapshot(directory: Path) -> dict[str, tuple[int, ...]]:
    """How everything in a directory looks; access times are the system's own."""
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Path]:
    """An old directory; whatever was done, it is afterwards as it was."""
    directory = tmp_path / "old"
    directory.mkdir()
    yield directory
    leftovers = [path for path in directory.rglob("*") if path.suffix in (".part", ".ranges")]
    assert leftovers == []


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setattr(http, "pause", lambda *_: None)
    with Cloud() as server:
        monkeypatch.setenv("KACHERY_GATEWAY_URL", server.url)
        monkeypatch.setenv("KACHERY_TIMEOUT", "5")
        keys.load_or_create()
        yield server


KINDS = {
    "kachery-cloud, kachery 2.x, a bucket": "sha1/{fan}",
    "a classic server": "sha1-cache/{fan}",
    "a bucket with a prefix": "some/prefix/sha1/{fan}",
    "the default channel of a node's bucket": "channel1/sha1/{fan}",
    "a zone's part of a bucket": "zones/lab/sha1/{fan}",
    "a node's trash": "sha1-trash/{fan}",
    "classic before 0.4.3": "sha1/{hash[0]}/{hash[1]}{hash[2]}/{hash}",
    "a plain directory": "sha1/{hash}",
    "a cache itself": "{fan}",
    "an old cache itself": "{hash[0]}/{hash[1]}{hash[2]}/{hash}",
}


@pytest.mark.parametrize("pattern", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("link", [False, True], ids=["copy", "link"])
def test_every_layout(kachery: Kachery, old: Path, pattern: str, link: bool) -> None:
    for content in (SMALL, LARGE, EMPTY):
        hash_ = hash_of(content)
        put(old / pattern.format(fan=fan(hash_), hash=hash_), content)
    before = snapshot(old)
    options = ["--link"] if link else []
    rehearsed = kachery("import-from", str(old), "--dry-run", "--json", *options)
    assert rehearsed.document["results"] == {"wanted": {"files": 3, "bytes": 700_005}}
    assert list(Store().entries()) == []
    done = kachery("import-from", str(old), "--json", *options)
    assert done.code == 0, done.err
    outcome = "linked" if link else "copied"
    assert done.document == {"results": {outcome: {"files": 3, "bytes": 700_005}}, "problems": [], "left": []}
    for content in (SMALL, LARGE, EMPTY):
        path = Path(kachery("load", f"sha1://{hash_of(content)}").out.strip())
        assert path.read_bytes() == content
        assert path.is_relative_to(old) == link
    again = kachery("import-from", str(old), "--json", *options)
    assert again.document["results"] == {"present": {"files": 3, "bytes": 700_005}}
    assert snapshot(old) == before


@pytest.mark.parametrize(("algorithm", "folder"), [("md5", "md5"), ("md5", "md5-cache"), ("sha256", "sha256")])
def test_other_hashes_are_copied(kachery: Kachery, old: Path, algorithm: str, folder: str) -> None:
    for content in (SMALL, LARGE):
        put(old / folder / fan(hash_of(content, algorithm)), content)
    done = kachery("import-from", str(old), "--link", "--json")
    assert done.document["results"] == {"copied": {"files": 2, "bytes": 700_005}}
    for content in (SMALL, LARGE):
        loaded = kachery("load", f"{algorithm}://{hash_of(content, algorithm)}", "--local-only")
        assert Path(loaded.out.strip()).read_bytes() == content


def test_links_of_every_generation_stay_links(kachery: Kachery, old: Path, tmp_path: Path) -> None:
    contents = [b"cloud" * 9, b"cloud of 2022", b"node" * 9, b"classic" * 9]
    paths = [put(tmp_path / "data" / f"{number}.dat", content) for number, content in enumerate(contents)]
    hashes = [hash_of(content) for content in contents]
    record = {"path": str(paths[0]), "size": 45, "mtime": 1.0, "sha1": hashes[0]}
    put(old / "linked_files/sha1" / fan(hashes[0]), record)
    put(old / "mutables/@linked_files/@sha1" / hashes[1], {"path": str(paths[1]), "sha1": hashes[1]})
    put(old / "sha1" / (fan(hashes[2]) + ".link"), {"path": str(paths[2]), "manifestSha1": None, "stat": {"size": 36}})
    hints = [{"stat": {"path": place}, "sha1": hashes[3]} for place in ("/nowhere/x", str(paths[3]))]
    put(old / "sha1" / (fan(hashes[3]) + ".hints.json"), {"files": hints})
    gone = "0" * 40
    put(old / "linked_files/sha1" / fan(gone), {"path": "/nowhere/y"})
    before = snapshot(old)
    done = kachery("import-from", str(old), "--json")
    assert done.code == 6
    assert done.document["results"] == {"linked": {"files": 4, "bytes": 157}, "gone": {"files": 1, "bytes": 0}}
    assert [(item["uri"], item["outcome"]) for item in done.document["problems"]] == [(f"sha1://{gone}", "gone")]
    for hash_, path in zip(hashes, paths, strict=True):
        assert kachery("load", f"sha1://{hash_}").out.strip() == str(path)
    assert kachery("import-from", str(old), "--no-links", "--json").document["results"] == {}
    assert snapshot(old) == before


@pytest.mark.parametrize("link", [False, True], ids=["copy", "link"])
def test_what_is_damaged_is_not_taken(kachery: Kachery, old: Path, link: bool) -> None:
    for content in (SMALL, LARGE):
        put(old / "sha1" / fan(hash_of(content)), content[:-1] + b"!")
    put(old / "md5" / fan(hash_of(LARGE, "md5")), b"not it")
    put(old / "sha1" / fan(hash_of(b"good")), b"good")
    # a block of a file, named after what it is of
    block = hash_of(b'{"end":20,"sha1":"0","start":10}')
    put(old / "sha1" / block[0] / block[1:3] / block, b"ten bytes!")
    done = kachery("import-from", str(old), "--json", *(["--link"] if link else []))
    assert done.code == 6
    results = {name: item["files"] for name, item in done.document["results"].items()}
    assert results == {"linked" if link else "copied": 1, "damaged": 3, "block": 1}
    assert {entry.hash for entry in Store().entries()} == {hash_of(b"good")}
    told = kachery("import-from", str(old))
    assert told.code == 6
    assert f"damaged  sha1://{hash_of(SMALL)}  " in told.out
    assert "3 files of 5 could not be taken" in told.err


def test_another_good_copy_is_found(kachery: Kachery, old: Path, tmp_path: Path) -> None:
    hash_ = hash_of(LARGE)
    put(old / "sha1-cache" / fan(hash_), b"damaged")
    put(old / "sha1-trash" / fan(hash_), LARGE)
    put(old / "linked_files/sha1" / fan(hash_of(SMALL)), {"path": str(put(tmp_path / "x", b"changed"))})
    put(old / "sha1" / fan(hash_of(SMALL)), SMALL)
    done = kachery("import-from", str(old), "--json")
    results = {name: item["files"] for name, item in done.document["results"].items()}
    assert results == {"copied": 2, "damaged": 1}
    assert {entry.hash for entry in Store().entries()} == {hash_, hash_of(SMALL)}


def test_what_is_not_content_is_left(kachery: Kachery, old: Path) -> None:
    hash_ = "1" * 40
    put(old / "mutables/@compute_sha1_cache" / hash_, {"path": "/x"})
    put(old / "mutables/@folder/name", b"value")
    put(old / "verified/sha1" / hash_[:2] / hash_, {"entries": []})
    put(old / "task_results" / fan(hash_), b"result")
    put(old / "trash/sha1" / fan(hash_), b"removed")
    put(old / "sha1" / (fan(hash_) + ".copying.abc123"), b"half")
    put(old / "sha1/22/22" / ("2" * 40), b"out of place")
    put(old / "md5" / fan(hash_), b"not of this length")
    put(old / "private.pem", b"secret")
    put(old / "feeds.db", b"")
    done = kachery("import-from", str(old), "--json")
    assert done.code == 0
    assert done.document["results"] == {}
    assert done.document["left"] == [
        "feeds",
        "local mutables",
        "the private key of its client or node",
        "results of tasks",
    ]
    told = kachery("import-from", str(old))
    assert "no files by their content" in told.out
    assert "local mutables" in told.err
    assert list(Store().entries()) == []


def test_hostile_records_lead_nowhere(kachery: Kachery, old: Path, tmp_path: Path) -> None:
    secret = put(tmp_path / "secret", b"secret")
    for number, content in enumerate(
        [b"{", b"[" * 100_000, {"path": 5}, {"path": "relative"}, {"path": "/x\0y"}, {"files": [1, {"stat": 2}]}, []]
    ):
        put(old / "linked_files/sha1" / fan(f"{number:040x}"), content)
        put(old / "sha1" / (fan(f"{number:040x}") + ".hints.json"), content)
    # says that a file has a hash that it does not have
    put(old / "linked_files/sha1" / fan("a" * 40), {"path": str(secret)})
    done = kachery("import-from", str(old), "--json")
    assert [(item["outcome"], item["path"]) for item in done.document["problems"]] == [("damaged", str(secret))]
    assert list(Store().entries()) == []


def test_into_a_zone(kachery: Kachery, old: Path, cloud: Cloud, tmp_path: Path) -> None:
    for content in (SMALL, LARGE):
        put(old / "sha1" / fan(hash_of(content)), content)
    put(old / "md5" / fan(hash_of(b"by md5", "md5")), b"by md5")
    put(old / "sha1" / fan("b" * 40), b"damaged")
    linked = put(tmp_path / "x", b"linked")
    put(old / "sha1" / (fan(hash_of(b"linked")) + ".link"), {"path": str(linked)})
    cloud.add(SMALL)
    before = snapshot(old)
    assert kachery("import-from", str(old), "--to", "lab", "--dry-run", "--json").document["results"] == {
        "wanted": {"files": 4, "bytes": len(LARGE) + 19},
        "present": {"files": 1, "bytes": 5},
    }
    done = kachery("import-from", str(old), "--to", "lab", "--json")
    assert done.code == 6
    results = {name: item["files"] for name, item in done.document["results"].items()}
    assert results == {"sent": 3, "present": 1, "damaged": 1}
    assert cloud.files == {hash_of(content): content for content in (SMALL, LARGE, b"by md5", b"linked")}
    assert {request.json["payload"]["zone"] for request in cloud.requests if request.method == "POST"} == {"lab"}
    assert list(Store().entries()) == []
    assert snapshot(old) == before
    assert kachery("import-from", str(old), "--to", "lab", "--link").code == 2


def test_a_zone_that_refuses_ends_it(kachery: Kachery, old: Path, cloud: Cloud) -> None:
    for number in range(40):
        put(old / "sha1" / fan(hash_of(b"%d" % number)), b"%d" % number)
    cloud.members = set()
    assert kachery("import-from", str(old), "--to", "lab").code == 5
    assert cloud.calls().count("initiateFileUpload") < 40
    cloud.members = None
    assert kachery("import-from", str(old), "--to", "lab").code == 0
    assert len(cloud.files) == 40


def test_directories_that_cannot_be_imported(kachery: Kachery, old: Path, own_environment: Path) -> None:
    assert kachery("import-from", str(old / "missing")).code == 3
    assert kachery("import-from", str(put(old / "file", b"x"))).code == 2
    Store().add_bytes(SMALL)
    done = kachery("import-from", str(own_environment))
    assert done.code == 2
    assert "is the store of this machine" in done.err
