"""Which library checks signatures: one for every request that a gateway answers.

.venv/bin/python benchmarks/experiments/signatures.py
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = bytes(range(32))
MESSAGE = bytes(20)
REPEATS = 500
ROUNDS = 9


def main() -> None:
    """Print the microseconds of each, in one table."""
    openssl = Ed25519PrivateKey.from_private_bytes(SEED)
    openssl_public = openssl.public_key()
    public, private = crypto_sign_seed_keypair(SEED)
    signed = crypto_sign(MESSAGE, private)
    signature = signed[:64]
    contenders: dict[str, Callable[[], object]] = {
        "cryptography (OpenSSL), sign": lambda: openssl.sign(MESSAGE),
        "PyNaCl (libsodium), sign": lambda: crypto_sign(MESSAGE, private),
        "cryptography (OpenSSL), verify": lambda: openssl_public.verify(signature, MESSAGE),
        "PyNaCl (libsodium), verify": lambda: crypto_sign_open(signed, public),
    }
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, action in contenders.items():
            start = time.perf_counter()
            for _ in range(REPEATS):
                action()
            samples[name].append((time.perf_counter() - start) / REPEATS * 1e6)
    print("| what | µs, best | µs, median |\n|---|---|---|")
    for name, values in samples.items():
        print(f"| {name} | {min(values):.0f} | {statistics.median(values):.0f} |")


if __name__ == "__main__":
    main()
