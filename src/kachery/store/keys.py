"""The client's keys on this machine.

They come from the environment, or from `private.pem` in the store directory (never a sandbox). In a store directory
that belongs to a group each user has keys of their own, in `~/.config/kachery/keys/`; a key file that the group put in
the store directory for everybody, as upstream's recipe does, is used when it is there and can be read.
"""

from __future__ import annotations

import os
from pathlib import Path

from .. import digest, settings
from ..errors import InvalidInput, NotConfigured, explaining
from ..signing import ClientKeys
from .layout import Layout, random_letters, remove_if_there, write_all


def load() -> ClientKeys | None:
    """This machine's keys for the current store directory, or `None` when there are none.

    Raises:
        NotConfigured: If a key file is damaged, or half of a pair is set in the environment.
        InvalidInput: If the pair in the environment does not belong together.
    """
    pair = settings.key_pair()
    if pair is not None:
        return ClientKeys.from_hex(*pair)
    for path in _candidates():
        try:
            text = path.read_text(encoding="ascii")
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise NotConfigured(f"the key file {path} cannot be read: {error}") from error
        try:
            return ClientKeys.from_pem(text)
        except InvalidInput as error:
            raise NotConfigured(
                f"the key file {path} is damaged: {error.message}",
                hint="put back a copy, or move it away and register again with `kachery init`",
            ) from error
    return None


def load_or_create() -> ClientKeys:
    """This machine's keys; a new pair when there are none. Of two processes that do this at once one wins, for both.

    Raises:
        NotAllowed, StorageFull: If they cannot be written.
    """
    found = load()
    if found is not None:
        return found
    keys = ClientKeys.generate()
    directory = _own_directory()
    layout = Layout(settings.store_dir(respect_sandbox=False))
    if directory == layout.root:
        layout.make_directory(str(directory))
    else:
        # a user's own, whatever the store directory shares with the group
        with explaining("make the directory", directory):
            os.makedirs(directory, 0o700, exist_ok=True)
    temporary = str(directory / f"private.pem.{random_letters(10)}")
    with explaining("write keys to", directory):
        try:
            # private from its first moment on, and never in the place of another
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                write_all(fd, keys.private_pem().encode())
                os.fsync(fd)
            finally:
                os.close(fd)
            os.link(temporary, directory / "private.pem")
        except FileExistsError:
            winner = load()
            if winner is None:
                raise NotConfigured(f"the key file {directory / 'private.pem'} cannot be read") from None
            return winner
        finally:
            # on a read-only file system this fails, too
            remove_if_there(temporary)
    layout.replace(str(directory / "public.pem"), keys.public_pem().encode())
    return keys


def _own_directory() -> Path:
    root = settings.store_dir(respect_sandbox=False)
    return _users_directory(root) if Layout(root).shared_with_group() else root


def _users_directory(root: Path) -> Path:
    base = settings.variable("XDG_CONFIG_HOME")
    config = Path(base) if base else Path.home() / ".config"
    return config / "kachery" / "keys" / digest.of_bytes(os.fsencode(os.path.realpath(root)))[:16]


def _candidates() -> list[Path]:
    root = settings.store_dir(respect_sandbox=False)
    paths = [root / "private.pem"]
    if Layout(root).shared_with_group():
        paths.insert(0, _users_directory(root) / "private.pem")
    return paths
