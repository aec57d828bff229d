"""A collaborator whose Spyglass has the released kachery-cloud that it asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rigs.notebook import CellFailed

from .conftest import LOADING, PUBLIC, released

if TYPE_CHECKING:
    from collections.abc import Callable

    from rigs.networks import Inside

    from .conftest import Lab, Machine

# making the environment takes its time, once
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def carol(lab: Lab, machine: Callable[..., Machine], networks: tuple[Inside, Inside]) -> Machine:
    """Registered in no zone."""
    made = machine("carol", networks[1], released(), KACHERY_GATEWAY_URL=lab.gateway.url)
    made.run(LOADING)
    return made


def test_it_is_the_released_one(carol: Machine) -> None:
    assert carol.run("kcl.__file__").startswith(released())


def test_what_is_public(lab: Lab, carol: Machine) -> None:
    name, _, path = lab.share(10, PUBLIC)
    carol.run("epoch(10).fetch_nwb()")
    assert carol.has(name) == [path.read_bytes()]
    lab.machine.run("frame = epoch(10).fetch1_dataframe()")
    assert carol.run("epoch(10).fetch1_dataframe().to_csv()") == lab.machine.run("frame.to_csv()")


def test_a_file_that_changed_after_it_was_shared(lab: Lab, carol: Machine) -> None:
    name, uri, path = lab.share(11, PUBLIC)
    content = path.read_bytes()
    path.write_bytes(content + b"more")
    try:
        with pytest.raises(CellFailed, match="not found in kachery or Dandi"):
            carol.run("epoch(11).fetch_nwb()")
        assert carol.has(name) == []
        assert carol.run(f"kcl.load_file({uri!r})") is None
    finally:
        path.write_bytes(content)
    carol.run("epoch(11).fetch_nwb()")
    assert carol.has(name) == [content]
