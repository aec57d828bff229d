"""Pickles of simple values in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kachery import codecs


def _safe_pickle(fname: str, x: Any) -> None:
    Path(fname).write_bytes(codecs.pickle_to_bytes(x))


def _safe_unpickle(fname: str) -> Any:
    return codecs.bytes_to_pickle(Path(fname).read_bytes())
