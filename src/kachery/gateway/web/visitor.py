"""Who looks at a page, and whether a form that comes back is one that we gave to them.

A session is a random token in a cookie that scripts cannot read. Every form carries a second token derived from the
cookie, and the browser's own word on where the form came from is heeded too, so another site cannot submit one.
"""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from ...errors import InvalidInput, NotAllowed, TooLarge
from ..http import header, host_of
from ..receiving import now
from ..services import accounts

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from ..runtime import Gateway

SESSION_COOKIE = "kachery_session"
FORM_COOKIE = "kachery_form"

_LARGEST_FORM = 16 * 1024
_MOST_FIELDS = 50

# Failed attempts to sign in that are looked at, in seconds, and how many there may be
_WINDOW = 300.0
_FOR_NAME_AND_ADDRESS = 5
_FOR_ADDRESS = 50
_MOST_REMEMBERED = 10_000


@dataclass(frozen=True)
class Visitor:
    """Who looks at a page.

    Args:
        user: The user who has signed in; `None` if nobody has.
        session: The session's token; empty if nobody has signed in.
        form_cookie: What forms are tied to while nobody has signed in.
        base: The gateway's address as the visitor's browser sees it.
        address: The visitor's network address.
    """

    user: accounts.User | None
    session: str
    form_cookie: str
    base: str
    address: str


class Doorkeeper:
    """Recognizes visitors, and checks what they send.

    Args:
        gateway: The gateway whose pages they visit.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._key = gateway.database.write_now(accounts.secret, "forms")

    async def recognize(self, request: Request) -> Visitor:
        """Who sends a request."""
        cookies = _cookies(header(request.scope, b"cookie"))
        session = cookies.get(SESSION_COOKIE, "")
        user = await self._gateway.database.read(accounts.session_user, session, now()) if session else None
        scheme = request.scope["scheme"]
        return Visitor(
            user=user,
            session=session if user else "",
            form_cookie=cookies.get(FORM_COOKIE) or secrets.token_urlsafe(16),
            base=self._gateway.config.base_url(scheme, host_of(request.scope)),
            address=request.client.host if request.client else "",
        )

    def form_token(self, visitor: Visitor) -> str:
        """What the forms on a visitor's pages carry."""
        tied_to = f"session/{visitor.session}" if visitor.session else f"visitor/{visitor.form_cookie}"
        return hmac.new(self._key, tied_to.encode("utf-8", "replace"), "sha256").hexdigest()[:40]

    async def read_form(self, request: Request, visitor: Visitor) -> dict[str, str]:
        """The fields of a form that a visitor submits.

        Raises:
            NotAllowed: If the form does not come from a page that we gave to this visitor.
            InvalidInput: If it is not a form.
            TooLarge: If it is larger than our forms get.
        """
        site = request.headers.get("sec-fetch-site", "same-origin")
        origin = request.headers.get("origin", visitor.base)
        if site not in ("same-origin", "none") or origin != visitor.base:
            raise NotAllowed("this form came from another site", hint="open the gateway's own page and try again")
        content = b""
        async for piece in request.stream():
            content += piece
            if len(content) > _LARGEST_FORM:
                raise TooLarge("the form is too large")
        try:
            fields = dict(
                parse_qsl(content.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
            )
        except ValueError:
            raise InvalidInput("the form cannot be read") from None
        given = fields.pop("form_token", "")
        if not hmac.compare_digest(given.encode(), self.form_token(visitor).encode()):
            raise NotAllowed("this form is too old, or not yours", hint="reload the page and try again")
        return fields


def set_session(response: Response, visitor: Visitor, token: str) -> None:
    """Give a visitor's browser the token of a new session, or with an empty one take it away."""
    if token:
        response.set_cookie(
            SESSION_COOKIE,
            token,
            max_age=accounts.SESSION_LIFETIME // 1000,
            path="/",
            secure=visitor.base.startswith("https:"),
            httponly=True,
            samesite="lax",
        )
    else:
        response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="lax")


def set_form_cookie(response: Response, visitor: Visitor) -> None:
    """Give a visitor's browser what its forms are tied to."""
    response.set_cookie(
        FORM_COOKIE,
        visitor.form_cookie,
        path="/",
        secure=visitor.base.startswith("https:"),
        httponly=True,
        samesite="lax",
    )


class Attempts:
    """Attempts to sign in that have failed, or have not succeeded yet, so that nobody can try all passwords."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[str, str], list[float]] = {}

    def begin(self, name: str, address: str) -> None:
        """Take note of an attempt, or refuse it when too many came before it.

        Raises:
            NotAllowed: If it is refused; the hint says how long to wait.
        """
        for key, limit in (((name, address), _FOR_NAME_AND_ADDRESS), (("", address), _FOR_ADDRESS)):
            recent = self._recent(key)
            if len(recent) >= limit:
                wait = int(recent[0] + _WINDOW - time.monotonic()) + 1
                raise TooManyAttempts("too many failed attempts to sign in", hint=f"try again in {wait} s")
        if len(self._attempts) >= _MOST_REMEMBERED:
            self._attempts = {key: times for key in list(self._attempts) if (times := self._recent(key))}
        for key in ((name, address), ("", address)):
            self._attempts[key] = [*self._recent(key), time.monotonic()]

    def succeeded(self, name: str, address: str) -> None:
        """Forget the last attempt, which was right."""
        for key in ((name, address), ("", address)):
            self._attempts[key] = self._recent(key)[:-1]

    def _recent(self, key: tuple[str, str]) -> list[float]:
        limit = time.monotonic() - _WINDOW
        return [moment for moment in self._attempts.get(key, []) if moment > limit]


class TooManyAttempts(NotAllowed):
    """Somebody tries passwords."""

    code = "too_many_attempts"
    http_status = 429


def _cookies(value: bytes | None) -> dict[str, str]:
    if value is None:
        return {}
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(value.decode("latin-1")).items()}
    except CookieError:
        return {}
