"""Keys: one pair for a machine's user, private from the first moment, never lost to a race."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kachery.errors import InvalidInput, NotAllowed, NotConfigured
from kachery.signing import ClientKeys
from kachery.store import keys, sandbox

if TYPE_CHECKING:
    from pathlib import Path

CREATE = "from kachery.store import keys; print(keys.load_or_create().client_id)"


def test_keys_are_made_once(own_environment: Path) -> None:
    made = keys.load_or_create()

    assert keys.load() == keys.load_or_create() == made
    assert sorted(path.name for path in own_environment.iterdir() if path.is_file()) == ["private.pem", "public.pem"]
    assert ClientKeys.from_pem((own_environment / "private.pem").read_text()) == made
    assert (own_environment / "public.pem").read_text() == made.public_pem()


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_the_private_key_is_private_whatever_the_umask(own_environment: Path, umask: str) -> None:
    subprocess.run(["sh", "-c", f"umask {umask}; exec {sys.executable} -c '{CREATE}'"], check=True)

    assert stat.S_IMODE((own_environment / "private.pem").stat().st_mode) == 0o600


def test_processes_that_make_keys_at_once_agree(own_environment: Path) -> None:
    for _ in range(3):
        for path in own_environment.glob("*.pem"):
            path.unlink()
        children = [
            subprocess.Popen([sys.executable, "-c", CREATE], stdout=subprocess.PIPE, text=True) for _ in range(4)
        ]
        printed = {child.communicate(timeout=60)[0] for child in children}

        made = keys.load()
        assert made is not None
        assert printed == {made.client_id + "\n"}
        assert (own_environment / "public.pem").read_text() == made.public_pem()
        assert sorted(path.name for path in own_environment.iterdir() if path.is_file()) == [
            "private.pem",
            "public.pem",
        ]


def test_keys_of_the_environment_win(monkeypatch: pytest.MonkeyPatch, own_environment: Path) -> None:
    keys.load_or_create()
    given = ClientKeys.from_seed(b"s" * 32)
    monkeypatch.setenv("KACHERY_CLOUD_CLIENT_ID", given.client_id)
    monkeypatch.setenv("KACHERY_CLOUD_PRIVATE_KEY", given.seed.hex())
    assert keys.load() == keys.load_or_create() == given
    monkeypatch.setenv("KACHERY_CLOUD_CLIENT_ID", "0" * 64)
    with pytest.raises(InvalidInput, match="does not belong"):
        keys.load()


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"\xff\xfe", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
)
def test_damaged_keys_are_not_replaced(own_environment: Path, content: bytes) -> None:
    own_environment.mkdir()
    (own_environment / "private.pem").write_bytes(content)

    for use in (keys.load, keys.load_or_create):
        with pytest.raises(NotConfigured, match=r"private\.pem"):
            use()
    assert (own_environment / "private.pem").read_bytes() == content


def test_a_sandbox_has_no_keys_of_its_own(monkeypatch: pytest.MonkeyPatch, own_environment: Path) -> None:
    monkeypatch.setenv("KACHERY_CLOUD_SANDBOX_DIR", "")
    monkeypatch.setenv("KACHERY_CLOUD_USE_SANDBOX", "0")
    sandbox.use()
    made = keys.load_or_create()
    sandbox.use(False)

    assert keys.load() == made
    assert (own_environment / "private.pem").exists()


def test_upstreams_key_files_are_read(own_environment: Path) -> None:
    own_environment.mkdir()
    given = ClientKeys.from_seed(bytes(range(32)))
    (own_environment / "private.pem").write_text(given.private_pem())
    (own_environment / "public.pem").write_text(given.public_pem())

    assert keys.load() == given


def test_a_full_or_forbidden_directory_leaves_nothing(own_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(NotAllowed, match="write keys to"):
        keys.load_or_create()
    assert [path.name for path in own_environment.rglob("*") if path.is_file()] == []
