"""The bus of processes of one machine and one user that share a directory.

    DIR/                     0700
    └── PROCESS.socket       a datagram socket of each process on the bus

A datagram is the topic, a line feed and the JSON. A process that died leaves its socket; whoever finds nobody behind it
removes it. Where the directory is removed it is made again, and the processes find each other again as they next send
something.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from typing import TYPE_CHECKING

from ...errors import InvalidInput, Unreachable, from_os_error
from .contract import LARGEST, Bus

if TYPE_CHECKING:
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

# What a Unix socket's address may measure, in bytes
_LONGEST_SOCKET = 100

# Seconds: that a process may take to make room for a message, between two looks, and for which one that made none is
# not waited for again
_PATIENCE = 1.0
_LOOK = 0.005
_STUCK = 10.0

# Messages that are taken without giving other work of the process a turn
_AT_ONCE = 64


class DirectoryBus(Bus):
    """A place on the bus of a directory.

    Args:
        directory: The directory; made if it is missing, for this user alone.
        log: Where to say that the directory cannot be used any more.

    Raises:
        InvalidInput: If its path is too long for sockets.
        NotAllowed: If it cannot be written.
    """

    def __init__(self, directory: Path, log: FilteringBoundLogger) -> None:
        super().__init__(log)
        self._directory = directory
        self._path = directory / f"{os.getpid()}-{secrets.token_hex(4)}.socket"
        self._socket: socket.socket | None = None
        # for each socket of another: whose turn it is, and until when it is not waited for
        self._turns: dict[Path, asyncio.Lock] = {}
        self._stuck: dict[Path, float] = {}
        if len(os.fsencode(self._path)) > _LONGEST_SOCKET:
            raise InvalidInput(f"the path {directory} is too long for sockets", hint="choose a shorter one")
        try:
            self._prepare()
        except OSError as error:
            raise from_os_error(error, "use", directory) from error

    @property
    def connected(self) -> bool:
        """Whether the socket is where others look for it."""
        return self._socket is not None and self._path.exists()

    @property
    def here(self) -> str:
        """This machine."""
        return "127.0.0.1"

    async def open(self) -> None:
        """Come onto the bus."""
        try:
            self._bind()
        except OSError as error:
            raise from_os_error(error, "use", self._directory) from error

    async def close(self) -> None:
        """Leave."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
            self._path.unlink(missing_ok=True)

    def _prepare(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory.chmod(0o700)

    def _bind(self) -> None:
        self._prepare()
        new = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            new.setblocking(False)
            new.bind(str(self._path))
        except OSError:
            new.close()
            raise
        old, self._socket = self._socket, new
        loop = asyncio.get_running_loop()
        if old is not None:
            loop.remove_reader(old.fileno())
            old.close()
        loop.add_reader(new.fileno(), self._read, new)

    def _read(self, readable: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                topic, _, content = readable.recv(LARGEST + 100).partition(b"\n")
            except OSError:
                return
            self._deliver(topic.decode("ascii", "replace"), content)
            if self._socket is not readable:
                return  # closed by whoever took the message

    async def _send(self, topic: str, content: bytes) -> None:
        if self._socket is None:
            raise Unreachable("this bus is closed")
        try:
            if not self._path.exists():
                self._bind()
            paths = [each for each in self._directory.iterdir() if each.suffix == ".socket"]
        except OSError as error:
            self._say_away(str(error))
            raise Unreachable(f"the directory {self._directory} of the bus cannot be used: {error}") from error
        self._say_back()
        datagram = topic.encode() + b"\n" + content
        await asyncio.gather(*(self._send_to(path, datagram) for path in paths))

    async def _send_to(self, path: Path, datagram: bytes) -> None:
        # in the order in which they were published
        async with self._turns.setdefault(path, asyncio.Lock()):
            if not await self._offer(path, datagram):
                self._turns.pop(path, None)
                self._stuck.pop(path, None)

    async def _offer(self, path: Path, datagram: bytes) -> bool:
        """Send to one process, waiting a little for room; says whether there is one."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + _PATIENCE
        while self._socket is not None:
            try:
                self._socket.sendto(datagram, str(path))
            except (BlockingIOError, InterruptedError):
                if self._stuck.get(path, 0.0) > clock() or clock() > deadline:
                    self._stuck[path] = clock() + _STUCK
                    self._log.warning("bus_message_lost", process=path.stem, reason="it takes no messages")
                    return True
                await asyncio.sleep(_LOOK)
            except ConnectionRefusedError:
                # nobody is behind it, nor will be: each process has a name of its own
                path.unlink(missing_ok=True)
                return False
            except OSError:
                return False  # it left meanwhile
            else:
                return True
        return False
