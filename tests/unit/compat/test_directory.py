"""The store directory, sandboxes, temporary directories, local mutables, and the small private modules."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kachery_cloud as kc
from kachery.errors import InvalidInput, InvalidName, InvalidURI, NotFound, WrongContent
from kachery_cloud._json_stringify_deterministic import _json_stringify_deterministic
from kachery_cloud._load_github_file import _parse_github_uri
from kachery_cloud._safe_pickle import _safe_pickle, _safe_unpickle
from kachery_cloud._serialize import _deserialize, _serialize, serialize_wrapper
from kachery_cloud._sha1_of_string import _sha1_of_string
from kachery_cloud.load_file import load_file_local
from kachery_cloud.store_file_local import _compute_file_hash

from .conftest import CONTENT, SHA1, URI


def test_the_directory_is_made_when_it_is_asked_for(
    own_environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not own_environment.exists()
    assert kc.get_kachery_cloud_dir() == str(own_environment)
    assert own_environment.is_dir()
    # read at each call
    monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / "other"))
    assert kc.get_kachery_cloud_dir() == str(tmp_path / "other")


def test_a_directory_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / "file" / "x"))

    assert kc.get_kachery_cloud_dir() == str(tmp_path / "file" / "x")
    assert "make the directory" in caplog.text


def test_a_group_s_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2775)
    monkeypatch.setenv("KACHERY_CLOUD_DIR", str(shared))
    (tmp_path / "a").write_bytes(CONTENT)
    old = os.umask(0o022)
    try:
        kc.store_file_local(str(tmp_path / "a"))
        kc.link_file(str(tmp_path / "a"))
        kc.set_mutable_local("@a/b", "x")
    finally:
        os.umask(old)

    for path in shared.rglob("*"):
        mode = path.stat().st_mode
        assert mode & stat.S_IWGRP, path
        assert not path.is_dir() or mode & stat.S_ISGID, path


def test_sandbox(own_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the choice travels to child processes through these
    monkeypatch.setenv("KACHERY_CLOUD_SANDBOX_DIR", "")
    monkeypatch.setenv("KACHERY_CLOUD_USE_SANDBOX", "0")
    kc.use_sandbox()
    sandbox = Path(kc.get_kachery_cloud_dir())
    uri = kc.store_text_local("x")

    assert sandbox.parent == own_environment / "sandbox"
    assert str(kc.load_file(uri)).startswith(str(sandbox))
    assert kc.get_kachery_cloud_dir(respect_sandbox=False) == str(own_environment)
    kc.use_sandbox(False)
    assert kc.load_file(uri, local_only=True) is None
    kc.use_sandbox(True)
    assert kc.get_kachery_cloud_dir() == str(sandbox)
    assert kc.load_text(uri) == "x"
    shutil.rmtree(sandbox)


def test_temporary_directory(own_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = kc.TemporaryDirectory(prefix="tmp_x")
    assert not own_environment.exists()
    with directory as path:
        assert isinstance(path, str)
        assert directory.path() == path
        assert Path(path).parent == own_environment
        assert Path(path).name.startswith("tmp_x_")
        (Path(path) / "file").touch()
    assert not Path(path).exists()
    with kc.TemporaryDirectory() as gone:
        shutil.rmtree(gone)
    with kc.TemporaryDirectory(remove=False) as kept:
        pass
    assert Path(kept).is_dir()
    monkeypatch.setenv("KACHERY_CLOUD_KEEP_TEMP_FILES", "1")
    with kc.TemporaryDirectory() as kept:
        pass
    assert Path(kept).is_dir()
    with pytest.raises(AttributeError):
        kc.TemporaryDirectory().path()


def test_mutables(own_environment: Path) -> None:
    assert kc.get_mutable_local("@a/@b/c") is None
    assert kc.get_mutable_local("@a/@b/c", "default") == "default"
    assert not own_environment.exists()

    kc.set_mutable_local("@a/@b/c", "é\r\n")
    kc.set_mutable_local("single", "")

    assert kc.get_mutable_local("@a/@b/c") == "é\r\n"
    assert kc.get_mutable_local("single", "default") == ""
    assert (own_environment / "mutables" / "@a" / "@b" / "c").read_bytes() == "é\r\n".encode()
    kc.delete_mutable_local("@a/@b/c")
    with pytest.raises(NotFound):
        kc.delete_mutable_local("@a/@b/c")
    kc.delete_mutable_folder_local("@a")
    with pytest.raises(NotFound):
        kc.delete_mutable_folder_local("@a")
    assert kc.get_mutable_local("single") == ""


@pytest.mark.parametrize("key", ["a/b", "@a", "@a/@b", "", "/a", "@a/../b", "@a//b", "@a/.", "../private.pem"])
def test_keys_that_are_none(key: str, own_environment: Path) -> None:
    with pytest.raises(InvalidName):
        kc.set_mutable_local(key, "x")
    with pytest.raises(InvalidName):
        kc.get_mutable_local(key)
    with pytest.raises(InvalidName):
        kc.delete_mutable_local(key)
    assert not own_environment.exists()


def test_a_mutable_holds_a_text() -> None:
    with pytest.raises(InvalidInput):
        kc.set_mutable_local("@a/b", 3)  # type: ignore[arg-type] — as a program without types might


@pytest.mark.parametrize("folder", ["a", "@a/b", "..", "", "/"])
def test_folders_that_are_none(folder: str) -> None:
    with pytest.raises(InvalidName):
        kc.delete_mutable_folder_local(folder)


def test_hash_of_a_dict() -> None:
    assert kc.sha1_of_dict({"a": 1.0, "b": 2.5, "c": "é"}) == "49ff3c7a6e23de0e0f1c77056f53f11395aa9054"
    task = {"taskName": "n.1", "taskInput": {"a": 1.0, "b": "x"}}
    assert kc.sha1_of_dict(task) == "ad76e3c33c83853fc79160c9c84473802acf31c6"
    # D-29: not what every other number would have given
    task = {"taskName": "n.1", "taskInput": {"a": 1.5}}
    assert kc.sha1_of_dict(task) == "7350cf47ae4b1ef35a14aa7038ee0da1ecfa7111"
    assert _json_stringify_deterministic({"b": (1.0, 2), "a": 1.5}) == '{"a":1.5,"b":[1,2]}'
    assert _sha1_of_string("é") == "bf15be717ac1b080b4f1c456692825891ff5073d"
    with pytest.raises(InvalidInput):
        kc.sha1_of_dict({"a": float("nan")})


def test_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)

    assert _compute_file_hash(str(tmp_path / "a"), algorithm="sha1") == SHA1
    assert _compute_file_hash(str(tmp_path / "a"), "md5") == "fa58f28bf733168df46cd7341f0e559b"
    with pytest.raises(NotFound):
        _compute_file_hash(str(tmp_path / "b"), algorithm="sha1")


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
        np.array(3.0),
        np.array([], dtype=np.uint8),
        np.array([True]),
    ],
)
def test_arrays_as_json(array: Any, compress: bool) -> None:
    # D-27
    written = _serialize({"a": (array, np.float32(1.5), np.int64(2), None, "x", True)}, compress_npy=compress)

    assert written["a"][1:] == [1.5, 2, None, "x", True]
    assert written["a"][0]["_type"] == "ndarray"
    read = _deserialize(written)["a"][0]
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_what_is_no_json_and_no_array() -> None:
    assert _serialize(np.arange(3)) == {
        "_type": "ndarray",
        "shape": [3],
        "dtype": "int64",
        "data_b64": "AAAAAAAAAAABAAAAAAAAAAIAAAAAAAAA",
    }
    assert serialize_wrapper(lambda x: x)(np.arange(3))["data_gzip_b64"] == "eNpjYIAARijNBKUBADgABA=="
    # an array of objects would be written as addresses in memory
    for value in (b"x", {1}, 1j, object(), np.array([None]), np.datetime64("2020-01-01")):
        with pytest.raises(InvalidInput):
            _serialize(value)
    for broken in ({"data_b64": "!"}, {"data_b64": "AAAA", "dtype": "O", "shape": [1]}, {}):
        with pytest.raises(WrongContent):
            _deserialize({"_type": "ndarray", "shape": [3], "dtype": "int64", **broken})


def test_pickles_in_files(tmp_path: Path) -> None:
    _safe_pickle(str(tmp_path / "x"), {"a": (1, 2)})

    assert _safe_unpickle(str(tmp_path / "x")) == {"a": (1, 2)}
    with pytest.raises(InvalidInput):
        _safe_pickle(str(tmp_path / "y"), {1})


def test_parts_of_a_github_uri() -> None:
    assert _parse_github_uri("gh://u/r/b/a/b.json") == ("u", "r", "b", "a/b.json")
    with pytest.raises(InvalidURI):
        _parse_github_uri(URI)


def test_loading_locally(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    assert load_file_local(URI) is None
    kc.link_file(str(tmp_path / "a"))
    assert load_file_local(URI, dest=str(tmp_path / "b")) == str(tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == CONTENT
