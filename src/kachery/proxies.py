"""Requests that go through a proxy: urllib3 knows what proxies want, tunnels and passwords included."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3 import exceptions

from .connections import BrokenReply, NoConnection

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_BLOCK = 256 * 1024

_managers: dict[str, urllib3.ProxyManager] = {}
_lock = threading.Lock()


def _begin_anew() -> None:
    global _lock
    # its parent's connections are not a child's, and another thread of its parent may have held the lock
    _lock = threading.Lock()
    _managers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


class ProxiedResponse:
    """As `connections.Response`."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self._response = response

    def read(self, limit: int = _BLOCK) -> bytes:
        """What has come of the body, up to a limit; waits for something; empty at the end."""
        try:
            data = self._response.read1(limit)
        except exceptions.HTTPError as error:
            raise _cause(error) from error
        if not data:
            self._response.release_conn()
        return data

    def readinto(self, view: memoryview) -> int:
        """Put what has come of the body into a buffer; waits for something; 0 at the end."""
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Let go of the connection; with something left in it, it is of no use to the next request."""
        self._response.close()


def request(
    proxy: str,
    method: str,
    url: str,
    body: bytes | Iterable[bytes | memoryview] | None,
    headers: Mapping[str, str],
    connect_timeout: float,
    timeout: float,
) -> ProxiedResponse:
    """Send one request through a proxy, and read the head of its reply.

    Raises:
        NoConnection, OSError, BrokenReply: If there is no reply.
        ValueError: If the address or the proxy's is none.
    """
    try:
        response = _manager(proxy).request(
            method,
            url,
            # memoryviews go out as bytes do, although its types do not say so
            body=body,  # type: ignore[arg-type]
            headers=headers,
            timeout=urllib3.Timeout(connect=connect_timeout, read=timeout),
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )
    except exceptions.LocationValueError as error:
        raise ValueError(str(error)) from error
    except exceptions.HTTPError as error:
        raise _cause(error) from error
    return ProxiedResponse(response)


def _manager(proxy: str) -> urllib3.ProxyManager:
    with _lock:
        manager = _managers.get(proxy)
        if manager is None:
            manager = _managers[proxy] = _through(proxy)
        return manager


def _through(proxy: str) -> urllib3.ProxyManager:
    options: dict[str, Any] = {"num_pools": 16, "maxsize": 32, "blocksize": _BLOCK}
    parts = urlsplit(proxy)
    if parts.username is None:
        return urllib3.ProxyManager(proxy, **options)
    who = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return urllib3.ProxyManager(address, proxy_headers=urllib3.make_headers(proxy_basic_auth=who), **options)


def _cause(error: exceptions.HTTPError) -> Exception:
    """What happened, without the library's wrapping."""
    reason: Any = error.reason if isinstance(error, exceptions.MaxRetryError) and error.reason is not None else error
    if isinstance(reason, exceptions.ProxyError):
        return NoConnection(ConnectionError(f"the proxy cannot be used: {reason.original_error}"))
    if isinstance(reason, exceptions.NewConnectionError):
        cause = reason.__cause__ or reason.__context__
        return NoConnection(cause if isinstance(cause, OSError) else ConnectionError("no connection"))
    if isinstance(reason, exceptions.TimeoutError):
        return TimeoutError()
    if isinstance(reason, exceptions.SSLError) and reason.args and isinstance(reason.args[0], OSError):
        return reason.args[0]
    # the library wraps what happened into a pair of its own words and the cause
    cause = reason.args[-1] if isinstance(reason, exceptions.ProtocolError) and reason.args else reason
    return cause if isinstance(cause, OSError) else BrokenReply(str(cause))
