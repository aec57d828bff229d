"""Files with a name, an owner and a visibility of their own, as the broker's protocol has them.

    private      its owner
    group        and whoever may download from one of some zones, which are its teams
    public       anybody

Their content is in a zone: the one for such files, which nobody else needs rights in, or the one where it was already
when its owner, who may read it there, gave it a name. Whoever may download from that zone may read it, too, since they
may do so by its hash. Content of zones that nobody has given a name is found by its SHA-256, and called `ZONE.SHA1`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update

from ...digest import is_hash
from ...errors import InvalidInput, NotAllowed, NotFound
from ..models import content, files, shared_files, shared_with
from . import files as zone_files
from . import zones

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Row

SCOPES = ("private", "group", "public")
CLASSES = ("raw", "analysis")

LONGEST_NAME = 500
_MOST_TEAMS = 50

# how long a file may be without content, in milliseconds
_WITHOUT_CONTENT = 7 * 24 * 3600 * 1000

# of files with one name or hash, this many are looked at
_MOST_LOOKED_AT = 1000


@dataclass(frozen=True, slots=True)
class Visibility:
    """Who may read a file: a scope of `SCOPES`, and for `group` the names of zones."""

    scope: str
    teams: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SharedFile:
    """A file.

    Args:
        id: What it is called in addresses.
        owner: The user who may change its visibility; `None` for content that only a zone has.
        name: Its name; empty for content that only a zone has.
        file_class: One of `CLASSES`.
        sha256: The hash of its content.
        size: In bytes.
        zone: Where the content is, or shall be.
        sha1: The content's SHA-1; `None` as long as the content has not come.
        visibility: Who may read it.
    """

    id: str
    owner: str | None
    name: str
    file_class: str
    sha256: str
    size: int
    zone: str
    sha1: str | None
    visibility: Visibility


def find(connection: Connection, name: str, user: str | None) -> SharedFile:
    """A file by its id, for somebody who may read it.

    Raises:
        NotFound: If there is none, or it is not theirs to read: these are the same.
    """
    row = connection.execute(select(shared_files).where(shared_files.c.id == name)).first()
    file = _of_zone(connection, name) if row is None else _file(connection, row)
    if file is None or not _may_read(connection, file, user):
        raise _not_there()
    return file


def resolve(
    connection: Connection, user: str | None, *, name: str | None = None, sha256: str | None = None
) -> SharedFile:
    """A file by its name or its content, for somebody who may read it; one's own before others', new before old.

    Raises:
        NotFound: If there is none, or none is theirs to read.
    """
    for file in _candidates(connection, user, name=name, sha256=sha256):
        if _may_read(connection, file, user):
            return file
    raise _not_there()


def register(
    connection: Connection,
    owner: str,
    zone: zones.Zone,
    name: str,
    file_class: str,
    sha256: str,
    size: int,
    visibility: Visibility,
    now: int,
) -> SharedFile:
    """Give content a name. Doing so again gives the same file, with the visibility of the last time.

    Args:
        connection: A connection that may write.
        owner: Who does; they may upload to the zone.
        zone: Where the content goes if nothing that the owner may read has it already.
        name: The name.
        file_class: One of `CLASSES`.
        sha256: The content's hash.
        size: Its size in bytes.
        visibility: Who may read it.
        now: The time, in milliseconds since the epoch.

    Returns:
        The file; its content has to be sent as long as its `sha1` is `None`.

    Raises:
        InvalidInput: If something of it is not what it should be, or the owner belongs to no such team.
    """
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise InvalidInput(f"not a name of a file: {name[:80]!r}", hint=f"up to {LONGEST_NAME} printable characters")
    if file_class not in CLASSES:
        raise InvalidInput(f"not a class of files: {file_class[:80]!r}", hint="one of " + ", ".join(CLASSES))
    if not is_hash("sha256", sha256):
        raise InvalidInput(f"not a SHA-256 hash: {sha256[:80]!r}", hint="64 lower-case hex digits")
    _require_visibility(connection, owner, visibility)
    connection.execute(
        delete(shared_files).where(shared_files.c.sha1.is_(None), shared_files.c.created < now - _WITHOUT_CONTENT)
    )
    known = next(
        (
            file
            for file in _candidates(connection, owner, sha256=sha256)
            if file.sha1 is not None and _may_read(connection, file, owner)
        ),
        None,
    )
    if known is not None and known.size != size:
        raise InvalidInput(f"content with this SHA-256 has {known.size} bytes, not {size}")
    if known is not None and _is_open(connection, known.zone):
        # it cannot be for fewer than it is already
        visibility = Visibility("public")
    row = connection.execute(
        select(shared_files)
        .where(shared_files.c.owner == owner, shared_files.c.name == name, shared_files.c.sha256 == sha256)
        .order_by(shared_files.c.created.desc())
    ).first()
    if row is None:
        file_id = secrets.token_hex(16)
        connection.execute(
            insert(shared_files).values(
                id=file_id, owner=owner, name=name, sha256=sha256, scope="private", zone=zone.name, created=now,
                file_class=file_class, size=size,
            )
        )  # fmt: skip
    else:
        file_id = row.id
    place = {"zone": zone.name, "sha1": None} if known is None else {"zone": known.zone, "sha1": known.sha1}
    connection.execute(
        update(shared_files).where(shared_files.c.id == file_id).values(file_class=file_class, size=size, **place)
    )
    _write_visibility(connection, file_id, visibility)
    return _require(connection, file_id)


def waiting(connection: Connection, file_id: str) -> SharedFile:
    """A file by its id, whether or not its content has come; for whoever holds an address to send it to.

    Raises:
        NotFound: If there is none.
    """
    return _require(connection, file_id)


def complete(connection: Connection, file_id: str, sha1: str) -> None:
    """Take note that a file's content is in its zone."""
    connection.execute(update(shared_files).where(shared_files.c.id == file_id).values(sha1=sha1))


def set_visibility(connection: Connection, file_id: str, user: str, visibility: Visibility) -> SharedFile:
    """Say who may read a file, as its owner.

    Raises:
        NotFound: If there is none, or it is not theirs to read.
        NotAllowed: If it is another's.
        InvalidInput: If the visibility is none, or the owner belongs to no such team.
    """
    file = find(connection, file_id, user)
    if file.owner is None:
        raise NotAllowed(
            f"who may read this file is a matter of the zone {file.zone!r}", hint="give it a name of its own first"
        )
    if file.owner != user:
        raise NotAllowed("only its owner may say who may read this file")
    _require_visibility(connection, user, visibility)
    if visibility.scope != "public" and _is_open(connection, file.zone):
        raise InvalidInput(
            f"the content is in the zone {file.zone!r}, which anybody may read, so it cannot be for fewer",
            hint="its visibility can be public",
        )
    _write_visibility(connection, file_id, visibility)
    return _require(connection, file_id)


def _is_open(connection: Connection, zone: str) -> bool:
    return zones.rights_of(connection, zones.find(connection, zone), None).download


def _require_visibility(connection: Connection, owner: str, visibility: Visibility) -> None:
    if visibility.scope not in SCOPES:
        raise InvalidInput(f"not a scope: {visibility.scope[:80]!r}", hint="one of " + ", ".join(SCOPES))
    if visibility.scope == "group" and not visibility.teams:
        raise InvalidInput("a file for a group needs the names of its teams")
    if len(visibility.teams) > _MOST_TEAMS:
        raise InvalidInput(f"{len(visibility.teams)} teams; a file may have {_MOST_TEAMS}")
    for team in visibility.teams:
        rights = zones.rights_of(connection, zones.find(connection, team), owner)
        if not (rights.upload or rights.download):
            # the same words where there is no such zone
            raise InvalidInput(f"you belong to no team {team[:80]!r} here", hint="teams are zones of this gateway")


def _write_visibility(connection: Connection, file_id: str, visibility: Visibility) -> None:
    connection.execute(update(shared_files).where(shared_files.c.id == file_id).values(scope=visibility.scope))
    connection.execute(delete(shared_with).where(shared_with.c.file == file_id))
    teams = dict.fromkeys(visibility.teams) if visibility.scope == "group" else {}
    if teams:
        connection.execute(insert(shared_with), [{"file": file_id, "team": team} for team in teams])


def _candidates(
    connection: Connection, user: str | None, *, name: str | None = None, sha256: str | None = None
) -> Iterator[SharedFile]:
    statement = select(shared_files).order_by((shared_files.c.owner == user).desc(), shared_files.c.created.desc())
    if name is not None:
        statement = statement.where(shared_files.c.name == name)
    if sha256 is not None:
        statement = statement.where(shared_files.c.sha256 == sha256)
    for row in connection.execute(statement.limit(_MOST_LOOKED_AT)).all():
        yield _file(connection, row)
    if name is None and sha256 is not None and is_hash("sha256", sha256):
        rows = connection.execute(
            select(files.c.zone, files.c.sha1)
            .join(content, content.c.sha1 == files.c.sha1)
            .where(content.c.sha256 == sha256)
            .order_by(files.c.zone)
        ).all()
        for row in rows:
            file = _of_zone(connection, f"{row.zone}.{row.sha1}")
            if file is not None:
                yield file


def _may_read(connection: Connection, file: SharedFile, user: str | None) -> bool:
    if file.sha1 is None or zone_files.size_of(connection, file.zone, file.sha1) is None:
        return False
    if file.visibility.scope == "public" or (user is not None and file.owner == user):
        return True
    places = [file.zone, *(file.visibility.teams if file.visibility.scope == "group" else ())]
    return any(zones.rights_of(connection, zones.find(connection, place), user).download for place in places)


def _of_zone(connection: Connection, name: str) -> SharedFile | None:
    """Content of a zone by `ZONE.SHA1`."""
    zone, _, sha1 = name.rpartition(".")
    row = connection.execute(
        select(content.c.sha256, files.c.size)
        .join(content, content.c.sha1 == files.c.sha1)
        .where(files.c.zone == zone, files.c.sha1 == sha1)
    ).first()
    if row is None:
        return None
    return SharedFile(name, None, "", "analysis", row.sha256, row.size, zone, sha1, Visibility("group", (zone,)))


def _require(connection: Connection, file_id: str) -> SharedFile:
    row = connection.execute(select(shared_files).where(shared_files.c.id == file_id)).first()
    if row is None:
        raise _not_there()
    return _file(connection, row)


def _not_there() -> NotFound:
    return NotFound("there is no such file that you may read")


def _file(connection: Connection, row: Row[tuple[object, ...]]) -> SharedFile:
    teams = connection.execute(
        select(shared_with.c.team).where(shared_with.c.file == row.id).order_by(shared_with.c.team)
    )
    return SharedFile(
        row.id, row.owner, row.name, row.file_class, row.sha256, row.size, row.zone, row.sha1,
        Visibility(row.scope, tuple(team.team for team in teams)),
    )  # fmt: skip
