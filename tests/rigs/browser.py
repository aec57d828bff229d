"""A person's browser, as far as server-rendered pages need one: links, cookies, forms, buttons, redirects.

What a page's script would do is not done; pages must work without.
"""

from __future__ import annotations

import http.cookiejar
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from html.parser import HTMLParser

TIMEOUT = 30.0


@dataclass
class Form:
    """A form of a page.

    Args:
        action: Where it is sent, absolute.
        method: `get` or `post`.
        fields: Names and the values that the page filled in.
        buttons: The texts of its buttons.
    """

    action: str
    method: str = "get"
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[str] = field(default_factory=list)


@dataclass
class Page:
    """What the browser shows.

    Args:
        status: The HTTP status.
        url: The address after all redirects.
        html: The page's source.
        headers: The reply's headers.
    """

    status: int
    url: str
    html: str
    headers: dict[str, str]

    def __post_init__(self) -> None:
        self._parser = _Parser(self.url)
        self._parser.feed(self.html)

    @property
    def forms(self) -> list[Form]:
        """The page's forms from top to bottom."""
        return self._parser.forms

    @property
    def text(self) -> str:
        """What a person reads, blanks made one."""
        return " ".join(" ".join(self._parser.texts).split())

    def form(self, *names: str) -> Form:
        """The first form that asks for all of these fields."""
        for form in self.forms:
            if all(name in form.fields for name in names):
                return form
        raise AssertionError(f"{self.url} has no form with {names}; it says: {self.text[:500]}")


class _Parser(HTMLParser):
    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._form: Form | None = None
        self._select: str | None = None
        self._in_button = False
        self._hidden = 0
        self.forms: list[Form] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("script", "style"):
            self._hidden += 1
        elif tag == "form":
            action = urllib.parse.urljoin(self._url, given.get("action") or self._url)
            self._form = Form(action, given.get("method", "get").lower())
            self.forms.append(self._form)
        elif self._form is None:
            return
        elif tag in ("input", "button"):
            self._field(tag, given)
        elif tag == "select":
            self._select = given.get("name")
        elif tag == "option" and self._select and ("selected" in given or self._select not in self._form.fields):
            self._form.fields[self._select] = given.get("value", "")
        elif tag == "textarea" and "name" in given:
            self._form.fields[given["name"]] = ""

    def _field(self, tag: str, given: dict[str, str]) -> None:
        assert self._form is not None
        kind = given.get("type", "submit" if tag == "button" else "text").lower()
        if kind in ("submit", "button"):
            self._in_button = tag == "button"
            if tag == "input":
                self._form.buttons.append(given.get("value", ""))
        if kind in ("checkbox", "radio") and "checked" not in given:
            return
        if given.get("name"):
            self._form.fields[given["name"]] = given.get("value", "on" if kind == "checkbox" else "")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._hidden -= 1
        elif tag == "form":
            self._form = None
        elif tag == "button":
            self._in_button = False
        elif tag == "select":
            self._select = None

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        self.texts.append(data)
        if self._in_button and self._form is not None and data.strip():
            self._form.buttons.append(data.strip())


class Browser:
    """A browser with its own cookies; it follows redirects and says where its forms come from."""

    def __init__(self) -> None:
        self.cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.cookies)
        )

    def visit(self, url: str) -> Page:
        """Open an address."""
        return self._fetch(urllib.request.Request(url))

    def submit(self, page: Page, form: Form, **values: str) -> Page:
        """Fill a form's fields and press its button.

        Args:
            page: The page that the form is on.
            form: One of its forms.
            values: What the person types; hidden fields keep what the page put there.
        """
        unknown = set(values) - set(form.fields)
        assert not unknown, f"the form on {page.url} has no {unknown}, but {sorted(form.fields)}"
        data = urllib.parse.urlencode({**form.fields, **values})
        origin = "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(page.url))
        headers = {"Referer": page.url, "Origin": origin, "Sec-Fetch-Site": "same-origin"}
        if form.method == "get":
            return self._fetch(urllib.request.Request(f"{form.action}?{data}", headers=headers))
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        return self._fetch(urllib.request.Request(form.action, data=data.encode(), headers=headers, method="POST"))

    def _fetch(self, request: urllib.request.Request) -> Page:
        request.add_header("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")
        try:
            reply = self._opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            reply = error
        with reply:
            return Page(reply.status, reply.url, reply.read().decode("utf-8", "replace"), dict(reply.headers.items()))
