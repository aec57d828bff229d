"""Progress of long operations, shown to people and to nobody else.

A `Progress` is told how many bytes have moved. On a terminal or in a notebook a bar appears on stderr once an operation
has taken longer than a moment; everywhere else nothing is written.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from . import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A bar appears when an operation takes longer than this, in seconds.
DELAY = 0.7

#: Below this size, in bytes, nobody waits long enough to want a bar, and its import would cost more than the work.
WORTH_A_BAR = 16 * 1024 * 1024


class Progress(Protocol):
    """What is told that something moved."""

    def advance(self, count: int) -> None:
        """`count` more bytes are done; negative when work has to be repeated."""

    def say(self, state: str) -> None:
        """What is happening now, in a word or two."""


class Silent:
    """A progress that nobody sees."""

    def advance(self, count: int) -> None:
        """Nothing."""

    def say(self, state: str) -> None:
        """Nothing."""


#: For whoever wants none.
SILENT: Progress = Silent()


class _Bar:
    def __init__(self, total: int | None, label: str) -> None:
        from tqdm.auto import tqdm

        delay = 0.0 if settings.progress() == "1" else DELAY
        # a file's name must not steer the terminal
        shown = "".join(character if character.isprintable() else "?" for character in label)
        self._bar = tqdm(
            total=total, desc=shown, unit="B", unit_scale=True, unit_divisor=1024, delay=delay, leave=False
        )

    def advance(self, count: int) -> None:
        self._bar.update(count)

    def say(self, state: str) -> None:
        self._bar.set_postfix_str(state)

    def close(self) -> None:
        self._bar.close()


def wanted(total: int | None) -> bool:
    """Whether a bar would be seen and worth its while.

    Args:
        total: How many bytes there are to move; `None` when that is not known yet.
    """
    choice = settings.progress()
    if choice != "auto":
        return choice == "1"
    if total is not None and total < WORTH_A_BAR:
        return False
    # a program without a console has no stderr at all
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())


@contextmanager
def bar(total: int | None, label: str) -> Iterator[Progress]:
    """A progress for one operation, visible when it should be.

    Args:
        total: How many bytes there are to move; `None` when that is not known yet.
        label: A file name or another word or two for people.
    """
    if not wanted(total):
        yield SILENT
        return
    shown = _Bar(total, label)
    try:
        yield shown
    finally:
        shown.close()
