"""The client's keys and signatures, for programs that reach for them here."""

from __future__ import annotations

from typing import Any

from kachery.signing import ClientKeys, verify
from kachery.store import keys as key_files


def client_keys(generate_if_missing: bool) -> ClientKeys | None:
    """This machine's keys, or `None` when there are none and none shall be made."""
    return key_files.load_or_create() if generate_if_missing else key_files.load()


def _get_client_keys_hex(generate_if_missing: bool = True) -> tuple[str, str] | tuple[None, None]:
    # 0.4.2 has no argument and makes keys; 0.4.10 demands one
    keys = client_keys(generate_if_missing)
    return (None, None) if keys is None else (keys.client_id, keys.seed.hex())


def _sign_message(msg: dict[str, Any], public_key_hex: str, private_key_hex: str) -> str:
    return ClientKeys.from_hex(public_key_hex, private_key_hex).sign(msg)


def _sign_message_as_client(msg: dict[str, Any]) -> str:
    return key_files.load_or_create().sign(msg)


def _verify_signature(msg: dict[str, Any], public_key_hex: str, signature: str) -> bool:
    return verify(public_key_hex, msg, signature)
