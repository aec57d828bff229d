"""Whom to ask for a file, and whom to give it to: a zone, or a channel of a classic server."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .. import servers, settings
from ..classic import Channel
from ..errors import InvalidInput, NotConfigured
from ..store import keys
from ..zone import Zone

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Where files are elsewhere.
Place = Zone | Channel

logger = logging.getLogger(__name__)

_said = False


def open_zone(name: str | None = None) -> Zone:
    """The zone of a name, or of the settings, seen by this machine's client.

    A machine without client keys uses the API key of kachery 2.x when there is one, and so does one whose only gateway
    is that of `KACHERY_BASE_URL`.

    Raises:
        NotConfigured: If no gateway is known.
    """
    own = keys.load()
    base_url, gateway_url = settings.base_url(), settings.gateway_url_or_none()
    api_key = settings.api_key()
    if (base_url and gateway_url is None) or (api_key and own is None and (base_url or gateway_url)):
        from ..zone.keyed import KeyedZone

        return KeyedZone(name, base_url or gateway_url or "", api_key)
    return Zone(name, keys=own)


def open_place(place: str | Mapping[str, Any], *, writing: bool) -> Place:
    """A place by what a user calls it.

    Args:
        place: The name of a server (`server`, `server~channel`) or else of a zone; or a mapping with `url`, `channel`
            and `password`, or with `zone`.
        writing: Whether files shall go there: a server may have another channel for that.

    Raises:
        NotConfigured: If nobody named such a server and no gateway is known, or something is missing.
        InvalidInput: If it is neither.
    """
    described = describe(place, writing=writing)
    if "zone" in described:
        return open_zone(described["zone"])
    return Channel(described["url"], described["channel"], servers.password(described["password"]))


def describe(place: str | Mapping[str, Any], *, writing: bool) -> dict[str, Any]:
    """What a user's name for a place stands for; arguments and errors as for `open_place`.

    Returns:
        `url`, `channel` and `password`, the last as in the user's file; or `zone`.
    """
    if isinstance(place, str):
        known = servers.find(place, writing=writing)
        if known is not None:
            return known
        if not settings.is_gateway_known():
            raise NotConfigured(
                f"Unable to find server: {place}",
                hint=f"name it in {settings.servers_path()}, or set KACHERY_GATEWAY_URL if it is a zone",
            )
        return {"zone": place}
    if not hasattr(place, "keys"):
        raise InvalidInput(f"not a server, a zone or a mapping: {type(place).__name__}")
    if place.get("zone"):
        return {"zone": str(place["zone"])}
    return servers.access(dict(place), "the server")


def stays_here(zone: str | None = None) -> bool:
    """Whether what is stored stays on this machine, since nobody named a zone and no gateway is known.

    Says so on the log, the first time.
    """
    global _said
    if zone is not None or settings.variable("KACHERY_ZONE") or settings.store_file_dir() is not None:
        return False
    if settings.is_gateway_known():
        return False
    if not _said:
        _said = True
        logger.warning("stored on this machine only: no gateway is configured (`kachery init` sets one up)")
    return True
