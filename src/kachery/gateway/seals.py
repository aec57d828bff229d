"""Seals: how the processes of one gateway know each other's messages and requests.

A seal is `BODY.MAC`: base64url of JSON, and hex HMAC-SHA256 of it with a key that all processes derive from what they
share: the gateway's database, or a relay's `PROXY_SECRET`. Requests and messages of the bus have keys of their own, so
that one cannot be taken for the other.

A request between processes carries the header `Kachery-Internal` with a seal of

| key | |
|---|---|
| `from`, `to` | the processes; nobody else takes it |
| `at`, `once` | milliseconds since the epoch, at most a minute from the other's clock; 32 hex digits, taken once |
| `method`, `target` | as in the request line |
| `body` | SHA-256 of the body; `null` for one that streams, which is checked by whom it is for |
| `client`, `scheme`, `host` | what the first process saw of the caller |
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import itertools
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

from ..errors import NotAllowed

#: The header of a request that another process makes.
HEADER = b"kachery-internal"

#: How far the clocks of two processes may be apart, in seconds.
WINDOW = 60.0

# Requests that are remembered, so that none is taken twice; at more than that in two minutes new ones are refused
_MOST_REMEMBERED = 500_000

_STRINGS = ("from", "to", "once", "method", "target", "client", "scheme", "host")


@dataclass(frozen=True, slots=True)
class Request:
    """What the seal of a request says, see above."""

    sender: str
    body: str | None
    client: str
    scheme: str
    host: str


class Seals:
    """Makes and checks seals for one process.

    Args:
        key: What all processes share, at least 32 bytes.
        process: This process's name.
    """

    def __init__(self, key: bytes, process: str) -> None:
        self.process = process
        self._request_key = hmac.digest(key, b"requests between processes", "sha256")
        self._message_key = hmac.digest(key, b"messages of a bus", "sha256")
        #: What tells these processes from others on the same bus.
        self.space = hmac.digest(key, b"space", "sha256").hex()[:16]
        # in the order of their times
        self._seen: dict[str, float] = {}

    # -- messages -----------------------------------------------------------------------------------------------------

    def seal(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message of the bus, sealed."""
        return {"sealed": _seal(self._message_key, message)}

    def unseal(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """What a sealed message says; `None` when it is not one of ours."""
        return _unseal(self._message_key, message.get("sealed"))

    # -- requests -----------------------------------------------------------------------------------------------------

    def request(
        self,
        to: str,
        method: str,
        target: str,
        *,
        body: bytes | None = None,
        client: str = "",
        scheme: str = "http",
        host: str = "",
    ) -> str:
        """The header of a request to another process; `body` is `None` for one that streams."""
        return _seal(
            self._request_key,
            {
                "from": self.process,
                "to": to,
                "at": time.time_ns() // 1_000_000,
                "once": secrets.token_hex(16),
                "method": method,
                "target": target,
                "body": None if body is None else hashlib.sha256(body).hexdigest(),
                "client": client,
                "scheme": scheme,
                "host": host,
            },
        )

    def admit(self, header: bytes, method: str, target: str) -> Request:
        """What the header of a request says.

        Raises:
            NotAllowed: If no process of this gateway made it for this one and this request, or it came before.
        """
        said = _unseal(self._request_key, header.decode("latin-1"))
        if (
            said is None
            or not all(isinstance(said.get(key), str) for key in _STRINGS)
            or type(said.get("at")) is not int
            or not (said.get("body") is None or isinstance(said["body"], str))
        ):
            raise NotAllowed("this request was not made by a process of this gateway")
        if (said["to"], said["method"], said["target"]) != (self.process, method, target):
            raise NotAllowed("this request was made for another process, or is another request")
        now = time.time()
        if abs(said["at"] / 1000 - now) > WINDOW:
            raise NotAllowed(
                f"this request is {now - said['at'] / 1000:.0f} s old", hint="set the clocks of the gateway's machines"
            )
        if not self._is_new(said["once"], now):
            raise NotAllowed("this request came before")
        return Request(said["from"], said.get("body"), said["client"], said["scheme"], said["host"])

    def _is_new(self, once: str, now: float) -> bool:
        # two old ones are forgotten for each new one: it stays bounded, and no request pays for all
        for old in list(itertools.islice(self._seen, 2)):
            if self._seen[old] < now:
                del self._seen[old]
        if once in self._seen or len(self._seen) >= _MOST_REMEMBERED:
            return False
        self._seen[once] = now + 2 * WINDOW
        return True


def _seal(key: bytes, value: dict[str, Any]) -> str:
    body = base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode("ascii")
    return f"{body}.{hmac.digest(key, body.encode(), 'sha256').hex()}"


def _unseal(key: bytes, sealed: object) -> dict[str, Any] | None:
    if not isinstance(sealed, str):
        return None
    body, _, mac = sealed.rpartition(".")
    expected = hmac.digest(key, body.encode("utf-8", "replace"), "sha256").hex()
    if not hmac.compare_digest(mac.encode("utf-8", "replace"), expected.encode()):
        return None
    try:
        value = json.loads(base64.urlsafe_b64decode(body))
    except (ValueError, binascii.Error):
        return None
    return value if isinstance(value, dict) else None
