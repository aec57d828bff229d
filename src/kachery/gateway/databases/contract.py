"""What every database promises, whatever it is.

- What `write` does is done wholly or not at all, and is durable when it returns.
- What a function saw while it writes still holds when its changes are committed: writers behave as if one came after
  the other, in all processes. A function that writes may be called again when it lost against another; what it does
  outside the database must bear that.
- What anybody has committed counts from the next `read` on; nothing is cached.
- A database that is gone for a while is an error of its time: `Unreachable`. When it is back, everything goes on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

P = ParamSpec("P")
T = TypeVar("T")


class Database(ABC):
    """One process's access to the gateway's database."""

    #: What the database is called in messages and logs; no secret.
    name: str

    @abstractmethod
    async def read(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function reads; it is called with a connection and the arguments."""

    @abstractmethod
    def read_now(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `read`, for code that is not asynchronous; in the thread that made the database."""

    @abstractmethod
    async def write(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function returns that changes the database: all of it or nothing, durable when this returns."""

    @abstractmethod
    def write_now(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `write`, for code that is not asynchronous; any thread."""

    @abstractmethod
    def close(self) -> None:
        """Wait for what is being written, then let go of the database."""
