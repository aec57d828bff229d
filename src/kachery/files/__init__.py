"""The story of a file: where may it be (`loading`), and where should it go (`storing`)?"""

from __future__ import annotations

from .loading import FileInfo, file_info, load_bytes, load_file, open_file
from .opening import open_zone
from .storing import Stored, delete_file, link_file, store_bytes, store_file, store_stream

__all__ = [
    "FileInfo",
    "Stored",
    "delete_file",
    "file_info",
    "link_file",
    "load_bytes",
    "load_file",
    "open_file",
    "open_zone",
    "store_bytes",
    "store_file",
    "store_stream",
]
