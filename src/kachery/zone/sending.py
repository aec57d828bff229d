"""Sending a file to the address that a gateway gave for it.

    PUT <address>                                   the whole file
    PUT <address>    Content-Range: bytes a-b/N     a part of it, in any order, several at a time   (our gateways)
    GET <address>    {"size": N, "received": [[start, end), …]}                                     (our gateways)

What a gateway of ours wrote of a part counts, even when the connection broke, so after a failure only what is missing
is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import http, transfer
from ..errors import BadReply, KacheryError, NotAllowed, SourceChanged, StorageFull, TooLarge, Unreachable, WrongContent

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..progress import Progress

#: What one request sends, in bytes. What arrived of a broken one is kept, so it may be large.
PART = 64 * 1024 * 1024


def send_whole(url: str, fd: int, size: int, progress: Progress) -> None:
    """Send a file with one request, and again from its beginning when that fails.

    Raises:
        WrongContent: If what arrived is not what was announced.
        SourceChanged: If the file became shorter.
        TooLarge, StorageFull, NotAllowed, Unreachable: If it is not taken.
    """

    def attempt() -> None:
        moved = 0

        def count(step: int) -> None:
            nonlocal moved
            moved += step
            progress.advance(step)

        try:
            _put(url, fd, 0, size, {}, count)
        except KacheryError:
            progress.advance(-moved)
            raise

    http.retrying(attempt)


def send_parts(url: str, fd: int, size: int, progress: Progress) -> None:
    """Send what the gateway is missing of a file, in parts, several at a time where that helps.

    Raises:
        SourceChanged: If the file became shorter.
        TooLarge, StorageFull, NotAllowed, Unreachable: If it is not taken.
    """
    missing = _missing(url, 0, size)
    progress.advance(size - sum(end - start for start, end in missing))
    tried: set[int] = set()

    def send(start: int, end: int, moved: Callable[[int], None]) -> None:
        ranges = [(start, end)]
        if start in tried:
            ranges = _missing(url, start, end)
            moved(end - start - sum(stop - first for first, stop in ranges))
        tried.add(start)
        for first, stop in ranges:
            _put(url, fd, first, stop, {"Content-Range": f"bytes {first}-{stop - 1}/{size}"}, moved)

    transfer.upload_parts(missing, send, progress)


def _missing(url: str, start: int, end: int) -> list[tuple[int, int]]:
    """What the gateway lacks of a range of a file, in pieces to send."""
    reply = http.retrying(lambda: http.exchange("GET", url))
    if reply.status != 200:
        raise Unreachable(f"{reply.host} does not say what it has of the upload (HTTP {reply.status}): {reply.text}")
    received = reply.json().get("received")
    if not isinstance(received, list) or not all(_is_range(item) for item in received):
        raise BadReply(f"{reply.host} does not say what it has of the upload")
    gaps = []
    position = start
    for first, last in [*sorted((item[0], item[1]) for item in received), (end, end)]:
        while position < min(first, end):
            gaps.append((position, min(position + PART, first, end)))
            position = gaps[-1][1]
        position = max(position, last)
    return gaps


def _is_range(item: object) -> bool:
    return isinstance(item, list) and len(item) == 2 and all(isinstance(edge, int) for edge in item)


def _put(url: str, fd: int, start: int, end: int, headers: dict[str, str], moved: Callable[[int], None]) -> None:
    # an empty file has an empty body with a length, not a chunked one, which S3 stores refuse
    body = transfer.pieces(fd, start, end, moved) if end > start else b""
    try:
        reply = http.exchange("PUT", url, body=body, headers={"Content-Length": str(end - start), **headers})
    except EOFError as error:
        raise SourceChanged(f"the file became shorter while it was sent: {error}", hint="store it again") from error
    if reply.status == 200:
        return
    message = f"{reply.host} did not take the file (HTTP {reply.status}): {reply.text}"
    if reply.status == 422:
        raise WrongContent(message, hint="the file changed while it was sent, or something on the way altered it")
    if reply.status == 413:
        raise TooLarge(message)
    if reply.status == 507:
        raise StorageFull(message, hint="tell the zone's administrator; nothing was lost")
    reply.raise_if_busy()
    if reply.status in (400, 401, 403, 410):
        raise NotAllowed(message, hint="store it again")
    # 409: another connection of ours, which broke, still holds the range for a moment
    raise Unreachable(message, hint="try again later")
