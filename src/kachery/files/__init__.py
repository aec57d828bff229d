"""Files and directories: where may they be (`finding`, `loading`, `parts`), and where should they go (`storing`)?"""

from __future__ import annotations

from .chunks import store_chunks
from .finding import FileInfo, file_info, locate
from .loading import load_file, resolved
from .opening import Place, describe, open_place, open_zone, stays_here
from .parts import Readable, find_readable, load_bytes, open_file
from .storing import Stored, delete_file, link_file, store_bytes, store_file, store_stream
from .trees import StoredTree, TreeInfo, any_info, hash_dir, is_directory, load_dir, read_dir, store_dir

__all__ = [
    "FileInfo",
    "Place",
    "Readable",
    "Stored",
    "StoredTree",
    "TreeInfo",
    "any_info",
    "delete_file",
    "describe",
    "file_info",
    "find_readable",
    "hash_dir",
    "is_directory",
    "link_file",
    "load_bytes",
    "load_dir",
    "load_file",
    "locate",
    "open_file",
    "open_place",
    "open_zone",
    "read_dir",
    "resolved",
    "stays_here",
    "store_bytes",
    "store_chunks",
    "store_dir",
    "store_file",
    "store_stream",
]
