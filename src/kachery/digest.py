"""Digests of bytes, of files, and of files that are still being written.

A large file is copied or received by one thread while another digests *the copy*, a little behind the writer. The
bytes that are hashed are thus the bytes that were written, whatever happens to their source, and the time of the copy
hides behind the time of the hash (`benchmarks/experiments/copy_and_hash.py`).
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from typing import TYPE_CHECKING, BinaryIO

from .errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Larger buffers fall out of the cache between being read and being hashed; `experiments/copy_and_hash.py`
BUFFER_SIZE = 256 * 1024

#: Hex digits of each algorithm that a URI may name.
HEX_LENGTHS = {"sha1": 40, "sha256": 64, "md5": 32}

# a third faster for a small file than a look-up by name and an update
_AT_ONCE = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "md5": hashlib.md5}

_PATTERNS = {name: re.compile(f"[0-9a-f]{{{length}}}") for name, length in HEX_LENGTHS.items()}


def is_hash(algorithm: str, text: str) -> bool:
    """Whether a text is a hash of an algorithm in the canonical, lower-case spelling."""
    pattern = _PATTERNS.get(algorithm)
    return pattern is not None and pattern.fullmatch(text) is not None


def require_hash(algorithm: str, text: str) -> str:
    """The hash itself, when it is one.

    Raises:
        InvalidInput: If it is not, or the algorithm is unknown.
    """
    if algorithm not in HEX_LENGTHS:
        raise _unknown(algorithm)
    if not is_hash(algorithm, text):
        raise InvalidInput(
            f"not a {algorithm} hash: {text[:80]!r}", hint=f"{HEX_LENGTHS[algorithm]} lower-case hex digits"
        )
    return text


def new(algorithm: str) -> hashlib._Hash:
    """A fresh digest."""
    if algorithm not in HEX_LENGTHS:
        raise _unknown(algorithm)
    return hashlib.new(algorithm, usedforsecurity=False)


def _unknown(algorithm: str) -> InvalidInput:
    return InvalidInput(f"unknown hash algorithm {algorithm!r}", hint="one of " + ", ".join(HEX_LENGTHS))


def of_bytes(data: bytes | memoryview, algorithm: str = "sha1") -> str:
    """The digest of some bytes in hex."""
    make = _AT_ONCE.get(algorithm)
    if make is None:
        raise _unknown(algorithm)
    return make(data, usedforsecurity=False).hexdigest()


def of_stream(
    stream: BinaryIO, algorithms: Iterable[str] = ("sha1",), *, advance: Callable[[int], object] | None = None
) -> dict[str, str]:
    """The digests of what is left in a stream, in one pass.

    Args:
        stream: A binary file, unbuffered for speed.
        algorithms: Which digests to take.
        advance: Called with the number of bytes just read.
    """
    digests = {name: new(name) for name in algorithms}
    view = memoryview(bytearray(BUFFER_SIZE))
    while count := stream.readinto(view):  # type: ignore[attr-defined]
        for digest in digests.values():
            digest.update(view[:count])
        if advance is not None:
            advance(count)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def of_file(
    path: str | os.PathLike[str],
    algorithms: Iterable[str] = ("sha1",),
    *,
    advance: Callable[[int], object] | None = None,
) -> dict[str, str]:
    """The digests of a file, in one pass; arguments as for `of_stream`."""
    with open(path, "rb", buffering=0) as stream:
        return of_stream(stream, algorithms, advance=advance)


class FollowingDigest:
    """The digest of a file that somebody is still writing.

    The writer calls `advance` as the file's beginning grows without holes; a thread follows it and digests what is
    there. `result` waits for the thread to reach the end.

    Args:
        fd: A descriptor that can be read; it must stay open until `result` or `stop` returns.
        algorithm: Which digest to take.
    """

    def __init__(self, fd: int, algorithm: str = "sha1") -> None:
        self._fd = fd
        self._digest = new(algorithm)
        self._frontier = 0
        self._end: int | None = None
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._follow, name=f"kachery-{algorithm}", daemon=True)
        self._thread.start()

    def advance(self, frontier: int) -> None:
        """Say that bytes 0 to `frontier` are in the file; never goes back."""
        with self._changed:
            if frontier > self._frontier:
                self._frontier = frontier
                self._changed.notify()

    def result(self, size: int) -> str:
        """The digest in hex of the file's first `size` bytes, all of which must have been announced."""
        with self._changed:
            self._frontier = max(self._frontier, size)
            self._end = size
            self._changed.notify()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._digest.hexdigest()

    def stop(self) -> None:
        """Give up; afterwards the descriptor may be closed."""
        with self._changed:
            self._end = -1
            self._changed.notify()
        self._thread.join()

    def _follow(self) -> None:
        view = memoryview(bytearray(BUFFER_SIZE))
        position = 0
        try:
            while True:
                with self._changed:
                    while self._end is None and self._frontier <= position:
                        self._changed.wait()
                    if self._end == -1 or (self._end is not None and position >= self._end):
                        return
                    limit = self._frontier if self._end is None else self._end
                while position < limit and self._end != -1:
                    count = os.preadv(self._fd, [view[: min(BUFFER_SIZE, limit - position)]], position)
                    if count == 0:
                        raise EOFError(f"the file ends at {position}, {limit} bytes were announced")
                    self._digest.update(view[:count])
                    position += count
        except BaseException as error:
            self._failure = error
