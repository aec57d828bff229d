"""The store directory."""

from __future__ import annotations

import logging

from kachery import settings
from kachery.errors import KacheryError
from kachery.store import sandbox
from kachery.store.layout import Layout

logger = logging.getLogger("kachery_cloud")


def get_kachery_cloud_dir(*, respect_sandbox: bool = True) -> str:
    """The store directory's path.

    Args:
        respect_sandbox: Whether a sandbox in use takes its place.

    Returns:
        The path. The directory is made if it is missing, since callers put things there; where that is forbidden, a
        warning is logged and the path is given all the same.
    """
    directory = sandbox.store_path() if respect_sandbox else settings.store_path(respect_sandbox=False)
    try:
        Layout(directory).make_directory(directory)
    except KacheryError as error:
        logger.warning("%s", error)
    return directory


def use_sandbox(use: bool = True) -> None:
    """Use a throw-away store directory from now on, or the real one again; child processes do the same.

    Args:
        use: Whether to use the sandbox. It is removed when this process ends.
    """
    sandbox.use(use)
    if use:
        logger.info("using the sandbox %s", settings.store_dir())
