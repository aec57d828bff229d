"""Talking HTTP: kept connections, bounded waits, retries of what may pass, and errors that say whom we talked to.

Connections are kept between calls, in this process and thread-safely; a forked child starts with none. Proxies are
those of the environment (`HTTPS_PROXY`, `NO_PROXY`, …), certificates those of the system. Why urllib3: of the kept
libraries it moves a byte with the least work (`benchmarks/experiments/http_clients.py`), and most machines have it.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from . import settings
from .errors import BadReply, InvalidInput, TimedOut, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import urllib3

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

_pools: dict[str | None, urllib3.PoolManager] = {}
_pools_lock = threading.Lock()


def _begin_anew() -> None:
    global _pools_lock
    # its parent's connections are not a child's, and another thread of its parent may have held the lock
    _pools_lock = threading.Lock()
    _pools.clear()


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


def request(
    method: str,
    url: str,
    *,
    body: bytes | Iterable[bytes | memoryview] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    follow: bool = False,
) -> urllib3.BaseHTTPResponse:
    """Send one request and return the reply's head; the body is still to be read, in a `with` block.

    Args:
        method: As in HTTP.
        url: An http or https address.
        body: What to send; for an iterable, `headers` must have its `Content-Length`.
        headers: More headers.
        timeout: How long to wait for a peer that says nothing, in seconds; by default the setting.
        follow: Whether redirects are followed.

    Raises:
        InvalidInput: If the address is not one.
        TimedOut, Unreachable: If there is no reply.
    """
    import urllib3
    from urllib3 import exceptions

    patience = settings.timeout() if timeout is None else timeout
    host = peer(url)
    if not url.startswith(("http://", "https://")):
        raise InvalidInput(f"not an address: {host!r}", hint="it must begin with http:// or https://")
    try:
        return _pool(url).request(
            method,
            url,
            # memoryviews go out as bytes do, although its types do not say so
            body=body,  # type: ignore[arg-type]
            headers={"User-Agent": user_agent(), "Accept-Encoding": "identity", **(headers or {})},
            timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT, patience), read=patience),
            redirect=follow,
            retries=urllib3.Retry(total=None, connect=0, read=0, redirect=5 if follow else 0, status=0, other=0),
            preload_content=False,
            decode_content=False,
        )
    except ValueError as error:
        raise InvalidInput(f"not an address: {host!r}: {error}") from error
    except exceptions.HTTPError as error:
        raise broken(error, host) from error


def broken(error: Exception, host: str) -> Unreachable:
    """The error of ours for one of the HTTP library's."""
    from urllib3 import exceptions

    reason = error.reason if isinstance(error, exceptions.MaxRetryError) and error.reason is not None else error
    if isinstance(reason, exceptions.NewConnectionError):
        cause = reason.__cause__ or reason.__context__
        text = cause.strerror if isinstance(cause, OSError) and cause.strerror else "no connection"
        return Unreachable(
            f"{host} cannot be reached: {text}", hint="check the address, and that the server is running"
        )
    if isinstance(reason, exceptions.ConnectTimeoutError | exceptions.ReadTimeoutError | TimeoutError):
        return TimedOut(f"{host} did not answer in time", hint="try again, or set KACHERY_TIMEOUT to more seconds")
    if isinstance(reason, exceptions.SSLError):
        return Untrusted(
            f"{host} has no certificate that this machine trusts: {reason}", hint="check the address and the clock"
        )
    if isinstance(reason, exceptions.ProxyError):
        return Unreachable(
            f"the proxy for {host} cannot be used: {reason}", hint="check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
        )
    if isinstance(reason, exceptions.ResponseError):
        return BadReply(f"{host} sends one from address to address: {reason}", hint="check the address")
    # the library wraps what happened into a pair of its own words and the cause
    cause = reason.args[-1] if isinstance(reason, exceptions.ProtocolError) and reason.args else reason
    what = cause.strerror if isinstance(cause, OSError) and cause.strerror else cause
    return Unreachable(f"the connection to {host} broke: {what}", hint="try again")


def read_all(response: urllib3.BaseHTTPResponse, host: str, limit: int = _LONGEST_REPLY) -> bytes:
    """The whole body of a reply, which is closed.

    Raises:
        BadReply: If it is longer than `limit` bytes.
        TimedOut: If it does not end, however much comes.
        Unreachable: If the connection breaks.
    """
    from urllib3 import exceptions

    data = bytearray()
    patience = settings.timeout()
    deadline = time.monotonic() + patience
    try:
        while piece := response.read1(_BLOCK):
            data += piece
            if len(data) > limit:
                raise BadReply(f"{host} sent more than {limit} bytes where a short reply was expected")
            if time.monotonic() > deadline:
                raise TimedOut(f"{host} has not finished a short reply in {patience:.0f} s", hint="try again")
        response.release_conn()
    except exceptions.HTTPError as error:
        raise broken(error, host) from error
    finally:
        # a connection with something left in it is of no use to the next request
        response.close()
    return bytes(data)


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
    data = read_all(response, peer(url))
    return Reply(response.status, {name.lower(): value for name, value in response.headers.items()}, data, peer(url))


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


def _pool(url: str) -> urllib3.PoolManager:
    import urllib3

    proxy = _proxy(url)
    with _pools_lock:
        pool = _pools.get(proxy)
        if pool is None:
            options: dict[str, Any] = {"num_pools": 16, "maxsize": 32, "blocksize": _BLOCK}
            pool = _through(proxy, options) if proxy else urllib3.PoolManager(**options)
            _pools[proxy] = pool
        return pool


def _through(proxy: str, options: dict[str, Any]) -> urllib3.ProxyManager:
    import urllib3

    parts = urlsplit(proxy)
    if parts.username is None:
        return urllib3.ProxyManager(proxy, **options)
    who = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return urllib3.ProxyManager(address, proxy_headers=urllib3.make_headers(proxy_basic_auth=who), **options)


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
