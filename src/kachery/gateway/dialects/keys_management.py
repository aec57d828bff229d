"""The management calls of kachery 2.x: users and zones, for holders of a management key.

| `POST /api/…` | who | what |
|---|---|---|
| `addUser` | administrators of the gateway | an account, which an invitation opens (`kachery admin user invite`) |
| `getUser`, `setUserInfo` | that user; `getUser` administrators, too | what they say about themselves |
| `resetUserApiKey` | that user | a new key for files; the older ones end |
| `getUsers`, `addZone` | administrators of the gateway | |
| `getZone` | anybody, of public zones; who may use it, of others | without members for those who do not administer it |
| `getZones` | anybody with a key | the zones that they may use; with `userId` those of one owner |
| `setZoneInfo` | administrators of the zone | members, what is public |
| `deleteZone` | the owner, administrators of the gateway | only a zone without files |
| `usage`, `computeUserStats` | that user; administrators, of everybody | |

Users are this gateway's, not GitHub's: a `userId` is a user's name. Zones lie in the gateway's own bucket, so there are
no bucket credentials to set or to see. Keys are shown once, when they are made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import Conflict, InvalidInput, KacheryError, NotAllowed, NotFound, NotIdentified, NotSupported
from ..receiving import now
from ..services import accounts, api_keys, usage, zones
from .forms import Form, fits, is_flag, is_text

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ..runtime import Gateway

_MEMBER: Form = {
    "userId": (True, is_text),
    "admin": (True, is_flag),
    "uploadFiles": (True, is_flag),
    "downloadFiles": (True, is_flag),
}


def _are_members(value: Any) -> bool:
    return isinstance(value, list) and all(fits(item, _MEMBER) for item in value)


_USER: Form = {"userId": (True, is_text)}
_ZONE: Form = {"zoneName": (True, is_text)}

#: The form of each request, beside its `type`.
FORMS: dict[str, Form] = {
    "addUser": _USER,
    "getUser": _USER,
    "getUsers": {},
    "setUserInfo": {
        **_USER,
        "name": (False, is_text),
        "email": (False, is_text),
        "researchDescription": (False, is_text),
    },
    "resetUserApiKey": _USER,
    "addZone": {**_ZONE, **_USER},
    "getZone": _ZONE,
    "getZones": {"userId": (False, is_text)},
    "setZoneInfo": {
        **_ZONE,
        "users": (False, _are_members),
        "publicDownload": (False, is_flag),
        "publicUpload": (False, is_flag),
        "bucketUri": (False, is_text),
        "directory": (False, is_text),
        "credentials": (False, is_text),
    },
    "deleteZone": _ZONE,
    "computeUserStats": _USER,
    "usage": {"zoneName": (False, is_text), "userId": (False, is_text)},
}

_WRITING = {"addUser", "setUserInfo", "resetUserApiKey", "addZone", "setZoneInfo", "deleteZone"}

# What a person sees of a key that is there
_MASKED = "********"

# request → part of a profile
_PROFILE = {"name": "full_name", "email": "email", "researchDescription": "research_description"}


class Management:
    """Answers management calls.

    Args:
        gateway: The gateway it serves.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def answer(self, name: str, request: dict[str, Any], token: str) -> dict[str, Any]:
        """The reply to one call, without its `type`.

        Args:
            name: Which call.
            request: Its request, of the right form.
            token: The key that came with it; empty if none did.

        Raises:
            NotIdentified: If there is no such key, and the call needs one.
            NotAllowed, NotFound, InvalidInput, Conflict: If it is not done.
        """
        database = self._gateway.database
        call = _CALLS[name]
        holder = await database.read(api_keys.holder, token, api_keys.MANAGEMENT) if token else None
        if holder is None and (token or name != "getZone"):
            raise NotIdentified("Unauthorized")
        if name not in _WRITING:
            return await database.read(call, request, holder, self._gateway.bucket.uri)
        reply = await database.write(call, request, holder, self._gateway.bucket.uri)
        who = holder.user if holder else None
        self._gateway.log.info("managed", call=name, user=who, about=request.get("zoneName", request.get("userId")))
        return reply


def _require_self(request: dict[str, Any], who: api_keys.Holder | None, *, or_admin: bool = False) -> None:
    if who is None or (request["userId"] != who.user and not (or_admin and who.is_admin)):
        raise NotIdentified("Unauthorized")


# -- users ------------------------------------------------------------------------------------------------------------


def _user(connection: Connection, user: accounts.User) -> dict[str, Any]:
    about = accounts.profile(connection, user.name)
    has_key = any(key.purpose == api_keys.FILES for key in api_keys.list_all(connection, user.name))
    return {
        "userId": user.name,
        "name": about.full_name,
        "email": about.email,
        "researchDescription": about.research_description,
        "apiKey": _MASKED if has_key else "",
    }


def _add_user(connection: Connection, request: dict[str, Any], who: api_keys.Holder | None, _: str) -> dict[str, Any]:
    _require_self(request, who, or_admin=True)
    if accounts.find_user(connection, request["userId"]) is not None:
        raise InvalidInput("User already exists")
    accounts.add_user(connection, request["userId"], now())
    return {}


def _get_user(connection: Connection, request: dict[str, Any], who: api_keys.Holder | None, _: str) -> dict[str, Any]:
    _require_self(request, who, or_admin=True)
    user = accounts.find_user(connection, request["userId"])
    if user is None:
        raise NotFound(f"User not found: {request['userId']}")
    return {"user": _user(connection, user)}


def _get_users(connection: Connection, request: dict[str, Any], who: api_keys.Holder | None, _: str) -> dict[str, Any]:
    _require_gateway_admin(who, "Unauthorized")
    return {"users": [_user(connection, user) for user in accounts.list_users(connection)]}


def _set_user_info(
    connection: Connection, request: dict[str, Any], who: api_keys.Holder | None, _: str
) -> dict[str, Any]:
    _require_self(request, who)
    parts = {part: request[key] for key, part in _PROFILE.items() if key in request}
    accounts.set_profile(connection, request["userId"], **parts)
    return {}


def _reset_key(connection: Connection, request: dict[str, Any], who: api_keys.Holder | None, _: str) -> dict[str, Any]:
    _require_self(request, who)
    return {"apiKey": api_keys.replace(connection, request["userId"], "kachery 2.x", now())}


def _user_stats(connection: Connection, request: dict[str, Any], who: api_keys.Holder | None, _: str) -> dict[str, Any]:
    _require_self(request, who, or_admin=True)
    return {"userStats": {"userId": request["userId"]}}


def _usage(connection: Connection, request: dict[str, Any], who: api_keys.Holder | None, _: str) -> dict[str, Any]:
    zone, user = request.get("zoneName"), request.get("userId")
    if who is None or not (who.is_admin or user == who.user):
        raise NotIdentified("Unauthorized")
    return {
        "userZoneDayUsages": [
            {
                "day": line.day,
                "zoneName": line.zone,
                "userId": line.user,
                "numDownloads": line.downloads,
                "numUploads": line.uploads,
                "numBytesDownloaded": line.download_bytes,
                "numBytesUploaded": line.upload_bytes,
            }
            for line in usage.by_day(connection, zone=zone, user=user)
        ]
    }


def _require_gateway_admin(who: api_keys.Holder | None, text: str) -> None:
    if who is None or not who.is_admin:
        raise NotIdentified(text)


# -- zones ------------------------------------------------------------------------------------------------------------


def _zone(connection: Connection, zone: zones.Zone, rights: zones.Rights, bucket: str) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "zoneName": zone.name,
        "userId": zone.owner,
        "users": [],
        "publicDownload": zone.public_download,
        "publicUpload": zone.public_upload,
    }
    if rights.admin:
        shown["users"] = [
            {
                "userId": member.user,
                "admin": member.rights.admin,
                "uploadFiles": member.rights.upload,
                "downloadFiles": member.rights.download,
            }
            for member in zones.list_members(connection, zone.name)
        ]
        shown.update(bucketUri=bucket, directory=zone.directory)
    return shown


def _add_zone(connection: Connection, request: dict[str, Any], who: api_keys.Holder | None, _: str) -> dict[str, Any]:
    _require_gateway_admin(who, "Only admin can add zones")
    _require_self(request, who)
    if zones.find(connection, request["zoneName"]) is not None:
        raise Conflict("Zone with this name already exists.")
    zones.create(connection, request["zoneName"], request["userId"], now(), private=False, public_upload=False)
    return {}


def _get_zone(
    connection: Connection, request: dict[str, Any], who: api_keys.Holder | None, bucket: str
) -> dict[str, Any]:
    zone = zones.find(connection, request["zoneName"])
    rights = zones.rights_of(connection, zone, who.user if who else None)
    if zone is None or not (rights.download or rights.upload):
        # the same words for a zone that is there and closed
        raise NotFound(f"Zone not found: {request['zoneName']}")
    return {"zone": _zone(connection, zone, rights, bucket)}


def _get_zones(
    connection: Connection, request: dict[str, Any], who: api_keys.Holder | None, bucket: str
) -> dict[str, Any]:
    user = who.user if who else None
    return {
        "zones": [
            _zone(connection, zone, zones.rights_of(connection, zone, user), bucket)
            for zone in zones.visible_to(connection, user)
            if request.get("userId", zone.owner) == zone.owner
        ]
    }


def _set_zone_info(
    connection: Connection, request: dict[str, Any], who: api_keys.Holder | None, bucket: str
) -> dict[str, Any]:
    zone = _own_zone(connection, request, who)
    for key, there in (("bucketUri", bucket), ("directory", zone.directory), ("credentials", "")):
        if request.get(key, "") not in ("", there):
            raise NotSupported(f"{key} cannot be set", hint="zones lie in this gateway's own bucket")
    if "users" in request:
        members = [
            zones.Member(
                item["userId"],
                zones.Rights(upload=item["uploadFiles"], download=item["downloadFiles"], admin=item["admin"]),
            )
            for item in request["users"]
        ]
        zones.set_members(connection, zone.name, members)
    zones.set_public(
        connection,
        zone.name,
        download=request.get("publicDownload", zone.public_download),
        upload=request.get("publicUpload", zone.public_upload),
    )
    return {}


def _delete_zone(
    connection: Connection, request: dict[str, Any], who: api_keys.Holder | None, _: str
) -> dict[str, Any]:
    zone = _own_zone(connection, request, who)
    if who is None or not (who.is_admin or zone.owner == who.user):
        raise _not_authorized(who)
    zones.remove(connection, zone.name)
    return {}


def _own_zone(connection: Connection, request: dict[str, Any], who: api_keys.Holder | None) -> zones.Zone:
    """A zone that somebody administers; whether there is such a zone is not told to others."""
    zone = zones.find(connection, request["zoneName"])
    user = who.user if who else None
    if zone is None and who is not None and who.is_admin:
        raise NotFound(f"Zone not found: {request['zoneName']}")
    if zone is None or not zones.rights_of(connection, zone, user).admin:
        raise _not_authorized(who)
    return zone


def _not_authorized(who: api_keys.Holder | None) -> KacheryError:
    return NotAllowed(f"User {who.user if who else ''} is not authorized to modify this zone.")


_CALLS = {
    "addUser": _add_user,
    "getUser": _get_user,
    "getUsers": _get_users,
    "setUserInfo": _set_user_info,
    "resetUserApiKey": _reset_key,
    "computeUserStats": _user_stats,
    "usage": _usage,
    "addZone": _add_zone,
    "getZone": _get_zone,
    "getZones": _get_zones,
    "setZoneInfo": _set_zone_info,
    "deleteZone": _delete_zone,
}
