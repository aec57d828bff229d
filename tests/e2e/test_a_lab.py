"""A lab: somebody runs a zone, others register their machines through the page, store, load, and are refused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from rigs.gateway import KACHERY, OPEN, PRIVATE, Gateway
from rigs.person import Person

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Machine:
    """A machine on which `kachery` was installed a moment ago.

    Args:
        home: Its user's home directory; nothing else is set.
    """

    home: Path

    def variables(self) -> dict[str, str]:
        return {"PATH": os.defpath, "HOME": str(self.home), "LANG": "C.UTF-8"}

    def kachery(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [KACHERY, *arguments],
            env=self.variables(),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, f"kachery {' '.join(arguments)} ended with {done.returncode}: {done.stderr}"
        return done

    def output(self, *arguments: str) -> str:
        return self.kachery(*arguments).stdout.strip()

    def initialize(self, gateway: Gateway, zone: str, person: Person) -> None:
        """`kachery init`, with the person opening the page that it prints."""
        process = subprocess.Popen(
            [KACHERY, "init", "--gateway", gateway.url, "--zone", zone],
            env={**self.variables(), "PYTHONUNBUFFERED": "1"},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        guard = threading.Timer(60, process.kill)
        guard.start()
        try:
            assert process.stdout is not None
            page = person.register(process.stdout.readline().strip())
            assert page.status == 200, page.text
            said, complaints = process.communicate()
        finally:
            guard.cancel()
            process.kill()
            process.communicate()
        assert process.returncode == 0, complaints
        assert person.name in said


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("lab"), zone=OPEN) as running:
        running.admin("zone", "create", PRIVATE, "--private")
        yield running


@pytest.fixture(scope="module")
def alice(gateway: Gateway) -> Person:
    person = Person(gateway, "alice")
    for zone in (OPEN, PRIVATE):
        gateway.admin("grant", "alice", "--zone", zone, "upload,download")
    return person


@pytest.fixture(scope="module")
def bob(gateway: Gateway) -> Person:
    return Person(gateway, "bob")


def machine(tmp_path: Path, name: str) -> Machine:
    home = tmp_path / name
    home.mkdir()
    return Machine(home)


def test_from_one_machine_to_another(gateway: Gateway, alice: Person, tmp_path: Path, recording: Path) -> None:
    microscope, laptop = machine(tmp_path, "microscope"), machine(tmp_path, "laptop")
    hash_ = hashlib.sha1(recording.read_bytes(), usedforsecurity=False).hexdigest()

    microscope.initialize(gateway, OPEN, alice)
    uri = microscope.output("store", str(recording))
    assert uri == f"sha1://{hash_}/{recording.name}"
    assert json.loads(microscope.output("status", "--json"))["ready"] is True

    # loading from a zone that anybody may read needs an address, not a registration
    laptop.kachery("init", "--gateway", gateway.url, "--zone", OPEN, "--no-wait")
    path = laptop.output("load", uri)
    assert path == str(laptop.home / ".kachery-cloud" / "sha1" / hash_[:2] / hash_[2:4] / hash_[4:6] / hash_)
    assert laptop.output("load", uri, "--dest", "copy.nwb").endswith("copy.nwb")
    assert (laptop.home / "copy.nwb").read_bytes() == recording.read_bytes()
    assert json.loads(laptop.output("info", uri, "--json"))["size"] == recording.stat().st_size
    laptop.kachery("verify")

    refused = laptop.kachery("store", "copy.nwb", "--label", "mine.nwb", code=5)
    assert refused.stdout == ""
    assert "kachery init" in refused.stderr


def test_a_private_zone(gateway: Gateway, alice: Person, bob: Person, tmp_path: Path) -> None:
    hers, his = machine(tmp_path, "hers"), machine(tmp_path, "his")
    secret = tmp_path / "secret.txt"
    secret.write_text(os.urandom(8).hex())
    hers.initialize(gateway, PRIVATE, alice)
    uri = hers.output("store", str(secret))

    his.initialize(gateway, PRIVATE, bob)
    refused = his.kachery("load", uri, code=5)
    missing = his.kachery("load", "sha1://" + "0" * 40, code=5)

    assert refused.stdout == ""
    assert refused.stderr.startswith("error: ")
    # what is not his looks like what is not there
    assert refused.stderr.replace(uri, "URI") == missing.stderr.replace("sha1://" + "0" * 40, "URI")
    assert json.loads(gateway.admin("usage", "--zone", PRIVATE, "--json"))

    gateway.admin("grant", "bob", "--zone", PRIVATE, "download")
    try:
        assert his.output("cat", uri) == secret.read_text()
    finally:
        gateway.admin("revoke", "bob", "--zone", PRIVATE, "download")


def test_four_answers(gateway: Gateway, alice: Person, tmp_path: Path) -> None:
    desk = machine(tmp_path, "desk")
    desk.initialize(gateway, OPEN, alice)
    nobody_has_it = "sha1://" + hashlib.sha1(os.urandom(16), usedforsecurity=False).hexdigest()

    assert desk.kachery("load", nobody_has_it, code=3).stdout == ""
    assert desk.kachery("load", "sha1://nonsense", code=2).stdout == ""
    complaint = json.loads(desk.kachery("load", nobody_has_it, "--json", code=3).stderr)
    assert complaint["error"]["code"] == "not_found"

    gateway.stop()
    try:
        assert desk.kachery("load", nobody_has_it, code=4).stdout == ""
    finally:
        gateway.start()
