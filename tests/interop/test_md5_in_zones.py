"""Files that a program of classic kachery stores by their MD5, in a zone of our gateway."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

import kachery
from kachery.store import Store
from rigs.gateway import OPEN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rigs.person import Person
    from rigs.release import Client


@pytest.mark.parametrize("size", [0, 100, 3_000_000])
@pytest.mark.parametrize("keep", [False, True])
def test_stored_and_found_by_md5(
    machine: Callable[..., Client],
    alice: Person,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    keep: bool,
) -> None:
    def be(client: Client) -> None:
        for name, value in client.variables().items():
            if name.startswith("KACHERY"):
                monkeypatch.setenv(name, value)

    data = os.urandom(size)
    (tmp_path / "a.dat").write_bytes(data)
    hash_ = hashlib.md5(data).hexdigest()
    be(machine(None, alice))
    for uri in (
        kachery.store_file(tmp_path / "a.dat", to=OPEN, algorithm="md5", to_remote_only=not keep),
        kachery.store_file(tmp_path / "a.dat", zone=OPEN, algorithm="md5", cache_locally=keep),
    ):
        assert uri == f"md5://{hash_}/a.dat"
        assert (Store().find(hash_, algorithm="md5") is not None) is keep
    be(machine(None, alice))
    assert kachery.load_bytes(f"md5://{hash_}") == data
    text = kachery.store_text(f"text {size} {keep}", algorithm="md5")
    be(machine(None, None))
    assert kachery.load_text(text) == f"text {size} {keep}"
