"""What every test can rely on: a store directory of its own, no settings of the person who runs it, only loopback."""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
RECORDING = ROOT / "tests" / "data" / "LantyerEtAl2018_170328_AB_277_ST50_C.nwb"

# a busy machine is no reason to fail
settings.register_profile("kachery", deadline=None)
settings.load_profile("kachery")


def _refuse_strangers(event: str, args: tuple[object, ...]) -> None:
    if event != "socket.connect" or not isinstance(args[1], tuple):
        return
    host = str(args[1][0])
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local:
        raise AssertionError(f"a test tried to connect to {host}")


sys.addaudithook(_refuse_strangers)


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable of kachery is set but `KACHERY_CLOUD_DIR`, which names a directory that does not exist yet."""
    for name in list(os.environ):
        if "KACHERY" in name:
            monkeypatch.delenv(name)
    directory = tmp_path / "kachery-cloud"
    monkeypatch.setenv("KACHERY_CLOUD_DIR", str(directory))
    return directory


@pytest.fixture
def recording() -> Path:
    """A measured patch-clamp recording; see tests/data/README.md."""
    return RECORDING
