"""What it costs a server to move a large body between a socket and a file, through an event loop and past it.

The experiment behind `kachery.gateway.direct`: a thread moves large bodies, in pieces of 256 KiB on their
way in and of 1 MiB on their way out. curl is on the other side; the servers are processes of their own that take turns.

    python benchmarks/experiments/moving_bodies.py [--size MIB] [--rounds N] [--scratch DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable

KIB, MIB = 1 << 10, 1 << 20
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"


def in_threads(answer: Callable[[socket.socket], None]) -> int:
    """Answer each connection in a thread; gives the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.setblocking(False)
                answer(connection)

    threading.Thread(target=listen, daemon=True).start()
    return int(listener.getsockname()[1])


def wait(connection: socket.socket, what: int) -> None:
    """Wait until a socket has something, or takes something."""
    poll = select.poll()
    poll.register(connection, what)
    poll.poll()


def head_of(connection: socket.socket) -> bytes:
    """The head of a request, and what came with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        wait(connection, select.POLLIN)
        data += connection.recv(64 * KIB)
    return data


def send_all(connection: socket.socket, view: memoryview) -> None:
    """Send a buffer over a socket that does not wait."""
    while view:
        try:
            view = view[connection.send(view) :]
        except BlockingIOError:
            wait(connection, select.POLLOUT)


def send_from_thread(path: Path, piece: int) -> int:
    """Read into one buffer, send it, from a thread."""
    size = path.stat().st_size

    def answer(connection: socket.socket) -> None:
        head_of(connection)
        send_all(connection, memoryview(HEAD % size))
        view = memoryview(bytearray(piece))
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(view):
                send_all(connection, view[:count])

    return in_threads(answer)


def send_with_sendfile(path: Path, piece: int) -> int:
    """Have the system send the file, from a thread."""
    size = path.stat().st_size

    def answer(connection: socket.socket) -> None:
        head_of(connection)
        send_all(connection, memoryview(HEAD % size))
        with path.open("rb", buffering=0) as file:
            position = 0
            while position < size:
                try:
                    position += os.sendfile(connection.fileno(), file.fileno(), position, piece)
                except BlockingIOError:
                    wait(connection, select.POLLOUT)

    return in_threads(answer)


def in_loop(make: Callable[[], asyncio.Protocol]) -> int:
    """Answer connections in an event loop, which runs in a thread; gives the port."""
    ports: list[int] = []
    started = threading.Event()

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        started.set()
        await asyncio.Event().wait()

    threading.Thread(target=uvloop.run, args=(main(),), daemon=True).start()
    started.wait()
    return ports[0]


class Sender(asyncio.Protocol):
    """Sends a file in pieces that the event loop reads."""

    def __init__(self, path: Path, piece: int) -> None:
        self._path, self._piece = path, piece
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody connects."""
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]

    def pause_writing(self) -> None:
        """The reader is slower."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The reader has caught up."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """A request, for all we care."""
        self._task = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        self._transport.write(HEAD % self._path.stat().st_size)
        view = memoryview(bytearray(self._piece))
        with self._path.open("rb", buffering=0) as file:
            while count := file.readinto(view):
                self._transport.write(bytes(view[:count]))
                await self._writable.wait()
        self._transport.close()


def take_in_thread(target: Path, piece: int) -> int:
    """Read into one buffer, write it, in a thread."""

    def answer(connection: socket.socket) -> None:
        head, _, body = head_of(connection).partition(b"\r\n\r\n")
        left = int(head.lower().partition(b"content-length:")[2].split()[0]) - len(body)
        view = memoryview(bytearray(piece))
        with target.open("wb", buffering=0) as file:
            file.write(body)
            while left:
                try:
                    count = connection.recv_into(view)
                except BlockingIOError:
                    wait(connection, select.POLLIN)
                    continue
                file.write(view[:count])
                left -= count
        send_all(connection, memoryview(HEAD % 0))

    return in_threads(answer)


class Taker(asyncio.Protocol):
    """Hands what comes to a thread that writes it, with at most 4 MiB on the way."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._left: int | None = None
        self._lock = threading.Condition()
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody connects."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Some of the body; the head came before it, in one piece."""
        if self._left is None:
            head, _, data = data.partition(b"\r\n\r\n")
            self._left = int(head.lower().partition(b"content-length:")[2].split()[0])
            self._loop = asyncio.get_running_loop()
            threading.Thread(target=self._write, args=(self._left,), daemon=True).start()
        with self._lock:
            self._pieces.append(data)
            self._waiting += len(data)
            if self._waiting >= 256 * KIB:
                self._lock.notify()
            if self._waiting > 4 * MIB:
                self._paused = True
                self._transport.pause_reading()
        self._left -= len(data)
        if self._left == 0:
            with self._lock:
                self._lock.notify()

    def _write(self, left: int) -> None:
        with self._target.open("wb", buffering=0) as file:
            while left:
                with self._lock:
                    while self._waiting < min(256 * KIB, left):
                        self._lock.wait()
                    pieces, self._pieces = self._pieces, []
                    count, self._waiting = self._waiting, 0
                    paused, self._paused = self._paused, False
                os.writev(file.fileno(), pieces)
                left -= count
                if paused:
                    self._loop.call_soon_threadsafe(self._transport.resume_reading)
        self._loop.call_soon_threadsafe(self._transport.write, HEAD % 0)
        self._loop.call_soon_threadsafe(self._transport.close)


def measure(ways: dict[str, Callable[[], int]], curl: list[str], rounds: int, size: int, title: str) -> None:
    """Print a Markdown table of the time that curl takes with each server, and the server's own."""
    servers: dict[str, tuple[int, int]] = {}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for name, start in ways.items():
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.write(writing, b"%d" % start())
                signal.pause()
            servers[name] = pid, int(os.read(reading, 20))
        for number in range(rounds):
            for name, (pid, port) in servers.items():
                os.sync()
                used, started = _cpu(pid), time.perf_counter()
                command = ["curl", "-sSf", "-m", "60", "-o", "/dev/null", *curl, f"http://127.0.0.1:{port}/"]
                subprocess.run(command, check=True)
                wall[name].append(time.perf_counter() - started)
                cpu[name].append(_cpu(pid) - used)
            print(f"{title}: round {number + 1} of {rounds} done", file=sys.stderr)
    finally:
        for pid, _ in servers.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    print(
        f"\n{title}, {size} MiB, {rounds} rounds\n\n| way | best ms | median ms | server's CPU s |\n|---|---|---|---|"
    )
    for name in ways:
        best, median = min(wall[name]) * 1000, statistics.median(wall[name]) * 1000
        print(f"| {name} | {best:.0f} | {median:.0f} | {statistics.median(cpu[name]):.2f} |")


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure both directions."""
    parser = argparse.ArgumentParser(description="Move a large body between a socket and a file, in several ways.")
    parser.add_argument("--size", type=int, default=1024, help="size of the file in MiB")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scratch", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        path, target = Path(scratch) / "large", Path(scratch) / "copy"
        block = os.urandom(MIB)
        with path.open("wb") as stream:
            for _ in range(given.size):
                stream.write(block)
        out: dict[str, Callable[[], int]] = {
            "event loop, 256 KiB": lambda: in_loop(lambda: Sender(path, 256 * KIB)),
            "event loop, 1 MiB": lambda: in_loop(lambda: Sender(path, MIB)),
            "thread, 256 KiB": lambda: send_from_thread(path, 256 * KIB),
            "thread, 1 MiB": lambda: send_from_thread(path, MIB),
            "thread, sendfile": lambda: send_with_sendfile(path, MIB),
        }
        measure(out, [], given.rounds, given.size, "Out of the server")
        into: dict[str, Callable[[], int]] = {
            "event loop and a thread": lambda: in_loop(lambda: Taker(target)),
            "thread, 256 KiB": lambda: take_in_thread(target, 256 * KIB),
            "thread, 1 MiB": lambda: take_in_thread(target, MIB),
        }
        measure(into, ["-T", str(path), "-H", "Expect:"], given.rounds, given.size, "Into the server")
    return 0


if __name__ == "__main__":
    sys.exit(main())
