"""A throw-away store directory inside the real one, for examples and tests.

The choice is kept in the environment, so that child processes share it. The process that made the sandbox removes it
when it ends. Keys are always those of the real directory.
"""

from __future__ import annotations

import atexit
import os
import shutil

from .. import settings
from .layout import Layout, random_letters


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
        atexit.register(_remove, directory, os.getpid())
    os.environ["KACHERY_CLOUD_USE_SANDBOX"] = "1"


def make_if_wanted() -> None:
    """Make the sandbox that somebody asked for from outside, with `KACHERY_CLOUD_USE_SANDBOX=1` and nothing more."""
    if settings.flag("KACHERY_CLOUD_USE_SANDBOX") and not settings.variable("KACHERY_CLOUD_SANDBOX_DIR"):
        use()


def _remove(directory: str, owner: int) -> None:
    # a forked child ends too, and must leave the sandbox to its parent
    if os.getpid() == owner:
        shutil.rmtree(directory, ignore_errors=True)
