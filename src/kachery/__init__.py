"""Content-addressed sharing of scientific data.

    >>> import kachery
    >>> uri = kachery.store_file("recording.nwb")                 # doctest: +SKIP
    >>> path = kachery.load_file(uri)                             # doctest: +SKIP

A stored file gets a URI made of its hash. Anyone whom the zone allows loads the same bytes by that URI, elsewhere,
verified. Where files go is said by the settings (`kachery.settings`), by `set_config` (`kachery.configuration`), or for
one call by its arguments. Programs of classic kachery and of kachery 2.x find their own names here as well.
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
    from .configuration import (
        config,
        get_config,
        reset,
        set_config,
        set_custom_storage_backend,
    )
    from .directories import load_dir, read_dir, store_dir
    from .errors import KacheryError
    from .files import FileInfo, TreeInfo
    from .generations.classic import (
        get_file_hash,
        get_file_info,
        get_object_hash,
        load_object,
        open_file,
        store_object,
    )
    from .generations.second import (
        cat_file,
        delete_mutable_folder_local,
        delete_mutable_local,
        get_kachery_dir,
        get_mutable_local,
        load_file_info,
        set_mutable_local,
        sha1_of_dict,
        store_file_local,
        store_json_local,
        store_npy_local,
        store_pkl_local,
        store_text_local,
        use_sandbox,
    )

__all__ = [
    "FileInfo",
    "KacheryError",
    "TreeInfo",
    "__version__",
    "cat_file",
    "config",
    "delete_mutable_folder_local",
    "delete_mutable_local",
    "get_config",
    "get_file_hash",
    "get_file_info",
    "get_kachery_dir",
    "get_mutable_local",
    "get_object_hash",
    "info",
    "link_file",
    "load_bytes",
    "load_dir",
    "load_file",
    "load_file_info",
    "load_json",
    "load_npy",
    "load_object",
    "load_pkl",
    "load_text",
    "open",
    "open_file",
    "read_dir",
    "reset",
    "set_config",
    "set_custom_storage_backend",
    "set_mutable_local",
    "sha1_of_dict",
    "store_dir",
    "store_file",
    "store_file_local",
    "store_json",
    "store_json_local",
    "store_npy",
    "store_npy_local",
    "store_object",
    "store_pkl",
    "store_pkl_local",
    "store_text",
    "store_text_local",
    "use_sandbox",
]

# where the names are that are not in `api`
_ELSEWHERE = {
    "errors": {"KacheryError"},
    "files": {"FileInfo", "TreeInfo"},
    "directories": {"load_dir", "read_dir", "store_dir"},
    "configuration": {
        "config",
        "get_config",
        "reset",
        "set_config",
        "set_custom_storage_backend",
    },
    "generations.classic": {
        "get_file_hash",
        "get_file_info",
        "get_object_hash",
        "load_object",
        "open_file",
        "store_object",
    },
    "generations.second": {
        "cat_file",
        "delete_mutable_folder_local",
        "delete_mutable_local",
        "get_kachery_dir",
        "get_mutable_local",
        "load_file_info",
        "set_mutable_local",
        "sha1_of_dict",
        "store_file_local",
        "store_json_local",
        "store_npy_local",
        "store_pkl_local",
        "store_text_local",
        "use_sandbox",
    },
}
_MODULES = {name: module for module, names in _ELSEWHERE.items() for name in names}


def __getattr__(name: str) -> object:
    # nothing is imported before it is used
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{_MODULES.get(name, 'api')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
