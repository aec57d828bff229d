"""Uploading files to Zenodo, and with a JSON file those that it refers to."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from kachery import files, uri, zenodo
from kachery.errors import InvalidURI
from kachery_cloud.core import store_text_local

logger = logging.getLogger("kachery_cloud")


class ZenodoUploader:
    """A deposition in the making.

    Args:
        author: Whose it is.
        affiliation: Where the author works.
        title: Of the deposition.
        description: Of the deposition; may hold HTML.
        sandbox: Whether it goes to Zenodo's site for trying things out.

    Raises:
        NotConfigured: If `ZENODO_SANDBOX_ACCESS_TOKEN`, or `ZENODO_ACCESS_TOKEN`, is not set.
        NotAllowed, Unreachable: If no deposition can be made.
    """

    def __init__(self, *, author: str, affiliation: str, title: str, description: str, sandbox: bool = True) -> None:
        self._about = {"author": author, "affiliation": affiliation, "title": title, "description": description}
        self._scheme = "zenodo-sandbox" if sandbox else "zenodo"
        self._deposition = zenodo.Deposition(sandbox=sandbox)
        self._done: dict[str, str] = {}

    def upload_file(self, uri: str, *, name: str) -> str:
        """Put a file into the deposition.

        Args:
            uri: The file's URI, or its absolute path.
            name: What it is called there.

        Returns:
            Its URI there.
        """
        self._deposition.add_file(files.load_file(uri), name)
        return f"{self._scheme}://{self._deposition.id}/{name}"

    def upload_file_recursive(self, uri: str, *, name: str) -> str:
        """Put a JSON file into the deposition, and before it every file whose URI is a text in it.

        In the copy that goes into the deposition these texts are the URIs there. A file that is not JSON goes there as
        it is.

        Args:
            uri: The file's URI, or its absolute path.
            name: What it is called there.

        Returns:
            Its URI there.
        """
        path = files.load_file(uri)
        try:
            with open(path, encoding="utf-8") as file:
                content = json.load(file)
        except ValueError:
            logger.warning("%s is not JSON, so nothing that it may refer to is uploaded", uri)
            return self.upload_file(uri, name=name)
        rewritten = self._rewrite(content)
        return self.upload_file(store_text_local(json.dumps(rewritten)), name=name)

    def finalize_upload(self) -> None:
        """Say what the deposition is, print the page where it is published, and wait for Enter if somebody is there."""
        page = self._deposition.describe(**self._about)
        print(f"Look at the deposition and publish it here: {page}", flush=True)  # noqa: T201
        if sys.stdin.isatty():
            input("Then press Enter. ")

    def _rewrite(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._rewrite(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._rewrite(item) for item in value]
        name = _name(value) if isinstance(value, str) else None
        return value if name is None else self._upload_once(value, name)

    def _upload_once(self, text: str, name: str) -> str:
        if text not in self._done:
            self._done[text] = self.upload_file_recursive(text, name=name)
        return self._done[text]


def initiate_zenodo_upload(
    *, author: str, affiliation: str, title: str, description: str, sandbox: bool = True
) -> ZenodoUploader:
    """Begin a deposition; arguments and errors as for `ZenodoUploader`."""
    return ZenodoUploader(author=author, affiliation=affiliation, title=title, description=description, sandbox=sandbox)


def _name(text: str) -> str | None:
    """What the file of a URI is called in the deposition of one that refers to it; `None` for any other text."""
    if not text.startswith(("sha1://", "zenodo://", "zenodo-sandbox://")):
        return None
    try:
        reference = uri.parse(text)
    except InvalidURI as error:
        logger.warning("left as it is: %s", error)
        return None
    if isinstance(reference, uri.ZenodoRef):
        return f"{reference.record}/{reference.name}"
    return reference.hash if isinstance(reference, uri.FileRef) else None
