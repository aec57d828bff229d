"""Running a gateway in the foreground."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import signal
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import uvicorn

from ..errors import Conflict, InvalidInput, KacheryError, from_os_error
from .app import Application
from .config import record_address
from .connection import Connection
from .logs import ForwardToLog
from .sockets import LARGEST_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp
    from structlog.typing import FilteringBoundLogger

    from .config import GatewayConfig
    from .runtime import Gateway

# Parameters of glibc's mallopt and their values, in bytes; two arenas bound what threads keep to themselves
_MALLOC = {
    "M_MMAP_THRESHOLD": (-3, 32 * 1024 * 1024),
    "M_TRIM_THRESHOLD": (-1, 48 * 1024 * 1024),
    "M_TOP_PAD": (-2, 8 * 1024 * 1024),
    "M_ARENA_MAX": (-8, 2),
}

_ANY = {"0.0.0.0", "::"}  # noqa: S104 - compared, not listened on

# Seconds that requests in progress get after Ctrl-C
_GRACE = 5

#: How the HTTP server is set up, whatever it serves.
SERVER_OPTIONS: dict[str, Any] = {
    "http": Connection,
    "loop": "uvloop",
    "ws": "websockets-sansio",
    "ws_max_size": LARGEST_MESSAGE,
    "ws_per_message_deflate": False,
    "ws_ping_interval": 20.0,
    "ws_ping_timeout": 20.0,
    "lifespan": "on",
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "date_header": True,
    # the public address says what a proxy in front is called; nothing is taken from requests
    "proxy_headers": False,
    "timeout_keep_alive": 75,
    "timeout_graceful_shutdown": _GRACE,
}


@contextmanager
def only_gateway(config: GatewayConfig, *, shared: bool = False) -> Iterator[None]:
    """Hold the data directory for this gateway; the system lets go of it when the process ends, however it does.

    Args:
        config: The gateway's settings.
        shared: Whether other processes that say the same may hold it as well.

    Raises:
        Conflict: If another gateway runs on the directory.
    """
    try:
        config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(config.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise from_os_error(error, "write to", config.data) from error
    try:
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"another gateway runs on {config.data}",
                hint="end it first, or choose another directory with --data; several need --bus, all of them",
            ) from None
        yield
    finally:
        os.close(fd)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        Conflict: If the port is in use.
        InvalidInput: If the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InvalidInput(
            f"cannot listen on {host}: {error}", hint="as in --host 127.0.0.1 or --host 0.0.0.0"
        ) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if isinstance(error, PermissionError):
            raise from_os_error(error, "listen on", f"{host} port {port}") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise InvalidInput(f"{host} is not an address of this machine") from error
        raise Conflict(
            f"port {port} of {host} is in use", hint="choose another with --port, or --port 0 for any"
        ) from error
    return listener


def internal_address(listener: socket.socket) -> str:
    """Where other processes reach a listening socket, as `open_gateway` takes it."""
    host, port = listener.getsockname()[:2]
    return f"http://{'{here}' if host in _ANY else f'[{host}]' if ':' in host else host}:{port}"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()


class _Told(BaseException):
    """The process was told to end, and has ended its work."""


def serve(
    gateway: Gateway,
    listener: socket.socket,
    on_ready: Callable[[str, str], None],
    classic: socket.socket | None = None,
) -> None:
    """Answer requests until the process is told to end, by SIGINT or SIGTERM.

    Args:
        gateway: The gateway's parts.
        listener: A listening socket.
        on_ready: Called once the gateway answers, with the address it listens on, as in `http://127.0.0.1:8471`, and
            the one to give to others.
        classic: A listening socket for the classic protocol alone.
    """
    config = gateway.config
    host, port = listener.getsockname()[:2]

    def ready(url: str) -> None:
        # 0.0.0.0 is no address to go to
        address = config.public_url or (f"http://{socket.gethostname()}:{port}" if host in _ANY else url)
        record_address(config, address)
        on_ready(url, address)

    application = Application(gateway, None if classic is None else classic.getsockname()[1])
    run(application, listener, gateway.log, ready, classic)


def run(
    application: ASGIApp,
    listener: socket.socket,
    log: FilteringBoundLogger,
    on_ready: Callable[[str], None],
    second: socket.socket | None = None,
) -> None:
    """Answer requests with an application until the process is told to end.

    Args:
        application: What answers.
        listener: A listening socket.
        log: Where the server's own words go.
        on_ready: Called with the address, as in `http://127.0.0.1:8471`, once it answers.
        second: Another listening socket.
    """
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    server = _Server(uvicorn.Config(application, **SERVER_OPTIONS), lambda: on_ready(url))
    _forward_library_logs(log)
    _keep_freed_memory()
    for number in (signal.SIGINT, signal.SIGTERM):
        # the server raises the signal again when it has ended
        signal.signal(number, _end)
    with suppress(_Told):
        server.run(sockets=[listener] if second is None else [listener, second])
    if not server.started:
        raise KacheryError("the server could not start", hint="the lines above say why")


def _end(number: int, frame: object) -> None:
    raise _Told


def _keep_freed_memory() -> None:
    """Let the C library keep buffers that were freed, for the next ones.

    By default glibc gives each freed buffer of a quarter MiB back to the system, and the next one costs the zeroing of
    new pages: two thirds of all the time that receiving takes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library, with other habits
    for parameter, value in _MALLOC.values():
        mallopt(parameter, value)


def _forward_library_logs(log: FilteringBoundLogger) -> None:
    logger = logging.getLogger("uvicorn")
    logger.handlers = [ForwardToLog(log)]
    logger.propagate = False
    # uvicorn's own words about its start and end say nothing to the person who started a gateway
    logger.setLevel(logging.WARNING)
