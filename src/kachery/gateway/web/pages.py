"""The pages that people use: plain HTML and forms, no script, nothing from elsewhere.

| page | who | what |
|---|---|---|
| `/` | anyone | what this is, the zones one may see, how to begin |
| `/signin`, `/signout` | anyone | a session |
| `/invitation/TOKEN` | who has the link | choose a password, once |
| `/registerClient/ID?signature=…&zone=…&label=…` | signed in | register a client of the released programs |
| `/register/CODE` | signed in | register a client of ours |
| `/device` | signed in | type in the code of a program that has no browser, where the broker's protocol is spoken |
| `/clients` | signed in | one's own clients: labels, removal |
| `/account` | signed in | one's own API keys: made, shown once, removed |
| `/admin?zone=ZONE` | administrators of the zone | members, rights, what is public, usage |
"""

from __future__ import annotations

import asyncio
from importlib import resources as package_files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route, Router, request_response

from ... import signing
from ...errors import Conflict, InvalidInput, KacheryError, NotAllowed, NotFound
from ..receiving import now
from ..services import accounts, api_keys, devices, identity, registrations, usage, zones
from .visitor import Attempts, Doorkeeper, Visitor, set_form_cookie, set_session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from ..runtime import Gateway

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # not no-referrer: browsers then send forms with the origin `null`
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), camera=(), microphone=()",
    "Cache-Control": "no-store",
}

# each check of a password takes 16 MiB
_CHECKS_AT_ONCE = 2


class Pages:
    """The ASGI application of the pages.

    Args:
        gateway: The gateway it serves.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._door = Doorkeeper(gateway)
        self._attempts = Attempts()
        self._codes_tried = Attempts()
        self._checks = asyncio.Semaphore(_CHECKS_AT_ONCE)
        self._templates = Environment(
            loader=PackageLoader("kachery.gateway.web"),
            autoescape=select_autoescape(),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters["bytes"] = readable_bytes
        static = package_files.files("kachery.gateway.web") / "static"
        self._static = {
            "style.css": ("text/css", (static / "style.css").read_bytes()),
            "icon.svg": ("image/svg+xml", (static / "icon.svg").read_bytes()),
        }
        both = ["GET", "POST"]
        self._router = Router(
            [
                Route("/", self._answer(self._home)),
                Route("/home", self._answer(self._home)),
                Route("/signin", self._answer(self._signin), methods=both),
                Route("/signout", self._answer(self._signout), methods=["POST"]),
                Route("/invitation/{token}", self._answer(self._invitation), methods=both),
                Route("/registerClient/{client_id}", self._answer(self._register_client), methods=both),
                Route("/register/{code}", self._answer(self._register), methods=both),
                Route("/device", self._answer(self._device), methods=both),
                Route("/clients", self._answer(self._clients), methods=both),
                Route("/account", self._answer(self._account), methods=both),
                Route("/client/{client_id}", self._answer(self._client)),
                Route("/admin", self._answer(self._admin), methods=both),
                Route("/static/{name}", self._static_file),
            ],
            default=request_response(self._answer(self._nothing_here)),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._router(scope, receive, send)

    # -- frame --------------------------------------------------------------------------------------------------------

    def _answer(self, page: Callable[[Request, Visitor], Awaitable[Response]]) -> Any:
        async def answer(request: Request) -> Response:
            visitor = await self._door.recognize(request)
            try:
                return await page(request, visitor)
            except KacheryError as error:
                self._gateway.log.info("page_refused", page=page.__name__, error=error.code, reason=error.message)
                return self._render(visitor, "error.html", status=error.http_status, title="Not done", error=error)

        return answer

    def _render(self, visitor: Visitor, template: str, status: int = 200, **values: Any) -> Response:
        html = self._templates.get_template(template).render(
            visitor=visitor, base=visitor.base, form_token=self._door.form_token(visitor), **values
        )
        response = HTMLResponse(html, status, _HEADERS)
        if not visitor.session:
            set_form_cookie(response, visitor)
        return response

    def _redirect(self, path: str) -> Response:
        return RedirectResponse(path, 303, _HEADERS)

    def _signin_first(self, request: Request) -> Response:
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return self._redirect(f"/signin?{urlencode({'next': path})}")

    async def _static_file(self, request: Request) -> Response:
        found = self._static.get(request.path_params["name"])
        if found is None:
            return Response("there is nothing at this address", 404, _HEADERS, "text/plain")
        kind, content = found
        return Response(content, 200, {**_HEADERS, "Cache-Control": "max-age=3600"}, kind)

    async def _nothing_here(self, request: Request, visitor: Visitor) -> Response:
        raise NotFound("there is nothing at this address")

    # -- home and sessions --------------------------------------------------------------------------------------------

    async def _home(self, request: Request, visitor: Visitor) -> Response:
        name = visitor.user.name if visitor.user else None

        def visible(connection: Any) -> list[dict[str, Any]]:
            return [
                {"zone": zone, "rights": zones.rights_of(connection, zone, name)}
                for zone in zones.visible_to(connection, name)
            ]

        listed = await self._gateway.database.read(visible)
        return self._render(visitor, "home.html", title="kachery", zones=listed)

    async def _signin(self, request: Request, visitor: Visitor) -> Response:
        if request.method != "POST":
            target = local_path(request.query_params.get("next", "/"))
            return self._render(visitor, "signin.html", title="Sign in", next=target, problem=None, name="")
        form = await self._door.read_form(request, visitor)
        name, password = form.get("user", "")[:200], form.get("password", "")
        target = local_path(form.get("next", "/"))
        stored = await self._gateway.database.read(accounts.password_hash_of, name)
        # each attempt counts before it is tried: those that come at once would all find that none has failed yet
        self._attempts.begin(name, visitor.address)
        async with self._checks:
            right = await asyncio.to_thread(accounts.check_password, password, stored)
        if not right:
            self._gateway.log.warning("signin_failed", user=name, address=visitor.address)
            problem = "This name and this password do not belong together."
            return self._render(visitor, "signin.html", 403, title="Sign in", next=target, problem=problem, name=name)
        self._attempts.succeeded(name, visitor.address)
        token = await self._gateway.database.write(accounts.open_session, name, now())
        self._gateway.log.info("signed_in", user=name, address=visitor.address)
        response = self._redirect(target)
        set_session(response, visitor, token)
        return response

    async def _signout(self, request: Request, visitor: Visitor) -> Response:
        await self._door.read_form(request, visitor)
        if visitor.session:
            await self._gateway.database.write(accounts.close_session, visitor.session)
        response = self._redirect("/")
        set_session(response, visitor, "")
        return response

    async def _invitation(self, request: Request, visitor: Visitor) -> Response:
        token = request.path_params["token"]
        name = await self._gateway.database.read(accounts.invited_user, token, now())
        if name is None:
            raise NotFound(
                "this invitation was used already, has expired, or never was",
                hint="sign in if you have chosen a password, or ask your gateway's administrator for a new link",
            )
        values: dict[str, Any] = {"title": "Welcome", "name": name, "shortest": accounts.SHORTEST_PASSWORD}
        if request.method != "POST":
            return self._render(visitor, "invitation.html", problem=None, **values)
        form = await self._door.read_form(request, visitor)
        password = form.get("password", "")
        if password != form.get("password_again", ""):
            return self._render(visitor, "invitation.html", 400, problem="The two passwords differ.", **values)
        try:
            async with self._checks:
                password_hash = await asyncio.to_thread(accounts.hash_password, password)
        except InvalidInput as error:
            return self._render(visitor, "invitation.html", 400, problem=f"{error.message.capitalize()}.", **values)
        await self._gateway.database.write(accounts.accept_invitation, token, password_hash, now())
        session = await self._gateway.database.write(accounts.open_session, name, now())
        self._gateway.log.info("invitation_used", user=name, address=visitor.address)
        response = self._redirect("/")
        set_session(response, visitor, session)
        return response

    # -- clients ------------------------------------------------------------------------------------------------------

    async def _register_client(self, request: Request, visitor: Visitor) -> Response:
        """The link of the released clients: they sign one and the same document, so a signed-in user must confirm."""
        client_id = identity.require_client_id(request.path_params["client_id"].lower())
        zone = request.query_params.get("zone", "default")
        label = request.query_params.get("label", "")[: identity.LONGEST_LABEL]
        signature = request.query_params.get("signature", "")
        if not signing.verify(client_id, {"type": "addClient"}, signature, legacy=True):
            raise NotAllowed(
                "the signature in this link does not belong to the client",
                hint="copy the whole link, or run `kachery-cloud-init` again",
            )
        if visitor.user is None:
            return self._signin_first(request)
        if await self._is_registered(visitor, zone, client_id):
            return self._registered(visitor, client_id, zone, again=True)
        if request.method == "POST":
            await self._door.read_form(request, visitor)
            await self._gateway.database.write(
                identity.register_client, zone, client_id, visitor.user.name, label, now()
            )
            self._gateway.log.info("client_registered", client=client_id, zone=zone, user=visitor.user.name)
            return self._registered(visitor, client_id, zone, again=False)
        return self._ask_to_register(request, visitor, client_id, zone, label)

    async def _register(self, request: Request, visitor: Visitor) -> Response:
        """The link of our clients: the document that they signed was checked when the link was made."""
        code = request.path_params["code"]
        if visitor.user is None:
            return self._signin_first(request)
        waiting = await self._gateway.database.read(registrations.find, code, now())
        if await self._is_registered(visitor, waiting.zone, waiting.client_id):
            return self._registered(visitor, waiting.client_id, waiting.zone, again=True)
        if request.method == "POST":
            await self._door.read_form(request, visitor)
            await self._gateway.database.write(registrations.accept, code, visitor.user.name, now())
            self._gateway.log.info(
                "client_registered", client=waiting.client_id, zone=waiting.zone, user=visitor.user.name
            )
            return self._registered(visitor, waiting.client_id, waiting.zone, again=False)
        return self._ask_to_register(request, visitor, waiting.client_id, waiting.zone, waiting.label)

    async def _is_registered(self, visitor: Visitor, zone: str, client_id: str) -> bool:
        """Whether the client is the visitor's in the zone; refused if there is no such zone, or it is another's."""
        if await self._gateway.database.read(zones.find, zone) is None:
            raise NotFound(
                f"this gateway has no zone {zone!r}",
                hint="set KACHERY_ZONE to one that it has, and run the program that printed this link again",
            )
        known = await self._gateway.database.read(identity.find_client, zone, client_id)
        if known is None:
            return False
        if visitor.user is None or known.owner != visitor.user.name:
            raise Conflict("this client is registered in this zone for another user")
        return True

    def _ask_to_register(self, request: Request, visitor: Visitor, client_id: str, zone: str, label: str) -> Response:
        action = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return self._render(
            visitor,
            "register.html",
            title="Register a client",
            client_id=client_id,
            zone=zone,
            label=label,
            action=action,
        )

    def _registered(self, visitor: Visitor, client_id: str, zone: str, *, again: bool) -> Response:
        return self._render(visitor, "registered.html", title="Registered", client_id=client_id, zone=zone, again=again)

    async def _clients(self, request: Request, visitor: Visitor) -> Response:
        if visitor.user is None:
            return self._signin_first(request)
        owner = visitor.user.name
        if request.method == "POST":
            form = await self._door.read_form(request, visitor)
            client_id, zone = form.get("client_id", ""), form.get("zone", "")
            if form.get("action") == "remove":
                removed = await self._gateway.database.write(identity.remove_client, client_id, zone=zone, owner=owner)
                if not removed:
                    raise NotFound("you have no such client")
                self._gateway.log.info("client_removed", client=client_id, zone=zone, user=owner)
            else:
                await self._gateway.database.write(
                    identity.set_label, zone, client_id, owner, form.get("label", "").strip()
                )
            return self._redirect("/clients")
        listed = await self._gateway.database.read(identity.list_clients, owner=owner)
        return self._render(visitor, "clients.html", title="Your clients", clients=listed)

    async def _client(self, request: Request, visitor: Visitor) -> Response:
        """Where released clients send their users to configure a client."""
        return self._redirect("/clients")

    # -- programs without a browser ------------------------------------------------------------------------------------

    async def _device(self, request: Request, visitor: Visitor) -> Response:
        if self._gateway.config.broker is None:
            raise NotFound("there is nothing at this address")
        if visitor.user is None:
            return self._signin_first(request)
        values: dict[str, Any] = {"title": "Sign a program in", "problem": None, "done": False}
        if request.method != "POST":
            return self._render(visitor, "device.html", **values)
        form = await self._door.read_form(request, visitor)
        user = visitor.user.name
        self._codes_tried.begin(user, visitor.address)
        try:
            await self._gateway.database.write(devices.approve, form.get("code", "")[:40], user, now())
        except NotFound as error:
            problem = f"{error.message.capitalize()}: {error.hint}."
            return self._render(visitor, "device.html", 404, **{**values, "problem": problem})
        self._codes_tried.succeeded(user, visitor.address)
        self._gateway.log.info("device_approved", user=user)
        return self._render(visitor, "device.html", **{**values, "done": True})

    # -- API keys -----------------------------------------------------------------------------------------------------

    async def _account(self, request: Request, visitor: Visitor) -> Response:
        if visitor.user is None:
            return self._signin_first(request)
        user, database, made = visitor.user.name, self._gateway.database, ""
        if request.method == "POST":
            form = await self._door.read_form(request, visitor)
            if form.get("action") == "remove":
                if not await database.write(api_keys.remove, user, key=form.get("key", "")):
                    raise NotFound("you have no such key")
                self._gateway.log.info("api_key_removed", key=form["key"], user=user)
                return self._redirect("/account")
            purpose, label = form.get("purpose", ""), form.get("label", "").strip()
            made = await database.write(api_keys.add, user, purpose, label, now())
            self._gateway.log.info("api_key_made", purpose=purpose, user=user)
        keys = await database.read(api_keys.list_all, user)
        return self._render(visitor, "account.html", title="Your API keys", keys=keys, made=made)

    # -- administration -----------------------------------------------------------------------------------------------

    async def _admin(self, request: Request, visitor: Visitor) -> Response:
        if visitor.user is None:
            return self._signin_first(request)
        user = visitor.user.name
        form = await self._door.read_form(request, visitor) if request.method == "POST" else {}
        name = form.get("zone") or request.query_params.get("zone", "default")
        database = self._gateway.database
        zone = await database.read(zones.find, name)
        rights = await database.read(zones.rights_of, zone, user)
        if zone is None or not rights.admin:
            raise NotAllowed(f"you do not administer a zone {name[:200]!r} here")
        if request.method == "POST":
            await self._change_zone(zone.name, user, form)
            return self._redirect(f"/admin?zone={quote(zone.name)}")
        members = await database.read(zones.list_members, zone.name)
        lines = await database.read(usage.read, zone.name)
        sizes = await database.read(zones.sizes)
        return self._render(
            visitor,
            "admin.html",
            title=f"Zone {zone.name}",
            zone=zone,
            members=members,
            usage=lines[-200:][::-1],
            size=sizes.get(zone.name, (0, 0)),
        )

    async def _change_zone(self, zone: str, user: str, form: dict[str, str]) -> None:
        database = self._gateway.database
        if form.get("action") == "public":
            await database.write(
                zones.set_public, zone, download="public_download" in form, upload="public_upload" in form
            )
        elif form.get("action") == "member":
            member = form.get("user", "").strip()
            wanted = {right for right in zones.RIGHTS if right in form}

            def change(connection: Any) -> None:
                unwanted = set(zones.RIGHTS) - wanted
                if wanted:
                    zones.grant(connection, zone, member, wanted)
                if unwanted:
                    zones.grant(connection, zone, member, unwanted, granted=False)

            await database.write(change)
        else:
            raise InvalidInput("this form is not known")
        self._gateway.log.info("zone_changed", zone=zone, user=user, action=form.get("action"))


def local_path(text: str) -> str:
    """A path on this gateway to go to after signing in; `/` for anything that could lead elsewhere."""
    if not text.startswith("/") or text.startswith(("//", "/\\")) or not text.isprintable() or "\\" in text:
        return "/"
    return text


def readable_bytes(count: int) -> str:
    """A number of bytes as people read it."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{count} B"
