"""`kachery.json`: which gateway and zone this store directory's users mean when they name none."""

from __future__ import annotations

import json

from .. import settings
from .layout import Layout


def write(*, gateway_url: str | None = None, zone: str | None = None) -> str:
    """Remember a gateway or a zone; what is not given stays as it was.

    Args:
        gateway_url: The gateway's base address.
        zone: A zone's name.

    Returns:
        The path of the file.
    """
    content = settings.config()
    if gateway_url is not None:
        content["gateway_url"] = gateway_url.rstrip("/")
    if zone is not None:
        content["zone"] = zone
    path = settings.config_path()
    Layout(path.parent).replace(str(path), json.dumps(content, indent=2).encode() + b"\n")
    return str(path)
