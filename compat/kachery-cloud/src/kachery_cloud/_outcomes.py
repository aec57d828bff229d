"""What the releases' callers get for each outcome of a load.

| outcome | result |
|---|---|
| nobody has it, or nobody who has it can be reached | `None`, and the reason as a warning on the log |
| no gateway is set up; a zone wants to know who asks, and there are no keys; not a URI that can be loaded | the same |
| a zone refuses a client that has keys; not what it claims to be, no room, and the rest | an error |

Programs go on to another source when they get `None` (Spyglass to DANDI), and end when they get an error.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from kachery.outcomes import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("kachery_cloud")

_T = TypeVar("_T")


def none_if_missing(load: Callable[[], _T]) -> _T | None:
    """What a load gives, or `None` where the releases' callers expect it.

    Raises:
        NotAllowed, WrongContent, StorageFull, …: What is an error for them too.
    """
    try:
        return load()
    except MISSING as error:
        logger.warning("%s", error)
        return None
