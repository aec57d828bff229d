"""Work that blocks, beside an event loop: reading disks, sending files.

The threads are daemons: a program that is asked to end does not wait for a disk or a peer that says nothing.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


async def in_thread(action: Callable[..., _T], *arguments: Any, unwanted: Callable[[_T], object] | None = None) -> _T:
    """Do something in a thread of its own and wait for it.

    Args:
        action: What to do.
        arguments: What it is given.
        unwanted: Called in the thread with the result when nobody waits for it any more.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if future.done():
            if error is None and unwanted is not None:
                unwanted(result)  # type: ignore[arg-type]
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, failure = None, None
        try:
            result = action(*arguments)
        except BaseException as error:
            failure = error
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:
            # the program has ended meanwhile
            pass

    threading.Thread(target=work, name="kachery-node", daemon=True).start()
    return await future
