"""Texts, JSON values, arrays and simple Python values as files."""

from __future__ import annotations

from typing import Any

from kachery import codecs

from .load_file import load_content
from .store_file import store_data


def store_text(text: str, *, label: str | None = None, cache_locally: bool = False, local: bool = False) -> str:
    """Store a text as UTF-8, its newlines as they are; arguments, result and errors as for `store_file`."""
    data = codecs.text_to_bytes(text)
    return store_data(data, name="file.dat", label=label, cache_locally=cache_locally, local=local)


def store_json(
    x: Any,
    *,
    separators: tuple[str, str] = (",", ":"),
    indent: int | None = None,
    label: str | None = None,
    cache_locally: bool = False,
    local: bool = False,
) -> str:
    """Store a JSON value; equal values have equal URIs.

    Args:
        x: Dicts, lists, tuples, texts, numbers, booleans and `None`.
        separators: Between items, and between a key and its value.
        indent: Blanks for each level, or `None` for one line.
        label: As for `store_file`.
        cache_locally: As for `store_file`.
        local: As for `store_file`.

    Raises:
        TypeError: If the value holds something that JSON does not have.
        ValueError: If it holds NaN or infinity, or contains itself.
    """
    data = codecs.json_to_bytes(x, separators=separators, indent=indent)
    return store_data(data, name="file.dat", label=label, cache_locally=cache_locally, local=local)


def store_npy(array: Any, *, label: str | None = None, cache_locally: bool = False, local: bool = False) -> str:
    """Store a numpy array, of any shape and dtype but objects; the rest as for `store_file`."""
    data = codecs.array_to_bytes(array)
    return store_data(data, name="file.npy", label=label, cache_locally=cache_locally, local=local)


def store_pkl(x: Any, *, label: str | None = None, cache_locally: bool = False, local: bool = False) -> str:
    """Store a value of simple types as a pickle; its URI differs between versions of Python and numpy.

    Args:
        x: Numbers, texts, booleans, `None`, range, complex, slice, dicts, lists, tuples, numpy arrays and scalars.
        label: As for `store_file`.
        cache_locally: As for `store_file`.
        local: As for `store_file`.

    Raises:
        InvalidInput: If the value holds anything else.
    """
    data = codecs.pickle_to_bytes(x)
    return store_data(data, name="file.npy", label=label, cache_locally=cache_locally, local=local)


def store_text_local(text: str, label: str | None = None) -> str:
    """As `store_text`, on this machine only."""
    return store_text(text, label=label, local=True)


def store_json_local(
    x: Any, *, separators: tuple[str, str] = (",", ":"), indent: int | None = None, label: str | None = None
) -> str:
    """As `store_json`, on this machine only."""
    return store_json(x, separators=separators, indent=indent, label=label, local=True)


def store_npy_local(array: Any, label: str | None = None) -> str:
    """As `store_npy`, on this machine only."""
    return store_npy(array, label=label, local=True)


def store_pkl_local(x: Any, label: str | None = None) -> str:
    """As `store_pkl`, on this machine only."""
    return store_pkl(x, label=label, local=True)


def load_text(uri: str, *, local_only: bool = False) -> str | None:
    """Load a text.

    Args:
        uri: The file's URI.
        local_only: Whether to ask nobody but this machine.

    Returns:
        The text, or `None` as for `load_file`.

    Raises:
        WrongContent: If the file is not a text in UTF-8.
    """
    data = load_content(uri, local_only=local_only)
    return None if data is None else codecs.bytes_to_text(data)


def load_json(uri: str, *, local_only: bool = False) -> Any | None:
    """Load a JSON value; as `load_text`.

    Raises:
        WrongContent: If the file is not JSON.
    """
    data = load_content(uri, local_only=local_only)
    return None if data is None else codecs.bytes_to_json(data)


def load_npy(uri: str, *, local_only: bool = False) -> Any | None:
    """Load a numpy array; as `load_text`.

    Raises:
        WrongContent: If the file is not an array without Python objects.
    """
    data = load_content(uri, local_only=local_only)
    return None if data is None else codecs.bytes_to_array(data)


def load_pkl(uri: str, *, local_only: bool = False) -> Any | None:
    """Load a pickle; nothing but simple values is ever made. As `load_text`.

    Raises:
        WrongContent: If the file is no pickle, or asks for something else.
    """
    data = load_content(uri, local_only=local_only)
    return None if data is None else codecs.bytes_to_pickle(data)
