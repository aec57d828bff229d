"""The broker that Spyglass is going to ask for files: its shared-storage client, which is not released yet.

This is the contract as that client's source had it in November 2026; it may change until it is released.

| request, under `/api/v1` | who | answer |
|---|---|---|
| `POST /auth/device` | anybody | `{device_code, user_code, verification_uri, interval, expires_in}` |
| `POST /auth/token` `{device_code}` | its holder | 428, `Retry-After`; then `{access_token, tier, github_login}` |
| `GET /info` | anybody | `{upload_digests}` |
| `GET /file/resolve?name=`, `?sha256=` | readers | `{file_id, sha256, size_bytes, spyglass_name, file_class}` |
| `POST /file` `{sha256, size_bytes, spyglass_name, file_class, visibility, content_md5?}` | who may upload | |
| | | `{file_id, deduplicated}`; with `upload_url` and `upload_headers` if it is to be sent |
| `GET`, `HEAD /file/ID/content` | readers | 307 to an address that knows ranges, for a while |
| `PATCH /file/ID/visibility` `{scope, teams}` | its owner | the file |
| `PUT /file/ID/bytes/TOKEN` (ours) | who got the address | 200 once the bytes are those of the SHA-256 |

The token comes as `Authorization: Bearer TOKEN`; it is an API key, which its user finds and ends on `/account`. Without
one, what is public can be read. Scopes are `private`, `group` and `public`; teams are zones. An error is
`{"detail": "…"}`. Answers about a file carry its `visibility` for its owner, which the contract does not ask for.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from ...digest import of_bytes
from ...errors import (
    Conflict,
    InvalidInput,
    KacheryError,
    NotAllowed,
    NotFound,
    NotIdentified,
    Unreachable,
    WrongContent,
)
from ..http import RequestBody, header, host_of, read_json, send_bytes, send_json
from ..receiving import now
from ..services import api_keys, devices, files, shared_files, zones
from ..services.shared_files import SharedFile, Visibility
from ..tokens import UPLOAD_LIFETIME, UploadToken
from .cloud import download_address, require_room
from .forms import Form, fits, is_object, is_text

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from starlette.types import Receive, Scope, Send

    from ..runtime import Gateway

_PREFIX = "/api/v1/"
_NO_STORE = [(b"cache-control", b"no-store")]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(is_text(item) for item in value)


_TOKEN: Form = {"device_code": (True, is_text)}
_VISIBILITY: Form = {"scope": (True, is_text), "teams": (False, _is_texts)}
_FILE: Form = {
    "sha256": (True, is_text),
    "size_bytes": (True, _is_count),
    "spyglass_name": (True, is_text),
    "file_class": (True, is_text),
    "visibility": (True, is_object),
    # the SHA-256 says more
    "content_md5": (False, lambda value: value is None or is_text(value)),
}


def speaks(path: str) -> bool:
    """Whether an address is one of this protocol."""
    rest = path.removeprefix(_PREFIX)
    return path.startswith(_PREFIX) and (rest in ("file", "info") or rest.startswith(("file/", "auth/")))


class BrokerDialect:
    """The ASGI application at the addresses that `speaks` knows.

    Args:
        gateway: The gateway it serves.
        zone: The zone of the files that are sent here.
    """

    def __init__(self, gateway: Gateway, zone: str) -> None:
        self._gateway = gateway
        self._zone = zone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        body = RequestBody(receive)
        parts = scope["path"].removeprefix(_PREFIX).split("/")
        try:
            match scope["method"], parts:
                case "POST", ["auth", "device"]:
                    await self._reply(send, await self._begin(scope))
                case "POST", ["auth", "token"]:
                    await self._give_token(receive, send)
                case "GET", ["info"]:
                    await self._reply(send, {"upload_digests": ["sha256"]})
                case "GET", ["file", "resolve"]:
                    await self._reply(send, await self._resolve(scope))
                case "POST", ["file"]:
                    await self._reply(send, await self._register(scope, receive))
                case "GET" | "HEAD", ["file", name, "content"]:
                    await self._redirect(scope, send, name)
                case "PATCH", ["file", name, "visibility"]:
                    await self._reply(send, await self._set_visibility(scope, receive, name))
                case "PUT", ["file", name, "bytes", token]:
                    await self._receive(scope, send, body, name, token)
                case _:
                    raise NotFound("there is nothing at this address, or not for this method")
        except KacheryError as error:
            level = "error" if error.http_status in (500, 507) or error.code == "collision" else "info"
            getattr(self._gateway.log, level)("refused", type="broker", error=error.code, reason=error.message)
            headers = [*_NO_STORE]
            if scope["method"] == "PUT":
                if isinstance(error, Unreachable) and body.ended:
                    return
                headers += [] if await body.drain() else [(b"connection", b"close")]
            await send_json(send, error.http_status, {"detail": str(error)}, headers)

    async def _reply(self, send: Send, value: dict[str, Any]) -> None:
        await send_json(send, 200, value, _NO_STORE)

    # -- signing in ---------------------------------------------------------------------------------------------------

    async def _begin(self, scope: Scope) -> dict[str, Any]:
        gateway = self._gateway
        codes = await gateway.database.write(devices.begin, now())
        return {
            "device_code": codes.device,
            "user_code": codes.user,
            "verification_uri": f"{gateway.config.base_url(scope['scheme'], host_of(scope))}/device",
            "interval": devices.INTERVAL,
            "expires_in": devices.LIFETIME // 1000,
        }

    async def _give_token(self, receive: Receive, send: Send) -> None:
        code = (await _read(receive, _TOKEN))["device_code"]
        if not await self._gateway.database.read(devices.is_approved, code, now()):
            waiting = [*_NO_STORE, (b"retry-after", b"%d" % devices.INTERVAL)]
            await send_json(send, 428, {"detail": "nobody has typed in the code yet"}, waiting)
            return
        token, user = await self._gateway.database.write(devices.redeem, code, "signed in by code", now())
        self._gateway.log.info("program_signed_in", user=user.name)
        zone = await self._gateway.database.read(zones.find, self._zone)
        rights = await self._gateway.database.read(zones.rights_of, zone, user.name)
        tier = "admin" if user.is_admin else "trusted" if rights.upload else "verified"
        await self._reply(send, {"access_token": token, "tier": tier, "github_login": user.name})

    async def _who(self, scope: Scope) -> api_keys.Holder | None:
        """Who sends a request; `None` if they do not say.

        Raises:
            NotIdentified: If what they say is not true, or not any more.
        """
        given = header(scope, b"authorization")
        if given is None:
            return None
        match = re.fullmatch(r"[Bb]earer +(\S+)", given.decode("latin-1").strip())
        token = match[1] if match else ""
        holder = await self._gateway.database.read(api_keys.holder, token, api_keys.FILES)
        if holder is None:
            raise NotIdentified("this token was not given here, or was ended", hint="sign in again")
        return holder

    async def _require_user(self, scope: Scope) -> api_keys.Holder:
        holder = await self._who(scope)
        if holder is None:
            raise NotIdentified("this needs a token", hint="sign in first")
        return holder

    # -- files --------------------------------------------------------------------------------------------------------

    async def _resolve(self, scope: Scope) -> dict[str, Any]:
        holder = await self._who(scope)
        query = parse_qs(scope["query_string"].decode("utf-8", "replace"), max_num_fields=10, errors="replace")
        wanted = {key: query[key][0] for key in ("name", "sha256") if query.get(key)}
        if len(wanted) != 1:
            raise InvalidInput("say name or sha256, one of them")
        user = holder.user if holder else None
        try:
            file = await self._gateway.database.read(shared_files.resolve, user, **wanted)
        except NotFound as error:
            raise self._perhaps_sign_in(error, holder) from error
        self._count(file, holder, finds=1)
        return _described(file, user)

    async def _redirect(self, scope: Scope, send: Send, name: str) -> None:
        holder = await self._who(scope)
        try:
            file = await self._gateway.database.read(shared_files.find, name, holder.user if holder else None)
        except NotFound as error:
            raise self._perhaps_sign_in(error, holder) from error
        zone = await self._gateway.database.read(zones.require, file.zone)
        assert file.sha1 is not None
        number = holder.user_number if holder else 0
        place = await download_address(self._gateway, scope, zone, file.sha1, file.size, number)
        await send_bytes(send, 307, b"", b"text/plain", [*_NO_STORE, (b"location", place.encode())])

    async def _register(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        gateway = self._gateway
        holder = await self._require_user(scope)
        request = await _read(receive, _FILE)
        visibility = _visibility(request["visibility"])
        zone = await gateway.database.read(self._require_upload, holder.user)
        require_room(gateway, request["size_bytes"])
        file = await gateway.database.write(
            shared_files.register,
            holder.user,
            zone,
            request["spyglass_name"],
            request["file_class"],
            request["sha256"],
            request["size_bytes"],
            visibility,
            now(),
        )
        gateway.log.info("file_named", file=file.id, user=holder.user, size=file.size, present=file.sha1 is not None)
        reply = {"file_id": file.id, "deduplicated": file.sha1 is not None, "visibility": _shown(file.visibility)}
        if file.sha1 is not None:
            return reply
        expires = now() // 1000 + UPLOAD_LIFETIME
        token = gateway.signer.upload(UploadToken(file.id, zone.name, "", file.size, expires))
        base = gateway.config.base_url(scope["scheme"], host_of(scope))
        return {
            **reply,
            "upload_url": f"{base}{_PREFIX}file/{file.id}/bytes/{token}",
            "upload_headers": {"Content-Type": "application/octet-stream"},
        }

    async def _set_visibility(self, scope: Scope, receive: Receive, name: str) -> dict[str, Any]:
        holder = await self._require_user(scope)
        visibility = _visibility(await _read(receive, _VISIBILITY))
        file = await self._gateway.database.write(shared_files.set_visibility, name, holder.user, visibility)
        self._gateway.log.info("visibility_set", file=file.id, user=holder.user, scope=visibility.scope)
        return _described(file, holder.user)

    async def _receive(self, scope: Scope, send: Send, body: RequestBody, name: str, token: str) -> None:
        gateway = self._gateway
        allowed = gateway.signer.read_upload(token, now() // 1000)
        if allowed.upload != name:
            raise NotAllowed("this address is not for this file")
        file = await gateway.database.read(shared_files.waiting, name)
        zone = await gateway.database.read(zones.require, file.zone)
        length = header(scope, b"content-length")
        if length is not None and length != b"%d" % file.size:
            raise WrongContent(f"the content has {length.decode('latin-1')} bytes, {file.size} were announced")
        if file.sha1 is None:
            sha1 = await self._receive_content(zone, file, body)
            await gateway.database.write(shared_files.complete, name, sha1)
        await body.drain()
        await send_bytes(send, 200, b"", b"text/plain", _NO_STORE)

    async def _receive_content(self, zone: zones.Zone, file: SharedFile, body: RequestBody) -> str:
        """Receive, verify and publish a file; gives its SHA-1."""
        gateway = self._gateway
        # nobody else ends what this request sends, a second one for the same file neither
        owner, client = file.owner or "", f"broker:{file.id}.{secrets.token_hex(4)}"
        # of nothing there are no parts, and the SHA-1 is known
        sha1 = "" if file.size else of_bytes(b"")
        upload = await gateway.database.write(
            files.begin, zone.name, sha1, file.size, client, owner, now(), in_parts=file.size > 0
        )
        try:
            if file.size:
                digests = await gateway.receiver.receive_unnamed(upload, body)
                sha1, sha256 = digests.sha1, digests.sha256
            else:
                await gateway.receiver.receive_whole(upload, body, 0)
                sha256 = of_bytes(b"", "sha256")
            if sha256 != file.sha256:
                raise WrongContent(f"the content has the SHA-256 {sha256}, not {file.sha256}", hint="send it again")
            if file.size and not await gateway.database.write(files.name_upload, upload.id, client, sha1):
                raise Conflict("this upload is over", hint="begin it again")
            stored = await gateway.receiver.finalize(zone, sha1, file.size, client)
        finally:
            await gateway.receiver.abandon(upload)
        gateway.log.info("stored", zone=zone.name, sha1=sha1, size=file.size, client=client, user=file.owner)
        gateway.counters.count(zone.name, 0, client, now(), uploads=1, upload_bytes=stored or 0)
        return sha1

    def _require_upload(self, connection: Connection, user: str) -> zones.Zone:
        zone = zones.find(connection, self._zone)
        if zone is None or not zones.rights_of(connection, zone, user).upload:
            raise NotAllowed(
                f"{user} may not share files here", hint=f"an administrator can grant upload in the zone {self._zone}"
            )
        return zone

    def _perhaps_sign_in(self, error: NotFound, holder: api_keys.Holder | None) -> KacheryError:
        if holder is not None:
            return error
        return NotIdentified("there is no such file that anybody may read", hint="sign in to see more")

    def _count(self, file: SharedFile, holder: api_keys.Holder | None, **counts: int) -> None:
        number, client = (holder.user_number, f"key:{holder.key}") if holder else (0, "")
        self._gateway.counters.count(file.zone, number, client, now(), **counts)


async def _read(receive: Receive, form: Form) -> dict[str, Any]:
    request = await read_json(receive)
    if not fits(request, form):
        keys = ", ".join(key if required else f"{key}?" for key, (required, _) in form.items())
        raise InvalidInput("the request has another form than this one has", hint=f"an object with {keys}")
    content: dict[str, Any] = request
    return content


def _visibility(value: dict[str, Any]) -> Visibility:
    if not fits(value, _VISIBILITY):
        raise InvalidInput("not a visibility", hint="scope, and a list of teams")
    return Visibility(value["scope"], tuple(value.get("teams", ())))


def _shown(visibility: Visibility) -> dict[str, Any]:
    return {"scope": visibility.scope, "teams": list(visibility.teams)}


def _described(file: SharedFile, user: str | None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "file_id": file.id,
        "sha256": file.sha256,
        "size_bytes": file.size,
        "spyglass_name": file.name,
        "file_class": file.file_class,
    }
    if user is not None and file.owner == user:
        described["visibility"] = _shown(file.visibility)
    return described
