"""The story of a file: where may it be (`finding`, `loading`), and where should it go (`storing`)?"""

from __future__ import annotations

from .finding import FileInfo, file_info, locate
from .loading import Readable, find_readable, load_bytes, load_file, open_file
from .opening import Place, describe, open_place, open_zone, stays_here
from .storing import Stored, delete_file, link_file, store_bytes, store_file, store_stream

__all__ = [
    "FileInfo",
    "Place",
    "Readable",
    "Stored",
    "delete_file",
    "describe",
    "file_info",
    "find_readable",
    "link_file",
    "load_bytes",
    "load_file",
    "locate",
    "open_file",
    "open_place",
    "open_zone",
    "stays_here",
    "store_bytes",
    "store_file",
    "store_stream",
]
