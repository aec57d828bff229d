"""Asking a gateway of ours for a file that its zone lacks and one of its resources may bring.

    POST <gateway>/api/v1/requests
    {"payload": {"type": "requestFile", "zone": …, "hash": …, "timestamp": ms}, "fromClientId": …, "signature": …}
    200 {"found": true, "size": …, "url": …, "resource": …}
    200 {"found": false, "reasons": […], "offline": […], "elsewhere": […]}

The address is read like any other: the bytes come while the resource sends them, whole or by ranges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import NotFound
from .gateway_calls import call_native

if TYPE_CHECKING:
    from ..signing import ClientKeys


@dataclass(frozen=True)
class Absent:
    """No resource that is connected to the gateway brings a file.

    Attributes:
        reasons: What each of them said, for people.
        offline: The zone's resources that are not connected.
        elsewhere: Addresses of resources that are asked as in `zone/resource.py`.
    """

    reasons: tuple[str, ...] = ()
    offline: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()


def request_file(gateway_url: str, zone: str, hash_: str, keys: ClientKeys | None) -> dict[str, Any] | Absent:
    """Ask once; the gateway asks its resources.

    Args:
        gateway_url: The gateway's base address.
        zone: The zone.
        hash_: The file's SHA-1.
        keys: Who asks; `None` for nobody in particular.

    Returns:
        The gateway's reply when somebody has the file, else what is known of those who do not.

    Raises:
        NotAllowed: If this client may not load from the zone.
        Unreachable: If the gateway cannot be asked.
    """
    asked = {"type": "requestFile", "zone": zone, "hash": hash_}
    try:
        reply = call_native(gateway_url, "requests", asked, keys)
    except NotFound:
        # a gateway of ours from before there were requests
        reply = None
    if reply is None:
        return Absent()
    size, url = reply.get("size"), reply.get("url")
    if reply.get("found") is True and type(size) is int and size >= 0 and isinstance(url, str):
        return reply
    return Absent(_texts(reply.get("reasons")), _texts(reply.get("offline")), _texts(reply.get("elsewhere")))


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item[:500] for item in value if isinstance(item, str)) if isinstance(value, list) else ()
