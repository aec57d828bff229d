"""The notebooks of the documentation."""

from __future__ import annotations

import json
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def code_cells(name: str) -> list[str]:
    """The cells with code of `docs/NAME`, in order.

    Args:
        name: The notebook's file name.
    """
    notebook = json.loads((DOCS / name).read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert all(cell["outputs"] == [] for cell in notebook["cells"] if cell["cell_type"] == "code"), "outputs go stale"
    found = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert found
    return found
