"""Content-addressed sharing of scientific data.

    >>> import kachery
    >>> uri = kachery.store_file("recording.nwb")                 # doctest: +SKIP
    >>> path = kachery.load_file(uri)                             # doctest: +SKIP

A stored file gets a URI made of its hash. Anyone whom the zone allows loads the same bytes by that URI, elsewhere,
verified. Where files go is said by the settings (`kachery.settings`), or for one call by its `zone` argument.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from .api import (
        info,
        link_file,
        load_bytes,
        load_file,
        load_json,
        load_npy,
        load_pkl,
        load_text,
        open,  # noqa: A004 — as `io.open` and `gzip.open`
        store_file,
        store_json,
        store_npy,
        store_pkl,
        store_text,
    )
    from .errors import KacheryError
    from .files import FileInfo

__all__ = [
    "FileInfo",
    "KacheryError",
    "__version__",
    "info",
    "link_file",
    "load_bytes",
    "load_file",
    "load_json",
    "load_npy",
    "load_pkl",
    "load_text",
    "open",
    "store_file",
    "store_json",
    "store_npy",
    "store_pkl",
    "store_text",
]

_ELSEWHERE = {"KacheryError": "errors", "FileInfo": "files"}


def __getattr__(name: str) -> object:
    # nothing is imported before it is used
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{_ELSEWHERE.get(name, 'api')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
