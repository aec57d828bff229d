"""Files on their way into a zone: received, verified, published.

    begun ── PUT ──▶ staging object, digested while it grows ──▶ received ── finalize ──▶ published, a file
               ▲        │ wrong size or hash: removed, 422
               └ parts ─┘

A file is committed to the database after its object is under its key, durably, in the same turn of the writer: two who
end at once take turns. A process that dies leaves staging objects and, at worst, an object that is not a file;
`recover` removes both.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ..errors import Collision, Conflict, NotFound, WrongContent
from .assembly import Assembly, merge, missing, receive_range
from .buckets import size_of_object
from .services import files, zones
from .streams import receive

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from structlog.typing import FilteringBoundLogger

    from .buckets.contract import Bucket, Digests
    from .databases.contract import Database
    from .services.files import Upload
    from .services.zones import Zone
    from .streams import Body

# Files up to this size, in bytes, are received in memory and written with one call
_SMALL = 1024 * 1024

# Seconds without a byte after which an unfinished upload lets go of its threads; it can still be continued
_IDLE = 60.0


class _Again(Exception):
    """An object appeared under the key since it was looked at."""


class Receiver:
    """Everything that is being received by this process.

    Args:
        database: The gateway's database.
        bucket: Where objects go.
        log: Where to say what happened.
    """

    def __init__(self, database: Database, bucket: Bucket, log: FilteringBoundLogger) -> None:
        self._database = database
        self._bucket = bucket
        self._log = log
        self._assemblies: dict[str, Assembly] = {}
        self._writing: set[str] = set()
        # a lock lives for as long as somebody holds it or waits for it
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # -- receiving ----------------------------------------------------------------------------------------------------

    async def receive_whole(self, upload: Upload, body: Body, length: int | None) -> None:
        """Receive the whole content of an upload, and verify it.

        Args:
            upload: The upload.
            body: The content.
            length: What the sender says it measures, in bytes; `None` if it did not.

        Raises:
            WrongContent: If size or hash are not what was said when the upload began.
            StorageFull: If there is no room.
            Unreachable: If the sender went away.
        """
        if length is not None and length != upload.size:
            raise WrongContent(f"the content has {length} bytes, {upload.size} were announced")
        name = f"{upload.id}.{secrets.token_hex(4)}"
        self._writing.add(name)
        try:
            if upload.size <= _SMALL:
                digests = await self._receive_small(upload, name, body)
            else:
                digests = await self._receive_large(upload, name, body)
            superfluous = await self._database.write(files.mark_received, upload.id, name, digests.sha256)
        except BaseException:
            self._bucket.discard(name)
            raise
        finally:
            self._writing.discard(name)
        if superfluous is not None:
            self._bucket.discard(superfluous)

    async def _receive_small(self, upload: Upload, name: str, body: Body) -> Digests:
        content = bytearray()
        while chunk := await body.chunk():
            content += chunk
            if len(content) > upload.size:
                raise WrongContent(f"the content has more than the {upload.size} bytes that were announced")

        def stage() -> Digests:
            staging = self._bucket.stage(name)
            try:
                staging.write([bytes(content)], 0)
                digests = staging.digests(upload.size)
                _require_right(upload, digests)
                staging.sync()
            finally:
                staging.close()
            return digests

        return await asyncio.to_thread(stage)

    async def _receive_large(self, upload: Upload, name: str, body: Body) -> Digests:
        staging = await asyncio.to_thread(self._bucket.stage, name)
        try:
            await receive(body, staging, 0, upload.size, staging.advance, "content")
            # the disk works while the digests catch up
            syncing = asyncio.create_task(asyncio.to_thread(staging.sync))
            try:
                digests = await asyncio.to_thread(staging.digests, upload.size)
                _require_right(upload, digests)
            finally:
                await syncing
            return digests
        finally:
            await asyncio.to_thread(staging.close)

    async def receive_part(self, upload: Upload, start: int, end: int, body: Body) -> None:
        """Receive bytes `start` to `end` of an upload. What was written before an interruption counts.

        Raises:
            WrongContent: If the body is shorter or longer.
            Conflict: If some of these bytes are there already, or are just coming over another connection.
            StorageFull: If there is no room.
            Unreachable: If the sender went away.
        """
        if not 0 <= start < end <= upload.size:
            raise WrongContent(f"there are no bytes {start} to {end} in a file of {upload.size} bytes")
        assembly = await self._assembly(upload)
        if upload.received or assembly.has(start, end):
            await _drain(body, end - start)
            return
        reached = start

        def written(position: int) -> None:
            nonlocal reached
            reached = position

        try:
            await receive_range(assembly, start, end, body, written)
        finally:
            if reached > start:
                await self._database.write(files.add_part, upload.id, start, reached, now())

    async def receive_unnamed(self, upload: Upload, body: Body) -> Digests:
        """Receive the whole content of an upload that has no hash yet, in parts of which this is the only one.

        Returns:
            What the content turned out to be; name the upload by it, and end it.

        Raises:
            WrongContent, Conflict, StorageFull, Unreachable: As `receive_part`.
        """
        await self.receive_part(upload, 0, upload.size, body)
        assembly = await self._assembly(upload)
        return await asyncio.to_thread(assembly.staging.digests, upload.size)

    async def received(self, upload: Upload) -> list[tuple[int, int]]:
        """The ranges of an upload that are there, [start, end), merged."""
        if upload.received:
            return [(0, upload.size)]
        assembly = self._assemblies.get(upload.id)
        if assembly is None:
            return merge(await self._database.read(files.parts_of, upload.id))
        return assembly.ranges()

    async def _assembly(self, upload: Upload) -> Assembly:
        assembly = self._assemblies.get(upload.id)
        if assembly is None:
            parts = await self._database.read(files.parts_of, upload.id)
            # no other task runs between the look and the entry: staging is opened here, not in a thread
            assembly = self._assemblies[upload.id] = Assembly(self._bucket.stage(upload.id), parts)
            asyncio.get_running_loop().call_later(_IDLE, self._let_go_when_idle, upload.id)
        return assembly

    def _let_go_when_idle(self, name: str) -> None:
        assembly = self._assemblies.get(name)
        if assembly is None:
            return
        if assembly.idle_for() >= _IDLE:
            del self._assemblies[name]
            asyncio.get_running_loop().run_in_executor(None, assembly.close)
        else:
            asyncio.get_running_loop().call_later(_IDLE, self._let_go_when_idle, name)

    # -- publishing ---------------------------------------------------------------------------------------------------

    async def has_file(self, zone: Zone, sha1: str) -> int | None:
        """The size of a file that a zone has and whose object is in the bucket, else `None`."""
        size = await self._database.read(files.size_of, zone.name, sha1)
        if size is None:
            return None
        stored = await size_of_object(self._bucket, zone.key(sha1))
        if stored == size:
            return size
        self._log.error("object_damaged", zone=zone.name, sha1=sha1, size=size, stored=stored)
        return None

    async def finalize(self, zone: Zone, sha1: str, size: int, client: str) -> int | None:
        """Publish what a client has sent, durably. Doing so again changes nothing.

        Returns:
            How many bytes became a file; `None` if the zone had the file.

        Raises:
            NotFound: If this client has begun no upload of this file.
            WrongContent: If bytes are missing, or are not those of the hash; the upload is then over.
            Collision: If the SHA-1 is known with another SHA-256; the upload is then over.
        """
        lock = self._locks.setdefault(f"{zone.name}/{sha1}/{client}", asyncio.Lock())
        async with lock:
            return await self._finalize(zone, sha1, size, client)

    async def _finalize(self, zone: Zone, sha1: str, size: int, client: str) -> int | None:
        uploads = await self._database.read(files.uploads_of, zone.name, sha1, client)
        present = await self.has_file(zone, sha1)
        if present is not None:
            if present != size:
                raise WrongContent(f"zone {zone.name!r} has this file with {present} bytes, not {size}")
            for upload in uploads:
                if upload.received:
                    await self._give_up(upload)
            return None
        candidates = [upload for upload in uploads if upload.size == size]
        if not candidates:
            raise NotFound(
                f"no upload of {sha1} with {size} bytes was begun by this client", hint="begin the upload again"
            )
        upload = candidates[0]
        if not upload.received:
            upload = await self._assemble(upload)
        await self._publish(zone, upload)
        return size

    async def _assemble(self, upload: Upload) -> Upload:
        holes = missing(await self.received(upload), upload.size)
        if holes:
            start, end = holes[0]
            raise WrongContent(f"bytes {start} to {end} of {upload.size} have not arrived", hint="send them first")
        assembly = await self._assembly(upload)
        assembly.seal()
        try:
            syncing = asyncio.create_task(asyncio.to_thread(assembly.staging.sync))
            try:
                digests = await asyncio.to_thread(assembly.staging.digests, upload.size)
            finally:
                await syncing
            _require_right(upload, digests)
        except WrongContent:
            await self._give_up(upload)
            raise
        except BaseException:
            assembly.unseal()
            raise
        await self._database.write(files.mark_received, upload.id, upload.id, digests.sha256)
        await self._let_go(upload.id)
        found = await self._database.read(files.find_upload, upload.id)
        if found is None:
            raise NotFound("this upload is over", hint="begin it again")
        return found

    async def _publish(self, zone: Zone, upload: Upload) -> None:
        key = zone.key(upload.sha1)
        staging, digests = upload.verified()
        while True:
            damaged = False
            stored = await asyncio.to_thread(self._bucket.stat, key)
            if stored is not None:
                # left by a crash, or not what it should be: look before anything is said about it
                found = await asyncio.to_thread(self._bucket.digests, key)
                damaged = (found.sha1, found.size) != (digests.sha1, digests.size)
                if not damaged and found.sha256 != digests.sha256:
                    await self._give_up(upload)
                    raise self._collision(upload, found.sha256)
            try:
                await self._database.write(self._commit, key, upload, stored is not None, damaged)
            except _Again:
                continue
            except Collision:
                await self._give_up(upload)
                raise self._collision(upload, None) from None
            except BaseException:
                # the object may be there without its file; a client may end this upload again later
                if await self._database.read(files.size_of, zone.name, upload.sha1) is None:
                    await asyncio.to_thread(self._bucket.withdraw, staging, key)
                raise
            break
        await asyncio.to_thread(self._bucket.discard, staging)
        if staging != upload.id:
            # parts of what then came whole
            await self._let_go(upload.id)
            await asyncio.to_thread(self._bucket.discard, upload.id)
        if damaged:
            self._log.error("object_replaced", zone=zone.name, sha1=upload.sha1, reason="it was damaged")

    def _commit(self, connection: Connection, key: str, upload: Upload, expected: bool, damaged: bool) -> None:
        staging, digests = upload.verified()
        files.require_no_collision(connection, digests)
        for due in files.due_deletions(connection, key):
            self._bucket.trash(due)
            files.end_deletion(connection, due)
        if damaged:
            self._bucket.replace(staging, key)
        elif not self._bucket.publish(staging, key) and not expected:
            raise _Again
        files.add_file(connection, upload.zone, digests, upload.owner, now())
        files.forget_upload(connection, upload.id)

    def _collision(self, upload: Upload, sha256: str | None) -> Collision:
        self._log.error("collision", zone=upload.zone, sha1=upload.sha1, client=upload.client, sha256=upload.sha256)
        return Collision(
            f"SHA-1 {upload.sha1} is known with another SHA-256{f', {sha256}' if sha256 else ''}",
            hint="one of the two files was made to collide; nothing was changed",
        )

    async def abandon(self, upload: Upload) -> None:
        """Give an upload up, with what has come of it; harmless when it is over."""
        found = await self._database.read(files.find_upload, upload.id)
        await self._give_up(upload if found is None else found)

    async def _give_up(self, upload: Upload) -> None:
        await self._database.write(files.forget_upload, upload.id)
        await self._let_go(upload.id)
        for name in {upload.staging or upload.id, upload.id}:
            self._bucket.discard(name)

    async def _let_go(self, name: str) -> None:
        assembly = self._assemblies.pop(name, None)
        if assembly is not None:
            await asyncio.to_thread(assembly.close)

    async def delete(self, zone: Zone, sha1: str) -> bool:
        """Make a file unfindable and move its object to the trash; says whether the zone had it."""
        if not await self._database.write(files.begin_deletion, zone, sha1, now()):
            return False
        await self._database.write(self._end_deletion, zone.key(sha1))
        return True

    def _end_deletion(self, connection: Connection, key: str) -> None:
        # somebody who publishes the same file may have done it first
        for due in files.due_deletions(connection, key):
            self._bucket.trash(due)
            files.end_deletion(connection, due)

    async def adopt(self, zone: Zone, sha1: str, name: str, digests: Digests, owner: str) -> None:
        """Publish a staging object that was put together elsewhere, verified and on the disk; it is ours from now on.

        Args:
            zone: Where to.
            sha1: The hash that the content has.
            name: The staging object.
            digests: The content's.
            owner: Whose file it will be.

        Raises:
            Collision: If the SHA-1 is known with another SHA-256.
            StorageFull: If there is no room.
        """
        upload = await self._database.write(
            files.begin, zone.name, sha1, digests.size, "", owner, now(), in_parts=False
        )
        try:
            await self._database.write(files.mark_received, upload.id, name, digests.sha256)
        except BaseException:
            await self._give_up(upload)
            raise
        found = await self._database.read(files.find_upload, upload.id)
        if found is None:
            raise NotFound("this upload is over", hint="begin it again")
        if await self.has_file(zone, sha1) is not None:
            await self._give_up(found)
            return
        await self._publish(zone, found)

    def protect(self, name: str) -> None:
        """Leave a staging object alone that is no upload's, until `release`."""
        self._writing.add(name)

    def release(self, name: str) -> None:
        """End `protect`."""
        self._writing.discard(name)

    # -- order --------------------------------------------------------------------------------------------------------

    async def recover(self, older_than: float = 0.0) -> None:
        """Put right what a process left that died; nothing may be received yet.

        Args:
            older_than: Staging objects that were written to within so many seconds stay, for they may be another's.
        """
        for key in await self._database.read(files.due_deletions):
            await self._database.write(self._end_deletion, key)
        for upload in await self._database.read(files.all_uploads):
            if not upload.received or upload.staging is None:
                continue
            if await self._database.write(self._undo_publication, upload):
                self._log.warning("publication_undone", zone=upload.zone, sha1=upload.sha1)
        await self.clean(older_than=older_than)

    def _undo_publication(self, connection: Connection, upload: Upload) -> bool:
        # in a transaction, as publishing is: another process may just be at it
        zone = zones.find(connection, upload.zone)
        if zone is None or upload.staging is None or files.size_of(connection, zone.name, upload.sha1) is not None:
            return False
        return self._bucket.withdraw(upload.staging, zone.key(upload.sha1))

    async def clean(self, older_than: float = 3600.0) -> None:
        """Give up expired uploads, and remove staging objects that belong to nothing.

        Args:
            older_than: Only those last written to this many seconds ago, or earlier.
        """
        active = {name for name, assembly in self._assemblies.items() if assembly.idle_for() < _IDLE}
        for name in await self._database.write(files.forget_expired_uploads, now(), active):
            await self._let_go(name)
        wanted = {upload.staging or upload.id for upload in await self._database.read(files.all_uploads)}
        limit = time.time() - older_than
        removed = 0
        for name, written in list(self._bucket.staged()):
            if name not in wanted and name not in self._writing and written <= limit:
                self._bucket.discard(name)
                removed += 1
        if removed:
            self._log.info("staging_cleaned", removed=removed)

    async def close(self) -> None:
        """Let go of unfinished uploads; they can be continued after a restart."""
        for assembly in self._assemblies.values():
            await asyncio.to_thread(assembly.close)
        self._assemblies.clear()


def now() -> int:
    """The time, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def _require_right(upload: Upload, digests: Digests) -> None:
    if digests.sha1 != upload.sha1:
        raise WrongContent(f"the content has SHA-1 {digests.sha1}, not {upload.sha1}", hint="send it again")


async def _drain(body: Body, limit: int) -> None:
    received = 0
    while chunk := await body.chunk():
        received += len(chunk)
        if received > limit:
            raise Conflict(f"the part has more than {limit} bytes")
