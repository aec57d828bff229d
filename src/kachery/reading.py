"""Reading parts of a file that stays in its zone.

What is read is what the zone sends: its size is checked, and that each range is the one asked for. The whole file's
hash says nothing about a part of it, so who needs verified bytes loads the file; or has the URI name a manifest of the
file's chunks (`?manifest=`), each of which then is verified (`Verified`).
"""

from __future__ import annotations

import io
import threading
from bisect import bisect_right
from collections import OrderedDict
from typing import TYPE_CHECKING

from . import digest
from .errors import WrongContent

if TYPE_CHECKING:
    from collections.abc import Callable

    from .manifests import Chunk, Chunks

#: What is fetched at once, in bytes (`benchmarks/experiments/reading_blocks.py`), and how many of these are kept.
BLOCK = 256 * 1024
KEPT = 128

#: How many verified chunks are kept; they have 10 or 20 MB each.
KEPT_CHUNKS = 2

# reading straight on fetches more and more at once, up to this many blocks
_LONGEST_RUN = 32


class Blocks:
    """The blocks of a file that were read last; threads may share them.

    Args:
        size: The file's size in bytes.
        fetch: Gets the bytes from a start to an end.
        block: What is fetched at once, in bytes.
    """

    def __init__(self, size: int, fetch: Callable[[int, int], bytes], block: int = BLOCK) -> None:
        self.size = size
        self.block = block
        #: How much one reading may add to what is kept, in bytes.
        self.most = KEPT * BLOCK // 2
        self._fetch = fetch
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._room = max(2, KEPT * BLOCK // block)
        self._run = 1
        self._next = -1
        self._lock = threading.Lock()

    def read(self, start: int, end: int) -> bytes:
        """The bytes from a start to an end, as far as the file goes."""
        end = min(end, self.size)
        if start >= end:
            return b""
        if end - start > self.most:
            # kept, it would push out everything else, and whoever reads so much does not come back for it soon
            return self._fetch(start, end)
        with self._lock:
            first, last = start // self.block, (end - 1) // self.block
            self._load(first, last)
            if first == last:
                data = self._kept[first][start - first * self.block : end - first * self.block]
            else:
                joined = b"".join(self._kept[number] for number in range(first, last + 1))
                data = joined[start - first * self.block : end - first * self.block]
            while len(self._kept) > self._room:
                self._kept.popitem(last=False)
            return data

    def _load(self, first: int, last: int) -> None:
        straight_on = first in (self._next, self._next - 1)
        self._run = min(self._run * 2, max(1, _LONGEST_RUN * BLOCK // self.block)) if straight_on else 1
        self._next = last + 1
        index = first
        while index <= last:
            if index in self._kept:
                self._kept.move_to_end(index)
                index += 1
                continue
            stop = index + 1
            while stop <= last and stop not in self._kept:
                stop += 1
            if stop > last:
                stop = max(stop, index + self._run)
            data = self._fetch(index * self.block, min(stop * self.block, self.size))
            for number in range(index, stop):
                at = (number - index) * self.block
                if at < len(data):
                    self._kept[number] = data[at : at + self.block]
            index = stop


class RangeReader(io.RawIOBase):
    """A file in a zone, read where one looks.

    Args:
        size: The file's size in bytes.
        fetch: Gets the bytes from a start to an end.
        name: What to call it.
    """

    def __init__(self, size: int, fetch: Callable[[int, int], bytes], name: str) -> None:
        super().__init__()
        self.size = size
        self.name = name
        self._blocks = Blocks(size, fetch)
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The position, in bytes from the beginning."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go somewhere else.

        Returns:
            The new position, in bytes from the beginning.
        """
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}
        if whence not in bases:
            raise ValueError(f"seek knows no whence {whence}")
        base = bases[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer as far as the file goes, and at most as far as is kept at once.

        Returns:
            How many bytes were read; 0 at the end.
        """
        view = memoryview(buffer).cast("B")
        data = self._blocks.read(self._position, self._position + min(len(view), self._blocks.most))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


class Verified:
    """Ranges of a file whose chunks are known by their hashes; nothing is handed out before its chunk was verified.

    A chunk is fetched as a whole, and the ones read last are kept. Threads may share it.

    Args:
        fetch: Gets the bytes from a start to an end, as somebody sends them.
        chunks: What the file is made of.
        name: What to call it in errors.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], chunks: Chunks, name: str) -> None:
        self._fetch = fetch
        self._chunks = chunks.chunks
        self._ends = [chunk.end for chunk in chunks.chunks]
        self._name = name
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._reading = threading.Lock()

    def __call__(self, start: int, end: int) -> bytes:
        """The bytes from a start to an end that are within the file.

        Raises:
            WrongContent: If a chunk is not what its hash says, twice.
        """
        pieces = []
        number = bisect_right(self._ends, start)
        while start < end:
            chunk = self._chunks[number]
            stop = min(end, chunk.end)
            pieces.append(self._chunk(number)[start - chunk.start : stop - chunk.start])
            start, number = stop, number + 1
        return b"".join(pieces)

    def _chunk(self, number: int) -> bytes:
        # one at a time, so that nobody fetches what somebody else is fetching
        with self._reading:
            if number not in self._kept:
                self._kept[number] = self._verified(self._chunks[number])
                while len(self._kept) > KEPT_CHUNKS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(number)
            return self._kept[number]

    def _verified(self, chunk: Chunk) -> bytes:
        for _ in range(2):
            data = self._fetch(chunk.start, chunk.end)
            if len(data) == chunk.end - chunk.start and digest.of_bytes(data) == chunk.sha1:
                return data
        raise WrongContent(
            f"what was sent as the bytes {chunk.start} to {chunk.end} of {self._name} is not what its manifest says",
            hint="the copy or the manifest is damaged, or something on the way is; nothing of it was used",
        )
