"""The gateway's address."""

from __future__ import annotations

from kachery import settings


def _get_kachery_gateway_url() -> str:
    return settings.gateway_url()
