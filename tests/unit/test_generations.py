"""Programs of classic kachery and of kachery 2.x, in their own words, on what is on this machine."""

from __future__ import annotations

import inspect
import logging
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import kachery as ka
from kachery.errors import InvalidInput, InvalidName, NotConfigured, NotFound, WrongContent
from kachery.store import Store
from rigs.cloud import Cloud

if TYPE_CHECKING:
    from pathlib import Path

HASH = "37aa63c77398d954473262e1a0057c1e632eda77"
NOTHING = "sha1://" + "0" * 40


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


# --- classic


def test_the_vectors_of_classic_kachery(tmp_path: Path) -> None:
    nested = {"b": 1, "a": {"z": [1, 2.5, None, True], "é": "ü"}}
    assert ka.store_text("some text") == f"sha1://{HASH}/file.txt"
    assert ka.store_text("some text", algorithm="md5") == "md5://552e21cd4cd9918678e3c1a0df491bc3/file.txt"
    assert ka.store_text("hello\n", "hello.txt") == "sha1://f572d396fae9206628714fb2ce00f72e94f2258f/hello.txt"
    assert ka.store_text("") == "sha1://da39a3ee5e6b4b0d3255bfef95601890afd80709/file.txt"
    assert ka.store_object({"a": 1}) == "sha1://e4ad4daad53a2eec0313386ada88211e50d693bd/file.json"
    assert ka.get_object_hash({"a": 1}) == "9f89c740ceb46d7418c924a78ac57941d5e96520"
    assert ka.store_object(nested, basename="n.json") == "sha1://cc23c43a09566166e44b42a4b866f03b178666df/n.json"
    assert ka.get_object_hash(nested) == "84c0f24356191630b0c64480ea6e9c674500429d"
    assert ka.store_object({"b": 1, "a": 2}, indent=4).startswith("sha1://722da4e1a1a34255af315e3fb9cf9674ea2da41e/")
    array = np.array([[0, 1, 2], [3, 4, 5]], dtype=np.int16)
    assert ka.store_npy(array) == "sha1://1706e82fcef177e5f19dd33d0573a59579f370de/file.npy"
    (tmp_path / "zeros").write_bytes(bytes(4_000_000))
    assert ka.store_file(str(tmp_path / "zeros")) == "sha1://cfe78845826845c0f76837eafdd964b8dc2ab337/zeros"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("store_file", ["path", "basename", "git_annex_mode"]),
        ("store_text", ["text", "basename"]),
        ("store_object", ["object", "basename", "indent"]),
        ("store_npy", ["array", "basename"]),
        ("store_dir", ["dirpath", "label", "git_annex_mode"]),
        ("load_file", ["path", "dest"]),
        ("load_text", ["path"]),
        ("load_object", ["path"]),
        ("load_npy", ["path"]),
        ("load_bytes", ["path", "start", "end", "write_to_stdout"]),
        ("load_dir", ["path", "dest"]),
        ("read_dir", ["path"]),
        ("get_file_info", ["path", "hash_only"]),
        ("get_file_hash", ["path"]),
        ("get_object_hash", ["obj"]),
        ("open_file", ["path", "block_size"]),
    ],
)
def test_arguments_of_classic_kachery_in_their_order(name: str, arguments: list[str]) -> None:
    signature = inspect.signature(getattr(ka, name))
    first = [item.name for item in signature.parameters.values() if item.kind is item.POSITIONAL_OR_KEYWORD]
    # what several generations have is called as in the later ones, and may be called as in this one as well
    first[0] = {"filename": "path", "uri": "path"}.get(first[0], first[0])
    assert first[: len(arguments)] == arguments
    if name not in ("get_file_hash", "get_object_hash"):
        assert [item for item in signature.parameters.values() if item.kind is item.VAR_KEYWORD]


def test_objects_come_back_in_their_order() -> None:
    value = {"b": [float("inf")], "a": {"x": None}}
    found = ka.load_object(ka.store_object(value))
    assert found == value
    assert list(found) == ["b", "a"]
    with pytest.raises(TypeError):
        ka.store_object({1, 2})
    with pytest.raises(WrongContent):
        ka.load_object(ka.store_text("no json"))


def test_what_is_not_there_is_none_and_said(caplog: pytest.LogCaptureFixture) -> None:
    for use in (ka.load_object, ka.get_file_info):
        caplog.clear()
        assert use(NOTHING) is None
        assert "was not found" in caplog.text
        assert use("/no/such/file") is None
        assert use("no such file") is None
    with pytest.raises(NotFound):
        ka.get_file_hash("/no/such/file")
    with pytest.raises(NotFound):
        ka.open_file(NOTHING)


def test_where_a_file_is_and_how_large(tmp_path: Path) -> None:
    uri = ka.store_text("some text")
    assert ka.get_file_info(uri) == {"path": Store().layout.blob(HASH), "size": 9, "sha1": HASH}
    assert list(ka.get_file_info(uri) or ()) == ["path", "size", "sha1"]
    assert ka.get_file_info(NOTHING, hash_only=True) == {"sha1": "0" * 40}
    (tmp_path / "a.txt").write_text("some text")
    assert ka.get_file_info(str(tmp_path / "a.txt")) == {"path": str(tmp_path / "a.txt"), "size": 9, "sha1": HASH}
    md5 = "552e21cd4cd9918678e3c1a0df491bc3"
    with ka.config(algorithm="md5"):
        assert ka.get_file_info(str(tmp_path / "a.txt")) == {"path": str(tmp_path / "a.txt"), "size": 9, "md5": md5}
    assert ka.get_file_hash(NOTHING) == "0" * 40
    assert ka.get_file_hash(uri) == HASH
    assert ka.get_file_hash(str(tmp_path / "a.txt")) == HASH
    assert ka.get_file_hash(ka.store_text("some text", algorithm="md5")) == HASH


def test_paths_are_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("some text")
    assert ka.load_text("a.txt") == ka.load_text(str(tmp_path / "a.txt")) == "some text"
    assert ka.load_file("a.txt") == str(tmp_path / "a.txt")
    assert ka.load_bytes("a.txt", start=5) == b"text"
    assert ka.store_file("a.txt") == f"sha1://{HASH}/a.txt"
    # a URI is loaded first
    assert ka.store_file(f"sha1://{HASH}/a.txt", algorithm="md5") == "md5://552e21cd4cd9918678e3c1a0df491bc3/a.txt"
    monkeypatch.setenv("KACHERY_MISSING", "none")
    for use in (
        lambda: ka.store_file(NOTHING),
        lambda: ka.get_file_hash("md5://" + "0" * 32),
        lambda: ka.store_file_local(NOTHING, store_file_prefix="x"),
    ):
        with pytest.raises(NotFound):
            use()
    monkeypatch.setenv("KACHERY_MISSING", "error")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "b.txt").write_text("some text")
    uri = ka.store_dir("d")
    assert ka.store_file(f"{uri}/b.txt") == f"sha1://{HASH}/b.txt"
    assert ka.store_dir(uri) == uri
    assert ka.store_dir(uri, "e") == uri.removesuffix("d") + "e"


def test_spellings_of_arguments(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text")
    assert ka.store_file(path=tmp_path / "a.txt", basename="b") == f"sha1://{HASH}/b"  # type: ignore[call-arg]
    assert ka.store_file(tmp_path / "a.txt", "b", False) == f"sha1://{HASH}/b"
    assert ka.store_file(tmp_path / "a.txt", basename="b", label="b", use_hard_links=True) == f"sha1://{HASH}/b"
    assert os.stat(Store().layout.blob(HASH)).st_nlink == 1
    assert ka.load_file(path=f"sha1://{HASH}") == Store().layout.blob(HASH)  # type: ignore[call-arg]
    assert ka.load_file(f"sha1://{HASH}", str(tmp_path / "c")) == str(tmp_path / "c")
    with pytest.raises(InvalidInput, match="two names"):
        ka.store_text("x", "a", label="b")
    with pytest.raises(TypeError, match="both 'path' and 'uri'"):
        ka.load_text(path=NOTHING, uri=NOTHING)  # type: ignore[call-arg]


def test_bytes_on_the_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    uri = ka.store_text("some text")
    assert ka.load_bytes(uri, start=5, end=9, write_to_stdout=True) == b""
    assert capfdbinary.readouterr().out == b"text"
    ka.cat_file(uri)
    assert capfdbinary.readouterr().out == b"some text"
    for start, end in [(-1, 3), (5, 4), (0, 10)]:
        with pytest.raises(InvalidInput):
            ka.load_bytes(uri, start, end)


@pytest.mark.parametrize("layout", ["37/aa/63", "3/7a"])
@pytest.mark.parametrize(
    ("variable", "below"),
    [
        ("KACHERY_STORAGE_DIR", "sha1"),
        ("KACHERY_STORAGE_DIR_ALT", "sha1"),
        ("KACHERY_DIR", "sha1"),
        ("SHA1_CACHE_DIR", ""),
        ("KBUCKET_CACHE_DIR", ""),
        (None, ".kachery/sha1"),
    ],
)
def test_what_earlier_generations_kept_is_found_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, below: str, layout: str
) -> None:
    place = tmp_path / below / layout
    place.mkdir(parents=True)
    kept = place / HASH
    kept.write_text("some text")
    if variable is not None:
        monkeypatch.setenv(variable, str(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    assert ka.load_text(f"sha1://{HASH}") == "some text"
    assert ka.load_file(f"sha1://{HASH}") == str(kept)
    assert sorted(tmp_path.rglob("*")) == before
    kept.write_text("some lies")
    with pytest.raises(NotFound, match="not what its name says"):
        ka.load_text(f"sha1://{HASH}")
    assert kept.read_text() == "some lies"


def test_md5s_of_classic_kachery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hash_ = "552e21cd4cd9918678e3c1a0df491bc3"
    (tmp_path / "55/2e/21").mkdir(parents=True)
    (tmp_path / "55/2e/21" / hash_).write_text("some text")
    monkeypatch.setenv("MD5_CACHE_DIR", str(tmp_path))
    assert ka.load_text(f"md5://{hash_}/a.txt") == "some text"


@pytest.mark.parametrize("load", [ka.load_file, ka.load_text, ka.load_json, ka.load_npy, ka.load_pkl, ka.load_bytes])
def test_none_for_what_is_missing_where_it_is_asked_for(
    load: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(NotFound):
        load(NOTHING)
    monkeypatch.setenv("KACHERY_MISSING", "none")
    assert load(NOTHING) is None
    assert "was not found" in caplog.text
    monkeypatch.setenv("KACHERY_GATEWAY_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("kachery.http.pause", lambda *_: None)
    assert load(NOTHING) is None
    assert load("kachery:too:few") is None
    monkeypatch.setenv("KACHERY_MISSING", "perhaps")
    with pytest.raises(InvalidInput, match="KACHERY_MISSING"):
        load(NOTHING)


# --- 2.x


def test_the_vectors_of_kachery_2(tmp_path: Path) -> None:
    (tmp_path / "test_content.txt").write_text("test-content\n")
    begin = "kachery::sha1:"
    path = str(tmp_path / "test_content.txt")
    assert ka.store_file(path, label="test_content.txt", local=True, uri_type=2) == (
        f"{begin}b971c6ef19b1d70ae8f0feb989b106c319b36230:test_content.txt"
    )
    assert ka.store_text("example text", label="example.txt", uri_type=1) == (
        "sha1://d9e989f651cdd269d7f9bb8a215d024d8d283688?label=example.txt"
    )
    assert ka.store_json({"example": "dict"}, uri_type=2) == f"{begin}d0d9555e376ff13a08c6d56072808e27ca32d54a"
    array = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.int16)
    assert ka.store_npy_local(array).startswith("sha1://bb55205a2482c6db2ace544fc7d8397551110701")
    value = {"b": 1, "a": [1.0, 2.5, None, True, "é"]}
    assert ka.store_json_local(value) == "sha1://648dc74a2a6d22c3b45aeb0502b0d09cfd69c558/file.json"
    assert ka.sha1_of_dict(value) == "932cc512af216c768bf679d4f2daeec3174f16a3"
    assert ka.sha1_of_dict({"a": 1}) == ka.get_object_hash({"a": 1})
    assert ka.store_text("x", label="a/b ü:?#%", local=True, uri_type=2) == (
        f"{begin}11f6ad8ec52a2984abaafd7c3b516503785c2072:a/b%20%C3%BC%3A%3F%23%25"
    )
    assert ka.store_file_local(path, store_file_prefix="https://x.org/base", label="test_content.txt") == (
        "https://x.org/base/sha1/b971c6ef19b1d70ae8f0feb989b106c319b36230?label=test_content.txt"
    )
    for uri in (
        ka.store_text("x", label="l", uri_type=2),
        ka.store_file_local(path),
        ka.store_text_local("x", "l"),
        ka.store_pkl_local((1, 2)),
    ):
        assert os.path.exists(ka.load_file(uri))
    with pytest.raises(InvalidInput, match="uri_type"):
        ka.store_text("x", uri_type=3)


def test_a_zone_in_the_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    from kachery.store import keys

    with Cloud() as cloud:
        monkeypatch.setenv("KACHERY_GATEWAY_URL", cloud.url)
        monkeypatch.setenv("KACHERY_ZONE", "lab")
        keys.load_or_create()
        assert ka.store_text("some text", uri_type=2, label="a b") == f"kachery:lab:sha1:{HASH}:a%20b"
        told = ka.load_file_info(f"kachery:lab:sha1:{HASH}")
        assert told is not None
        assert (told["type"], told["found"], told["size"]) == ("findFileResponse", True, 9)
        assert "url" not in told
        assert ka.load_file_info(NOTHING) is None
        assert ka.load_file_info("md5://" + "0" * 32) is None


def test_spellings_for_a_whole_program(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, uri in [("1", f"sha1://{HASH}"), ("2", f"kachery::sha1:{HASH}"), ("", f"sha1://{HASH}/file.txt")]:
        monkeypatch.setenv("KACHERY_URI_TYPE", kind)
        assert ka.store_text("some text") == uri
        assert ka.store_text("some text", uri_type=1) == f"sha1://{HASH}"
    monkeypatch.setenv("KACHERY_URI_TYPE", "3")
    with pytest.raises(InvalidInput, match="KACHERY_URI_TYPE"):
        ka.store_text("some text")


def test_a_plain_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_STORE_FILE_DIR", str(tmp_path / "plain"))
    monkeypatch.setenv("KACHERY_STORE_FILE_PREFIX", "$dir")
    assert ka.store_text("some text", uri_type=2) == ka.store_text("some text") == f"$dir/sha1/{HASH}"
    assert ka.store_text("some text", label="a b") == f"$dir/sha1/{HASH}?label=a%20b"
    assert (tmp_path / "plain" / "sha1" / HASH).read_text() == "some text"
    (tmp_path / "a").write_text("some text")
    uri = ka.store_file_local(tmp_path / "a", store_file_dir=str(tmp_path / "other"))
    assert uri == f"sha1://{HASH}/a"
    assert (tmp_path / "other" / "sha1" / HASH).exists()


def test_mutables_and_the_sandbox(own_environment: Path, caplog: pytest.LogCaptureFixture) -> None:
    ka.set_mutable_local("@folder/name", "1")
    assert ka.get_mutable_local("@folder/name") == "1"
    ka.delete_mutable_local("@folder/name")
    assert ka.get_mutable_local("@folder/name", "default") == "default"
    ka.set_mutable_local("@folder/name", "1")
    ka.delete_mutable_folder_local("@folder")
    with pytest.raises(NotFound):
        ka.delete_mutable_local("@folder/name")
    with pytest.raises(InvalidName):
        ka.set_mutable_local("../name", "1")
    assert ka.get_kachery_dir() == str(own_environment)
    caplog.set_level(logging.INFO, "kachery")
    ka.use_sandbox()
    try:
        assert ka.get_kachery_dir() != str(own_environment) == ka.get_kachery_dir(respect_sandbox=False)
        assert str(ka.get_kachery_dir()) in caplog.text
    finally:
        ka.use_sandbox(False)


def test_a_zone_is_not_asked_where_none_is_configured() -> None:
    with pytest.raises(NotConfigured):
        ka.store_text("x", zone="lab")
    assert ka.load_file_info(NOTHING) is None
