"""The JSON text whose hash `sha1_of_dict` gives."""

from __future__ import annotations

from typing import Any

from kachery import codecs


def _json_stringify_deterministic(x: Any) -> str:
    return codecs.deterministic_json(x)
