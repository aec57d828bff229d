"""Asking a resource to bring a file into its zone.

    POST <proxy>/r/<name>
    {"type": "requestFromClient", "resourceName": …, "zone": …, "timeoutMsec": …,
     "request": {"type": "fileUpload", "uri": "sha1://HASH", "timeoutMsec": …}}
    200 {"type": "responseToClient", "response": {"type": "fileUpload", "status": {"status": "queued", …}}}

The published proxy sends the inner `response` alone; both shapes are understood.
"""

from __future__ import annotations

from typing import Any

from .. import http
from ..errors import BadReply, TimedOut, Unreachable

# the proxy waits this much longer than the resource may take, in seconds, and we a little longer than the proxy
_MARGIN = 5.0


def request_file(url: str, zone: str, uri: str, timeout_sec: float) -> dict[str, Any]:
    """Ask once, and hear how far it is.

    Args:
        url: `<proxy>/r/<name>`.
        zone: The zone of the resource.
        uri: `sha1://` and the hash, nothing more.
        timeout_sec: How long the resource may wait for news before it answers.

    Returns:
        `status` (`not-found`, `queued`, `running`, `completed` or `error`), and with it, where known, `size`,
        `bytesUploaded`, `error` and times.

    Raises:
        Unreachable: If the proxy cannot be asked, or the resource is not connected to it.
        TimedOut: If nobody answers.
        BadReply: If the answer is not of this protocol.
    """
    name = url.rstrip("/").rpartition("/")[2]
    asked = {
        "type": "requestFromClient",
        "resourceName": name,
        "zone": zone,
        "request": {"type": "fileUpload", "uri": uri, "timeoutMsec": int(timeout_sec * 1000)},
        "timeoutMsec": int((timeout_sec + _MARGIN) * 1000),
    }
    reply = http.post_json(url.rstrip("/"), asked, timeout=timeout_sec + 2 * _MARGIN)
    if reply.status == 404:
        raise Unreachable(
            f"the resource {name} is not connected to {reply.host}", hint="ask the people who share the files"
        )
    if reply.status == 504:
        raise TimedOut(f"the resource {name} did not answer in time")
    reply.raise_if_busy()
    content = reply.json()
    if reply.status != 200:
        raise Unreachable(f"{reply.host} could not ask the resource {name}: {content.get('message') or reply.text}")
    inner = content.get("response") if content.get("type") == "responseToClient" else content
    if not isinstance(inner, dict) and content.get("error"):
        raise Unreachable(f"the resource {name} answered: {content['error']}")
    status = inner.get("status") if isinstance(inner, dict) and inner.get("type") == "fileUpload" else None
    if not isinstance(status, dict) or not isinstance(status.get("status"), str):
        raise BadReply(f"{reply.host} answered for the resource {name} in a way that is not understood")
    return status
