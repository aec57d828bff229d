"""A file that somebody else has: what is known of it before its bytes move."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RemoteFile:
    """A file that a zone or a classic channel has, or that a zone's resource brings.

    Attributes:
        hash: Its hash.
        size: In bytes.
        url: Where to fetch it, for a while; not to be shown or kept.
        reply: What was said of it, without the address.
        resource: The resource that brings it; `None` when it is there.
        content: The whole content, unverified, when it was sent along because it is small.
        algorithm: The hash's algorithm.
    """

    hash: str
    size: int
    url: str = field(repr=False)
    reply: dict[str, Any] = field(default_factory=dict)
    resource: str | None = None
    content: bytes | None = field(default=None, repr=False)
    algorithm: str = "sha1"


class Memory:
    """A sink in memory, for a small file or a range of a larger one.

    Args:
        size: The file's size in bytes.
        start: Where the range begins.
        end: Where it ends; by default where the file does.
    """

    def __init__(self, size: int, start: int = 0, end: int | None = None) -> None:
        self.size = size
        self._start = start
        self.content = bytearray((size if end is None else end) - start)

    def missing(self, step: int) -> list[tuple[int, int]]:
        """The range, in pieces of at most `step` bytes."""
        end = self._start + len(self.content)
        return [(position, min(position + step, end)) for position in range(self._start, end, step)]

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put some bytes in their place."""
        at = offset - self._start
        self.content[at : at + len(data)] = data

    def mark(self, start: int, end: int) -> None:
        """Nothing: what is in memory need not be found again."""
