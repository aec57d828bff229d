"""What every bucket promises, whatever it is made of.

Bytes arrive in a *staging* object that nobody can read, at any offset and in any order. What is complete and verified
is *published* under its key: whole or not at all, and never over something that is there and right. A key is
`[<directory>/]sha1/ab/cd/ef/<sha1>`; names of staging objects are chosen by the gateway and hold no path.

All methods block, and may be called from any thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ... import digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class Digests:
    """What is known of some content after reading all of it: hex digests, and the size in bytes."""

    sha1: str
    sha256: str
    size: int


class Staging(ABC):
    """One object that is being received."""

    name: str

    @abstractmethod
    def write(self, buffers: Sequence[bytes | memoryview], offset: int) -> None:
        """Write some buffers one after the other, beginning at an offset.

        Raises:
            StorageFull: If there is no room.
        """

    @abstractmethod
    def advance(self, frontier: int) -> None:
        """Say that bytes 0 to `frontier` are written and will not change, so that their digests can be taken."""

    @abstractmethod
    def digests(self, size: int) -> Digests:
        """The digests of the first `size` bytes; the object must not have more.

        Raises:
            WrongContent: If the object has another size.
        """

    @abstractmethod
    def sync(self) -> None:
        """Return once everything that is written is on the disk."""

    @abstractmethod
    def reader(self) -> Reader:
        """What is written, for reading while more comes; it stays readable after `close` and after it was discarded.

        The reader's `size` is that of now.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the object; what is written stays. Closing twice is harmless."""


class Reader(ABC):
    """One object, open for reading."""

    size: int

    @abstractmethod
    def read_now(self, offset: int, count: int) -> bytes | None:
        """Up to `count` bytes if they can be had without waiting for a device, else `None`."""

    @abstractmethod
    def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes; empty at the end."""

    def hashes(self, algorithms: Sequence[str]) -> dict[str, str]:
        """The hex digests of the whole object, by algorithm, from reading it."""
        digests = {algorithm: digest.new(algorithm) for algorithm in algorithms}
        position = 0
        while piece := self.read(position, digest.BUFFER_SIZE):
            position += len(piece)
            for one in digests.values():
                one.update(piece)
        return {algorithm: one.hexdigest() for algorithm, one in digests.items()}

    def readinto(self, offset: int, view: memoryview) -> int:
        """Put some bytes into a buffer; says how many, 0 at the end."""
        data = self.read(offset, len(view))
        view[: len(data)] = data
        return len(data)

    @abstractmethod
    def close(self) -> None:
        """Let go of the object."""


class Bucket(ABC):
    """A place for objects."""

    #: The bucket's name for callers; no path and no secret.
    uri: str

    #: Whether `open` and `stat` take no longer than a call of the system.
    near = True

    @abstractmethod
    def stage(self, name: str) -> Staging:
        """A new staging object, or one that exists, to be continued."""

    @abstractmethod
    def discard(self, name: str) -> None:
        """Remove a staging object, if there is one."""

    @abstractmethod
    def staged(self) -> Iterator[tuple[str, float]]:
        """The names of all staging objects, and when each was last written to, in seconds since the epoch."""

    @abstractmethod
    def publish(self, name: str, key: str) -> bool:
        """Make a staging object's content readable under a key, durably. The staging object stays until `discard`.

        Returns:
            Whether it was done; `False` if something is under this key already, which stays as it is.
        """

    @abstractmethod
    def withdraw(self, name: str, key: str) -> bool:
        """Undo `publish` if this very staging object is what is under the key; says whether it was."""

    @abstractmethod
    def replace(self, name: str, key: str) -> None:
        """As `publish`, over damaged content. Readers of the old content keep it, or get an error; never a mixture."""

    @abstractmethod
    def stat(self, key: str) -> int | None:
        """The size of the object under a key in bytes; `None` if there is none."""

    @abstractmethod
    def digests(self, key: str) -> Digests:
        """The digests of the object under a key, from reading it.

        Raises:
            NotFound: If there is none.
        """

    @abstractmethod
    def open(self, key: str) -> Reader:
        """The object under a key, for reading.

        Raises:
            NotFound: If there is none.
        """

    def address(self, key: str, seconds: int) -> str | None:
        """An address where the object can be read without the gateway for a while; `None` if there is none to give."""
        return None

    @abstractmethod
    def trash(self, key: str) -> bool:
        """Move the object under a key to `trash/<key>`; says whether there was one."""

    @abstractmethod
    def keys(self, prefix: str = "") -> Iterator[str]:
        """All keys that begin with a prefix, staging and trash excluded."""

    @abstractmethod
    def room(self) -> int:
        """How many bytes can still be written."""
