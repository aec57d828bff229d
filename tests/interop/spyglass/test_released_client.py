"""A collaborator whose Spyglass has the released kachery-cloud that it asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rigs.networks import unplugged
from rigs.notebook import CellFailed

from .conftest import COLLABORATORS, DEFAULT, LOADING, PUBLIC, released

if TYPE_CHECKING:
    from collections.abc import Callable

    from rigs.networks import Inside

    from .conftest import Lab, Machine

# making the environment takes its time, once
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def carol(lab: Lab, machine: Callable[..., Machine], networks: tuple[Inside, Inside]) -> Machine:
    """Registered in the collaborators' zone, whose files she may load."""
    made = machine("carol", networks[1], released(), KACHERY_GATEWAY_URL=lab.gateway.url)
    made.run(LOADING)
    lab.gateway.admin("user", "add", "carol")
    lab.gateway.admin("grant", "carol", "--zone", COLLABORATORS, "download")
    lab.let_in(made, "carol", COLLABORATORS)
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


def test_what_is_for_collaborators(lab: Lab, carol: Machine) -> None:
    name, _, path = lab.share(12, COLLABORATORS)
    carol.run("epoch(12).fetch_nwb()")
    assert carol.has(name) == [path.read_bytes()]


def test_what_is_for_others(lab: Lab, carol: Machine) -> None:
    """The released client raises, whatever it is told."""
    name, _, _ = lab.share(18, DEFAULT)
    with pytest.raises(CellFailed, match=r"lab\.default"):
        carol.run("epoch(18).fetch_nwb()")
    assert carol.has(name) == []


@pytest.mark.parametrize(("number", "zone"), [(19, PUBLIC), (15, COLLABORATORS)])
def test_the_labs_machine_is_off(lab: Lab, carol: Machine, number: int, zone: str) -> None:
    name, uri, path = lab.share(number, zone)
    lab.switch_off()
    try:
        with pytest.raises(CellFailed, match="not found in kachery or Dandi"):
            carol.run(f"epoch({number}).fetch_nwb()")
        assert f"Error: the resource {zone} of this zone is not connected" in carol.said
        assert carol.run(f"kcl.load_file({uri!r})") is None
    finally:
        lab.switch_on()
    carol.run(f"epoch({number}).fetch_nwb()")
    assert carol.has(name) == [path.read_bytes()]


def test_the_labs_cable_is_cut(lab: Lab, carol: Machine) -> None:
    _, uri, _ = lab.share(17, PUBLIC)
    with unplugged(lab.machine.inside):
        assert carol.run(f"kcl.load_file({uri!r})") is None
        assert "Error: " in carol.said
    lab.switch_off()
    lab.switch_on()
    carol.run("epoch(17).fetch_nwb()")
