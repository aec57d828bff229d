"""The forms of JSON requests: which keys there must be and may be, and what they are. Nothing else is taken."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

_IMPOSSIBLE = re.compile("[\\0\ud800-\udfff]")

#: key → whether it must be there, and what it must be
Form = dict[str, tuple[bool, Callable[[Any], bool]]]


def is_text(value: Any) -> bool:
    """Whether a value is a text, of characters that there are."""
    # JSON can spell halves of characters and U+0000, which not every database takes
    return isinstance(value, str) and _IMPOSSIBLE.search(value) is None


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_flag(value: Any) -> bool:
    """Whether a value is true or false."""
    return isinstance(value, bool)


def is_object(value: Any) -> bool:
    """Whether a value has keys."""
    return isinstance(value, dict)


def fits(value: Any, form: Form) -> bool:
    """Whether a value is an object of a form."""
    if not isinstance(value, dict):
        return False
    for key, item in value.items():
        rule = form.get(key)
        if rule is None or not rule[1](item):
            return False
    return all(key in value for key, (required, _) in form.items() if required)
