"""Bytes that decide hashes: equal to what the reference writers write, and hostile bytes refused."""

from __future__ import annotations

import collections
import decimal
import io
import json
import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import simplejson
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kachery import codecs, digest
from kachery.errors import InvalidInput, WrongContent


def sha1(data: bytes) -> str:
    return digest.of_bytes(data)


def test_vectors_of_text_and_json() -> None:
    assert sha1(codecs.text_to_bytes("example text")) == "d9e989f651cdd269d7f9bb8a215d024d8d283688"
    assert sha1(codecs.text_to_bytes("")) == "da39a3ee5e6b4b0d3255bfef95601890afd80709"
    assert sha1(codecs.text_to_bytes("some text")) == "37aa63c77398d954473262e1a0057c1e632eda77"
    assert sha1(codecs.json_to_bytes({"example": "dict"})) == "d0d9555e376ff13a08c6d56072808e27ca32d54a"
    value = {"b": "é", "a": [1, 2.0, None, True]}
    assert sha1(codecs.json_to_bytes(value)) == "fc06271bd6614934b91ab5652a81ed2cd919eb70"
    value = {"b": 1, "a": [1.0, 2.5, None, True, "é"]}
    assert codecs.json_to_bytes(value) == b'{"a":[1.0,2.5,null,true,"\\u00e9"],"b":1}'
    assert sha1(codecs.json_to_bytes(value)) == "648dc74a2a6d22c3b45aeb0502b0d09cfd69c558"


def test_vectors_of_deterministic_json() -> None:
    assert codecs.dict_sha1({"a": 1.0, "b": 2.5, "c": "é"}) == "49ff3c7a6e23de0e0f1c77056f53f11395aa9054"
    assert codecs.dict_sha1({"a": 1}) == "9f89c740ceb46d7418c924a78ac57941d5e96520"
    assert codecs.dict_sha1({"b": 1, "a": [1.0, 2.5, None, True, "é"]}) == "932cc512af216c768bf679d4f2daeec3174f16a3"


@pytest.mark.parametrize(
    ("task_input", "job_id"),
    [
        ({"a": 1.0, "b": "x"}, "ad76e3c33c83853fc79160c9c84473802acf31c6"),
        ({"a": 1, "b": "x"}, "ad76e3c33c83853fc79160c9c84473802acf31c6"),
        ({"a": 1.5}, "7350cf47ae4b1ef35a14aa7038ee0da1ecfa7111"),
    ],
)
def test_vectors_of_task_ids(task_input: dict[str, Any], job_id: str) -> None:
    assert codecs.dict_sha1({"taskName": "n.1", "taskInput": task_input}) == job_id


def test_small_floats_are_written_as_python_writes_them() -> None:
    assert codecs.deterministic_json([1e-7]) == "[1e-07]"
    small = codecs.dict_sha1({"taskName": "n.1", "taskInput": {"a": 1e-7}})
    assert small.startswith("e07c8777")


def test_the_vector_of_npy() -> None:
    array = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.int16)
    data = codecs.array_to_bytes(array)

    assert len(data) == 140
    assert sha1(data) == "bb55205a2482c6db2ace544fc7d8397551110701"


def test_texts_are_not_translated() -> None:
    assert codecs.text_to_bytes("a\r\nb\n") == b"a\r\nb\n"
    assert codecs.bytes_to_text(b"a\r\nb\n") == "a\r\nb\n"


@given(st.text())
def test_texts_come_back(text: str) -> None:
    try:
        data = codecs.text_to_bytes(text)
    except InvalidInput:
        assert any("\ud800" <= character <= "\udfff" for character in text)
    else:
        assert codecs.bytes_to_text(data) == text


def test_what_is_no_text() -> None:
    with pytest.raises(InvalidInput):
        codecs.text_to_bytes(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(WrongContent, match="UTF-8"):
        codecs.bytes_to_text(b"\xff")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@given(JSON)
def test_json_is_what_the_reference_writes_and_comes_back(value: Any) -> None:
    data = codecs.json_to_bytes(value)

    reference = simplejson.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    assert data == reference.encode("ascii")
    assert codecs.bytes_to_json(data) == value


@given(JSON, st.integers(0, 4))
def test_indented_json_is_what_the_reference_writes(value: Any, indent: int) -> None:
    data = codecs.json_to_bytes(value, separators=(", ", ": "), indent=indent)

    assert data.decode() == simplejson.dumps(value, sort_keys=True, separators=(", ", ": "), indent=indent)


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize("value", [(1, 2), Point(1, 2), decimal.Decimal("1.10"), {2: "a", 1: "b"}, {"\u2028": "\x7f"}])
def test_odd_values_are_written_as_the_reference_writes_them(value: Any) -> None:
    assert codecs.json_to_bytes(value) == simplejson.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_json_has_no_nan(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        codecs.json_to_bytes(value)


@pytest.mark.parametrize("value", [{1, 2}, object(), np.int64(3), np.zeros(2)])
def test_json_has_no_other_types(value: Any) -> None:
    with pytest.raises(TypeError):
        codecs.json_to_bytes(value)


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", [endless(), deep(100_000)])
def test_what_never_ends_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 — the class is the promise
        codecs.json_to_bytes(value)
    with pytest.raises(InvalidInput):
        codecs.dict_sha1({"a": value})
    with pytest.raises(InvalidInput):
        codecs.pickle_to_bytes(value)
    with pytest.raises(InvalidInput):
        codecs.arrays_to_json(value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"<html>", b"[" * 100_000, b"1" * 10_000, b'{"a":' * 50_000])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(WrongContent, match="JSON"):
        codecs.bytes_to_json(data)


ARRAYS = hnp.arrays(
    st.one_of(hnp.scalar_dtypes(), hnp.array_dtypes(hnp.scalar_dtypes(), max_size=3)),
    hnp.array_shapes(max_dims=3, max_side=4),
)


# names of fields beyond Latin-1 need the format's third version, of which numpy warns
@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
@given(ARRAYS)
def test_arrays_are_what_the_reference_writes_and_come_back(array: np.ndarray) -> None:
    data = codecs.array_to_bytes(array)

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    assert data == buffer.getvalue()
    loaded = codecs.bytes_to_array(data)
    assert (loaded.dtype, loaded.shape) == (array.dtype, array.shape)
    assert loaded.tobytes() == array.tobytes()


def test_arrays_of_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        codecs.array_to_bytes(np.array([{}], dtype=object))
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(WrongContent):
        codecs.bytes_to_array(buffer.getvalue())


def npy(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"PK\x03\x04 not really",
        codecs.array_to_bytes(np.arange(9))[:-1],
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999999,), }"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"),
        npy("{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,), }"),
        npy("__import__('os').system('true')"),
        npy("("),
        npy("(" * 5000),
    ],
)
def test_what_is_no_array_is_refused(data: bytes) -> None:
    with pytest.raises(WrongContent):
        codecs.bytes_to_array(data)


@pytest.mark.filterwarnings("ignore:Stored array in format 3.0", "ignore:Reading `.npy`")
@given(ARRAYS, st.data())
def test_a_damaged_array_is_refused_or_still_an_array(array: np.ndarray, data: st.DataObject) -> None:
    content = bytearray(codecs.array_to_bytes(array))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 128) - 1))] = data.draw(st.integers(0, 255))
    try:
        loaded = codecs.bytes_to_array(bytes(content))
    except WrongContent:
        return
    assert isinstance(loaded, np.ndarray)


def test_an_archive_is_not_one_array() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(2))
    with pytest.raises(WrongContent, match="archive"):
        codecs.bytes_to_array(buffer.getvalue())


SIMPLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.complex_numbers(allow_nan=False)
    | st.builds(range, st.integers(0, 9))
    | st.builds(slice, st.integers(0, 9)),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(SIMPLE)
def test_simple_values_are_pickled_as_the_reference_does_and_come_back(value: Any) -> None:
    data = codecs.pickle_to_bytes(value)

    assert data == pickle.dumps(value)
    assert codecs.bytes_to_pickle(data) == value


@pytest.mark.parametrize("dtype", ["i2", ">f8", "?", "U3", "c8", [("a", "i4"), ("b", "f4")]])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_in_pickles_come_back(dtype: Any, protocol: int) -> None:
    array = np.zeros((2, 3), dtype=dtype)
    for value in (array, np.asfortranarray(array), array[0, 0]):
        data = pickle.dumps(value, protocol)
        loaded, reference = codecs.bytes_to_pickle(data), pickle.loads(data)
        assert loaded.dtype == reference.dtype
        assert loaded.tobytes() == value.tobytes()


def test_arrays_pickled_by_the_older_numpy_come_back() -> None:
    data = pickle.dumps(np.arange(3, dtype="i2"), 3).replace(b"numpy._core.", b"numpy.core.")
    assert codecs.bytes_to_pickle(data).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "value", [{1}, b"x", object(), [object()], {"a": {1: b""}}, os.getcwd, np.array([{}], dtype=object)]
)
def test_other_values_are_not_pickled(value: Any) -> None:
    with pytest.raises(InvalidInput, match="cannot be stored as a pickle"):
        codecs.pickle_to_bytes(value)


class Evil:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.what = (function, arguments)

    def __reduce__(self) -> Any:
        return self.what


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no pickle",
        pickle.dumps(Evil(os.system, "touch /tmp/evil")),
        pickle.dumps(Evil(eval, "1+1")),
        pickle.dumps(Evil(getattr, "x", "__class__")),
        pickle.dumps(Evil(subprocess.check_output, ["true"])),
        pickle.dumps(Evil(np.load, "/etc/passwd", None, True)),
        pickle.dumps(collections.OrderedDict(a=1)),
        b"cbuiltins\nrange.__class__\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x0crange.__init__\x93.",
        b"cnumpy\nndarray.tofile\n.",
        b"cnumpy\nndarray\n(I1000000000000000\ntR.",
        pickle.dumps([1, 2, 3])[:-2],
    ],
)
def test_pickles_that_ask_for_more_are_refused(data: bytes) -> None:
    with pytest.raises(WrongContent):
        codecs.bytes_to_pickle(data)


@given(st.binary(max_size=200))
def test_random_bytes_are_a_simple_value_or_refused(data: bytes) -> None:
    for read in (codecs.bytes_to_json, codecs.bytes_to_text, codecs.bytes_to_array):
        try:
            read(data)
        except WrongContent:
            pass


@given(ARRAYS.filter(lambda array: array.dtype.kind in "biufc"), st.booleans())
def test_arrays_within_json_come_back(array: np.ndarray, compress: bool) -> None:
    value = {"a": [array, {"b": (1, "x", None, np.float32(0.5))}]}

    written = json.loads(json.dumps(codecs.arrays_to_json(value, compress=compress)))
    loaded = codecs.json_to_arrays(written)

    assert (loaded["a"][0].dtype, loaded["a"][0].shape) == (array.dtype, array.shape)
    assert loaded["a"][0].tobytes() == array.tobytes()
    assert loaded["a"][1] == {"b": [1, "x", None, 0.5]}


@pytest.mark.parametrize("value", [b"x", {1}, np.array([{}], dtype=object), object()])
def test_other_values_do_not_go_into_json(value: Any) -> None:
    with pytest.raises(InvalidInput):
        codecs.arrays_to_json({"a": value})


@pytest.mark.parametrize(
    "value",
    [
        {"_type": "ndarray"},
        {"_type": "ndarray", "shape": [2], "dtype": "f8", "data_b64": "AAAA"},
        {"_type": "ndarray", "shape": [-5], "dtype": "i1", "data_b64": "AAAA"},
        {"_type": "ndarray", "shape": "x", "dtype": "i1", "data_b64": "AAAA"},
        {"_type": "ndarray", "shape": [3], "dtype": "O", "data_b64": "AAAA"},
        {"_type": "ndarray", "shape": [3], "dtype": "nonsense", "data_b64": "AAAA"},
        {"_type": "ndarray", "shape": [3], "dtype": {"a": 1}, "data_b64": "AAAA"},
        {"_type": "ndarray", "shape": [3], "dtype": "i1", "data_b64": "A"},
        {"_type": "ndarray", "shape": [3], "dtype": "i1", "data_b64": 7},
        {"_type": "ndarray", "shape": [3], "dtype": "i1", "data_gzip_b64": "AAAA"},
        {"_type": "ndarray", "shape": [10**30], "dtype": "i1", "data_b64": "AAAA"},
        deep(100_000),
    ],
)
def test_what_claims_to_be_an_array_and_is_none(value: Any) -> None:
    with pytest.raises(WrongContent):
        codecs.json_to_arrays(value)


WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None
from kachery import codecs
from kachery.errors import NotSupported
assert codecs.bytes_to_json(codecs.json_to_bytes({"a": [1.5, "x"]})) == {"a": [1.5, "x"]}
assert codecs.bytes_to_pickle(codecs.pickle_to_bytes({"a": (1, range(3))})) == {"a": (1, range(3))}
assert codecs.arrays_to_json({"a": (1, 2)}) == {"a": [1, 2]}
for use in (lambda: codecs.array_to_bytes([1]), lambda: codecs.bytes_to_array(b"")):
    try:
        use()
    except NotSupported as error:
        assert "numpy" in str(error)
    else:
        raise AssertionError
"""


def test_everything_but_arrays_works_without_numpy() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_NUMPY], check=True)
