"""Files of closed zones that members asked for just now, so that the relay knows the members' next question.

Released clients ask the gateway for a file, signed; if its zone lacks it they ask the relay to have it brought, again
and again until it is there, and prove nothing then. Whoever may load a file and was told that the zone lacks it may
have it brought, from the same address, as long as no minute passes without a question. The file itself is had with a
signature only.
"""

from __future__ import annotations

import time
from collections import OrderedDict

#: For how long a question counts, in seconds; released clients ask every 4 to 14 s.
LIFETIME = 60.0

_MOST = 10_000


class Asked:
    """What was asked for. Behind a proxy all questions come from one address, and hashes alone tell them apart."""

    def __init__(self) -> None:
        self._until: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    def note(self, zone: str, sha1: str, address: str) -> None:
        """Take note that somebody who may load a file was told that its zone lacks it."""
        key = (zone, sha1, address)
        self._until[key] = time.monotonic() + LIFETIME
        self._until.move_to_end(key)
        while len(self._until) > _MOST:
            self._until.popitem(last=False)

    def again(self, zone: str, sha1: str, address: str) -> bool:
        """Whether that was so within the last minute; if so, it counts for another one."""
        if self._until.get((zone, sha1, address), 0.0) < time.monotonic():
            return False
        self.note(zone, sha1, address)
        return True
