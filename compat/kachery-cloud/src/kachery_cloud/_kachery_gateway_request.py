"""Signed calls to the gateway."""

from __future__ import annotations

from typing import Any

from kachery import settings
from kachery.store import keys
from kachery.zone.gateway_calls import call


def _kachery_gateway_request(request_payload: dict[str, Any], kachery_gateway_url: str | None = None) -> dict[str, Any]:
    payload = {**request_payload}
    # the one question that is not about a zone
    if payload.get("type") != "getZoneInfo":
        payload.setdefault("zone", settings.zone())
    return call(kachery_gateway_url or settings.gateway_url(), payload, keys.load())
