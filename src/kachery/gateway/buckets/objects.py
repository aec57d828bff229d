"""A bucket in an object store: S3 and what speaks like it, or Google's own.

    [PREFIX/][zones/ZONE/]sha1/ab/cd/ef/HASH     what is published
    [PREFIX/]trash/…                             what was deleted

Files are received and verified in a spool directory of the gateway, and go to the store when they are published: small
ones with `If-None-Match: *`, so that of several who publish one wins; large ones in parts, which become visible at once
when all are there. There the look before is all that keeps two from publishing one after the other; both would publish
the same verified content.

An object says in its metadata which staging object it was, so that only one's own publication is withdrawn. A reader
holds on to the version that it opened: when that is replaced, it gets an error, never a mixture.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import obstore
from obstore import exceptions

from ...errors import KacheryError, NotAllowed, NotFound, SourceChanged, TimedOut, Unreachable
from .contract import Bucket, Digests, Reader, Staging
from .directory import DirectoryBucket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from obstore.store import ObjectStore

#: Larger files go in parts, in bytes: above it the parts gain more than their requests cost.
IN_PARTS_ABOVE = 64 * 1024 * 1024

# a part has at least so many bytes, and there are at most 10,000 of them
_PART = 16 * 1024 * 1024
_MOST_PARTS = 9_000
_PARTS_AT_ONCE = 4

# what a reader fetches at once, in bytes, when it reads one piece after the other
_AHEAD = 8 * 1024 * 1024

_MADE_FROM = "kachery-staging"
_TRASH = "trash"


class ObjectBucket(Bucket):
    """A bucket in an object store.

    Args:
        store: Where objects go; a prefix of it is part of the store.
        uri: What the bucket is called, without secrets.
        spool: A directory of this gateway for what is being received.
        direct: Whether clients may be sent to the store itself.
    """

    near = False

    def __init__(self, store: ObjectStore, uri: str, spool: Path, *, direct: bool = False) -> None:
        self.uri = uri
        self._store: Any = store
        self._spool = DirectoryBucket(spool)
        self._direct = direct
        # not every provider knows `If-None-Match`; learned from its first refusal
        self._conditional = True

    # -- staging ------------------------------------------------------------------------------------------------------

    def stage(self, name: str) -> Staging:
        """A new staging object, or one that exists, to be continued."""
        return self._spool.stage(name)

    def discard(self, name: str) -> None:
        """Remove a staging object, if there is one."""
        self._spool.discard(name)

    def staged(self) -> Iterator[tuple[str, float]]:
        """The names of all staging objects, and when each was last written to, in seconds since the epoch."""
        return self._spool.staged()

    # -- objects ------------------------------------------------------------------------------------------------------

    def publish(self, name: str, key: str) -> bool:
        """Make a staging object's content readable under a key, durably, unless there is something already."""
        require_key(key)
        path = self._spool.staging_path(name)
        size = path.stat().st_size
        if size > IN_PARTS_ABOVE or not self._conditional:
            if self.stat(key) is not None:
                return False
            self._put(name, key, size)
            return True
        try:
            with self._explained("write to", key):
                obstore.put(
                    self._store, key, path.read_bytes(), mode="create", attributes={_MADE_FROM: name},
                    use_multipart=False,
                )  # fmt: skip
        except _Exists:
            return False
        except _Unconditional:
            self._conditional = False
            return self.publish(name, key)
        return True

    def withdraw(self, name: str, key: str) -> bool:
        """Undo `publish` if this very staging object is what is under the key; says whether it was."""
        require_key(key)
        try:
            with self._explained("read", key):
                made_from = obstore.get(self._store, key, options={"head": True}).attributes.get(_MADE_FROM)
                if made_from != name:
                    return False
                obstore.delete(self._store, key)
        except NotFound:
            return False
        return True

    def replace(self, name: str, key: str) -> None:
        """As `publish`, over damaged content."""
        require_key(key)
        self._put(name, key, self._spool.staging_path(name).stat().st_size)

    def _put(self, name: str, key: str, size: int) -> None:
        with self._explained("write to", key):
            obstore.put(
                self._store,
                key,
                self._spool.staging_path(name),
                attributes={_MADE_FROM: name},
                use_multipart=size > IN_PARTS_ABOVE,
                chunk_size=max(_PART, size // _MOST_PARTS + 1),
                max_concurrency=_PARTS_AT_ONCE,
            )

    def stat(self, key: str) -> int | None:
        """The size of the object under a key in bytes; `None` if there is none."""
        require_key(key)
        try:
            with self._explained("look at", key):
                return int(obstore.head(self._store, key)["size"])
        except NotFound:
            return None

    def digests(self, key: str) -> Digests:
        """The digests of the object under a key, from reading it."""
        reader = self.open(key)
        try:
            found = reader.hashes(("sha1", "sha256"))
            return Digests(found["sha1"], found["sha256"], reader.size)
        finally:
            reader.close()

    def open(self, key: str) -> Reader:
        """The object under a key, for reading."""
        require_key(key)
        with self._explained("read", key):
            found = obstore.head(self._store, key)
        return _ObjectReader(self, key, int(found["size"]), found.get("e_tag"))

    def address(self, key: str, seconds: int) -> str | None:
        """An address where the object can be read without the gateway for a while; `None` if there is none to give."""
        require_key(key)
        if not self._direct:
            return None
        with self._explained("make an address for", key):
            return str(obstore.sign(self._store, "GET", key, timedelta(seconds=seconds)))

    def trash(self, key: str) -> bool:
        """Move the object under a key to `trash/<key>`; says whether there was one."""
        require_key(key)
        try:
            with self._explained("move to the trash", key):
                obstore.copy(self._store, key, f"{_TRASH}/{key}")
                obstore.delete(self._store, key)
        except NotFound:
            return False
        return True

    def keys(self, prefix: str = "") -> Iterator[str]:
        """All keys that begin with a prefix, trash excluded."""
        # the store lists whole path segments only
        folder = prefix.rpartition("/")[0]
        with self._explained("list", folder or "/"):
            found = [
                str(entry["path"])
                for page in obstore.list(self._store, prefix=folder or None)
                for entry in page
                if entry["path"].startswith(prefix) and not entry["path"].startswith(f"{_TRASH}/")
            ]
        yield from sorted(found)

    def room(self) -> int:
        """How many bytes can still be received at once: the store itself says nothing of its room."""
        return self._spool.room()

    def read_range(self, key: str, start: int, end: int, e_tag: str | None) -> bytes:
        """Bytes `start` to `end` of an object, if it still is what it was.

        Raises:
            NotFound: If it is gone.
            SourceChanged: If it was replaced.
            Unreachable: If the store does not deliver them.
        """
        options: obstore.GetOptions = {"range": (start, end)}
        if e_tag is not None:
            options["if_match"] = e_tag
        with self._explained("read", key):
            data = bytes(obstore.get(self._store, key, options=options).bytes())
        if len(data) != end - start:
            raise Unreachable(
                f"{self.uri} sent {len(data)} bytes of {key}, {end - start} were asked for", hint="try again"
            )
        return data

    @contextmanager
    def _explained(self, what: str, key: str) -> Iterator[None]:
        """Errors of ours for those of the store."""
        try:
            yield
        except (exceptions.NotFoundError, FileNotFoundError) as error:
            raise NotFound(f"{self.uri} has no {key}") from error
        except exceptions.AlreadyExistsError as error:
            raise _Exists(f"{self.uri} has {key} already") from error
        except exceptions.PreconditionError as error:
            raise SourceChanged(f"{key} in {self.uri} was replaced while it was read", hint="try again") from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise NotAllowed(
                f"could not {what} {key}: {self.uri} refuses the gateway's credentials", hint="`kachery zone check`"
            ) from error
        except exceptions.NotSupportedError as error:
            raise _Unconditional(str(error)) from error
        except exceptions.BaseError as error:
            text = _first_line(error)
            if "501" in text or "NotImplemented" in text:
                raise _Unconditional(text) from error
            kind = TimedOut if "timed out" in text or "timeout" in text else Unreachable
            raise kind(f"could not {what} {key} in {self.uri}: {text}", hint="try again in a moment") from error


class _Exists(KacheryError):
    """There is an object under this key."""


class _Unconditional(KacheryError):
    """The provider does not do this."""


class _ObjectReader(Reader):
    def __init__(self, bucket: ObjectBucket, key: str, size: int, e_tag: str | None) -> None:
        self.size = size
        self._bucket = bucket
        self._key = key
        self._e_tag = e_tag
        self._block, self._start = b"", 0
        self._lock = threading.Lock()

    def read_now(self, offset: int, count: int) -> bytes | None:
        """Up to `count` bytes if they were fetched already, else `None`."""
        block, start = self._block, self._start
        found = block[offset - start : offset - start + count] if start <= offset < start + len(block) else b""
        return found or None

    def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes; empty at the end."""
        end = min(offset + count, self.size)
        if offset >= end:
            return b""
        with self._lock:
            if not (self._start <= offset and end <= self._start + len(self._block)):
                # who goes on where the last block ended reads on; who jumps gets what was asked for
                goes_on = offset in (0, self._start + len(self._block)) or self._start < offset
                reach = min(max(end, offset + _AHEAD), self.size) if goes_on else end
                self._block = self._bucket.read_range(self._key, offset, reach, self._e_tag)
                self._start = offset
            return self._block[offset - self._start : end - self._start]

    def close(self) -> None:
        """Let go of what was fetched."""
        self._block = b""


def require_key(key: str) -> None:
    """Make sure that a key is one; keys are derived from checked names and hashes, this is the second lock on the door.

    Raises:
        ValueError: If it is not.
    """
    if key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"not a key: {key!r}")


def _first_line(error: Exception) -> str:
    # the library's messages go on with its own insides
    return str(error).partition("\n")[0][:300]
