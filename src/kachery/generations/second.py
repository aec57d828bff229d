"""The names of kachery 2.x that no other generation has: what stays on this machine, and what a gateway says."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

from .. import api, codecs, configuration, files, settings, uri
from ..calls import whence
from ..errors import NotFound
from ..outcomes import none_if_missing
from ..store import Store, plain, sandbox

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger("kachery")

_BLOCK = 256 * 1024


def store_file_local(
    filename: str | os.PathLike[str],
    *,
    label: str | None = None,
    store_file_dir: str | None = None,
    store_file_prefix: str | None = None,
    uri_type: int | None = None,
) -> str:
    """Store a file on this machine.

    Args:
        filename: Its path, or a URI, which is loaded first.
        label: Its name in the URI, for people; by default its own.
        store_file_dir: A plain directory to store it in, as `sha1/HASH`, instead of the store directory.
        store_file_prefix: What the URI begins with instead.
        uri_type: As for `store_file`.

    Returns:
        `sha1://HASH/NAME`, or `PREFIX/sha1/HASH?label=LABEL`.

    Raises:
        NotFound, NotAllowed, InvalidInput, SourceChanged, StorageFull: As for `store_file`.
    """
    if store_file_dir is None and store_file_prefix is None:
        return api.store_file(filename, label=label, local=True, uri_type=uri_type)
    path = os.fsdecode(filename)
    if path.startswith(("sha1://", "kachery:")):
        path = files.load_file(path, **whence(configuration.chosen({}), None))
    if store_file_dir is None:
        hash_ = files.store_file(path, local=True, label=label).hash
    else:
        hash_, _ = plain.add_file(store_file_dir, path, label=label)
    if store_file_prefix is not None:
        return uri.prefixed_uri(store_file_prefix, hash_, label)
    return uri.named_uri(hash_, os.path.basename(path) if label is None else label)


def store_text_local(text: str, label: str | None = None) -> str:
    """Store a text on this machine; result and errors as for `store_text`."""
    return api.store_text(text, label=label, local=True)


def store_json_local(
    x: Any, *, separators: tuple[str, str] = (",", ":"), indent: int | None = None, label: str | None = None
) -> str:
    """Store a JSON value on this machine; arguments, result and errors as for `store_json`."""
    return api.store_json(x, separators=separators, indent=indent, label=label, local=True)


def store_npy_local(array: np.ndarray, label: str | None = None) -> str:
    """Store an array on this machine; result and errors as for `store_npy`."""
    return api.store_npy(array, label=label, local=True)


def store_pkl_local(value: Any, label: str | None = None) -> str:
    """Store a value of simple types on this machine; result and errors as for `store_pkl`."""
    return api.store_pkl(value, label=label, local=True)


def load_file_info(uri: str) -> dict[str, Any] | None:
    """What the zone says of a file: `found`, `size` in bytes, and what else its gateway tells; nothing is loaded.

    Args:
        uri: The file's URI.

    Returns:
        The gateway's answer without the address, or `None` when the zone does not have it, with the reason on the log.

    Raises:
        NotAllowed: If the zone refuses.
    """
    return none_if_missing(lambda: zone_info(uri))


def cat_file(uri: str) -> None:
    """Write a file's content to stdout, and nothing else.

    Args:
        uri: The file's URI.

    Raises:
        KacheryError: As for `load_file`.
    """
    path = api.load_file(uri)
    # `None` where KACHERY_MISSING asks for it
    if path is not None:
        sys.stdout.flush()
        with open(path, "rb", buffering=0) as file:
            shutil.copyfileobj(file, sys.stdout.buffer, _BLOCK)
        sys.stdout.buffer.flush()


def get_kachery_dir(*, respect_sandbox: bool = True) -> str:
    """The store directory's path; it need not be there.

    Args:
        respect_sandbox: Whether a sandbox in use takes its place.
    """
    return sandbox.store_path() if respect_sandbox else settings.store_path(respect_sandbox=False)


def use_sandbox(use: bool = True) -> None:
    """Use a throw-away store directory from now on, or the real one again; child processes do the same.

    Args:
        use: Whether to use the sandbox. It is removed when this process ends.
    """
    sandbox.use(use)
    if use:
        logger.info("using the sandbox %s", settings.store_path())


def set_mutable_local(key: str, value: str) -> None:
    """Give a key a value on this machine, in place of the one it had.

    Args:
        key: Folders beginning with `@` and a name that does not, with `/` between them.
        value: A text.

    Raises:
        InvalidName: If the key is not one.
    """
    Store().mutables.set(key, value)


def get_mutable_local(key: str, default_value: str | None = None) -> str | None:
    """The value of a key on this machine, or `default_value`.

    Raises:
        InvalidName: If the key is not one.
    """
    value = Store().mutables.get(key)
    return default_value if value is None else value


def delete_mutable_local(key: str) -> None:
    """Remove a key from this machine.

    Raises:
        InvalidName: If the key is not one.
        NotFound: If it is not there.
    """
    Store().mutables.delete(key)


def delete_mutable_folder_local(key: str) -> None:
    """Remove a folder of keys and all that is in it from this machine.

    Raises:
        InvalidName: If the key is not one.
        NotFound: If it is not there.
    """
    Store().mutables.delete_folder(key)


def sha1_of_dict(x: dict[str, Any]) -> str:
    """The SHA-1 of a dict's JSON text in which floats equal to an integer are integers.

    Args:
        x: Dicts with text keys, lists, tuples, texts, numbers, booleans and `None`.

    Raises:
        InvalidInput: If it holds something that JSON does not have.
    """
    return codecs.dict_sha1(x)


def zone_info(text: str) -> dict[str, Any]:
    """As `load_file_info`, with an error where there is no answer.

    Raises:
        InvalidURI, NotSupported: If the URI does not name a file that a zone could have.
        NotFound: If the zone does not have it.
        NotConfigured, NotAllowed, Unreachable: If it cannot be asked.
    """
    reference = uri.parse_file(text)
    target = files.open_zone(reference.zone)
    found = target.find(reference.hash, reference.algorithm)
    if found is None:
        raise NotFound(f"{target} does not have {reference}")
    return {"type": "findFileResponse", **{key: value for key, value in found.reply.items() if key != "type"}}
