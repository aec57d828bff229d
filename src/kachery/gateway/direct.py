"""The socket of a connection for a thread, past the event loop: `benchmarks/experiments/moving_bodies.py`."""

from __future__ import annotations

import os
import select
import socket

from ..errors import TimedOut, Unreachable


class Direct:
    """A connection's socket for a thread, past the event loop; for one body, in one direction.

    Args:
        descriptor: Of the socket; it is duplicated.
        held: What came of the body already.
        left: How many bytes of the body have not come.
    """

    def __init__(self, descriptor: int, held: bytes = b"", left: int = 0) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._held = memoryview(held)
        self.left = left

    def readinto(self, view: memoryview, patience: float) -> int:
        """Put what has come of the body into a buffer; waits for something; 0 at the end.

        Raises:
            TimedOut: If nothing comes for so many seconds.
            Unreachable: If the sender went away.
        """
        if self._held:
            count = min(len(self._held), len(view))
            view[:count] = self._held[:count]
            self._held = self._held[count:]
            return count
        if not self.left:
            return 0
        count = self._receive(view[: self.left], patience)
        if count == 0:
            raise Unreachable("the sender went away in the middle")
        self.left -= count
        return count

    def _receive(self, view: memoryview, patience: float) -> int:
        while True:
            try:
                return self._socket.recv_into(view)
            except BlockingIOError:
                if not self._wait(select.POLLIN, patience):
                    raise TimedOut(f"the sender sent nothing for {patience:.0f} s") from None
            except OSError:
                return 0

    def write(self, view: memoryview, patience: float) -> None:
        """Send all of a buffer.

        Raises:
            TimedOut: If the reader takes nothing for so many seconds.
            Unreachable: If the reader went away.
        """
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                if not self._wait(select.POLLOUT, patience):
                    raise TimedOut(f"the reader took nothing for {patience:.0f} s") from None
            except OSError:
                raise Unreachable("the reader went away") from None

    def _wait(self, what: int, patience: float) -> bool:
        self._poll.register(self._socket, what)
        return bool(self._poll.poll(patience * 1000))

    def abort(self) -> None:
        """Have whoever waits for the socket fail at once; any thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer was faster

    def rest(self) -> bytes:
        """What came and was not read."""
        return bytes(self._held)

    def close(self) -> None:
        """Let go of the socket; the connection keeps it."""
        self._socket.close()
