"""Doing the same with many things, several at a time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_T = TypeVar("_T")

_END = object()


def each(items: Iterable[_T], work: Callable[[_T], object], workers: int) -> None:
    """Do something with each item; when that goes wrong with one, no more are begun.

    Args:
        items: They are taken one after the other.
        work: What to do, in any thread.
        workers: How many to do at a time.

    Raises:
        Exception: The first error, when what was begun is done.
    """
    todo = iter(items)
    taking = threading.Lock()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            while not failures:
                with taking:
                    item = next(todo, _END)
                if item is _END:
                    return
                work(cast("_T", item))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, name="kachery-files", daemon=True) for _ in range(workers - 1)]
    try:
        for thread in threads:
            thread.start()
        run()
    except BaseException as error:
        failures.append(error)
    # whoever cleans up must not do so under the hands of the others, however often somebody presses Ctrl-C
    while any(thread.is_alive() for thread in threads):
        try:
            for thread in threads:
                if thread.is_alive():
                    thread.join()
        except KeyboardInterrupt as error:
            failures.append(error)
    if failures:
        raise failures[0]
