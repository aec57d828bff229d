"""Local mutables: small texts under keys such as `@folder/name`, on this machine only."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from .. import codecs, names
from ..errors import NotFound, WrongContent, from_os_error

if TYPE_CHECKING:
    from .layout import Layout


class Mutables:
    """The local mutables of one store directory."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def _path(self, parts: tuple[str, ...]) -> str:
        return "/".join([self._layout.mutables(), *parts])

    def set(self, key: str, value: str) -> None:
        """Give a key a value, in place of the one it had.

        Raises:
            InvalidName: If the key is not one.
            InvalidInput: If the value is not a text.
        """
        self._layout.replace(self._path(names.mutable_key(key)), codecs.text_to_bytes(value))

    def get(self, key: str) -> str | None:
        """The value of a key, or `None`.

        Raises:
            InvalidName: If the key is not one.
            WrongContent: If somebody else put something there that is not a text.
        """
        path = self._path(names.mutable_key(key))
        try:
            with open(path, encoding="utf-8", newline="") as file:
                return file.read()
        except UnicodeDecodeError as error:
            raise WrongContent(f"the mutable {key} is not a text in UTF-8: {error}", hint="set it again") from error
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise from_os_error(error, "read", path) from error

    def delete(self, key: str) -> None:
        """Remove a key.

        Raises:
            InvalidName: If the key is not one.
            NotFound: If it is not there.
        """
        path = self._path(names.mutable_key(key))
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"no mutable has the key {key}") from error
        except OSError as error:
            raise from_os_error(error, "remove", path) from error

    def delete_folder(self, key: str) -> None:
        """Remove a folder of keys and all that is in it.

        Raises:
            InvalidName: If the key is not a folder's.
            NotFound: If it is not there.
        """
        path = self._path(names.mutable_folder(key))
        if not os.path.isdir(path) or os.path.islink(path):
            raise NotFound(f"no folder of mutables has the key {key}")
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise from_os_error(error, "remove", path) from error
