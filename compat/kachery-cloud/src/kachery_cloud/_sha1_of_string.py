"""The hash of a text."""

from __future__ import annotations

from kachery import digest


def _sha1_of_string(txt: str) -> str:
    return digest.of_bytes(txt.encode("utf-8"))
