"""Files of closed zones that members asked for just now, so that the relay knows the members' next question.

Released clients ask the gateway for a file, signed; if its zone lacks it they ask the relay to have it brought, again
and again until it is there, and prove nothing then. Whoever may load a file and was told that the zone lacks it may
have it brought, from the same address, as long as no minute passes without a question. The file itself is had with a
signature only. Where several processes are one gateway they tell each other, since the next question may come to any.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..peers import Peers

#: For how long a question counts, in seconds; released clients ask every 4 to 14 s.
LIFETIME = 60.0

_MOST = 10_000


class Asked:
    """What was asked for. Behind a proxy all questions come from one address, and hashes alone tell them apart.

    Args:
        peers: The gateway's other processes, if it has any.
    """

    def __init__(self, peers: Peers | None = None) -> None:
        self._until: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._peers = peers
        if peers is not None:
            peers.listen("asked", lambda news: self._note(news["zone"], news["hash"], news["address"]))

    def note(self, zone: str, sha1: str, address: str) -> None:
        """Take note that somebody who may load a file was told that its zone lacks it."""
        self._note(zone, sha1, address)
        if self._peers is not None:
            self._peers.tell("asked", zone=zone, hash=sha1, address=address)

    def _note(self, zone: str, sha1: str, address: str) -> None:
        key = (zone, sha1, address)
        self._until[key] = time.monotonic() + LIFETIME
        self._until.move_to_end(key)
        while len(self._until) > _MOST:
            self._until.popitem(last=False)

    def again(self, zone: str, sha1: str, address: str) -> bool:
        """Whether that was so within the last minute; if so, it counts for another one."""
        if self._until.get((zone, sha1, address), 0.0) < time.monotonic():
            return False
        self._note(zone, sha1, address)
        return True
