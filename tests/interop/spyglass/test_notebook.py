"""docs/spyglass.ipynb, run from beginning to end: some of its cells in the lab, the others elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rigs.pages import code_cells

from .conftest import COLLABORATORS, LOADING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rigs.networks import Inside

    from .conftest import Lab, Machine

pytestmark = pytest.mark.timeout(900)


def test_the_notebook(lab: Lab, machine: Callable[..., Machine], networks: tuple[Inside, Inside]) -> None:
    eve = machine("eve", networks[1])
    lab.gateway.admin("user", "add", "eve")
    lab.gateway.admin("grant", "eve", "--zone", COLLABORATORS, "download")
    eve.run(LOADING)
    lab.init(eve)
    lab.let_in(eve, "eve", COLLABORATORS)
    places = {"# in the lab": lab.machine, "# elsewhere": eve}

    for cell in code_cells("spyglass.ipynb"):
        shown = places[cell.splitlines()[0]].run(cell)

    names = [lab.machine.run(f"epoch({number}).fetch1('analysis_file_name')") for number in (13, 14)]
    originals = [path.read_bytes() for name in names for path in lab.machine.paths(name)]
    assert eve.has(names[0]) == originals[:1], "fetched by Spyglass"
    with open(shown, "rb") as file:
        assert file.read() == originals[1], "loaded by its URI"
