"""The hash of a dict."""

from __future__ import annotations

from typing import Any

from kachery import codecs


def sha1_of_dict(x: dict[str, Any]) -> str:
    """The SHA-1 of a dict's JSON text in which floats equal to an integer are integers.

    Args:
        x: Dicts with text keys, lists, tuples, texts, numbers, booleans and `None`.

    Raises:
        InvalidInput: If it holds something that JSON does not have.
    """
    return codecs.dict_sha1(x)
