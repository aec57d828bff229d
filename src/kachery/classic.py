"""A client of one channel of a classic server, as kachery 0.x had them.

    GET  <server>/check/ALG/HASH?channel=C&signature=S     {"success": true, "found": true, "size": N}, or found: false
    GET  <server>/get/ALG/HASH?…                           the bytes, or a range of them
    POST <server>/set/ALG/HASH?…                           {"success": true}; takes the bytes, with their length

The signature is the SHA-1 of `{"algorithm":…,"hash":…,"name":…,"password":…}` without blanks, where the name is that of
the operation: `check`, `download` or `upload`. It is good for ever, on every channel with this password: whoever sees
one address may repeat it, so addresses are shown to nobody, and a server that is not on this machine should be https.

Every refusal is HTTP 500 and a text; a connection that is closed without a reply means that what arrived was not what
the hash says.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING
from urllib.parse import quote

from . import errors, http, transfer
from .errors import (
    BadReply,
    InvalidInput,
    KacheryError,
    NotAllowed,
    NotConfigured,
    NotFound,
    SourceChanged,
    TooLarge,
    Unreachable,
    WrongContent,
)
from .progress import Silent
from .remote import Memory, RemoteFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from .progress import Progress

#: What an operation is called in its signature.
OPERATIONS = {"check": "check", "get": "download", "set": "upload"}

# what refusals begin with, what they mean, and what to do
_REFUSALS: tuple[tuple[str, type[KacheryError], str | None], ...] = (
    ("incorrect or missing signature", NotAllowed, "check the channel's password"),
    ("Channel not found", NotConfigured, "check the channel's name in your servers.json"),
    ("No relevant", NotAllowed, "this channel does not take or give files of this size; ask who runs the server"),
    ("Exceeded number", TooLarge, "try again tomorrow, or ask who runs the server"),
    ("Not found", NotFound, None),
    ("Invalid ", NotFound, "this server does not know such hashes"),
    ("Missing or invalid content-length", BadReply, None),
)


def signature(operation: str, algorithm: str, hash_: str, password: str | None) -> str:
    """The signature of one operation on one file.

    Args:
        operation: `check`, `get` or `set`.
        algorithm: `sha1` or `md5`.
        hash_: The file's hash.
        password: The channel's password; `None` for a channel without one.

    Returns:
        40 hex digits.

    Raises:
        InvalidInput: If the password cannot be written as UTF-8.
    """
    signed = {"algorithm": algorithm, "hash": hash_, "name": OPERATIONS[operation]}
    if password is not None:
        signed["password"] = password
    try:
        # the server writes other alphabets as they are, and compares
        text = json.dumps(signed, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput("the channel's password holds characters that cannot be written") from error
    return hashlib.sha1(text, usedforsecurity=False).hexdigest()


class Channel:
    """One channel of a classic server.

    Args:
        url: The server's address; it may have a path.
        name: The channel.
        password: Its password; `None` for a channel without one.

    Raises:
        InvalidInput: If the address is none.
    """

    def __init__(self, url: str, name: str, password: str | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidInput(
                f"not the address of a server: {http.peer(url)!r}", hint="http:// or https:// and a host"
            )
        self.url = url.rstrip("/")
        self.name = name
        self._password = password

    def __str__(self) -> str:
        return f"the channel {self.name} of {http.peer(self.url)}"

    def address(self, operation: str, algorithm: str, hash_: str) -> str:
        """The signed address of an operation; as good as the password for this one file, so it is a secret."""
        signed = signature(operation, algorithm, hash_, self._password)
        channel = quote(self.name, safe="")
        return f"{self.url}/{operation}/{algorithm}/{hash_}?channel={channel}&signature={signed}"

    def find(self, hash_: str, algorithm: str = "sha1") -> RemoteFile | None:
        """Look for a file.

        Returns:
            Where to fetch it, or `None` when the server does not have it.

        Raises:
            NotAllowed, NotConfigured: If the channel does not know the password, or the server not the channel.
            Unreachable: If the server cannot be asked.
        """
        address = self.address("check", algorithm, hash_)
        reply = http.retrying(lambda: http.exchange("GET", address))
        if reply.status != 200:
            self._refuse(reply)
        said = reply.json()
        if said.get("success") is not True:
            raise BadReply(f"{self} answers what a classic server does not", hint="check its address")
        if said.get("found") is not True:
            return None
        size = said.get("size")
        if type(size) is not int or size < 0:
            raise BadReply(f"{self} says it has the file but not its size")
        return RemoteFile(hash_, size, self.address("get", algorithm, hash_), algorithm=algorithm)

    def fetch_small(self, found: RemoteFile) -> bytes:
        """The whole content of a small file, unverified.

        Raises:
            NotFound, NotAllowed, TooLarge, BadReply, Unreachable: When it is not delivered.
        """
        sink = Memory(found.size)
        self.download(found, sink, Silent())
        return bytes(sink.content)

    def download(self, found: RemoteFile, sink: transfer.Sink, progress: Progress) -> None:
        """Fetch what a sink is missing of a file.

        Raises:
            NotFound, NotAllowed, TooLarge, BadReply, TimedOut, Unreachable: When it is not delivered.
        """
        try:
            transfer.download(lambda renew: found.url, sink, progress)
        except Unreachable:
            # a refusal looks like a broken server to whoever moves bytes; asking for one byte tells why
            reply = http.exchange("GET", found.url, headers={"Range": "bytes=0-0"})
            if reply.status == 500:
                self._refuse(reply)
            raise

    def reader(self, found: RemoteFile) -> Callable[[int, int], bytes]:
        """What gets the bytes of a file from a start to an end, as the server sends them, for as long as one reads."""

        def fetch(start: int, end: int) -> bytes:
            sink = Memory(found.size, start, end)
            self.download(found, sink, Silent())
            return bytes(sink.content)

        return fetch

    def upload(self, fd: int, hash_: str, size: int, progress: Progress, algorithm: str = "sha1") -> bool:
        """Send a file, unless the server has it.

        Args:
            fd: A descriptor of the file; its position does not matter.
            hash_: The file's hash.
            size: Its size in bytes.
            progress: Told of every step.
            algorithm: The hash's algorithm.

        Returns:
            Whether it was sent.

        Raises:
            WrongContent: If the server has something of another size under this hash.
            SourceChanged: If the file became shorter.
            NotAllowed, NotConfigured, TooLarge, Unreachable: If it is not taken.
        """
        there = self.find(hash_, algorithm)
        if there is not None:
            if there.size != size:
                raise WrongContent(
                    f"{self} has {there.size} bytes under the hash of a file of {size} bytes",
                    hint="its copy is damaged; tell who runs the server",
                )
            progress.advance(size)
            return False
        address = self.address("set", algorithm, hash_)

        def attempt() -> http.Reply:
            moved = 0

            def count(step: int) -> None:
                nonlocal moved
                moved += step
                progress.advance(step)

            body = transfer.pieces(fd, 0, size, count) if size else b""
            try:
                reply = http.exchange("POST", address, body=body, headers={"Content-Length": str(size)})
                if reply.status != 200:
                    self._refuse(reply)
            except BaseException:
                progress.advance(-moved)
                raise
            return reply

        try:
            http.retrying(attempt)
        except EOFError as error:
            raise SourceChanged(f"the file became shorter while it was sent: {error}", hint="store it again") from error
        return True

    def _refuse(self, reply: http.Reply) -> None:
        reply.raise_if_busy()
        text = reply.text
        message = f"{self} refused: {text or f'HTTP {reply.status}'}"
        kind = errors.by_code(reply.headers.get("kachery-error", ""))
        for beginning, refusal, hint in _REFUSALS:
            if text.startswith(beginning):
                raise (kind or refusal)(message, hint=hint)
        if reply.body.lstrip()[:1] == b"<" or reply.status == 404:
            raise BadReply(
                f"{self} is none of a classic server: HTTP {reply.status}", hint="check the server's address"
            )
        raise (kind or Unreachable)(message, hint="ask who runs the server if this goes on")
