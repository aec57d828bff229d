"""Zones, and who may do what in them.

Everything is denied that is not allowed by a flag which is exactly 1. A zone without a row, or with something else in
its flags, is closed.

| who | download | upload | admin |
|---|---|---|---|
| anyone | if `allow_public_download` | – | – |
| a registered client | if `allow_public_download` | if `allow_public_upload` | – |
| … whose owner is a member | if the member has `download` | if `upload` | if `admin` |
| … whose owner owns or administers the zone, or administers the gateway | yes | yes | yes |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, func, insert, select, update

from ... import names
from ...errors import Conflict, InvalidInput, NotFound
from ..databases.upsert import upsert
from ..models import files, members, uploads, users, zones
from .prepared import PreparedLookup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Row

#: What a member of a zone may be allowed.
RIGHTS = ("upload", "download", "admin")


_COLUMNS = (
    zones.c.name,
    zones.c.owner,
    zones.c.bucket,
    zones.c.directory,
    zones.c.allow_public_download,
    zones.c.allow_public_upload,
    zones.c.keep_on_demand,
)

_FIND = PreparedLookup(select(*_COLUMNS).where(zones.c.name == bindparam("name")))

_FIND_WITH_FILE = PreparedLookup(
    select(*_COLUMNS, files.c.size)
    .outerjoin(files, (files.c.zone == zones.c.name) & (files.c.sha1 == bindparam("sha1")))
    .where(zones.c.name == bindparam("name"))
)

_RIGHTS = PreparedLookup(
    select(users.c.is_admin, members.c.upload, members.c.download, members.c.admin)
    .select_from(users)
    .outerjoin(members, (members.c.user == users.c.name) & (members.c.zone == bindparam("name")))
    .where(users.c.name == bindparam("who"))
)


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone's settings. `keep_on_demand`: what resources bring stays in the bucket."""

    name: str
    owner: str
    bucket: str
    directory: str
    public_download: bool
    public_upload: bool
    keep_on_demand: bool

    def key(self, sha1: str) -> str:
        """The key of a file's object in the zone's bucket."""
        plain = f"sha1/{sha1[:2]}/{sha1[2:4]}/{sha1[4:6]}/{sha1}"
        return f"{self.directory}/{plain}" if self.directory else plain


@dataclass(frozen=True, slots=True)
class Rights:
    """What somebody may do in a zone."""

    upload: bool = False
    download: bool = False
    admin: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """A user with rights in a zone."""

    user: str
    rights: Rights


def find(connection: Connection, name: str) -> Zone | None:
    """A zone by its name."""
    row = _FIND(connection, name=name)
    return None if row is None else _zone(*row)


def find_with_file(connection: Connection, name: str, sha1: str) -> tuple[Zone, int | None] | None:
    """A zone by its name, and the size in bytes of a file in it, `None` if it does not have the file."""
    row = _FIND_WITH_FILE(connection, name=name, sha1=sha1)
    return None if row is None else (_zone(*row[:-1]), row[-1])


def require(connection: Connection, name: str) -> Zone:
    """A zone by its name.

    Raises:
        NotFound: If there is none.
    """
    zone = find(connection, name)
    if zone is None:
        raise NotFound(f"this gateway has no zone {name!r}", hint="`kachery admin zone list` names those it has")
    return zone


def list_all(connection: Connection) -> list[Zone]:
    """All zones by name."""
    return [_zone(*row) for row in connection.execute(select(*_COLUMNS).order_by(zones.c.name))]


def create(
    connection: Connection,
    name: str,
    owner: str,
    now: int,
    *,
    private: bool,
    public_upload: bool,
    keep_on_demand: bool = True,
) -> Zone:
    """Make a zone.

    Raises:
        InvalidName: If the name is not one.
        Conflict: If there is one of this name.
    """
    names.zone(name)
    if find(connection, name) is not None:
        raise Conflict(f"there is a zone {name!r} already")
    connection.execute(
        insert(zones).values(
            name=name,
            owner=owner,
            bucket="default",
            # as upstream does: the zone `default` has the bucket's root, the others a directory each
            directory="" if name == "default" else f"zones/{name}",
            allow_public_download=int(not private),
            allow_public_upload=int(public_upload),
            keep_on_demand=int(keep_on_demand),
            created=now,
        )
    )
    return require(connection, name)


def set_public(connection: Connection, name: str, *, download: bool, upload: bool) -> None:
    """Say what those may do who are not members."""
    require(connection, name)
    connection.execute(
        update(zones)
        .where(zones.c.name == name)
        .values(allow_public_download=int(download), allow_public_upload=int(upload))
    )


def set_keeping(connection: Connection, name: str, *, keep: bool) -> None:
    """Say whether what resources bring stays in the zone's bucket."""
    require(connection, name)
    connection.execute(update(zones).where(zones.c.name == name).values(keep_on_demand=int(keep)))


def grant(connection: Connection, name: str, user: str, rights: Iterable[str], *, granted: bool = True) -> Rights:
    """Give a user rights in a zone, or take them away.

    Args:
        connection: A connection that may write.
        name: The zone.
        user: The user.
        rights: Some of `RIGHTS`.
        granted: `False` takes them away.

    Returns:
        What the user may do as a member now.

    Raises:
        NotFound: If there is no such zone or user.
        InvalidInput: If a right is none of `RIGHTS`.
    """
    wanted = set(rights)
    unknown = wanted - set(RIGHTS)
    if unknown or not wanted:
        raise InvalidInput(f"unknown right {', '.join(sorted(unknown))!r}", hint="some of " + ",".join(RIGHTS))
    require(connection, name)
    if connection.execute(select(users.c.id).where(users.c.name == user)).first() is None:
        raise NotFound(f"this gateway has no user {user!r}", hint=f"`kachery admin user add {user}` makes one")
    values = {right: int(granted) for right in wanted}
    connection.execute(
        upsert(connection, members)
        .values(zone=name, user=user, **{right: values.get(right, 0) for right in RIGHTS})
        .on_conflict_do_update(index_elements=[members.c.zone, members.c.user], set_=values)
    )
    row = connection.execute(select(members).where(members.c.zone == name, members.c.user == user)).one()
    if not any(getattr(row, right) == 1 for right in RIGHTS):
        connection.execute(delete(members).where(members.c.zone == name, members.c.user == user))
    return _member_rights(row)


def set_members(connection: Connection, name: str, wanted: Iterable[Member]) -> None:
    """Replace a zone's members.

    Raises:
        NotFound: If there is no such zone, or a user is not known.
    """
    require(connection, name)
    connection.execute(delete(members).where(members.c.zone == name))
    for member in wanted:
        rights = [right for right in RIGHTS if getattr(member.rights, right)]
        if rights:
            grant(connection, name, member.user, rights)


def remove(connection: Connection, name: str) -> None:
    """Forget a zone that has no files, and with it its members, clients and resources.

    Raises:
        NotFound: If there is no such zone.
        Conflict: If it has files.
    """
    require(connection, name)
    if connection.execute(select(files.c.sha1).where(files.c.zone == name).limit(1)).first() is not None:
        raise Conflict(f"zone {name!r} has files", hint="remove them first")
    connection.execute(delete(uploads).where(uploads.c.zone == name))
    connection.execute(delete(zones).where(zones.c.name == name))


def list_members(connection: Connection, name: str) -> list[Member]:
    """A zone's members by name."""
    rows = connection.execute(select(members).where(members.c.zone == name).order_by(members.c.user))
    return [Member(row.user, _member_rights(row)) for row in rows]


def rights_of(connection: Connection, zone: Zone | None, user: str | None, *, registered: bool = True) -> Rights:
    """What a user may do in a zone.

    Args:
        connection: A connection that may read.
        zone: The zone; nobody may do anything in `None`.
        user: The user; `None` for anonymous callers.
        registered: Whether the caller is known in the zone, as a client or by having signed in.
    """
    if zone is None:
        return Rights()
    if user is None or not registered:
        return Rights(download=zone.public_download)
    row = _RIGHTS(connection, name=zone.name, who=user)
    if row is None:
        return Rights(download=zone.public_download)
    of_gateway, upload, download, of_zone = row
    admin = of_gateway == 1 or zone.owner == user or of_zone == 1
    return Rights(
        upload=admin or zone.public_upload or upload == 1,
        download=admin or zone.public_download or download == 1,
        admin=admin,
    )


def visible_to(connection: Connection, user: str | None) -> list[Zone]:
    """The zones that a user, or `None`, may read from or write to."""
    visible = []
    for zone in list_all(connection):
        rights = rights_of(connection, zone, user)
        if rights.download or rights.upload:
            visible.append(zone)
    return visible


def sizes(connection: Connection) -> dict[str, tuple[int, int]]:
    """For each zone that has files: how many, and their bytes."""
    rows = connection.execute(select(files.c.zone, func.count(), func.sum(files.c.size)).group_by(files.c.zone))
    return {str(zone): (int(count), int(size)) for zone, count, size in rows}


def _zone(
    name: str, owner: str, bucket: str, directory: str, public_download: object, public_upload: object, keep: object
) -> Zone:
    return Zone(name, owner, bucket, directory, public_download == 1, public_upload == 1, keep == 1)


def _member_rights(row: Row[tuple[object, ...]]) -> Rights:
    return Rights(upload=row.upload == 1, download=row.download == 1, admin=row.admin == 1)
