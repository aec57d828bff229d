"""Depositing files on Zenodo.

    POST <site>/api/deposit/depositions               {}             201 {"id", "links": {"bucket", …}}
    PUT  <bucket>/<name>                              the content    200 or 201
    PUT  <site>/api/deposit/depositions/<id>          {"metadata"}   200 {"links": {"latest_draft_html", …}}

The access token travels in the header `Authorization`, never in an address, and only to the site itself. A deposition
is published by a person on the site's page.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import quote, urlsplit

from . import http, names, progress, settings, transfer, web
from .errors import BadReply, InvalidInput, NotAllowed, NotConfigured, SourceChanged, Unreachable
from .store import open_source

_TOKENS = {False: "ZENODO_ACCESS_TOKEN", True: "ZENODO_SANDBOX_ACCESS_TOKEN"}


class Deposition:
    """A deposition in the making.

    Args:
        sandbox: Whether it is on the site for trying things out.

    Attributes:
        id: The deposition's number, which is that of the record it will be.

    Raises:
        NotConfigured: If the variable with the access token is not set.
        NotAllowed: If the site does not accept the token.
        Unreachable: If the site cannot be asked.
    """

    def __init__(self, *, sandbox: bool = True) -> None:
        token = settings.variable(_TOKENS[sandbox])
        if token is None:
            raise NotConfigured(
                f"{_TOKENS[sandbox]} is not set",
                hint="make an access token in your Zenodo account, with deposit rights",
            )
        self._headers = {"Authorization": f"Bearer {token}"}
        self._site = web.ZENODO[sandbox]
        reply = self._ask("POST", f"{self._site}/api/deposit/depositions", {})
        bucket = _links(reply).get("bucket")
        if not isinstance(reply.get("id"), int | str) or not isinstance(bucket, str):
            raise BadReply(f"{http.peer(self._site)} does not say where the deposition's files go")
        if urlsplit(bucket)[:2] != urlsplit(self._site)[:2]:
            raise BadReply(f"{http.peer(self._site)} wants the files, and with them the access token, sent elsewhere")
        self.id = str(reply["id"])
        self._bucket = bucket.rstrip("/")

    def add_file(self, path: str | os.PathLike[str], name: str) -> None:
        """Put a file into the deposition.

        Args:
            path: The file; it is only read.
            name: What it is called there; parts with `/` between them.

        Raises:
            InvalidName: If the name could escape its place.
            NotFound, InvalidInput: If the file cannot be read.
            SourceChanged: If it becomes shorter meanwhile.
            NotAllowed, Unreachable: If the site does not take it.
        """
        address = f"{self._bucket}/" + "/".join(quote(part, safe="") for part in names.relative_path(name))
        fd, status = open_source(os.path.abspath(path))
        try:
            with progress.bar(status.st_size, f"Uploading {name}") as told:
                body = transfer.pieces(fd, 0, status.st_size, told.advance) if status.st_size else b""
                headers = {**self._headers, "Content-Length": str(status.st_size)}
                _require_success(http.exchange("PUT", address, body=body, headers=headers))
        except EOFError as error:
            raise SourceChanged(f"{path} became shorter while it was sent", hint="try again") from error
        finally:
            os.close(fd)

    def describe(self, *, title: str, description: str, author: str, affiliation: str) -> str:
        """Say what the deposition is.

        Returns:
            The address of the page where a person looks at it and publishes it.

        Raises:
            NotAllowed, InvalidInput, Unreachable: If the site does not take it.
        """
        metadata = {
            "title": title,
            "upload_type": "dataset",
            "description": description,
            "creators": [{"name": author, "affiliation": affiliation}],
        }
        reply = self._ask("PUT", f"{self._site}/api/deposit/depositions/{quote(self.id)}", {"metadata": metadata})
        page = _links(reply).get("latest_draft_html")
        return page if isinstance(page, str) else f"{self._site}/deposit/{quote(self.id)}"

    def _ask(self, method: str, url: str, content: dict[str, Any]) -> dict[str, Any]:
        headers = {**self._headers, "Content-Type": "application/json"}
        reply = http.exchange(method, url, body=json.dumps(content).encode(), headers=headers)
        _require_success(reply)
        return reply.json()


def _links(reply: dict[str, Any]) -> dict[str, Any]:
    links = reply.get("links")
    return links if isinstance(links, dict) else {}


def _require_success(reply: http.Reply) -> None:
    if reply.status in (200, 201):
        return
    reply.raise_if_busy()
    message = f"{reply.host} refused (HTTP {reply.status}): {reply.text}"
    if reply.status in (401, 403):
        raise NotAllowed(message, hint="check the access token and its rights")
    if 400 <= reply.status < 500:
        raise InvalidInput(message)
    raise Unreachable(message, hint="try again later")
