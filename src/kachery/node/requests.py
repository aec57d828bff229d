"""Whose requests are obeyed: those that the gateway signed, for this resource, lately, and once.

A request is `{"type": "offer", "zone", "resource", "hash", "timestamp", "nonce"}` (`timestamp` in milliseconds since
the epoch), signed with the gateway's key as a client signs. Whoever only holds the connection can replay nothing and
invent nothing; a file leaves only after it was asked for in this way within the last day.
"""

from __future__ import annotations

import time
from typing import Any

from .. import signing
from ..digest import is_hash
from ..errors import NotAllowed, Unreachable

#: How far the gateway's clock may be from ours, in seconds.
WINDOW = 300.0

#: For how long a request allows its file to be sent, in seconds.
GRANTED = 24 * 3600.0

# more requests than this within the window are a flood
_MOST = 100_000

_KEYS = {"type", "zone", "resource", "hash", "timestamp", "nonce"}


class Requests:
    """The requests of one resource that were obeyed.

    Args:
        zone: The resource's zone.
        resource: Its name.
    """

    def __init__(self, zone: str, resource: str) -> None:
        self._zone = zone
        self._resource = resource
        # nonce → when it is too old to be used again
        self._used: dict[str, float] = {}
        self._granted: dict[str, float] = {}

    def check(self, request: Any, signature: Any, hash_: str, gateway_key: str) -> None:
        """Make sure that a request may be obeyed, and remember that it was.

        Args:
            request: The signed object.
            signature: 128 hex digits.
            hash_: What is asked for beside it.
            gateway_key: Who must have signed it, 64 hex digits.

        Raises:
            NotAllowed: If it may not, with a reason for the gateway.
            Unreachable: If there are too many.
        """
        if (
            not isinstance(request, dict)
            or set(request) != _KEYS
            or request["type"] != "offer"
            or not isinstance(request["timestamp"], int)
            or isinstance(request["timestamp"], bool)
            or not isinstance(request["nonce"], str)
            or not 0 < len(request["nonce"]) <= 64
            or not is_hash("sha1", hash_)
            or not isinstance(signature, str)
        ):
            raise NotAllowed("the request does not have the form of one")
        if (request["zone"], request["resource"], request["hash"]) != (self._zone, self._resource, hash_):
            raise NotAllowed("the request was signed for another zone, resource or file")
        if not signing.verify(gateway_key, request, signature):
            raise NotAllowed("the request is not signed with the key of this machine's gateway")
        now = time.time()
        if abs(request["timestamp"] / 1000 - now) > WINDOW:
            raise NotAllowed("the request is too old, or the clocks of gateway and resource differ", hint="set them")
        self._forget(now)
        if request["nonce"] in self._used:
            raise NotAllowed("the request was made before")
        if max(len(self._used), len(self._granted)) >= _MOST:
            raise Unreachable("too many requests; try again later")
        self._used[request["nonce"]] = request["timestamp"] / 1000 + WINDOW
        self._granted[hash_] = now + GRANTED

    def may_send(self, hash_: object) -> bool:
        """Whether a file was asked for within the last day."""
        return isinstance(hash_, str) and self._granted.get(hash_, 0.0) > time.time()

    def _forget(self, now: float) -> None:
        if len(self._used) >= _MOST or len(self._granted) >= _MOST:
            self._used = {nonce: until for nonce, until in self._used.items() if until > now}
            self._granted = {hash_: until for hash_, until in self._granted.items() if until > now}
