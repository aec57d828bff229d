"""Texts, JSON, arrays and pickles to bytes and back.

The bytes decide the hash, so they are the same as upstream's, byte for byte, for all that upstream accepts.

| kind | bytes |
|---|---|
| text | UTF-8, no newline translation |
| JSON | keys sorted, ASCII, `,` and `:` without blanks, NaN and infinity refused |
| object | JSON of classic kachery: keys in their order, ASCII, `, ` and `: `, NaN as it is |
| npy | as `numpy.save(allow_pickle=False)` writes them |
| pickle | default protocol, after every value was checked against a short list of types; read back the same way |
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import operator
import pickle
import sys
import zlib
from typing import TYPE_CHECKING, Any

from .errors import InvalidInput, NotSupported, WrongContent

if TYPE_CHECKING:
    import numpy as np


def text_to_bytes(text: str) -> bytes:
    """The bytes of a text."""
    if not isinstance(text, str):
        raise InvalidInput(f"a text is expected, not {type(text).__name__}")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput(f"the text cannot be written as UTF-8: {error}") from error


def bytes_to_text(data: bytes) -> str:
    """The text of some bytes.

    Raises:
        WrongContent: If they are not UTF-8.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WrongContent(
            f"the content is not a text in UTF-8: {error}", hint="load it with load_file or load_bytes"
        ) from error


def json_to_bytes(
    value: Any, *, separators: tuple[str, str] = (",", ":"), indent: int | None = None, allow_nan: bool = False
) -> bytes:
    """The bytes of a JSON value, equal for equal values.

    Args:
        value: Dicts with text keys, lists, tuples, texts, numbers, booleans and `None`.
        separators: Between items, and between a key and its value.
        indent: Blanks for each level, or `None` for one line.
        allow_nan: Whether NaN and infinity are written, which JSON does not have.

    Raises:
        TypeError: If the value holds something that JSON does not have.
        ValueError: If it holds NaN or infinity, or contains itself.
    """
    # upstream's writer: it differs from json's in named tuples, decimals, bytes and the order of number keys
    import simplejson

    try:
        text: str = simplejson.dumps(value, sort_keys=True, separators=separators, indent=indent, allow_nan=allow_nan)
    except RecursionError as error:
        raise InvalidInput("the value is nested too deeply for JSON") from error
    return text.encode("ascii")


def object_to_bytes(value: Any, *, indent: int | None = None) -> bytes:
    """The bytes of a JSON value as classic kachery wrote it: keys in their order, blanks after marks, NaN as it is.

    Args:
        value: Dicts with text keys, lists, tuples, texts, numbers, booleans and `None`.
        indent: Blanks for each level, or `None` for one line.

    Raises:
        TypeError: If the value holds something that JSON does not have.
    """
    import simplejson

    try:
        text: str = simplejson.dumps(value, indent=indent, allow_nan=True)
    except RecursionError as error:
        raise InvalidInput("the value is nested too deeply for JSON") from error
    return text.encode("ascii")


def bytes_to_json(data: bytes) -> Any:
    """The JSON value of some bytes.

    Raises:
        WrongContent: If they are not JSON.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WrongContent(f"the content is not JSON: {error}", hint="load it with load_text or load_file") from error


def array_to_bytes(array: np.ndarray) -> bytes:
    """The bytes of an array, of any shape and dtype but objects, in the npy format.

    Raises:
        ValueError: If the array holds Python objects.
        NotSupported: If numpy is not installed.
    """
    numpy = _numpy()
    buffer = io.BytesIO()
    numpy.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def bytes_to_array(data: bytes) -> np.ndarray:
    """The array of some bytes in the npy format.

    Raises:
        WrongContent: If they are not an array without Python objects.
        NotSupported: If numpy is not installed.
    """
    numpy = _numpy()
    try:
        loaded = numpy.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:
        # what a damaged header makes numpy raise is not limited to what it documents
        raise WrongContent(f"the content is not a numpy array: {error}", hint="load it with load_file") from error
    if not isinstance(loaded, numpy.ndarray):
        raise WrongContent(
            "the content is an archive of arrays, not one array", hint="load it with load_file and numpy.load"
        )
    array: np.ndarray = loaded
    return array


def pickle_to_bytes(value: Any) -> bytes:
    """The bytes of a value of simple types, pickled.

    Args:
        value: Numbers, texts, booleans, `None`, range, complex, slice, dicts, lists, tuples, numpy arrays and scalars.

    Raises:
        InvalidInput: If the value holds anything else.
    """
    try:
        _check_simple(value)
        return pickle.dumps(value)
    except RecursionError as error:
        raise InvalidInput("the value is nested too deeply for a pickle, or contains itself") from error


def bytes_to_pickle(data: bytes) -> Any:
    """The value of some pickled bytes; nothing but the listed types is ever made.

    Raises:
        WrongContent: If the bytes are no pickle, or ask for something else.
    """
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except WrongContent:
        raise
    except Exception as error:
        raise WrongContent(
            f"the content is not a pickle of simple values: {error}", hint="load it with load_file"
        ) from error


def deterministic_json(value: Any) -> str:
    """The JSON text of a value in which floats equal to an integer are integers, equal for equal values.

    Raises:
        InvalidInput: If the value holds something that JSON does not have.
    """
    try:
        return json_to_bytes(_integral(value)).decode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"not a JSON value: {error}") from error


def dict_sha1(value: dict[str, Any]) -> str:
    """The SHA-1 of a dict's deterministic JSON.

    Raises:
        InvalidInput: If the value holds something that JSON does not have.
    """
    return hashlib.sha1(deterministic_json(value).encode("ascii"), usedforsecurity=False).hexdigest()


def arrays_to_json(value: Any, *, compress: bool = False) -> Any:
    """A JSON value for a value that may hold numpy arrays and numbers, as the results of tasks do.

    An array becomes `{"_type": "ndarray", "shape": […], "dtype": …, "data_b64": …}`, with the base64 of its values in
    C order; numpy's numbers become Python's, and tuples lists.

    Args:
        value: Dicts, lists, tuples, texts, numbers, booleans, `None`, and numpy's arrays and numbers.
        compress: Whether `data_gzip_b64` is written instead, the base64 of a zlib stream.

    Raises:
        InvalidInput: If the value holds anything else, or an array of Python objects.
    """
    try:
        return _from_arrays(value, compress=compress)
    except RecursionError as error:
        raise InvalidInput("the value is nested too deeply for JSON, or contains itself") from error


def _from_arrays(value: Any, *, compress: bool) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, dict):
        return {key: _from_arrays(item, compress=compress) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_from_arrays(item, compress=compress) for item in value]
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray) and not value.dtype.hasobject:
        data = value.tobytes(order="C")
        body = {"data_gzip_b64": _base64(zlib.compress(data, 9))} if compress else {"data_b64": _base64(data)}
        return {"_type": "ndarray", "shape": list(value.shape), "dtype": str(value.dtype), **body}
    if numpy is not None and isinstance(value, numpy.integer | numpy.floating):
        return value.item()
    if isinstance(value, int | float):
        return value
    raise InvalidInput(f"a value of type {type(value).__name__} cannot be written as JSON")


def json_to_arrays(value: Any) -> Any:
    """The value that `arrays_to_json` wrote, arrays again arrays.

    Raises:
        WrongContent: If what claims to be an array is none.
        NotSupported: If there is an array and numpy is not installed.
    """
    try:
        return _to_arrays(value)
    except RecursionError as error:
        raise WrongContent("the JSON value is nested too deeply") from error


def _to_arrays(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_to_arrays(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("_type") != "ndarray":
        return {key: _to_arrays(item) for key, item in value.items()}
    numpy = _numpy()
    try:
        dtype, shape = numpy.dtype(value["dtype"]), [operator.index(length) for length in value["shape"]]
        size = dtype.itemsize * math.prod(shape)
        if min(shape, default=0) < 0:
            raise ValueError(f"no array has the shape {shape}")
        if "data_b64" in value:
            data = base64.b64decode(value["data_b64"], validate=True)
        else:
            # no more than the array takes, whatever the stream would grow to
            packed = base64.b64decode(value["data_gzip_b64"], validate=True)
            data = zlib.decompressobj().decompress(packed, size + 1)
        return numpy.frombuffer(data, dtype=dtype).reshape(shape)
    except (KeyError, TypeError, ValueError, OverflowError, zlib.error) as error:
        raise WrongContent(f"an array in the JSON value cannot be read: {error}") from error


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _integral(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _integral(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_integral(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _numpy() -> Any:
    try:
        import numpy
    except ImportError as error:
        raise NotSupported("numpy is not installed", hint="pip install 'kachery[npy]'") from error
    return numpy


def _check_simple(value: Any) -> None:
    if value is None or isinstance(value, int | float | str | bool | range | complex | slice):
        return
    if isinstance(value, dict):
        for item in value.values():
            _check_simple(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_simple(item)
    elif not _is_numpy_value(value):
        raise InvalidInput(
            f"a value of type {type(value).__name__} cannot be stored as a pickle",
            hint="store JSON, an array or a file",
        )


def _is_numpy_value(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return False
    if isinstance(value, numpy.ndarray):
        return not value.dtype.hasobject
    return isinstance(value, numpy.number | numpy.bool_)


_ALLOWED = {("builtins", name) for name in ("range", "complex", "set", "frozenset", "slice")} | {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    # numpy 2 renamed the module; pickles of both name these
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise WrongContent(f"the pickle asks for {module}.{name}, which is not a simple value")
        if module.startswith(("numpy.core.", "numpy._core.")):
            return self._numpy_internal(module, name)
        return super().find_class(module, name)

    def _numpy_internal(self, module: str, name: str) -> Any:
        numpy = _numpy()
        core = "numpy._core" if int(numpy.__version__.split(".", maxsplit=1)[0]) >= 2 else "numpy.core"
        return super().find_class(core + module[module.rindex(".") :], name)
