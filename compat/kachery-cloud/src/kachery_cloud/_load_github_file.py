"""Files in public repositories and at web addresses."""

from __future__ import annotations

from kachery import files, uri
from kachery.errors import InvalidURI


def _load_github_file(uri: str) -> str:
    return files.load_file(uri)


def _load_http_file(url: str) -> str:
    return files.load_file(url)


def _parse_github_uri(text: str) -> tuple[str, str, str, str]:
    reference = uri.parse(text)
    if not isinstance(reference, uri.GithubRef):
        raise InvalidURI(f"not a file in a public repository: {text[:80]!r}", hint="gh://USER/REPOSITORY/BRANCH/PATH")
    return reference.user, reference.repository, reference.branch, reference.path
