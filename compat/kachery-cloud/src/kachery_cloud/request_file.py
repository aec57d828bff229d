"""Asking a resource to bring a file into the zone."""

from __future__ import annotations

import os
from dataclasses import dataclass

from kachery import files, settings, uri
from kachery.errors import NotConfigured, NotSupported
from kachery.store import Store
from kachery.zone import resource


@dataclass
class RequestFileResult:
    """How far a request is; `None` where nobody said.

    Attributes:
        found: Whether anybody has the file.
        queued: Whether it waits for its turn.
        completed: Whether the zone has it.
        running: Whether it is being brought there.
        local: Whether this machine has it.
        errored: Whether the resource failed.
        error_message: What it said then.
        size: In bytes.
        bytes_uploaded: How many of them are there.
    """

    found: bool | None = None
    queued: bool | None = None
    completed: bool | None = None
    running: bool | None = None
    local: bool = False
    errored: bool = False
    error_message: str = ""
    size: int | None = None
    bytes_uploaded: int | None = None


def request_file(
    uri: str,
    *,
    timeout_sec: float,
    ignore_local: bool = False,
    ignore_bucket: bool = False,
    resource_url: str | None = None,
) -> RequestFileResult:
    """Ask once for a file, and hear how far it is.

    Args:
        uri: Its `sha1://` URI.
        timeout_sec: How long the resource may wait for news before it answers.
        ignore_local: Whether to ask even if this machine has the file.
        ignore_bucket: Whether to ask even if the zone has it.
        resource_url: `<proxy>/r/<name>`; by default `KACHERY_RESOURCE_URL`.

    Raises:
        NotConfigured: If no resource is named.
        Unreachable: If the proxy cannot be asked, or the resource is not connected to it.
        TimedOut: If nobody answers.
    """
    url = resource_url or settings.resource_url()
    if url is None:
        raise NotConfigured("no resource is configured", hint="set KACHERY_RESOURCE_URL to <proxy>/r/<name>")
    reference = _sha1(uri)
    if not ignore_local:
        local = Store().find(reference.hash, location=reference.location)
        if local is not None:
            return RequestFileResult(found=True, local=True, size=os.path.getsize(local.path))
    if not ignore_bucket:
        found = files.open_zone(reference.zone).find(reference.hash)
        if found is not None:
            return RequestFileResult(found=True, completed=True, size=found.size)
    zone = reference.zone or settings.zone()
    status = resource.request_file(url, zone, f"sha1://{reference.hash}", timeout_sec)
    state = status["status"]
    if state == "error":
        return RequestFileResult(
            found=False,
            queued=False,
            completed=False,
            running=False,
            errored=True,
            error_message=str(status.get("error", "")),
        )
    known = state in ("queued", "running", "completed")
    return RequestFileResult(
        found=known,
        queued=state == "queued",
        completed=state == "completed",
        running=state == "running",
        size=status.get("size") if known else None,
        bytes_uploaded=status.get("bytesUploaded") if known else None,
    )


def _sha1(text: str) -> uri.FileRef:
    reference = uri.parse_file(text)
    if reference.algorithm != "sha1":
        raise NotSupported(f"resources know files by their SHA-1, not by {reference.algorithm}")
    return reference
