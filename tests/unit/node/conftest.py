"""A resource of a lab's machine, and files that it has linked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kachery.node.config import ResourceConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def resource(tmp_path: Path) -> Callable[..., ResourceConfig]:
    """Makes the configuration of a resource at a relay."""

    def make(relay: str, **changes: object) -> ResourceConfig:
        values: dict[str, object] = {
            "name": "res1",
            "zone": "default",
            "relay": relay,
            "uploads": 2,
            "secret": "s3cret",
            "directories": (),
            "store": None,
            "gateway_key": None,
            "path": tmp_path / "kachery-resource.yaml",
            **changes,
        }
        return ResourceConfig(**values)  # type: ignore[arg-type]

    return make
