"""Files of zones: which there are, which are on their way in, which on their way out.

A file *is* its row; the row is committed after the object is in the bucket, verified and durable. An upload belongs to
the client that began it. Whoever ends first publishes, everyone else finds the same content there.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, insert, select, update

from ...errors import Collision, Conflict
from ..buckets.contract import Digests
from ..databases.upsert import upsert
from ..models import content, deletions, files, upload_parts, uploads
from .prepared import PreparedLookup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Row

    from .zones import Zone

#: How long an unfinished upload can be continued, in milliseconds; each part begins it anew.
UPLOAD_LIFETIME = 24 * 3600 * 1000

_FIND = PreparedLookup(select(files.c.size).where(files.c.zone == bindparam("zone"), files.c.sha1 == bindparam("sha1")))


@dataclass(frozen=True, slots=True)
class Upload:
    """A file on its way into a zone.

    Args:
        id: Its name, also of its staging object.
        zone: The zone.
        sha1: What the content must hash to.
        size: What the content must measure, in bytes.
        client: Who sends it.
        owner: Whom the sender acts for.
        received: Whether `staging` holds all of it, verified.
        in_parts: Whether it may come in parts.
        staging: The name of the verified staging object.
        sha256: The verified content's SHA-256.
        expires: When it is given up, in milliseconds since the epoch.
    """

    id: str
    zone: str
    sha1: str
    size: int
    client: str
    owner: str
    received: bool
    in_parts: bool
    staging: str | None
    sha256: str | None
    expires: int

    def verified(self) -> tuple[str, Digests]:
        """The staging object that holds the content, and its digests.

        Raises:
            Conflict: If the content is not there yet.
        """
        if self.staging is None or self.sha256 is None:
            raise Conflict("the content of this upload has not arrived yet")
        return self.staging, Digests(self.sha1, self.sha256, self.size)


def size_of(connection: Connection, zone: str, sha1: str) -> int | None:
    """The size in bytes of a file of a zone; `None` if the zone does not have it."""
    row = _FIND(connection, zone=zone, sha1=sha1)
    return None if row is None else int(row[0])


def begin(
    connection: Connection, zone: str, sha1: str, size: int, client: str, owner: str, now: int, *, in_parts: bool
) -> Upload:
    """An upload to send bytes to: a new one, or for parts the one that this client left unfinished.

    Without a SHA-1 (an empty text) it is always a new one, which `name_upload` must name before it can be ended.
    """
    if in_parts and sha1:
        row = connection.execute(
            select(uploads).where(
                uploads.c.zone == zone,
                uploads.c.sha1 == sha1,
                uploads.c.client == client,
                uploads.c.size == size,
                uploads.c.in_parts == 1,
                uploads.c.state == "open",
                uploads.c.expires > now,
            )
        ).first()
        if row is not None:
            connection.execute(update(uploads).where(uploads.c.id == row.id).values(expires=now + UPLOAD_LIFETIME))
            return _upload(row)
    name = secrets.token_hex(16)
    connection.execute(
        insert(uploads).values(
            id=name,
            zone=zone,
            sha1=sha1,
            size=size,
            client=client,
            owner=owner,
            created=now,
            expires=now + UPLOAD_LIFETIME,
            state="open",
            in_parts=int(in_parts),
        )
    )
    return Upload(name, zone, sha1, size, client, owner, False, in_parts, None, None, now + UPLOAD_LIFETIME)


def has_size(connection: Connection, zone: str, size: int) -> bool:
    """Whether a zone has any file of this size."""
    statement = select(files.c.sha1).where(files.c.zone == zone, files.c.size == size).limit(1)
    return connection.execute(statement).first() is not None


def name_upload(connection: Connection, name: str, client: str, sha1: str) -> bool:
    """Say which file it is that a client has been sending; says whether there is such an upload without a name."""
    changed = connection.execute(
        update(uploads).where(uploads.c.id == name, uploads.c.client == client, uploads.c.sha1 == "").values(sha1=sha1)
    )
    return changed.rowcount == 1


def find_upload(connection: Connection, name: str) -> Upload | None:
    """An upload by its name."""
    row = connection.execute(select(uploads).where(uploads.c.id == name)).first()
    return None if row is None else _upload(row)


def uploads_of(connection: Connection, zone: str, sha1: str, client: str) -> list[Upload]:
    """A client's uploads of one file, those first that need only be published."""
    rows = connection.execute(
        select(uploads)
        .where(uploads.c.zone == zone, uploads.c.sha1 == sha1, uploads.c.client == client)
        .order_by(uploads.c.state.desc(), uploads.c.created.desc())
    )
    return [_upload(row) for row in rows]


def all_uploads(connection: Connection) -> list[Upload]:
    """Everything on its way in."""
    return [_upload(row) for row in connection.execute(select(uploads))]


def parts_of(connection: Connection, upload: str) -> list[tuple[int, int]]:
    """The ranges that are in an upload's staging object, [start, end), by start."""
    rows = connection.execute(
        select(upload_parts).where(upload_parts.c.upload == upload).order_by(upload_parts.c.start)
    )
    return [(row.start, row.end) for row in rows]


def add_part(connection: Connection, upload: str, start: int, end: int, now: int) -> bool:
    """Take note of a range that was written; says whether the upload still exists."""
    changed = connection.execute(update(uploads).where(uploads.c.id == upload).values(expires=now + UPLOAD_LIFETIME))
    if changed.rowcount == 0:
        return False
    statement = upsert(connection, upload_parts).values(upload=upload, start=start, end=end)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[upload_parts.c.upload, upload_parts.c.start], set_={"end": statement.excluded.end}
        )
    )
    return True


def mark_received(connection: Connection, upload: str, staging: str, sha256: str) -> str | None:
    """Take note that all bytes of an upload are in a staging object, verified.

    Returns:
        The staging object that is not needed any more: the one from before if there was one, or the given one if the
        upload does not exist any more.
    """
    known = find_upload(connection, upload)
    if known is None:
        return staging
    connection.execute(
        update(uploads).where(uploads.c.id == upload).values(state="received", staging=staging, sha256=sha256)
    )
    connection.execute(delete(upload_parts).where(upload_parts.c.upload == upload))
    return known.staging if known.staging != staging else None


def forget_upload(connection: Connection, upload: str) -> None:
    """Give an upload up, or be done with it."""
    connection.execute(delete(uploads).where(uploads.c.id == upload))


def forget_uploads_of(connection: Connection, clients: str) -> int:
    """Give up the uploads of all clients whose names begin with a text; says how many there were."""
    return connection.execute(delete(uploads).where(uploads.c.client.startswith(clients, autoescape=True))).rowcount


def forget_expired_uploads(connection: Connection, now: int, keep: Iterable[str]) -> list[str]:
    """Give up what nobody continued; returns the names. Those to `keep` are just receiving bytes."""
    rows = connection.execute(select(uploads.c.id).where(uploads.c.expires < now, uploads.c.id.not_in(list(keep))))
    names = [str(row.id) for row in rows]
    connection.execute(delete(uploads).where(uploads.c.id.in_(names)))
    return names


def require_no_collision(connection: Connection, digests: Digests) -> None:
    """Make sure that content is not known with the same SHA-1 and something else different.

    Raises:
        Collision: If it is.
    """
    row = connection.execute(select(content).where(content.c.sha1 == digests.sha1)).first()
    if row is not None and (row.sha256 != digests.sha256 or row.size != digests.size):
        raise Collision(
            f"SHA-1 {digests.sha1} is known with SHA-256 {row.sha256}, this content has {digests.sha256}",
            hint="one of the two files was made to collide; nothing was changed",
        )


def add_file(connection: Connection, zone: str, digests: Digests, owner: str, now: int) -> None:
    """Make a file findable; its object must be in the bucket.

    Raises:
        Collision: If its SHA-1 is known with another SHA-256.
    """
    require_no_collision(connection, digests)
    connection.execute(
        upsert(connection, content)
        .values(sha1=digests.sha1, sha256=digests.sha256, size=digests.size)
        .on_conflict_do_nothing(index_elements=[content.c.sha1])
    )
    connection.execute(
        upsert(connection, files)
        .values(zone=zone, sha1=digests.sha1, size=digests.size, created=now, owner=owner)
        .on_conflict_do_nothing(index_elements=[files.c.zone, files.c.sha1])
    )


def begin_deletion(connection: Connection, zone: Zone, sha1: str, now: int) -> bool:
    """Make a file unfindable, its object due for the trash; says whether the zone had it."""
    gone = connection.execute(delete(files).where(files.c.zone == zone.name, files.c.sha1 == sha1))
    if gone.rowcount == 0:
        return False
    connection.execute(
        upsert(connection, deletions)
        .values(key=zone.key(sha1), created=now)
        .on_conflict_do_nothing(index_elements=[deletions.c.key])
    )
    return True


def due_deletions(connection: Connection, key: str | None = None) -> list[str]:
    """The keys of objects that must go to the trash, all or the one given."""
    statement = select(deletions.c.key)
    if key is not None:
        statement = statement.where(deletions.c.key == key)
    return [str(row.key) for row in connection.execute(statement)]


def end_deletion(connection: Connection, key: str) -> None:
    """Take note that an object is in the trash."""
    connection.execute(delete(deletions).where(deletions.c.key == key))


def _upload(row: Row[tuple[object, ...]]) -> Upload:
    return Upload(
        id=row.id,
        zone=row.zone,
        sha1=row.sha1,
        size=row.size,
        client=row.client,
        owner=row.owner,
        received=row.state == "received",
        in_parts=row.in_parts == 1,
        staging=row.staging,
        sha256=row.sha256,
        expires=row.expires,
    )
