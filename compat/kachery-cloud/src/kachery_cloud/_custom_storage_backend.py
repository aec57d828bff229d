"""An object that takes the place of the zone when files are stored."""

from __future__ import annotations

from typing import Any

from kachery import settings

_backend: Any = None


def set_custom_storage_backend(backend: Any | None) -> None:
    """Have `store_*` hand files to an object instead of the zone.

    Args:
        backend: Anything with `store_file(filename, *, label) -> str`, whose result becomes the URI as it is; `None` to
            use the zone again.
    """
    global _backend
    _backend = backend


def get_custom_storage_backend() -> Any | None:
    """The object in use, or `None`."""
    return _backend


def storing_backend() -> Any | None:
    """The object that files go to now; `None` when there is none, or `KACHERY_STORE_FILE_DIR` comes first."""
    return _backend if settings.store_file_dir() is None and hasattr(_backend, "store_file") else None
