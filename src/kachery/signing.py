"""Client keys and signatures.

A client *is* an Ed25519 key pair; its id is the public key in hex. A request is signed over its payload:

    1. canonical JSON: keys sorted, `,` and `:` without blanks, no NaN
    2. SHA-1 of the UTF-8 text
    3. Ed25519 over the 20 raw bytes of that digest, in hex

Two canonical forms are in use, because the generations wrote JSON in two languages. Python escapes everything outside
U+0020 to U+007E and writes `1.0`; JavaScript escapes little and writes `1`. They agree on ASCII strings and integers,
so we send only those, and accept a signature over either form. One old form is accepted too, for a client's
registration: Ed25519 over the JSON text itself.

Ed25519 is libsodium's (PyNaCl): it checks a signature in half of OpenSSL's time, and a gateway checks one for every
request (`benchmarks/experiments/signatures.py`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from .errors import InvalidInput

_PRIVATE_DER = bytes.fromhex("302e020100300506032b657004220420")
_PUBLIC_DER = bytes.fromhex("302a300506032b6570032100")

_HEX = re.compile("[0-9a-fA-F]{192}")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class ClientKeys:
    """A client's key pair.

    Args:
        client_id: The public key, 64 lower-case hex digits.
        seed: The private key, 32 bytes; never printed.
    """

    client_id: str
    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> ClientKeys:
        """A new pair from the operating system's random source."""
        import os

        return cls.from_seed(os.urandom(32))

    @classmethod
    def from_seed(cls, seed: bytes) -> ClientKeys:
        """The pair that belongs to a private key of 32 bytes."""
        if len(seed) != 32:
            raise InvalidInput(f"a private key has 32 bytes, not {len(seed)}")
        return cls(_pair(seed)[0].hex(), seed)

    @classmethod
    def from_hex(cls, client_id: str, private_key: str) -> ClientKeys:
        """The pair given as two hex strings, as in `KACHERY_CLOUD_CLIENT_ID` and `KACHERY_CLOUD_PRIVATE_KEY`.

        Raises:
            InvalidInput: If either is not 64 hex digits or they do not belong together.
        """
        try:
            seed = bytes.fromhex(private_key)
        except ValueError:
            raise InvalidInput("the private key is not hexadecimal") from None
        keys = cls.from_seed(seed)
        if keys.client_id != client_id.lower():
            raise InvalidInput("the client id does not belong to the private key")
        return keys

    @classmethod
    def from_pem(cls, private_pem: str) -> ClientKeys:
        """The pair whose private half is in a PEM text (PKCS#8).

        Raises:
            InvalidInput: If the text is not such a key.
        """
        der = _pem_payload(private_pem, "PRIVATE KEY")
        if len(der) != 48 or not der.startswith(_PRIVATE_DER):
            raise InvalidInput("the PEM text does not hold an Ed25519 private key")
        return cls.from_seed(der[16:])

    def private_pem(self) -> str:
        """The private key as upstream writes `private.pem`: three lines, no newline at the end."""
        return _pem(_PRIVATE_DER + self.seed, "PRIVATE KEY")

    def public_pem(self) -> str:
        """The public key as upstream writes `public.pem`: three lines, no newline at the end."""
        return _pem(_PUBLIC_DER + bytes.fromhex(self.client_id), "PUBLIC KEY")

    def sign(self, payload: dict[str, Any]) -> str:
        """The signature over a payload, 128 hex digits."""
        from nacl.bindings import crypto_sign

        return crypto_sign(payload_digest(payload), _pair(self.seed)[1])[:64].hex()


def canonical_json(value: Any) -> str:
    """The canonical text of a JSON value as Python clients write it.

    Raises:
        InvalidInput: If the value holds something that JSON does not have, NaN and infinity included.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"not a JSON value: {error}") from error
    # upstream's serializer escapes DEL as well, which json leaves alone
    return text.replace("\x7f", "\\u007f")


def javascript_json(value: Any) -> str:
    """The canonical text of a JSON value as JavaScript peers write it: little escaped, integral floats as integers.

    Raises:
        InvalidInput: If the value holds something that JSON does not have, NaN and infinity included.
    """
    try:
        return _javascript(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"not a JSON value: {error}") from error


def payload_digest(payload: dict[str, Any]) -> bytes:
    """The 20 bytes that a client signs."""
    return _sha1(canonical_json(payload).encode())


def verify(client_id: str, payload: dict[str, Any], signature: str, *, legacy: bool = False) -> bool:
    """Whether a signature over a payload was made by a client's key, in either canonical form.

    Args:
        client_id: The public key, 64 hex digits.
        payload: The parsed JSON object that was signed.
        signature: 128 hex digits.
        legacy: Whether the form without SHA-1 is accepted too.
    """
    # blanks between digits would make two texts of one signature
    if not _HEX.fullmatch(client_id + signature):
        return False
    key, given = bytes.fromhex(client_id), bytes.fromhex(signature)
    if len(key) != 32 or len(given) != 64:
        return False
    text = canonical_json(payload).encode()
    if _is_signed(key, given, _sha1(text)):
        return True
    # one check costs more than all the rest of a request: the other forms are tried only where they differ
    other = javascript_json(payload).encode()
    if other != text and _is_signed(key, given, _sha1(other)):
        return True
    return legacy and (_is_signed(key, given, text) or (other != text and _is_signed(key, given, other)))


def _javascript(value: Any) -> str:
    if isinstance(value, dict):
        # JavaScript sorts by UTF-16 code units; surrogates sort below U+E000 there
        keys = sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(f"{_javascript(key)}:{_javascript(value[key])}" for key in keys) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_javascript(item) for item in value) + "]"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _javascript_number(value)
    text = json.dumps(value, ensure_ascii=False)
    # of what is left unescaped, only half a pair of surrogates is not
    return _SURROGATE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _javascript_number(value: float) -> str:
    from decimal import Decimal

    # all numbers are doubles there, written without an exponent from 1e-6 to below 1e21
    try:
        number = float(value)
    except OverflowError:
        return "null"
    if number != number or abs(number) == float("inf"):
        raise ValueError(f"{number} is not a number of JSON")
    digits, _, exponent = repr(abs(number)).partition("e")
    sign = "-" if number < 0 else ""
    if number == 0 or 1e-6 <= abs(number) < 1e21:
        digits, exponent = format(Decimal(repr(abs(number))), "f"), ""
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return f"{sign}{digits}" + (f"e{int(exponent):+d}" if exponent else "")


@lru_cache(maxsize=4)
def _pair(seed: bytes) -> tuple[bytes, bytes]:
    # to derive the public half costs as much as a signature
    from nacl.bindings import crypto_sign_seed_keypair

    return crypto_sign_seed_keypair(seed)


def _is_signed(key: bytes, signature: bytes, message: bytes) -> bool:
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import BadSignatureError

    try:
        crypto_sign_open(signature + message, key)
    except BadSignatureError:
        return False
    return True


def _sha1(text: bytes) -> bytes:
    return hashlib.sha1(text, usedforsecurity=False).digest()


def _pem(der: bytes, kind: str) -> str:
    return f"-----BEGIN {kind}-----\n{base64.b64encode(der).decode()}\n-----END {kind}-----"


def _pem_payload(text: str, kind: str) -> bytes:
    lines = [line.strip() for line in text.strip().splitlines()]
    if len(lines) < 3 or lines[0] != f"-----BEGIN {kind}-----" or lines[-1] != f"-----END {kind}-----":
        raise InvalidInput(f"not a PEM text of a {kind.lower()}")
    try:
        return base64.b64decode("".join(lines[1:-1]), validate=True)
    except ValueError as error:
        raise InvalidInput(f"the PEM text of the {kind.lower()} is damaged: {error}") from error
