"""Files at web addresses: plain URLs, public repositories, Zenodo records.

The user's own machine fetches them, never a gateway. Nothing says what their hash must be, unless the address does, so
they are fetched anew each time, as every generation did.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import digest, http
from .errors import BadReply, NotAllowed, NotFound, Unreachable, WrongContent, explaining
from .uri import GithubRef, UrlRef, ZenodoRef

if TYPE_CHECKING:
    from typing import BinaryIO

    from .progress import Progress

#: Zenodo itself, and its site for trying things out (`True`).
ZENODO = {False: "https://zenodo.org", True: "https://sandbox.zenodo.org"}
_BLOCK = 256 * 1024


def address(reference: UrlRef | GithubRef | ZenodoRef) -> str:
    """Where a file can be fetched.

    Raises:
        NotFound: If a Zenodo record does not list it.
        BadReply, TimedOut, Unreachable: If Zenodo does not say.
    """
    if isinstance(reference, UrlRef):
        return reference.url
    if isinstance(reference, GithubRef):
        parts = (reference.user, reference.repository, reference.branch, reference.path)
        return "https://raw.githubusercontent.com/" + "/".join(quote(part) for part in parts)
    return _zenodo_address(reference)


def _zenodo_address(reference: ZenodoRef) -> str:
    url = f"{ZENODO[reference.sandbox]}/api/records/{quote(reference.record, safe='')}"
    reply = http.retrying(lambda: http.exchange("GET", url, follow=True))
    if reply.status == 404:
        raise NotFound(f"{reply.host} has no record {reference.record}")
    if reply.status != 200:
        raise Unreachable(f"{reply.host} answered HTTP {reply.status} for record {reference.record}")
    files = reply.json().get("files")
    for item in files if isinstance(files, list) else []:
        if isinstance(item, dict) and reference.name in (item.get("filename"), item.get("key")):
            link = _link(item)
            if link is None:
                raise BadReply(f"{reply.host} lists {reference.name} without an address")
            return link
    raise NotFound(f"record {reference.record} of {reply.host} has no file {reference.name}")


def _link(item: dict[str, Any]) -> str | None:
    links = item.get("links")
    if not isinstance(links, dict):
        return None
    link = links.get("download") or links.get("self")
    return link if isinstance(link, str) else None


def fetch(url: str, directory: str, progress: Progress, *, sha1: str | None = None) -> BinaryIO:
    """Fetch what is at an address into a temporary file.

    Args:
        url: An http or https address.
        directory: Where the temporary file lies while it is open.
        progress: Told of every step.
        sha1: The SHA-1 that the content must have, where that is known.

    Returns:
        An open temporary file at its beginning; it goes away when it is closed.

    Raises:
        NotFound, NotAllowed, TimedOut, Unreachable: When it is not delivered.
        WrongContent: If it does not have the hash.
        StorageFull, NotAllowed: If the directory cannot take it.
    """

    def attempt() -> BinaryIO:
        return _fetch_once(url, directory, progress, sha1)

    return http.retrying(attempt, attempts=3)


def _fetch_once(url: str, directory: str, progress: Progress, sha1: str | None) -> BinaryIO:
    host = http.peer(url)
    response = http.request("GET", url, follow=True)
    with response:
        http.raise_if_busy(response.status, response.headers, host)
        if response.status in (404, 410):
            raise NotFound(f"{host} has nothing at {url}")
        if response.status in (401, 403):
            raise NotAllowed(f"{host} does not hand out {url} (HTTP {response.status})")
        if response.status != 200:
            raise Unreachable(f"{host} answered HTTP {response.status} for {url}")
        length = response.headers.get("content-length")
        found, count = digest.new("sha1"), 0
        with explaining("write to", directory):
            file: BinaryIO = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 — the caller closes it
        try:
            while data := response.read(_BLOCK):
                found.update(data)
                with explaining("write to", directory):
                    file.write(data)
                count += len(data)
                progress.advance(len(data))
        except Unreachable:
            file.close()
            progress.advance(-count)
            raise
        except BaseException:
            file.close()
            raise
    if length is not None and length.isdigit() and int(length) != count:
        file.close()
        raise Unreachable(f"{host} sent {count} of {length} bytes of {url}")
    if sha1 is not None and found.hexdigest() != sha1:
        file.close()
        raise WrongContent(
            f"what {host} sent for {url} has the SHA-1 {found.hexdigest()}", hint="nothing of it was kept"
        )
    with explaining("write to", directory):
        file.seek(0)
    return file
