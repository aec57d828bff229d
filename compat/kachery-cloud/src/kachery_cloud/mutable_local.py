"""Local mutables: small texts under keys such as `@folder/name`, on this machine only."""

from __future__ import annotations

from kachery.store import Store


def set_mutable_local(key: str, value: str) -> None:
    """Give a key a value, in place of the one it had.

    Args:
        key: Folders beginning with `@` and a name that does not, with `/` between them.
        value: A text.

    Raises:
        InvalidName: If the key is not one.
    """
    Store().mutables.set(key, value)


def get_mutable_local(key: str, default_value: str | None = None) -> str | None:
    """The value of a key, or `default_value`.

    Raises:
        InvalidName: If the key is not one.
    """
    value = Store().mutables.get(key)
    return default_value if value is None else value


def delete_mutable_local(key: str) -> None:
    """Remove a key.

    Raises:
        InvalidName: If the key is not one.
        NotFound: If it is not there.
    """
    Store().mutables.delete(key)


def delete_mutable_folder_local(key: str) -> None:
    """Remove a folder of keys and all that is in it.

    Raises:
        InvalidName: If the key is not a folder's.
        NotFound: If it is not there.
    """
    Store().mutables.delete_folder(key)
