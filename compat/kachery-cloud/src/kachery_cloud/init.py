"""Registering this machine's client, once."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from kachery.errors import NotRegistered
from kachery.store import keys
from kachery.zone import Zone

from ._custom_storage_backend import get_custom_storage_backend


def get_client_info() -> dict[str, Any] | None:
    """What the zone knows about this client.

    Returns:
        `{"type": "getClientInfo", "found": True, "client": {"clientId", "ownerId", "timestampCreated", "label"}}`; for
        a custom storage backend `client` is the text `custom_storage_backend`. `None` without keys, and for a client
        that nobody registered.

    Raises:
        NotConfigured: If no gateway is known.
        Unreachable: If it cannot be asked.
    """
    if get_custom_storage_backend() is not None:
        return _info("custom_storage_backend")
    client_keys = keys.load()
    client = None if client_keys is None else Zone(keys=client_keys).client_info()
    return None if client is None else _info(client)


def init() -> None:
    """Register this machine's client with the zone; a person follows the link that is printed, then presses Enter.

    Raises:
        NotConfigured: If no gateway is known.
        NotRegistered: If nobody registered the client, or nobody could press Enter.
        Unreachable: If the gateway cannot be asked.
    """
    if get_custom_storage_backend() is not None:
        _say("Files go to a custom storage backend; there is nothing to register.")
        return
    zone = Zone(keys=keys.load_or_create())
    client = zone.client_info()
    if client is None:
        client = _register(zone)
    else:
        _say(f"This client is registered in the zone {zone.name}.")
    client_id = str(client.get("clientId"))
    _say(f"Configure it at {zone.gateway_url}/client/{client_id}?zone={quote(zone.name, safe='')}")
    _say(f"Client ID: {client_id}")
    _say(f"Label: {client.get('label')}")
    _say(f"Owner: {client.get('ownerId')}")


def _register(zone: Zone) -> dict[str, Any]:
    link = zone.registration_link()
    _say(link)
    _say("")
    _say("Open this link, sign in and register the client. Then press Enter here.")
    again = "open the link that was printed, register the client there, then run `kachery-cloud-init` again"
    try:
        input()
    except EOFError:
        raise NotRegistered(
            f"this client is not registered in the zone {zone.name}, and there is nobody here to press Enter",
            hint=again,
        ) from None
    client = zone.client_info()
    if client is None:
        raise NotRegistered(f"this client is still not registered in the zone {zone.name}", hint=again)
    _say(f"This client is now registered in the zone {zone.name}.")
    return client


def _info(client: dict[str, Any] | str) -> dict[str, Any]:
    return {"type": "getClientInfo", "found": True, "client": client}


def _say(line: str) -> None:
    # whoever waits for the link may read it through a pipe
    print(line, flush=True)  # noqa: T201
