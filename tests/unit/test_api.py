"""`import kachery`: light, complete, and equal for equal values."""

from __future__ import annotations

import inspect
import math
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import kachery
from kachery.errors import InvalidInput, WrongContent

if TYPE_CHECKING:
    from pathlib import Path


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    "statement", ["import kachery", "import kachery; kachery.errors", "from kachery import KacheryError"]
)
def test_importing_is_light_and_creates_nothing(
    statement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    if "kachery.errors" in statement:
        statement = "import kachery, kachery.errors"
    heavy = ["numpy", "urllib3", "nacl", "tqdm", "simplejson", "http.client", "ssl", "sqlite3", "typer"]
    assert run(f"{statement}\nimport sys; print([name for name in {heavy} if name in sys.modules])") == "[]\n"
    assert (
        run("import kachery.api, sys; print([name for name in ('numpy', 'urllib3', 'tqdm') if name in sys.modules])")
        == "[]\n"
    )
    assert [path for path in tmp_path.rglob("*") if path.name != "home"] == []


def test_storing_locally_needs_no_network_library() -> None:
    code = """
import sys, kachery
uri = kachery.store_text("x", local=True)
assert kachery.load_text(uri) == "x"
print([name for name in ("numpy", "urllib3", "tqdm", "nacl") if name in sys.modules])
"""
    assert run(code) == "[]\n"


def test_without_numpy_all_but_arrays_work() -> None:
    code = """
import sys
sys.modules["numpy"] = None
import kachery
assert kachery.load_json(kachery.store_json({"a": [1, 2.5]}, local=True)) == {"a": [1, 2.5]}
assert kachery.load_pkl(kachery.store_pkl((1, 2), local=True)) == (1, 2)
try:
    kachery.store_npy([1], local=True)
except NotImplementedError as error:
    assert "kachery[npy]" in str(error)
    print("refused")
"""
    assert run(code) == "refused\n"


def test_what_is_public_is_there_typed_and_documented() -> None:
    assert set(dir(kachery)) == set(kachery.__all__)
    for name in kachery.__all__:
        thing = getattr(kachery, name)
        if name == "__version__":
            continue
        assert inspect.getdoc(thing), name
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            assert signature.return_annotation is not inspect.Signature.empty
            assert all(item.annotation is not inspect.Parameter.empty for item in signature.parameters.values())
            if thing.__module__ == "kachery.api" and name != "link_file":
                assert "zone" in signature.parameters, name
    with pytest.raises(AttributeError):
        kachery.nothing  # noqa: B018


def test_the_uris_of_the_vectors(tmp_path: Path) -> None:
    (tmp_path / "test_content.txt").write_bytes(b"test-content\n")
    array = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.int16)
    assert kachery.store_file(tmp_path / "test_content.txt", local=True) == (
        "sha1://b971c6ef19b1d70ae8f0feb989b106c319b36230/test_content.txt"
    )
    assert kachery.store_text("example text", local=True) == "sha1://d9e989f651cdd269d7f9bb8a215d024d8d283688/file.txt"
    assert (
        kachery.store_json({"example": "dict"}, local=True)
        == "sha1://d0d9555e376ff13a08c6d56072808e27ca32d54a/file.json"
    )
    assert kachery.store_npy(array, local=True) == "sha1://bb55205a2482c6db2ace544fc7d8397551110701/file.npy"
    assert kachery.store_text("", local=True).startswith("sha1://da39a3ee5e6b4b0d3255bfef95601890afd80709")


def test_labels(tmp_path: Path) -> None:
    (tmp_path / "source.dat").write_bytes(b"x")
    source = str(tmp_path / "source.dat")
    begin = "sha1://11f6ad8ec52a2984abaafd7c3b516503785c2072"
    for label, uri in [
        (None, f"{begin}/source.dat"),
        ("", begin),
        ("a b", f"{begin}/a%20b"),
        ("../../x", f"{begin}/x"),
    ]:
        assert kachery.store_file(source, label=label, local=True) == uri
        assert kachery.link_file(source, label=label) == uri
    assert kachery.store_text("x", label="n" * 300, local=True) == f"{begin}/" + "n" * (199 - len(begin))


@pytest.mark.parametrize("label", ["\x00", "a\nb", "\u202e", "?x=1", "\ud800", "%00", "con"])
def test_hostile_labels_stay_names_for_people(label: str) -> None:
    uri = kachery.store_text("x", label=label, local=True)
    assert uri.isascii()
    assert kachery.load_text(uri) == "x"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@hypothesis_settings(max_examples=50)
@given(JSON)
def test_json_comes_back_and_equal_values_have_equal_uris(value: Any) -> None:
    uri = kachery.store_json(value, local=True)
    assert kachery.load_json(uri) == value
    if isinstance(value, dict):
        assert kachery.store_json(dict(reversed(value.items())), local=True) == uri


@hypothesis_settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_texts_come_back(text: str) -> None:
    assert kachery.load_text(kachery.store_text(text, local=True)) == text


def test_arrays_and_pickles_come_back() -> None:
    array = np.arange(12.0).reshape(3, 4)
    assert (kachery.load_npy(kachery.store_npy(array, local=True)) == array).all()
    value = {"a": (1, [array, None]), "b": range(3)}
    loaded = kachery.load_pkl(kachery.store_pkl(value, local=True))
    assert (loaded["a"][1][0] == array).all()
    assert loaded["b"] == range(3)


def test_values_that_cannot_be_stored(own_environment: Path) -> None:
    for use, kind in [
        (lambda: kachery.store_json(math.nan, local=True), ValueError),
        (lambda: kachery.store_json({1, 2}, local=True), TypeError),
        (lambda: kachery.store_npy(np.array([{}], dtype=object), local=True), ValueError),
        (lambda: kachery.store_pkl({1, 2}, local=True), InvalidInput),
        (lambda: kachery.store_text("\ud800", local=True), InvalidInput),
        (lambda: kachery.store_text(7, local=True), InvalidInput),  # type: ignore[arg-type]
    ]:
        with pytest.raises(kind):
            use()
    assert not own_environment.exists()


def test_content_of_another_kind() -> None:
    uri = kachery.store_text("\u00e9 {", local=True)
    for use in (kachery.load_json, kachery.load_npy, kachery.load_pkl):
        with pytest.raises(WrongContent):
            use(uri)
    with pytest.raises(WrongContent):
        kachery.load_text(kachery.store_npy(np.zeros(3), local=True))


def test_opening_what_is_here() -> None:
    uri = kachery.store_text("0123456789", local=True)
    with kachery.open(uri) as file:
        file.seek(3)
        assert file.read(4) == b"3456"
    assert kachery.load_bytes(uri, 3, 7, local_only=True) == b"3456"


def test_paths_of_any_kind(tmp_path: Path) -> None:
    (tmp_path / "x.dat").write_bytes(b"x")
    begin = "sha1://11f6ad8ec52a2984abaafd7c3b516503785c2072"
    for path in (tmp_path / "x.dat", str(tmp_path / "x.dat"), os.fsencode(tmp_path / "x.dat")):
        assert kachery.store_file(path, local=True) == f"{begin}/x.dat"  # type: ignore[arg-type]
        assert kachery.link_file(path) == f"{begin}/x.dat"  # type: ignore[arg-type]
    for dest in (tmp_path / "y", str(tmp_path / "y"), os.fsencode(tmp_path / "y")):
        assert kachery.load_file(begin, dest=dest) == str(tmp_path / "y")  # type: ignore[arg-type]
    for nothing in (None, 7):
        with pytest.raises(TypeError):
            kachery.store_file(nothing, local=True)  # type: ignore[arg-type]


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.dat").write_bytes(b"x")
    uri = kachery.link_file("x.dat")
    assert kachery.load_file(uri, dest="y.dat") == "y.dat"
    monkeypatch.chdir("/")
    assert kachery.load_file(uri) == str(tmp_path / "x.dat")
