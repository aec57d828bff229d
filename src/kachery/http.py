"""Talking HTTP: kept connections, bounded waits, retries of what may pass, and errors that say whom we talked to.

Connections are kept between calls, in this process and thread-safely; a forked child starts with none. Proxies are
those of the environment (`HTTPS_PROXY`, `NO_PROXY`, …), certificates those of the system. What goes straight to a
server uses our own `connections`, what goes through a proxy urllib3 (`proxies`).
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from . import settings
from .connections import BrokenReply, NoConnection, Pool
from .errors import BadReply, InvalidInput, TimedOut, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_T = TypeVar("_T")

#: Attempts for something that may pass, and the longest pause between two of them, in seconds.
ATTEMPTS = 4
_LONGEST_PAUSE = 10.0

#: How long to wait for a connection to be made, in seconds.
CONNECT_TIMEOUT = 10.0

# a reply that is not a file is read up to here, in bytes
_LONGEST_REPLY = 16 * 1024 * 1024

_BLOCK = 256 * 1024

_PROXY_VARIABLES = tuple(
    spelled for name in ("http_proxy", "https_proxy", "all_proxy") for spelled in (name, name.upper())
)

#: A peer that answers within this time, in seconds, is on this machine or in this building. What one connection has on
#: the way (some MiB) then passes in less than that.
NEAR = 0.005

# a request with a longer body says something about the bandwidth, too
_SHORT_BODY = 4096

# the shortest time from a short request to the head of its reply, in seconds, by host
_latencies: dict[str, float] = {}

# redirects that are followed, one after the other
_MOST_REDIRECTS = 5

_REDIRECTS = (301, 302, 303, 307, 308)

_PORTS = {"http": 80, "https": 443}

# what an address may hold as it is; the rest is escaped
_SAFE = "!#$%&'()*+,/:;=?@[]~"

_INJECTED = re.compile(r"[\r\n\0]")

_pool = Pool()


def _begin_anew() -> None:
    global _pool
    # its parent's connections are not a child's, and another thread of its parent may have held the lock
    _pool = Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


class Busy(Unreachable):
    """A peer asks to be asked again later (429, 502, 503, 504).

    Attributes:
        after: How long it wants to be left alone, in seconds, or `None`.
    """

    def __init__(self, message: str, *, hint: str | None = None, after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.after = after


class Untrusted(Unreachable):
    """A peer cannot prove who it is; asking again does not help."""


class _Source(Protocol):
    """A reply as it comes, over whatever connection."""

    status: int
    headers: dict[str, str]

    def read(self, limit: int) -> bytes: ...

    def readinto(self, view: memoryview) -> int: ...

    def close(self) -> None: ...


class Response:
    """The head of a reply, and its body while it comes; a context that lets go of the connection.

    Attributes:
        status: The HTTP status.
        headers: By lower-case name.
        host: Who sent it.
    """

    def __init__(self, source: _Source, host: str) -> None:
        self.status = source.status
        self.headers = source.headers
        self.host = host
        self._source = source

    def read(self, limit: int = _BLOCK) -> bytes:
        """What has come of the body, up to a limit; waits for something; empty at the end.

        Raises:
            TimedOut, Unreachable: If nothing comes, or the connection breaks.
        """
        try:
            return self._source.read(limit)
        except _FAILURES as error:
            raise broken(error, self.host) from error

    def readinto(self, view: memoryview) -> int:
        """As `read`, into a buffer; says how many bytes."""
        try:
            return self._source.readinto(view)
        except _FAILURES as error:
            raise broken(error, self.host) from error

    def close(self) -> None:
        """Let go of the connection; it is kept when the body was read to its end."""
        self._source.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def request(
    method: str,
    url: str,
    *,
    body: bytes | Iterable[bytes | memoryview] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    follow: bool = False,
) -> Response:
    """Send one request and return the reply's head; the body is still to be read, in a `with` block.

    Args:
        method: As in HTTP.
        url: An http or https address.
        body: What to send; for an iterable, `headers` must have its `Content-Length`.
        headers: More headers.
        timeout: How long to wait for a peer that says nothing, in seconds; by default the setting.
        follow: Whether redirects are followed; only where there is no body.

    Raises:
        InvalidInput: If the address is not one.
        TimedOut, Unreachable: If there is no reply.
    """
    patience = settings.timeout() if timeout is None else timeout
    for _ in range(_MOST_REDIRECTS + 1):
        started = time.monotonic()
        response = _send(method, url, body, headers or {}, patience)
        if body is None or (isinstance(body, bytes) and len(body) <= _SHORT_BODY):
            elapsed = time.monotonic() - started
            _latencies[response.host] = min(elapsed, _latencies.get(response.host, elapsed))
        target = response.headers.get("location")
        if not follow or body is not None or target is None or response.status not in _REDIRECTS:
            return response
        response.close()
        try:
            url = urljoin(url, target)
        except ValueError:
            raise BadReply(f"{response.host} sends one to an address that is none") from None
        if not url.startswith(("http://", "https://")):
            raise BadReply(f"{response.host} sends one to an address that is not of the web")
        if peer(url) != response.host:
            # what opens one server's door is not for another
            headers = {name: value for name, value in (headers or {}).items() if name.lower() != "authorization"}
    raise BadReply(f"{peer(url)} sends one from address to address", hint="check the address")


def _send(
    method: str,
    url: str,
    body: bytes | Iterable[bytes | memoryview] | None,
    headers: Mapping[str, str],
    patience: float,
) -> Response:
    host = peer(url)
    connecting = min(CONNECT_TIMEOUT, patience)
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port
        if parts.scheme not in _PORTS or not name:
            raise InvalidInput(f"not an address: {host!r}", hint="it must begin with http:// or https://")
        fields = {"User-Agent": user_agent(), "Accept-Encoding": "identity", **headers}
        proxy = _proxy(url)
        if proxy is not None:
            from . import proxies

            return Response(proxies.request(proxy, method, url, body, fields, connecting, patience), host)
        if isinstance(body, bytes):
            fields.setdefault("Content-Length", str(len(body)))
        elif body is None and method not in ("GET", "HEAD", "OPTIONS", "DELETE"):
            fields["Content-Length"] = "0"
        head = _head(method, parts.netloc.rpartition("@")[2], parts.path or "/", parts.query, fields)
        server = parts.scheme, name, port or _PORTS[parts.scheme]
        return Response(_pool.request(method, server, head, body, connecting, patience), host)
    except _FAILURES as error:
        raise broken(error, host) from error
    except ValueError as error:
        raise InvalidInput(f"not an address: {host!r}: {error}") from error


def _head(method: str, host: str, path: str, query: str, fields: Mapping[str, str]) -> bytes:
    target = f"{path}?{query}" if query else path
    if not host.isascii():
        host = host.encode("idna").decode()
    lines = [f"{method} {quote(target, safe=_SAFE)} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    for line in lines:
        if _INJECTED.search(line):
            raise ValueError("a header field holds the end of a line")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def is_near(url: str) -> bool:
    """Whether a peer was seen to answer so fast that one connection to it moves as much as several would."""
    return _latencies.get(peer(url), NEAR) < NEAR


_FAILURES = (OSError, BrokenReply, NoConnection)


def broken(error: Exception, host: str) -> Unreachable:
    """The error of ours for one of the system's."""
    cause = error.cause if isinstance(error, NoConnection) else error
    if isinstance(cause, TimeoutError):
        return TimedOut(f"{host} did not answer in time", hint="try again, or set KACHERY_TIMEOUT to more seconds")
    # only the errors of certificates have it; to import `ssl` for a look would take longer than a request
    untrusted = getattr(cause, "verify_message", None)
    if untrusted is not None:
        return Untrusted(
            f"{host} has no certificate that this machine trusts: {untrusted}",
            hint="check the address and the clock",
        )
    what = cause.strerror if isinstance(cause, OSError) and cause.strerror else cause
    if isinstance(error, NoConnection):
        return Unreachable(
            f"{host} cannot be reached: {what}", hint="check the address, and that the server is running"
        )
    return Unreachable(f"the connection to {host} broke: {what}", hint="try again")


def read_all(response: Response, host: str, limit: int = _LONGEST_REPLY) -> bytes:
    """The whole body of a reply, which is closed.

    Raises:
        BadReply: If it is longer than `limit` bytes.
        TimedOut: If it does not end, however much comes.
        Unreachable: If the connection breaks.
    """
    patience = settings.timeout()
    deadline = time.monotonic() + patience
    pieces, length = [], 0
    with response:
        while piece := response.read():
            pieces.append(piece)
            length += len(piece)
            if length > limit:
                raise BadReply(f"{host} sent more than {limit} bytes where a short reply was expected")
            if time.monotonic() > deadline:
                raise TimedOut(f"{host} has not finished a short reply in {patience:.0f} s", hint="try again")
    return b"".join(pieces)


def post_json(
    url: str, content: Any, *, headers: Mapping[str, str] | None = None, timeout: float | None = None
) -> Reply:
    """Send a JSON value and read the whole reply."""
    body = json.dumps(content).encode()
    return exchange(
        "POST", url, body=body, headers={"Content-Type": "application/json", **(headers or {})}, timeout=timeout
    )


def exchange(
    method: str,
    url: str,
    *,
    body: bytes | Iterable[bytes | memoryview] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    follow: bool = False,
) -> Reply:
    """Send one request and read the whole reply; arguments and errors as for `request`."""
    response = request(method, url, body=body, headers=headers, timeout=timeout, follow=follow)
    return Reply(response.status, response.headers, read_all(response, response.host), response.host)


class Reply:
    """A short reply, read whole.

    Attributes:
        status: The HTTP status.
        headers: By lower-case name.
        body: As it came.
        host: Who sent it.
    """

    def __init__(self, status: int, headers: dict[str, str], body: bytes, host: str) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.host = host

    @property
    def text(self) -> str:
        """The body for people: one line, at most 300 characters."""
        text = " ".join(self.body[:2000].decode("utf-8", "replace").split())
        return text[:300]

    def json(self) -> dict[str, Any]:
        """The JSON object in the body.

        Raises:
            BadReply: If there is none.
        """
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            kind = "an HTML page" if self.body.lstrip()[:1] == b"<" else "something else"
            raise BadReply(
                f"{self.host} sent {kind} where JSON was expected", hint="check that the address is a kachery gateway's"
            )
        return value

    def raise_if_busy(self) -> None:
        """Say so when the peer asks to be asked again later.

        Raises:
            Busy: On status 429, 502, 503 and 504.
        """
        raise_if_busy(self.status, self.headers, self.host)


def raise_if_busy(status: int, headers: Mapping[str, str], host: str) -> None:
    """Say so when a peer asks to be asked again later.

    Raises:
        Busy: On status 429, 502, 503 and 504.
    """
    if status in (429, 502, 503, 504):
        after = headers.get("retry-after", "")
        wanted = float(after) if after.isdigit() else None
        raise Busy(f"{host} is busy (HTTP {status})", hint="try again later", after=wanted)


def retrying(action: Callable[[], _T], *, attempts: int = ATTEMPTS) -> _T:
    """Do something that may be repeated, until it works or there is no more hope.

    Raises:
        Unreachable: The last failure, when all attempts failed.
    """
    for attempt in range(1, attempts):
        try:
            return action()
        except (BadReply, Untrusted):
            raise
        except TimedOut as error:
            # it has been waited for long enough to be asked once more, not again and again
            pause(attempt, error)
            break
        except Unreachable as error:
            pause(attempt, error)
    return action()


def pause(attempt: int, error: Unreachable) -> None:
    """Wait a little longer after each failure, with jitter, so that many clients do not come back at once."""
    wanted = error.after if isinstance(error, Busy) and error.after is not None else 0.0
    limit: float = min(_LONGEST_PAUSE, 0.2 * 2**attempt)
    time.sleep(min(60.0, max(wanted, limit * random.uniform(0.5, 1.0))))


def peer(url: str) -> str:
    """Whom an address names, for people: never its path or query, which may be secret."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or url[:60]
    except ValueError:
        return url.partition("?")[0][:60]


def user_agent() -> str:
    """How we introduce ourselves."""
    from ._version import __version__

    return f"kachery/{__version__}"


def _proxy(url: str) -> str | None:
    # without a variable that names one there is none; asking further costs more than the request
    if not any(name in os.environ for name in _PROXY_VARIABLES):
        return None
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

    parts = urlsplit(url)
    proxies = getproxies_environment()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass_environment(parts.netloc, proxies):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
