"""A person of a lab, with a browser: accepts an invitation, signs in, registers clients."""

from __future__ import annotations

import subprocess
import threading
from typing import TYPE_CHECKING

from rigs.browser import Browser, Page
from rigs.release import PATIENCE

if TYPE_CHECKING:
    from rigs.gateway import Gateway
    from rigs.release import Client


class Person:
    """Somebody with an account at a gateway.

    Args:
        gateway: The gateway whose administrator invites them.
        name: Their user name.
    """

    def __init__(self, gateway: Gateway, name: str) -> None:
        self.name = name
        self.password = f"the pass phrase of {name}"
        self.invitation = gateway.admin("user", "add", name).split()[-1]
        self.browser = Browser()
        self._accepted = False

    def accept_invitation(self) -> Page:
        """Open the invitation link and choose a password."""
        page = self.browser.visit(self.invitation)
        form = page.form("password")
        typed = {name: self.password for name in form.fields if name.startswith("password")}
        self._accepted = True
        return self.browser.submit(page, form, **typed)

    def sign_in(self, page: Page) -> Page:
        """Fill the sign-in form that a page shows."""
        form = page.form("password")
        (user,) = [name for name in form.fields if name in ("user", "username", "name", "login")]
        return self.browser.submit(page, form, **{user: self.name, "password": self.password})

    def register(self, url: str) -> Page:
        """Open the link that a client printed, sign in where that is asked, and press the button."""
        if not self._accepted:
            assert self.accept_invitation().status == 200
        page = self.browser.visit(url)
        if any("password" in form.fields for form in page.forms):
            page = self.sign_in(page)
        (form,) = [form for form in page.forms if any("register" in text.lower() for text in form.buttons)]
        return self.browser.submit(page, form)

    def initialize(self, client: Client) -> str:
        """Run `kachery-cloud-init` as a person does: follow the link it prints, press Enter.

        Returns:
            All that the command wrote to stdout.
        """
        process = subprocess.Popen(
            client.argv("kachery-cloud-init"),
            env={**client.variables(), "PYTHONUNBUFFERED": "1"},
            cwd=client.directory.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # a client that prints no link, or never ends, must not hold the test up
        guard = threading.Timer(PATIENCE, process.kill)
        guard.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            said = ""
            while "/registerClient/" not in said or not said.endswith("\n"):
                line = process.stdout.readline()
                assert line, f"kachery-cloud-init ended without a link: {said}"
                said += line
            (link,) = [word for word in said.split() if "/registerClient/" in word]
            page = self.register(link)
            assert page.status == 200, page.text
            rest, _ = process.communicate("\n")
        finally:
            guard.cancel()
            process.kill()
            process.communicate()
        assert process.returncode == 0, said + rest
        return said + rest
