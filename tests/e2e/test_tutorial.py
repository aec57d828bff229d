"""docs/tutorial.ipynb, run from beginning to end by somebody with a zone of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rigs.gateway import Gateway
from rigs.notebook import Notebook
from rigs.pages import DOCS, code_cells


def test_the_tutorial_does_what_it_shows(tmp_path: Path) -> None:
    home = tmp_path / "home"
    variables = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "KACHERY_PROGRESS": "0",
    }
    # as the page says: the first start makes this machine a member of the zone
    started_by = {"HOME": str(home), "KACHERY_CLOUD_DIR": str(home / ".kachery-cloud")}
    with Gateway(tmp_path / "gateway", environment=started_by):
        notebook = Notebook(Path(sys.executable), DOCS, variables, log=tmp_path / "notebook.log")
        with notebook:
            shown = [notebook.run(cell) for cell in code_cells("tutorial.ipynb")]
            said = notebook.said

    uri, path, copy = shown[1:4]
    assert uri.startswith("sha1://253cc837e71aa814d19025fb70717353912b2577/")
    assert path.endswith("/sha1/25/3c/c8/253cc837e71aa814d19025fb70717353912b2577")
    assert copy.endswith("/copies/recording.nwb")
    assert (list(shown[7]["files"]), list(shown[7]["dirs"])) == (["notes.txt"], ["sorting"])
    assert shown[8][:2] == [570_686, "lab"], "what the zone knows"
    assert "was not found: the zone lab does not have it" in said
