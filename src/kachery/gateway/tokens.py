"""Transfer addresses: who holds one may do one thing, for a while.

    <base>/transfer/u/<token>            PUT or GET, this upload (zone, hash and size with it)
    <base>/transfer/d/<token>/<hash>     GET or HEAD, this file of this zone
    <base>/transfer/o/<token>/<hash>     GET or HEAD, this file that a resource of this zone brings

A token is base64url(payload + first 16 bytes of HMAC-SHA256(key, payload)), the payload fields joined by `/`, which no
field contains. The key is made once per data directory, and kept in the database.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass

from ..errors import NotAllowed

#: Lifetimes in seconds, as upstream's: an upload's begins anew with each request for it.
UPLOAD_LIFETIME = 1800
DOWNLOAD_LIFETIME = 3600

_TAG = 16


@dataclass(frozen=True, slots=True)
class UploadToken:
    """The right to send the bytes of one upload."""

    upload: str
    zone: str
    sha1: str
    size: int
    expires: int


@dataclass(frozen=True, slots=True)
class DownloadToken:
    """The right to read one file of one zone; for the account book, the number of the user who got it (0: nobody).

    With `on_demand`, a resource may have to bring it.
    """

    zone: str
    sha1: str
    size: int
    user: int
    expires: int
    on_demand: bool = False


class TokenSigner:
    """Makes and checks tokens with one key."""

    def __init__(self, key: bytes) -> None:
        self._mac = hmac.new(key, digestmod="sha256")

    def upload(self, token: UploadToken) -> str:
        """The text of an upload token."""
        return self._seal(f"u/{token.upload}/{token.zone}/{token.sha1}/{token.size}/{token.expires}")

    def download(self, token: DownloadToken) -> str:
        """The text of a download token."""
        kind = "o" if token.on_demand else "d"
        return self._seal(f"{kind}/{token.zone}/{token.sha1}/{token.size}/{token.user}/{token.expires}")

    def read_upload(self, text: str, now: int) -> UploadToken:
        """What an upload token says.

        Raises:
            NotAllowed: If it was not made here, is not for uploads, or has expired.
        """
        kind, *fields = self._unseal(text)
        if kind != "u":
            raise NotAllowed("this address is not for uploads")
        token = UploadToken(fields[0], fields[1], fields[2], int(fields[3]), int(fields[4]))
        _require_fresh(token.expires, now)
        return token

    def read_download(self, text: str, sha1: str, now: int) -> DownloadToken:
        """What a download token says.

        Raises:
            NotAllowed: If it was not made here, is not for downloads or for another file, or has expired.
        """
        kind, *fields = self._unseal(text)
        if kind not in ("d", "o") or fields[1] != sha1:
            raise NotAllowed("this address is not for downloading this file")
        token = DownloadToken(fields[0], fields[1], int(fields[2]), int(fields[3]), int(fields[4]), kind == "o")
        _require_fresh(token.expires, now)
        return token

    def _tag(self, payload: bytes) -> bytes:
        mac = self._mac.copy()
        mac.update(payload)
        return mac.digest()[:_TAG]

    def _seal(self, text: str) -> str:
        payload = text.encode("ascii")
        return base64.urlsafe_b64encode(payload + self._tag(payload)).rstrip(b"=").decode("ascii")

    def _unseal(self, text: str) -> list[str]:
        try:
            sealed = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        except ValueError:
            sealed = b""
        payload, tag = sealed[:-_TAG], sealed[-_TAG:]
        if not payload or not hmac.compare_digest(tag, self._tag(payload)):
            raise NotAllowed("this address was not made by this gateway", hint="ask for a new one")
        return payload.decode("ascii").split("/")


def _require_fresh(expires: int, now: int) -> None:
    if now > expires:
        raise NotAllowed(f"this address expired {now - expires} s ago", hint="ask for a new one")
