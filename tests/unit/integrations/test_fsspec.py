"""kachery:// in fsspec: every spelling, chained and pickled; what is moved; what is refused."""

from __future__ import annotations

import hashlib
import io
import pickle
import random
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import fsspec
import pytest

import kachery
from kachery.errors import InvalidURI, NotAllowed, NotFound, NotSupported, Unreachable
from kachery.integrations.fsspec import KacheryFileSystem
from kachery.reading import BLOCK, Blocks

if TYPE_CHECKING:
    from pathlib import Path

    from rigs.cloud import Cloud

SMALL = b"time,where\n0,1\n1,2\n"
LARGE = random.Random(7).randbytes(40 * BLOCK + 77)


@pytest.fixture(autouse=True)
def fresh_instances() -> None:
    """fsspec keeps file systems, and ours remembers where files are."""
    KacheryFileSystem.clear_instance_cache()


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def ranges(cloud: Cloud) -> list[tuple[int, int] | None]:
    return [request.range for request in cloud.requests if request.method == "GET"]


def moved(cloud: Cloud) -> int:
    return sum(end - start if (start, end) else 0 for start, end in (found or (0, 0) for found in ranges(cloud)))


SPELLINGS = [
    "kachery://sha1/{}",
    "kachery://sha1/{}/a%20b.csv",
    "kachery://sha1/{}?label=a.csv",
    "kachery://sha1/{}/a.csv#x",
    "kachery://lab/sha1/{}/a.csv",
    "kachery://sha1://{}?any-text",
    "kachery://kachery:lab:sha1:{}:a.csv",
    "sha1://{}",
    "sha1://{}/a.csv",
    "sha1://{}?label=a/b.csv",
    "simplecache::kachery://sha1/{}/a.csv",
    "simplecache::sha1://{}",
    "filecache::kachery://lab/sha1/{}/a.csv",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_every_spelling_opens(cloud: Cloud, spelling: str, content: bytes) -> None:
    text = spelling.format(cloud.add(content))
    with fsspec.open(text, "rb") as file:
        assert file.read() == content
    fs, path = fsspec.url_to_fs(text)
    assert fs.cat_file(path) == content
    assert fs.cat_file(path, 3, 10) == content[3:10]
    assert fs.info(path)["size"] == len(content)


@pytest.mark.parametrize(("algorithm", "scheme"), [("sha256", "sha256://{}/x"), ("md5", "kachery://md5/{}")])
def test_other_hashes_are_found_on_this_machine(own_environment: Path, algorithm: str, scheme: str) -> None:
    hash_ = hashlib.new(algorithm, SMALL).hexdigest()
    blob = own_environment / algorithm / hash_[:2] / hash_[2:4] / hash_[4:6] / hash_
    blob.parent.mkdir(parents=True)
    blob.write_bytes(SMALL)
    with fsspec.open(scheme.format(hash_), "r") as file:
        assert file.read() == SMALL.decode()


def test_the_zone_of_the_uri_is_asked(cloud: Cloud) -> None:
    hash_ = cloud.add(LARGE)

    def zones() -> list[str]:
        asked = [request.json["payload"]["zone"] for request in cloud.requests if request.method == "POST"]
        cloud.requests.clear()
        return asked

    KacheryFileSystem().info(f"kachery://lab.public/sha1/{hash_}")
    assert zones() == ["lab.public"]
    KacheryFileSystem().info(f"sha1://{hash_}")
    assert zones() == ["default"]
    fsspec.filesystem("kachery", zone="other").info(f"sha1://{hash_}")
    assert zones() == ["other"]


def test_a_file_inside_an_archive_of_the_zone(cloud: Cloud) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("rest", LARGE)
        archive.writestr("inner/a.csv", SMALL)
    hash_ = cloud.add(buffer.getvalue())
    with fsspec.open(f"zip://inner/a.csv::kachery://sha1/{hash_}/tables.zip") as file:
        assert file.read() == SMALL
    assert moved(cloud) < len(LARGE) / 10


def test_only_what_is_read_is_moved(cloud: Cloud) -> None:
    hash_ = cloud.add(LARGE)
    with fsspec.open(f"kachery://sha1/{hash_}/x.nwb") as file:
        assert file.read(8) == LARGE[:8]
        file.seek(-8, io.SEEK_END)
        assert file.read() == LARGE[-8:]
        file.seek(0)
        assert file.read(100) == LARGE[:100]
    assert ranges(cloud) == [(0, BLOCK), (40 * BLOCK, len(LARGE))]
    assert cloud.calls().count("findFile") == 1


def test_small_and_whole_files_are_verified_and_kept(cloud: Cloud) -> None:
    uri = f"sha1://{cloud.add(SMALL)}"
    assert fsspec.open(uri).open().read() == SMALL
    asked = len(cloud.requests)
    assert fsspec.open(uri).open().read() == SMALL
    assert KacheryFileSystem().cat_file(uri) == SMALL
    assert len(cloud.requests) == asked
    hash_ = cloud.add(LARGE)
    assert KacheryFileSystem().cat_file(f"sha1://{hash_}") == LARGE
    assert kachery.load_file(f"sha1://{hash_}", local_only=True)
    other = cloud.add(LARGE[::-1])
    cloud.lies["GET"] = lambda exchange: exchange.file(LARGE)
    with pytest.raises(kachery.errors.WrongContent):
        KacheryFileSystem().cat_file(f"sha1://{other}")


def test_what_is_on_this_machine_is_read_there(cloud: Cloud, tmp_path: Path) -> None:
    source = tmp_path / "x.bin"
    source.write_bytes(LARGE)
    uri = kachery.store_file(source, local=True)
    with fsspec.open(uri) as file:
        buffer = bytearray(100)
        file.seek(-50, io.SEEK_END)
        assert file.readinto(buffer) == 50
        assert bytes(buffer[:50]) == LARGE[-50:]
        assert file.tell() == len(LARGE)
        file.seek(0)
        assert file.read() == LARGE
        assert pickle.loads(pickle.dumps(file)).tell() == len(LARGE)
    assert cloud.requests == []
    with pytest.raises(ValueError, match="closed"):
        file.readinto(buffer)


def test_lines_and_texts(cloud: Cloud) -> None:
    text = "".join(f"line {number} ü\n" for number in range(200_000))
    uri = f"sha1://{cloud.add(text.encode())}"
    with fsspec.open(uri, "rt", encoding="utf-8") as file:
        assert list(file) == text.splitlines(keepends=True)
    with fsspec.open(uri) as file:
        assert [next(file) for _ in range(3)] == [line.encode() for line in text.splitlines(keepends=True)[:3]]
    with fsspec.open(f"sha1://{cloud.add(SMALL)}", cache_type="readahead", block_size=4) as file:
        assert file.readline() == b"time,where\n"


def test_pickled_it_opens_elsewhere(cloud: Cloud) -> None:
    uri = f"kachery://lab/sha1/{cloud.add(LARGE)}/x"
    with fsspec.open(uri) as file:
        file.seek(BLOCK + 5)
        again = pickle.loads(pickle.dumps(file))
        assert again.read(10) == file.read(10) == LARGE[BLOCK + 5 : BLOCK + 15]
        assert again == file
    fs = pickle.loads(pickle.dumps(fsspec.filesystem("kachery", zone="lab")))
    assert fs.zone == "lab"
    assert fs.cat_file(uri, 0, 3) == LARGE[:3]
    assert fs.ukey(uri) == fs.ukey(uri + "?label=y")
    assert fs.unstrip_protocol(fs._strip_protocol(uri)) == uri
    assert fs.open(uri).full_name == uri


def test_threads_share_a_file(cloud: Cloud) -> None:
    fs = KacheryFileSystem()
    path = f"kachery://sha1/{cloud.add(LARGE)}"
    places = random.Random(3).sample(range(len(LARGE) - 1000), 64)
    blocks = Blocks(len(LARGE), lambda start, end: fs.cat_file(path, start, end))
    with ThreadPoolExecutor(8) as pool:
        for read in (blocks.read, lambda start, end: fs.cat_file(path, start, end)):
            found = pool.map(read, places, [place + 1000 for place in places])
            assert list(found) == [LARGE[place : place + 1000] for place in places]


def test_parts_that_lie_near_each_other_come_together(cloud: Cloud) -> None:
    fs = KacheryFileSystem()
    large, small = f"kachery://sha1/{cloud.add(LARGE)}", f"sha1://{cloud.add(SMALL)}"
    starts = [0, 200, 50, 9_000_000, 2, -5, 100]
    ends = [100, 300, 60, 9_000_010, 7, None, 100]
    paths = [large, large, large, large, small, large, large]
    found = fs.cat_ranges(paths, starts, ends)
    assert found == [(SMALL if path == small else LARGE)[a:b] for path, a, b in zip(paths, starts, ends, strict=True)]
    assert sorted(item for item in ranges(cloud) if item) == [
        (0, 300),
        (9_000_000, 9_000_010),
        (len(LARGE) - 5, len(LARGE)),
    ]
    cloud.requests.clear()
    assert fs.cat_ranges([large] * 2, [0, 200], [100, 300], max_gap=0) == [LARGE[:100], LARGE[200:300]]
    assert sorted(item for item in ranges(cloud) if item) == [(0, 100), (200, 300)]
    assert fs.cat_ranges([large] * 2, 4, 8) == [LARGE[4:8]] * 2
    assert fs.cat_ranges([], [], []) == []
    with pytest.raises(ValueError, match="2 paths"):
        fs.cat_ranges([large] * 2, [1], [2])


def test_what_is_missing_among_several(cloud: Cloud) -> None:
    fs = KacheryFileSystem()
    here, gone = f"sha1://{cloud.add(SMALL)}", "sha1://" + "0" * 40
    found = fs.cat_ranges([here, gone], 0, 4)
    assert found[0] == SMALL[:4]
    assert isinstance(found[1], FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges([gone, here], 0, 4, on_error="raise")
    name, missing = fs._strip_protocol(here), fs._strip_protocol(gone)
    assert fs.cat([here, gone], on_error="omit") == {name: SMALL}
    assert isinstance(fs.cat([here, gone], on_error="return")[missing], NotFound)
    with pytest.raises(NotFound):
        fs.cat([here, gone])
    assert fs.cat(here) == SMALL
    assert fs.cat([here]) == {name: SMALL}


def test_files_are_fetched_to_paths(cloud: Cloud, tmp_path: Path) -> None:
    fs = KacheryFileSystem()
    fs.get(f"sha1://{cloud.add(LARGE)}/x", str(tmp_path / "new" / "x"))
    assert (tmp_path / "new" / "x").read_bytes() == LARGE
    buffer = io.BytesIO()
    fs.get_file(f"sha1://{cloud.add(SMALL)}", buffer)
    assert buffer.getvalue() == SMALL


def test_what_a_file_is(cloud: Cloud) -> None:
    fs = KacheryFileSystem()
    hash_ = cloud.add(SMALL)
    entry = {"name": f"sha1/{hash_}/a.csv", "type": "file", "size": len(SMALL), "sha1": hash_}
    assert fs.info(f"sha1://{hash_}/a.csv") == entry
    assert fs.ls(f"kachery://sha1/{hash_}/a.csv") == [entry]
    assert fs.ls(f"kachery://sha1/{hash_}/a.csv", detail=False) == [entry["name"]]
    assert fs.isfile(f"sha1://{hash_}")
    assert not fs.isdir(f"sha1://{hash_}")
    assert fs.exists(f"sha1://{hash_}")
    assert not fs.exists("sha1://" + "0" * 40)
    assert not fs.exists("kachery://nonsense")
    assert fs.size(f"sha1://{hash_}") == len(SMALL)


def test_the_four_answers(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = KacheryFileSystem()
    uri = "sha1://" + "0" * 40
    with pytest.raises(FileNotFoundError, match="does not have it"):
        fs.open(uri)
    with pytest.raises(InvalidURI):
        fs.open("kachery://sha1/xyz")
    cloud.lies["findFile"] = lambda exchange: exchange.reply(500, b"Error: User is not authorized")
    with pytest.raises(PermissionError):
        fs.open(uri)
    with pytest.raises(NotAllowed):
        fs.exists(uri)
    cloud.lies["findFile"] = lambda exchange: exchange.reply(503, b"")
    for ask in (fs.open, fs.exists, fs.info, fs.cat_file):
        with pytest.raises(Unreachable):
            ask(uri)
    monkeypatch.delenv("KACHERY_GATEWAY_URL")
    with pytest.raises(FileNotFoundError, match="no gateway"):
        fs.open(uri)


def test_what_is_remembered_of_a_place_ends(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = KacheryFileSystem()
    uri = f"sha1://{cloud.add(LARGE)}"
    fs.cat_file(uri, 0, 1)
    fs.cat_file(uri, 1, 2)
    assert cloud.calls().count("findFile") == 1
    fs.invalidate_cache()
    fs.cat_file(uri, 2, 3)
    assert cloud.calls().count("findFile") == 2
    monkeypatch.setenv("KACHERY_ZONE", "other")
    fs.cat_file(uri, 2, 3)
    assert cloud.calls().count("findFile") == 3
    cloud.files.clear()
    for number in range(300):
        fs._places[(str(number),)] = (0.0, next(iter(fs._places.values()))[1])
    fs.invalidate_cache()
    fs.cat_file(f"sha1://{cloud.add(LARGE)}", 0, 1)
    assert len(fs._places) == 1


# --- directories


@pytest.fixture
def tree(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a directory that the zone has, and this machine does not."""
    top = tmp_path / "session7"
    for name, content in {
        "units.csv": SMALL,
        "raw/traces.bin": LARGE,
        "raw/what?.txt": b"a question",
        "raw/50%.txt": b"half",
        "raw/a%20b.txt": b"literally",
        "raw/a b.txt": b"with a blank",
    }.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (top / "empty").mkdir()
    uri = kachery.store_dir(top)
    monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / "elsewhere"))
    cloud.requests.clear()
    return uri


def test_a_directory_is_listed_without_its_files(cloud: Cloud, tree: str) -> None:
    fs = KacheryFileSystem()
    name = tree.replace("sha1dir://", "sha1dir/")
    assert fs.ls(tree) == [
        {"name": f"{name}/empty", "type": "directory", "size": 0},
        {"name": f"{name}/raw", "type": "directory", "size": 0},
        {"name": f"{name}/units.csv", "type": "file", "size": len(SMALL), "sha1": sha1(SMALL)},
    ]
    assert fs.ls(f"kachery://{name}/raw/", detail=False) == [
        f"{name}/raw/50%.txt",
        f"{name}/raw/a b.txt",
        f"{name}/raw/a%20b.txt",
        f"{name}/raw/traces.bin",
        f"{name}/raw/what%3F.txt",
    ]
    assert len(fs.find(tree)) == 6
    assert fs.du(tree) == len(SMALL) + len(LARGE) + 35
    assert fs.glob(f"{tree}/*/*.bin") == [f"{name}/raw/traces.bin"]
    assert (fs.isdir(tree), fs.isdir(f"{tree}/raw"), fs.isfile(f"{tree}/units.csv")) == (True, True, True)
    assert not fs.exists(f"{tree}/raw/missing")
    assert not fs.exists(f"{tree}/units.csv/below")
    assert cloud.calls().count("findFile") == 1


def test_every_file_of_a_directory_is_read(cloud: Cloud, tree: str) -> None:
    fs = KacheryFileSystem()
    found = fs.cat(tree, recursive=True)
    assert sorted(found.values()) == sorted([SMALL, LARGE, b"a question", b"half", b"literally", b"with a blank"])
    for path, content in found.items():
        with fs.open(f"kachery://{path}") as file:
            assert file.read() == content
    with fsspec.open(f"{tree}/raw/a%20b.txt") as file:
        assert file.read() == b"literally"


def test_a_part_of_a_file_of_a_directory(cloud: Cloud, tree: str) -> None:
    path = f"kachery://{tree.replace('://', '/')}/raw/traces.bin"
    fs = KacheryFileSystem()
    assert fs.cat_file(path, 100, 200) == LARGE[100:200]
    assert fs.cat_ranges([path, f"{tree}/units.csv"], [0, 0], [5, 4]) == [LARGE[:5], SMALL[:4]]
    with fs.open(path) as file:
        again = pickle.loads(pickle.dumps(file))
        assert again.read(8) == LARGE[:8]
    assert moved(cloud) < len(LARGE) / 10


def test_a_directory_is_fetched(cloud: Cloud, tree: str, tmp_path: Path) -> None:
    fs = KacheryFileSystem()
    fs.get(tree, str(tmp_path / "copy"), recursive=True)
    assert (tmp_path / "copy" / "raw" / "traces.bin").read_bytes() == LARGE
    assert (tmp_path / "copy" / "units.csv").read_bytes() == SMALL
    mapper = fs.get_mapper(tree)
    assert mapper["units.csv"] == SMALL
    with pytest.raises(KeyError):
        mapper["zarr.json"]


def test_a_directory_of_a_named_zone(cloud: Cloud, tree: str) -> None:
    path = f"kachery://lab/{tree.replace('://', '/')}"
    fs = KacheryFileSystem()
    assert fs.cat_file(f"{path}/units.csv") == SMALL
    assert {request.json["payload"]["zone"] for request in cloud.requests if request.method == "POST"} == {"lab"}


def test_a_directory_is_no_file(cloud: Cloud, tree: str) -> None:
    fs = KacheryFileSystem()
    for ask in (fs.open, fs.cat_file):
        with pytest.raises(IsADirectoryError):
            ask(tree)
        with pytest.raises(IsADirectoryError):
            ask(f"{tree}/raw")
        with pytest.raises(FileNotFoundError):
            ask(f"{tree}/missing")
    with pytest.raises(FileNotFoundError):
        fs.ls("sha1dir://" + "0" * 40)
    with pytest.raises(kachery.errors.WrongContent):
        fs.ls(f"sha1dir://{cloud.add(b'no manifest')}")


@pytest.mark.parametrize(
    "write",
    [
        lambda fs, uri: fs.open(uri, "wb"),
        lambda fs, uri: fs.open(uri, "ab"),
        lambda fs, uri: fs.pipe_file(uri, b"x"),
        lambda fs, uri: fs.pipe({uri: b"x"}),
        lambda fs, uri: fs.put(__file__, uri),
        lambda fs, uri: fs.touch(uri),
        lambda fs, uri: fs.mkdir(uri),
        lambda fs, uri: fs.makedirs(uri, exist_ok=True),
        lambda fs, uri: fs.rm(uri),
        lambda fs, uri: fs.mv(uri, uri),
        lambda fs, uri: fs.cp(uri, uri),
        lambda fs, uri: fs.get_mapper(uri).__setitem__("x", b"y"),
    ],
)
def test_writing_is_refused_with_the_reason(cloud: Cloud, write) -> None:
    with pytest.raises(NotSupported, match="read-only"):
        write(KacheryFileSystem(), f"kachery://sha1/{cloud.add(SMALL)}")
    assert "initiateFileUpload" not in cloud.calls()


def test_blocks_against_the_bytes_themselves() -> None:
    data = LARGE[: 3 * 1024 * 1024 + 5]
    asked: list[tuple[int, int]] = []

    def fetch(start: int, end: int) -> bytes:
        assert 0 <= start < end <= len(data)
        asked.append((start, end))
        return data[start:end]

    for block in (1000, BLOCK, 64 * 1024 * 1024):
        blocks = Blocks(len(data), fetch, block)
        for seed in range(300):
            rng = random.Random(seed)
            start = rng.randrange(len(data) + 10)
            end = start + rng.choice([0, 1, 10, 5000, 300_000])
            assert blocks.read(start, end) == data[start:end]
    asked.clear()
    blocks = Blocks(len(data), fetch, 1000)
    assert blocks.read(0, len(data)) == data
    for number in range(0, len(data), 500):
        assert blocks.read(number, number + 500) == data[number : number + 500]
    # reading straight on asks for more and more at once
    assert len(asked) < 100
