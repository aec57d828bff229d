"""Directories that appear whole or not at all.

A private directory beside the destination is filled and then renamed. It is held by a lock for as long as its process
lives, so that what a killed process left behind is found, and removed by the next one that writes to the same place.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import Conflict, StorageFull, explaining
from ..settings import durable
from ..store.layout import lock, random_letters, sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

_LETTERS = 8
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


def private_name(target: str) -> str:
    """Where a directory is filled before it is renamed to `target`, an absolute path."""
    parent, name = os.path.split(target)
    # a name has at most 255 bytes
    return os.path.join(parent, f".{os.fsdecode(os.fsencode(name)[:200])}.kachery-{random_letters(_LETTERS)}")


@contextmanager
def at(target: str) -> Iterator[str]:
    """A private directory that is renamed to `target` at the end, or removed when something goes wrong.

    Args:
        target: An absolute path; directories above it are made.

    Raises:
        Conflict: If something appeared there meanwhile.
        NotAllowed, StorageFull: As the file system says.
    """
    parent = os.path.dirname(target)
    with explaining("write to", parent):
        os.makedirs(parent, exist_ok=True)
        _remove_abandoned(target)
        private, held = _make(target)
    try:
        yield private
        if os.path.lexists(target):
            raise Conflict(f"something appeared at {target} meanwhile", hint="give a path where nothing is yet")
        with explaining("write to", target):
            os.rename(private, target)
            if durable():
                sync_directory(parent)
    except BaseException:
        shutil.rmtree(private, ignore_errors=True)
        raise
    finally:
        os.close(held)


def _make(target: str) -> tuple[str, int]:
    while True:
        private = private_name(target)
        os.mkdir(private)
        try:
            held = os.open(private, _FLAGS)
        except FileNotFoundError:
            continue
        # before it was locked somebody may have taken it for abandoned
        if lock(held) and os.path.isdir(private):
            return private, held
        os.close(held)


def _remove_abandoned(target: str) -> None:
    beginning = os.path.basename(private_name(target))[:-_LETTERS]
    parent = os.path.dirname(target)
    for name in os.listdir(parent):
        if not name.startswith(beginning) or len(name) != len(beginning) + _LETTERS:
            continue
        path = os.path.join(parent, name)
        try:
            held = os.open(path, _FLAGS)
        except OSError:
            continue
        try:
            if lock(held):
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(held)


def require_room(directory: str, size: int) -> None:
    """Say at once when so many bytes cannot be written to a directory.

    Raises:
        StorageFull: If there is room for fewer.
    """
    system = os.statvfs(directory)
    if size > system.f_bavail * system.f_frsize:
        raise StorageFull(
            f"{size} bytes are to be loaded, and {os.path.dirname(directory)} has room for fewer",
            hint="make room on this file system, then try again",
        )
