"""The pages, driven as a browser without scripts drives them."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from html import unescape
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

import pytest

from kachery.gateway.receiving import now
from kachery.gateway.services import accounts, api_keys, devices, identity, registrations, zones
from kachery.gateway.web import visitor
from kachery.gateway.web.pages import local_path, readable_bytes
from kachery.signing import ClientKeys
from rigs.asgi import BASE, Client, Driver, Reply

PASSWORD = "correct horse battery"
KEYS = ClientKeys.from_seed(bytes(range(32)))
SIGNATURE = (
    "a07d6de55bdd733e9dd561448d0ae34c78f712e7d395bb37e5f19de735b2f258"
    "9027a1928fa63a4e015f4b053b71e07c3e12683e9f9c2778f0126cae95918703"
)
LEGACY_SIGNATURE = (
    "fda2139a900174b69d1be5029c67e1f240a8e7cc3972ee8e7b7bcd8e29776fab"
    "d5b87453d5043e22cb4b156f1398decfcf78f89e00802dc79ed67b0ffe67ea0b"
)


@dataclass
class Browser:
    """Keeps cookies, follows redirects, submits forms with their hidden fields."""

    driver: Driver
    cookies: dict[str, str] = field(default_factory=dict)
    url: str = BASE

    def send(self, method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Reply:
        given = dict(headers or {})
        if self.cookies:
            given["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        self.url = urljoin(self.url, url)
        reply = self.driver.request(method, self.url, body, given)
        for name, value in re.findall(r"(\w+)=([^;]*);", reply.headers.get("set-cookie", "")):
            if name.startswith("kachery_"):
                self.cookies[name] = value.strip('"')
        if reply.status == 303:
            return self.send("GET", reply.headers["location"])
        return reply

    def get(self, url: str) -> Reply:
        return self.send("GET", url)

    def submit(self, page: Reply, button: str, headers: dict[str, str] | None = None, **values: str) -> Reply:
        for action, content in re.findall(r'<form[^>]*?(?: action="([^"]*)")?>(.*?)</form>', page.text, re.DOTALL):
            if f"{button}</button>" not in content:
                continue
            fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', content))
            body = urlencode({**{name: unescape(value) for name, value in fields.items()}, **values})
            given = {"content-type": "application/x-www-form-urlencoded", "origin": BASE, **(headers or {})}
            return self.send("POST", unescape(action) or self.url, body.encode(), given)
        raise AssertionError(f"no form with a button {button!r}")

    def sign_in(self, name: str, password: str = PASSWORD) -> Reply:
        return self.submit(self.get("/signin"), "Sign in", user=name, password=password)


@pytest.fixture
def browser(driver: Driver) -> Browser:
    """A browser at a gateway where `alice` and `owner` have chosen passwords."""
    stored = accounts.hash_password(PASSWORD)

    def choose(connection: Any) -> None:
        for name in ("alice", "owner", "root"):
            accounts.accept_invitation(connection, accounts.invite(connection, name, 1), stored, 2)

    driver.write(choose)
    return Browser(driver)


def old_link(signature: str = SIGNATURE, zone: str = "lab", label: str = "host-3") -> str:
    query = urlencode({"signature": signature, "zone": zone, "label": label})
    return f"/registerClient/{KEYS.client_id}?{query}"


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_an_invitation_is_used_once(driver: Driver) -> None:
    now = int(time.time() * 1000)
    token = driver.write(accounts.invite, "alice", now)
    browser = Browser(driver)
    page = browser.get(f"/invitation/{token}")
    assert "alice" in page.text

    differing = browser.submit(page, "Set the password", password="a" * 12, password_again="b" * 12)
    assert differing.status == 400
    assert "differ" in differing.text
    short = browser.submit(page, "Set the password", password="short", password_again="short")
    assert short.status == 400
    assert "10 characters" in short.text
    done = browser.submit(page, "Set the password", password=PASSWORD, password_again=PASSWORD)
    assert done.status == 200
    assert "Sign out alice" in done.text

    assert browser.get(f"/invitation/{token}").status == 404
    assert browser.submit(page, "Set the password", password="x" * 12, password_again="x" * 12).status in (403, 404)
    assert "Sign out alice" in Browser(driver).sign_in("alice").text


def test_invitations_end(driver: Driver) -> None:
    week = 7 * 24 * 3600 * 1000
    now = int(time.time() * 1000)
    token = driver.write(accounts.invite, "alice", now - week - 1)
    assert Browser(driver).get(f"/invitation/{token}").status == 404
    first = driver.write(accounts.invite, "alice", now)
    second = driver.write(accounts.invite, "alice", now)
    assert Browser(driver).get(f"/invitation/{first}").status == 404, "a new invitation ends the old one"
    assert Browser(driver).get(f"/invitation/{second}").status == 200
    assert Browser(driver).get("/invitation/guess").status == 404


def test_a_new_password_ends_sessions(driver: Driver, browser: Browser) -> None:
    browser.sign_in("alice")
    token = driver.write(accounts.invite, "alice", int(time.time() * 1000))
    driver.write(accounts.accept_invitation, token, accounts.hash_password("another one of them"), 5 * 10**12 // 4)

    assert "Sign out" not in browser.get("/").text


def test_signing_in_and_out(browser: Browser) -> None:
    wrong = browser.sign_in("alice", "wrong password")
    assert wrong.status == 403
    assert "do not belong together" in wrong.text
    nobody = browser.sign_in("nobody", "wrong password")
    assert nobody.text.count("do not belong together") == 1, "names must not be told apart from passwords"

    page = browser.sign_in("alice")
    assert "Sign out alice" in page.text
    old = dict(browser.cookies)
    out = browser.submit(page, "Sign out alice")
    assert "Sign out" not in out.text
    browser.cookies = old
    assert "Sign out" not in browser.get("/").text, "the session lives on after signing out"


def test_cookies_are_for_pages_only(driver: Driver, browser: Browser) -> None:
    page = browser.get("/signin")
    form = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page.text))
    body = urlencode({**form, "user": "alice", "password": PASSWORD}).encode()
    cookie = f"kachery_form={browser.cookies['kachery_form']}"
    reply = driver.request("POST", f"{BASE}/signin", body, {"cookie": cookie, "origin": BASE})

    cookie = reply.headers["set-cookie"].lower()
    assert cookie.startswith("kachery_session=")
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie, "on http the browser would drop it"


def test_passwords_cannot_be_tried_for_ever(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "check_password", lambda password, stored: password == PASSWORD)
    for _ in range(5):
        assert browser.sign_in("alice", "wrong password").status == 403

    refused = browser.sign_in("alice")
    assert refused.status == 429
    assert "Try again in" in refused.text
    assert browser.sign_in("owner").status == 200, "others may still sign in"

    moment = time.monotonic() + 301
    monkeypatch.setattr(visitor.time, "monotonic", lambda: moment)
    assert browser.sign_in("alice").status == 200


def test_passwords_cannot_be_tried_all_at_once(browser: Browser) -> None:
    page = browser.get("/signin")
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page.text))
    body = urlencode({**fields, "user": "alice", "password": "wrong password"}).encode()
    given = {
        "content-type": "application/x-www-form-urlencoded",
        "origin": BASE,
        "cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items()),
    }
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda _: browser.driver.request("POST", f"{BASE}/signin", body, given), range(20)))

    assert sorted(reply.status for reply in replies) == [403] * 5 + [429] * 15


def test_passwords_are_stored_hashed(driver: Driver, browser: Browser) -> None:
    browser.sign_in("alice")
    dump = "\n".join(driver.read(lambda c: list(c.connection.dbapi_connection.iterdump())))

    assert PASSWORD not in dump
    assert browser.cookies["kachery_session"] not in dump


def test_damaged_hashes_let_nobody_in() -> None:
    assert accounts.check_password(PASSWORD, accounts.hash_password(PASSWORD))
    for stored in (None, "", "plain$x$y", "scrypt$$", "scrypt$AAAA$"):
        assert not accounts.check_password("", stored)
        assert not accounts.check_password(PASSWORD, stored)


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "", "/a\nb", "/a\\b"]
)
def test_signing_in_leads_nowhere_else(browser: Browser, target: str) -> None:
    assert local_path(target) == "/"
    page = browser.get(f"/signin?next={quote(target, safe='')}")
    assert 'name="next" value="/"' in page.text


# -- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_other_sites_cannot_submit_forms(browser: Browser, headers: dict[str, str]) -> None:
    page = browser.get("/signin")

    reply = browser.submit(page, "Sign in", headers, user="alice", password=PASSWORD)

    assert reply.status == 403
    assert "another site" in reply.text


def test_forms_belong_to_one_visitor(driver: Driver, browser: Browser) -> None:
    page = browser.get("/signin")
    other = Browser(driver)
    other.get("/signin")

    assert other.submit(page, "Sign in", user="alice", password=PASSWORD).status == 403
    assert browser.submit(page, "Sign in", user="alice", password=PASSWORD, form_token="é").status == 403


def test_forms_have_limits(browser: Browser) -> None:
    page = browser.get("/signin")
    assert browser.submit(page, "Sign in", user="a" * 20_000).status == 413
    assert browser.submit(page, "Sign in", **{f"f{index}": "x" for index in range(60)}).status == 400


def test_every_page_has_the_headers(driver: Driver, browser: Browser) -> None:
    browser.sign_in("owner")
    for path in ("/", "/signin", "/clients", "/admin?zone=lab", "/nothing", "/invitation/x", "/static/style.css"):
        reply = browser.get(path)
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "<script" not in reply.text
        assert not re.search(r'(?:src|href)="https?://', reply.text)


def test_unknown_addresses_and_methods(driver: Driver, browser: Browser) -> None:
    assert browser.get("/nothing").status == 404
    assert browser.get("/static/../pages.py").status == 404
    assert driver.request("DELETE", f"{BASE}/clients").status == 405
    assert driver.request("GET", f"{BASE}/signout").status == 405


def test_home_shows_what_one_may_see(browser: Browser) -> None:
    anonymous = browser.get("/")
    assert "<strong>lab</strong>" in anonymous.text
    assert "unpublished" not in anonymous.text
    assert f"kachery init --gateway {BASE} --zone lab" in anonymous.text

    browser.sign_in("alice")
    assert "unpublished" not in browser.get("/").text
    browser.cookies.clear()
    browser.sign_in("owner")
    assert "unpublished" in browser.get("/").text


# -- clients ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signature", [SIGNATURE, LEGACY_SIGNATURE])
def test_registering_a_released_client(driver: Driver, browser: Browser, signature: str) -> None:
    page = browser.get(old_link(signature))
    assert "Sign in" in page.text
    page = browser.submit(page, "Sign in", user="alice", password=PASSWORD)
    for shown in (KEYS.client_id, "host-3", "lab", "alice"):
        assert shown in page.text
    assert driver.read(identity.find_client, "lab", KEYS.client_id) is None, "registered before anybody agreed"

    done = browser.submit(page, "Register this client")

    assert done.status == 200
    assert "press Enter" in done.text
    client = driver.read(identity.find_client, "lab", KEYS.client_id)
    assert (client.owner, client.label) == ("alice", "host-3")
    again = browser.get(old_link())
    assert "Registered already" in again.text
    assert "</form>" not in again.text.split("<main>")[1]


def test_a_bad_signature_registers_nobody(driver: Driver, browser: Browser) -> None:
    browser.sign_in("alice")
    for signature in (SIGNATURE[:-1] + "4", "", "zz", SIGNATURE[:-2], "0" * 128):
        reply = browser.get(old_link(signature))
        assert reply.status == 403
        assert "signature" in reply.text
    assert browser.get("/registerClient/abc?signature=x").status == 400
    assert driver.read(identity.list_clients) == []


def test_an_unknown_zone_is_told(browser: Browser) -> None:
    browser.sign_in("alice")
    reply = browser.get(old_link(zone="lob"))

    assert reply.status == 404
    assert "no zone" in reply.text
    assert "KACHERY_ZONE" in reply.text


def test_a_client_of_somebody_else_is_not_taken_over(driver: Driver, browser: Browser) -> None:
    driver.write(identity.register_client, "lab", KEYS.client_id, "owner", "theirs", 1)
    browser.sign_in("alice")

    reply = browser.get(old_link())

    assert reply.status == 409
    assert driver.read(identity.find_client, "lab", KEYS.client_id).owner == "owner"


def test_labels_are_shown_as_text(browser: Browser) -> None:
    browser.sign_in("alice")
    page = browser.get(old_link(label="<script>alert(1)</script>\"'"))

    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    done = browser.submit(page, "Register this client")
    assert done.status == 200
    assert "<script" not in browser.get("/clients").text


def test_registering_one_of_our_clients(driver: Driver, browser: Browser) -> None:
    payload = registration(label="ours")
    reply = register(driver, payload)
    assert reply.status == 200
    assert set(reply.json()) == {"url", "expiresIn"}
    assert reply.json()["expiresIn"] == 900
    link = reply.json()["url"]
    assert link.startswith(f"{BASE}/register/")

    page = browser.submit(browser.get(link), "Sign in", user="alice", password=PASSWORD)
    assert KEYS.client_id in page.text
    assert browser.submit(page, "Register this client").status == 200

    assert driver.read(identity.find_client, "lab", KEYS.client_id).label == "ours"
    assert browser.get(link).status == 404, "a link counts once"


def test_registration_links_end(driver: Driver, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    link = register(driver, registration()).json()["url"]
    browser.sign_in("alice")
    page = browser.get(link)
    assert page.status == 200
    driver.write(lambda c: c.exec_driver_sql("UPDATE registrations SET expires = 1"))

    assert browser.get(link).status == 404
    assert browser.submit(page, "Register this client").status == 404


def registration(**changes: Any) -> dict[str, Any]:
    return {
        "type": "register",
        "gateway": BASE,
        "zone": "lab",
        "label": "here",
        "nonce": f"nonce-{time.monotonic_ns():020d}",
        "timestamp": int(time.time() * 1000),
        **changes,
    }


def register(driver: Driver, payload: dict[str, Any], **changes: Any) -> Reply:
    envelope = {"payload": payload, "fromClientId": KEYS.client_id, "signature": KEYS.sign(payload), **changes}
    return driver.request("POST", f"{BASE}/api/v1/registrations", json.dumps(envelope).encode())


def test_a_registration_counts_once(driver: Driver) -> None:
    payload = registration()
    assert register(driver, payload).status == 200

    again = register(driver, payload)

    assert again.status == 409
    assert again.json()["error"]["code"] == "conflict"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"gateway": "http://other.example"}, 403),
        ({"gateway": "http://127.0.0.1:9999"}, 403),
        ({"timestamp": 1}, 403),
        ({"timestamp": 1.5}, 400),
        ({"nonce": "short"}, 400),
        ({"nonce": "x" * 101}, 400),
        ({"zone": "../x"}, 400),
        ({"label": "a\nb"}, 400),
        ({"type": "addClient"}, 400),
        ({"extra": "x"}, 400),
    ],
)
def test_registrations_that_are_refused(driver: Driver, changes: dict[str, Any], status: int) -> None:
    reply = register(driver, registration(**changes))

    assert reply.status == status
    assert set(reply.json()["error"]) == {"code", "message", "hint"}


def test_a_registration_proves_that_one_has_the_key(driver: Driver) -> None:
    payload = registration()
    signature = ClientKeys.generate().sign(payload)
    assert register(driver, payload, signature=signature).status == 403
    assert register(driver, payload, fromClientId="zz").status == 403
    assert register(driver, payload, fromClientId=None).status == 400


def test_a_registration_for_a_host_that_is_not_us(driver: Driver) -> None:
    # another gateway passes our client's request on, and calls us by its own name
    payload = registration(gateway="http://evil.example")
    envelope = {"payload": payload, "fromClientId": KEYS.client_id, "signature": KEYS.sign(payload)}
    reply = driver.request(
        "POST", f"{BASE}/api/v1/registrations", json.dumps(envelope).encode(), {"host": "evil.example"}
    )

    assert reply.status == 403
    assert driver.read(lambda c: c.exec_driver_sql("SELECT count(*) FROM registrations").scalar()) == 0


def test_probe(driver: Driver) -> None:
    reply = driver.request("GET", f"{BASE}/probe")
    assert reply.json()["kachery"] == "gateway"
    assert driver.request("POST", f"{BASE}/probe").status == 405
    missing = driver.request("GET", f"{BASE}/api/v1/nothing")
    assert missing.status == 404
    assert missing.json()["error"]["code"] == "not_found"


def test_ones_own_clients(driver: Driver, browser: Browser) -> None:
    mine = Client(driver).register("alice")
    theirs = Client(driver).register("owner")
    browser.sign_in("alice")
    page = browser.get("/clients")
    assert mine.keys.client_id in page.text
    assert theirs.keys.client_id not in page.text

    browser.submit(page, "Save", label="the rig in room 3")
    assert driver.read(identity.find_client, "lab", mine.keys.client_id).label == "the rig in room 3"
    # a form that names somebody else's client
    assert browser.submit(page, "Save", client_id=theirs.keys.client_id, label="x").status == 404
    assert browser.submit(page, "Remove", client_id=theirs.keys.client_id).status == 404
    assert browser.submit(page, "Remove").status == 200
    assert driver.read(identity.find_client, "lab", mine.keys.client_id) is None
    assert driver.read(identity.find_client, "lab", theirs.keys.client_id) is not None


# -- administration ---------------------------------------------------------------------------------------------------


def test_administering_a_zone(driver: Driver, browser: Browser) -> None:
    browser.sign_in("owner")
    page = browser.get("/admin?zone=unpublished")
    assert page.status == 200

    page = browser.submit(page, "Add", user="alice", download="on", upload="on")
    (member,) = driver.read(zones.list_members, "unpublished")
    assert (member.user, member.rights) == ("alice", zones.Rights(upload=True, download=True))
    page = browser.submit(browser.get("/admin?zone=unpublished"), "Save", action="member", user="alice", admin="on")
    (member,) = driver.read(zones.list_members, "unpublished")
    assert member.rights == zones.Rights(admin=True)

    browser.submit(browser.get("/admin?zone=unpublished"), "Save", action="public", public_download="on")
    assert driver.read(zones.find, "unpublished").public_download is True
    unknown = browser.submit(page, "Add", user="nobody", download="on")
    assert unknown.status == 404


def test_only_administrators_administer(driver: Driver, browser: Browser) -> None:
    browser.sign_in("alice")
    refused = browser.get("/admin?zone=unpublished")
    unknown = browser.get("/admin?zone=no-such-zone")

    assert refused.status == unknown.status == 403
    assert refused.text.replace("unpublished", "Z") == unknown.text.replace("no-such-zone", "Z")

    owner = Browser(driver)
    owner.sign_in("owner")
    form = owner.get("/admin?zone=unpublished")
    token = re.search(r'form_token" value="(\w+)"', browser.get("/clients").text)
    assert token is not None
    forged = browser.submit(form, "Add", user="alice", admin="on", form_token=token[1])
    assert forged.status == 403
    assert driver.read(zones.list_members, "unpublished") == []


def test_usage_is_shown(driver: Driver, browser: Browser) -> None:
    client = Client(driver, "unpublished").register("owner")
    client.load(client.store(b"x" * 2000))
    driver.run(driver.application.flush())
    browser.sign_in("owner")

    page = browser.get("/admin?zone=unpublished").text

    assert "1 file, 2.0 KiB" in page
    assert f"{client.keys.client_id[:8]}…" in page


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (10**9, "954 MiB"), (5 * 10**15, "4547 TiB")],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert readable_bytes(count) == text


def test_codes_are_not_guessed(driver: Driver, browser: Browser) -> None:
    browser.sign_in("alice")
    assert browser.get("/register/guess").status == 404
    code = urlsplit(register(driver, registration()).json()["url"]).path.rsplit("/", 1)[-1]
    dump = "\n".join(driver.read(lambda c: list(c.connection.dbapi_connection.iterdump())))
    assert code not in dump
    assert registrations.LIFETIME == 900_000


# -- API keys ---------------------------------------------------------------------------------------------------------


def test_a_key_is_made_shown_once_and_removed(driver: Driver, browser: Browser) -> None:
    browser.sign_in("alice")
    made = browser.submit(browser.get("/account"), "Make a key", label="rig <2>", purpose="files")
    shown = re.search(r"<code>(\w{32})</code>", made.text)
    assert shown is not None
    holder = driver.read(api_keys.holder, shown[1], api_keys.FILES)
    assert holder is not None
    assert holder.user == "alice"
    again = browser.get("/account")
    assert shown[1] not in again.text
    assert "rig &lt;2&gt;" in again.text

    other = Browser(driver)
    other.sign_in("owner")
    assert "rig" not in other.get("/account").text
    stolen = other.submit(again, "Remove")
    assert stolen.status == 403, "another's form"
    forged = other.submit(other.get("/account"), "Make a key", action="remove", key=holder.key)
    assert forged.status == 404, "another's key"
    browser.submit(again, "Remove")
    assert driver.read(api_keys.holder, shown[1], api_keys.FILES) is None


def test_keys_that_are_not_made(browser: Browser, driver: Driver) -> None:
    assert "Sign in" in browser.get("/account").text
    browser.sign_in("alice")
    page = browser.get("/account")
    assert browser.submit(page, "Make a key", purpose="everything", label="").status == 400
    assert browser.submit(page, "Make a key", purpose="files", label="x" * 201).status == 400
    assert driver.read(api_keys.list_all) == []


# --- programs without a browser


def test_the_code_of_a_program_is_typed_in(browser: Browser) -> None:
    driver = browser.driver
    object.__setattr__(driver.gateway, "config", replace(driver.gateway.config, broker="store"))
    codes = driver.write(devices.begin, now())
    page = browser.get("/device")
    assert browser.url == f"{BASE}/signin?next=%2Fdevice"
    page = browser.submit(page, "Sign in", user="alice", password=PASSWORD)
    assert browser.url == f"{BASE}/device"
    refused = browser.submit(page, "Let it act for me", code="BCDF-GHJK")
    assert refused.status == 404
    assert "No program waits" in refused.text
    assert not driver.read(devices.is_approved, codes.device, now())
    # another site cannot type it in for her
    foreign = browser.submit(page, "Let it act for me", {"origin": "https://evil.example"}, code=codes.user)
    assert foreign.status == 403
    assert not driver.read(devices.is_approved, codes.device, now())
    done = browser.submit(page, "Let it act for me", code=codes.user.lower())
    assert (done.status, "Done." in done.text) == (200, True)
    token, user = driver.write(devices.redeem, codes.device, "x", now())
    assert user.name == "alice"
    holder = driver.read(api_keys.holder, token, api_keys.FILES)
    assert holder.user == "alice"
    assert browser.submit(page, "Let it act for me", code=codes.user).status == 404


def test_codes_cannot_be_guessed(browser: Browser) -> None:
    driver = browser.driver
    object.__setattr__(driver.gateway, "config", replace(driver.gateway.config, broker="store"))
    browser.sign_in("alice")
    page = browser.get("/device")
    tried = [browser.submit(page, "Let it act for me", code="BCDF-GHJK").status for _ in range(6)]
    assert tried == [404] * 5 + [429]
    codes = driver.write(devices.begin, now())
    assert browser.submit(page, "Let it act for me", code=codes.user).status == 429


def test_without_the_brokers_protocol_there_is_no_such_page(browser: Browser) -> None:
    browser.sign_in("alice")
    assert browser.get("/device").status == 404
