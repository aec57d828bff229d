"""Reading parts of a file that stays in its zone.

What is read is what the zone sends: its size is checked, and that each range is the one asked for. The whole file's
hash says nothing about a part of it, so who needs verified bytes loads the file.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: What is fetched at once, in bytes, and how many of these are kept.
BLOCK = 256 * 1024
KEPT = 128

# what one call gives at most, so that as much again is not held beside it, in bytes
_AT_ONCE = KEPT * BLOCK // 2

# reading straight on fetches more and more at once, up to this many blocks
_LONGEST_RUN = 32


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
        self._fetch = fetch
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._run = 1
        self._next = -1

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
        """Fill a buffer as far as the file goes.

        Returns:
            How many bytes were read; 0 at the end.
        """
        view = memoryview(buffer).cast("B")
        end = min(self._position + min(len(view), _AT_ONCE), self.size)
        count = max(0, end - self._position)
        if count:
            self._load(self._position // BLOCK, (end - 1) // BLOCK)
            done = 0
            while done < count:
                index, inside = divmod(self._position + done, BLOCK)
                piece = self._blocks[index][inside : inside + count - done]
                view[done : done + len(piece)] = piece
                done += len(piece)
            self._position += count
            self._trim()
        return count

    def _load(self, first: int, last: int) -> None:
        straight_on = first in (self._next, self._next - 1)
        self._run = min(self._run * 2, _LONGEST_RUN) if straight_on else 1
        self._next = last + 1
        index = first
        while index <= last:
            if index in self._blocks:
                self._blocks.move_to_end(index)
                index += 1
                continue
            stop = index + 1
            while stop <= last and stop not in self._blocks:
                stop += 1
            if stop > last:
                stop = max(stop, index + self._run)
            data = self._fetch(index * BLOCK, min(stop * BLOCK, self.size))
            for number in range(index, stop):
                at = (number - index) * BLOCK
                if at < len(data):
                    self._blocks[number] = data[at : at + BLOCK]
            index = stop

    def _trim(self) -> None:
        while len(self._blocks) > KEPT:
            self._blocks.popitem(last=False)
