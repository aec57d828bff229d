"""A zone in miniature that counts what is asked of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kachery import http
from kachery.store import keys
from rigs.cloud import Cloud

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setattr(http, "pause", lambda *_: None)
    with Cloud() as server:
        monkeypatch.setenv("KACHERY_GATEWAY_URL", server.url)
        monkeypatch.setenv("KACHERY_TIMEOUT", "5")
        keys.load_or_create()
        yield server
