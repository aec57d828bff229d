"""How several relay processes behind one address find the one that has a resource's socket.

A bus answers two questions: is a name taken anywhere, and who is connected elsewhere. One process needs none.
Processes of one machine that share a directory use `DirectoryBus`:

    DIR/lock                 held for a moment by whoever takes a name
    DIR/PROCESS.socket       a Unix socket of each process; requests are passed on over it
    DIR/names/NAME/ZONE      JSON {"name", "zone", "socket"}: which process has the resource (file names are digests)

    asking process ── {"name", "zone", "message", "seconds"} ──▶ process that has the socket
                   ◀── {"requestId", "response", "error?"} or {"failure", "reason"} ──

A process that dies leaves its entries; they count for nothing as soon as its socket takes no connection.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import secrets
import socket
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput, TimedOut, Unreachable, from_os_error
from .connected import Answer, Connected, Gone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    Answering = Callable[[str, str, dict[str, Any], float], Awaitable[Answer]]

# A message between processes in bytes, and how much longer than the resource may take we wait for another process
_LONGEST_LINE = 512 * 1024
_MARGIN = 5.0

# What a Unix socket's address may measure, in bytes
_LONGEST_SOCKET = 100


class Bus(ABC):
    """What relay processes know of each other."""

    @abstractmethod
    def claim(self, name: str, zone: str) -> bool:
        """Take a resource's name for this process; says whether no process had it."""

    @abstractmethod
    def release(self, name: str, zone: str) -> None:
        """Give a name back that this process took."""

    @abstractmethod
    def elsewhere(self, name: str) -> dict[str, Connected]:
        """The resources of a name that are connected to other processes, by zone."""

    @abstractmethod
    async def open(self, answer: Answering) -> None:
        """Begin to take requests of other processes.

        Args:
            answer: Has a resource of this process answer: its name, zone, the message, and how many seconds to wait.
        """

    @abstractmethod
    async def close(self) -> None:
        """Take no more requests."""


class DirectoryBus(Bus):
    """Processes of one machine and one user that share a directory.

    Args:
        directory: The directory; made if it is missing, for this user alone.

    Raises:
        InvalidInput: If its path is too long for sockets.
        NotAllowed: If it cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket = directory / f"{os.getpid()}-{secrets.token_hex(4)}.socket"
        if len(os.fsencode(self._socket)) > _LONGEST_SOCKET:
            raise InvalidInput(f"the path {directory} is too long for sockets", hint="choose a shorter one")
        try:
            (directory / "names").mkdir(parents=True, exist_ok=True, mode=0o700)
            directory.chmod(0o700)
        except OSError as error:
            raise from_os_error(error, "use", directory) from error
        self._server: asyncio.Server | None = None
        self._answer: Answering | None = None

    def claim(self, name: str, zone: str) -> bool:
        """Take a resource's name for this process, unless a living process has it."""
        path = self._entry(name, zone)
        with self._lock():
            known = _read(path)
            if known is not None and _is_alive(known["socket"]):
                return False
            path.parent.mkdir(exist_ok=True, mode=0o700)
            temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
            temporary.write_text(json.dumps({"name": name, "zone": zone, "socket": str(self._socket)}), "utf-8")
            temporary.replace(path)
            return True

    def release(self, name: str, zone: str) -> None:
        """Give a name back that this process took."""
        path = self._entry(name, zone)
        with self._lock():
            known = _read(path)
            if known is not None and known["socket"] == str(self._socket):
                path.unlink()
                with suppress(OSError):
                    # not empty: the name is taken in another zone
                    path.parent.rmdir()

    def elsewhere(self, name: str) -> dict[str, Connected]:
        """The resources of a name that are connected to other living processes, by zone."""
        found: dict[str, Connected] = {}
        try:
            paths = list(self._entry(name, "").parent.iterdir())
        except OSError:
            return found
        for path in paths:
            known = _read(path)
            if known is None or known["name"] != name or known["socket"] == str(self._socket):
                continue
            if _is_alive(known["socket"]):
                found[known["zone"]] = _Elsewhere(name, known["zone"], known["socket"])
        return found

    async def open(self, answer: Answering) -> None:
        """Begin to take requests of other processes."""
        self._answer = answer
        self._server = await asyncio.start_unix_server(self._serve, self._socket, limit=_LONGEST_LINE)

    async def close(self) -> None:
        """Take no more requests."""
        if self._server is not None:
            self._server.close()
            self._socket.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            if not line:
                # somebody who only looked whether we live
                return
            asked = json.loads(line)
            writer.write(json.dumps(await self._reply(asked)).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError, KeyError, TypeError):
            pass  # the other process is gone, or is no relay
        finally:
            writer.close()

    async def _reply(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert self._answer is not None
        try:
            answer = await self._answer(asked["name"], asked["zone"], asked["message"], asked["seconds"])
        except Unreachable as error:
            kind = "timed_out" if isinstance(error, TimedOut) else "gone" if isinstance(error, Gone) else "unreachable"
            return {"failure": kind, "reason": error.message}
        return {"requestId": answer.request_id, "response": answer.response, "error": answer.error}

    def _entry(self, name: str, zone: str) -> Path:
        return self._directory / "names" / _digest(name) / _digest(zone)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        fd = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


class _Elsewhere(Connected):
    """A resource that is connected to another process."""

    def __init__(self, name: str, zone: str, address: str) -> None:
        super().__init__(name, zone)
        self._address = address

    async def answer(self, message: dict[str, Any], seconds: float) -> Answer:
        """The answer to a `requestFromClient`, through the process that has the socket."""
        asked = {"name": self.name, "zone": self.zone, "message": message, "seconds": seconds}
        try:
            async with asyncio.timeout(seconds + _MARGIN):
                reader, writer = await asyncio.open_unix_connection(self._address, limit=_LONGEST_LINE)
                try:
                    writer.write(json.dumps(asked).encode() + b"\n")
                    await writer.drain()
                    reply = json.loads(await reader.readline())
                finally:
                    writer.close()
        except TimeoutError:
            raise TimedOut(f"the resource {self.name} did not answer in time") from None
        except (OSError, ValueError) as error:
            raise Gone(f"the process that the resource {self.name} is connected to has ended") from error
        if "failure" in reply:
            kinds = {"timed_out": TimedOut, "gone": Gone}
            raise kinds.get(reply["failure"], Unreachable)(reply["reason"])
        return Answer(reply["requestId"], reply["response"], reply["error"])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _read(path: Path) -> dict[str, str] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    complete = isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("name", "zone", "socket"))
    return value if complete else None


def _is_alive(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        # one that lives and is busy counts as well
        probe.setblocking(False)
        try:
            probe.connect(address)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True
