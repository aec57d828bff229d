"""The zone of a name, seen by this machine's client."""

from __future__ import annotations

from ..store import keys
from ..zone import Zone


def open_zone(name: str | None = None) -> Zone:
    """The zone of a name, or of the settings, seen by this machine's client.

    Raises:
        NotConfigured: If no gateway is known.
    """
    return Zone(name, keys=keys.load())
