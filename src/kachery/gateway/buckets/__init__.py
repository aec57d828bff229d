"""Where bytes are kept: a contract, and directories and object stores that fulfil it.

What a directory answers at once takes a store elsewhere a while; the functions here wait for it without holding up
others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .contract import Bucket, Reader


async def open_object(bucket: Bucket, key: str) -> Reader:
    """As `Bucket.open`."""
    return bucket.open(key) if bucket.near else await asyncio.to_thread(bucket.open, key)


async def size_of_object(bucket: Bucket, key: str) -> int | None:
    """As `Bucket.stat`."""
    return bucket.stat(key) if bucket.near else await asyncio.to_thread(bucket.stat, key)


async def address_of_object(bucket: Bucket, key: str, seconds: int) -> str | None:
    """As `Bucket.address`."""
    return None if bucket.near else await asyncio.to_thread(bucket.address, key, seconds)
