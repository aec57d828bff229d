"""A throw-away store directory inside the real one, for examples and tests.

The choice is kept in the environment, so that child processes share it. The process that made the sandbox removes it
when it ends. Keys are always those of the real directory.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import time

from .. import settings
from .layout import Layout, lock, random_letters

# upstream's have capital letters in them, and nobody holds them
_OURS = re.compile("[0-9a-f]{8}")


def use(enabled: bool = True) -> None:
    """Use a sandbox from now on, or the real store directory again."""
    if not enabled:
        os.environ["KACHERY_CLOUD_USE_SANDBOX"] = "0"
        return
    directory = settings.variable("KACHERY_CLOUD_SANDBOX_DIR")
    if not directory:
        directory = str(settings.store_dir(respect_sandbox=False) / "sandbox" / random_letters(8))
        os.environ["KACHERY_CLOUD_SANDBOX_DIR"] = directory
    if not os.path.isdir(directory):
        Layout(settings.store_dir(respect_sandbox=False)).make_directory(directory)
        atexit.register(_remove, directory, os.getpid(), _hold(directory))
    os.environ["KACHERY_CLOUD_USE_SANDBOX"] = "1"


def store_path() -> str:
    """The store directory, which is the sandbox when one is in use.

    One that somebody asked for from outside, with `KACHERY_CLOUD_USE_SANDBOX=1` and nothing more, is made first.
    """
    if not settings.flag("KACHERY_CLOUD_USE_SANDBOX"):
        return settings.store_path(respect_sandbox=False)
    if not settings.variable("KACHERY_CLOUD_SANDBOX_DIR"):
        use()
    return settings.store_path()


def remove_abandoned(layout: Layout, older_than: float) -> list[str]:
    """Remove sandboxes of ours whose process was ended before it could.

    Args:
        layout: Of the store directory.
        older_than: What was made less than this many seconds ago stays.

    Returns:
        The paths that were removed.
    """
    removed = []
    for path in layout.root.glob("sandbox/*"):
        if not _OURS.fullmatch(path.name) or not path.is_dir() or time.time() - path.stat().st_mtime < older_than:
            continue
        fd = _hold(str(path))
        if fd is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(fd)
            removed.append(str(path))
    return removed


def _hold(directory: str) -> int | None:
    """A descriptor that holds a directory; `None` when somebody else does."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if lock(fd):
        return fd
    os.close(fd)
    return None


def _remove(directory: str, owner: int, _: int | None) -> None:
    # a forked child ends too, and must leave the sandbox to its parent
    if os.getpid() == owner:
        shutil.rmtree(directory, ignore_errors=True)
