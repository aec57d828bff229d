"""What a load gives when there is no file: an error, or the `None` that programs of earlier generations test for.

| outcome | as an error | as `None` |
|---|---|---|
| nobody has it, or nobody who has it can be reached | `NotFound`, `Unreachable` | `None`, and the reason on the log |
| nobody is set up to be asked, or wants to know who asks; not a URI that can be loaded | the error of that | the same |
| refused, wrong content, no room, and the rest | an error | an error all the same |

`load_*` raise, unless `KACHERY_MISSING=none` asks for the other; names that only classic kachery had give `None`.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import settings
from .errors import InvalidURI, NotConfigured, NotFound, NotIdentified, NotSupported, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
_F = TypeVar("_F", bound="Callable[..., Any]")

logger = logging.getLogger("kachery")

#: The errors that say that there is no file, as opposed to those that say that something is wrong with it.
MISSING = (NotFound, Unreachable, NotConfigured, NotIdentified, NotSupported, InvalidURI)


def none_if_missing(load: Callable[[], _T]) -> _T | None:
    """What a load gives, or `None` when there is no file; the reason then is a warning on the log.

    Raises:
        NotAllowed, WrongContent, StorageFull, …: What is an error in any case.
    """
    try:
        return load()
    except MISSING as error:
        logger.warning("%s", error)
        return None


def missing_as_asked(function: _F) -> _F:
    """A function that gives `None` instead of an error when there is no file and `KACHERY_MISSING=none` is set."""

    @functools.wraps(function)
    def asked(*args: Any, **kwargs: Any) -> Any:
        if not settings.missing_is_none():
            return function(*args, **kwargs)
        return none_if_missing(lambda: function(*args, **kwargs))

    return cast("_F", asked)
