"""Who this client is."""

from __future__ import annotations

from ._client_keys import client_keys


def get_client_id(generate_if_missing: bool = False) -> str | None:
    """This client's id: its public key, 64 hex digits.

    Args:
        generate_if_missing: Whether to make keys when there are none.

    Returns:
        The id, or `None` when there are no keys.
    """
    keys = client_keys(generate_if_missing)
    return None if keys is None else keys.client_id
