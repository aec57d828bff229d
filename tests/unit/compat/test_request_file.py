"""Asking a resource for a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import kachery_cloud as kc
from kachery.errors import InvalidURI, NotConfigured, Unreachable
from kachery_cloud.request_file import RequestFileResult

from .conftest import CONTENT, ELSEWHERE, SHA1, URI

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import StandIn

NOTHING: dict[str, Any] = {"found": False, "queued": False, "completed": False, "running": False}


@pytest.mark.parametrize("wrap", [True, False])
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"status": "not-found"}, NOTHING),
        ({"status": "queued", "size": 13}, {**NOTHING, "found": True, "queued": True, "size": 13}),
        (
            {"status": "running", "size": 13, "bytesUploaded": 5},
            {**NOTHING, "found": True, "running": True, "size": 13, "bytes_uploaded": 5},
        ),
        ({"status": "completed", "size": 13}, {**NOTHING, "found": True, "completed": True, "size": 13}),
        ({"status": "error", "error": "broken"}, {**NOTHING, "errored": True, "error_message": "broken"}),
    ],
)
def test_what_the_resource_says(rig: StandIn, status: dict[str, Any], expected: dict[str, Any], wrap: bool) -> None:
    # the published proxy sends the bare inner object, the protocol has it wrapped
    rig.wrap = wrap
    rig.resource = [status]

    result = kc.request_file(f"{URI}?label=x", timeout_sec=1, resource_url=f"{rig.url}/r/rig")

    assert result == RequestFileResult(**expected)
    assert rig.kinds() == ["findFile"]


def test_who_has_it_already(rig: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_RESOURCE_URL", f"{rig.url}/r/rig/")
    rig.resource = [{"status": "queued"}]
    rig.files[SHA1] = CONTENT
    assert kc.request_file(URI, timeout_sec=1) == RequestFileResult(found=True, completed=True, size=13)
    (tmp_path / "a").write_bytes(CONTENT)
    kc.link_file(str(tmp_path / "a"))
    assert kc.request_file(URI, timeout_sec=1) == RequestFileResult(found=True, local=True, size=13)
    assert rig.requests == []

    result = kc.request_file(URI, timeout_sec=1, ignore_local=True, ignore_bucket=True)

    assert result.queued
    assert [path for _, path, _ in rig.requests] == ["/r/rig"]


def test_nobody_to_ask(rig: StandIn) -> None:
    with pytest.raises(NotConfigured, match="resource"):
        kc.request_file(URI, timeout_sec=1)
    with pytest.raises(InvalidURI):
        kc.request_file("foo://x", timeout_sec=1, resource_url=f"{rig.url}/r/rig")


def test_something_else_answers(rig: StandIn) -> None:
    rig.resource = [{"what": "is this"}]

    with pytest.raises(Unreachable):
        kc.request_file(ELSEWHERE, timeout_sec=1, resource_url=f"{rig.url}/r/rig")
