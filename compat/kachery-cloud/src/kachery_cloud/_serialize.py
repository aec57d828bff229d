"""Values with numpy arrays as JSON values."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from kachery import codecs

if TYPE_CHECKING:
    from collections.abc import Callable


def _serialize(x: Any, *, compress_npy: bool = False) -> Any:
    return codecs.arrays_to_json(x, compress=compress_npy)


def _deserialize(x: Any) -> Any:
    return codecs.json_to_arrays(x)


def serialize_wrapper(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose result is a JSON value, arrays compressed."""

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return _serialize(f(*args, **kwargs), compress_npy=True)

    return wrapped
