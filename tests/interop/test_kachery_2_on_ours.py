"""What programs of kachery 2.x rely on, in ours: names and arguments, bytes, and what the release kept."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from kachery.configuration import Options
from rigs.release import environment, ours

if TYPE_CHECKING:
    from pathlib import Path

# its environment is made first
pytestmark = pytest.mark.timeout(300)

SIGNATURES = """
import inspect, json, kachery
found = {}
for name in dir(kachery):
    thing = getattr(kachery, name)
    if not name.startswith("_") and inspect.isfunction(thing):
        found[name] = [[one.name, one.kind.name] for one in inspect.signature(thing).parameters.values()]
print(json.dumps(found))
"""

URIS = """
import json, numpy, kachery
values = [
    {}, [], None, True, 0, -0.0, 1.0, 1e22, 1e-7, 2**70, "", "é\\u2028\\x7f", {"b": [1, 2.5, None], "a": {"ü": "\\n"}},
    {1: "a", "1": "b", 2.5: "c"}, [[[[]]]], (1, 2), "\\ud800", {"x": "y" * 5000},
]
found = []
for value in values:
    found.append(kachery.store_json(value, local=True, uri_type=2, label="a b:c"))
    found.append(kachery.store_json(value, indent=2, separators=(", ", ": "), local=True, uri_type=1))
for value in (float("nan"), float("inf"), {1, 2}, object()):
    try:
        kachery.store_json(value, local=True)
    except (TypeError, ValueError) as error:
        found.append("refused")
for text in ("", "x", "é\\r\\n", "a" * 100000):
    found.append(kachery.store_text(text, local=True, uri_type=2, label="x/y.txt"))
for array in (numpy.zeros(0), numpy.arange(6, dtype="int16").reshape(2, 3), numpy.array(2.5), numpy.array(["a", "bc"])):
    found.append(kachery.store_npy(array, local=True, uri_type=1, label="é"))
with open("file.dat", "wb") as file:
    file.write(b"0123456789" * 200000)
found.append(kachery.store_file("file.dat", local=True, uri_type=2))
found.append(kachery.store_file("file.dat", label="?", local=True, uri_type=1))
found.append(kachery.sha1_of_dict({"b": 1.0, "a": [2.5, "é"]}))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def theirs() -> Path:
    """The interpreter of the released kachery 2.0.3."""
    return environment("kachery-2.0.3") / "bin" / "python"


def run(python: Path, directory: Path, code: str) -> Any:
    directory.mkdir(exist_ok=True)
    done = subprocess.run(
        [str(python), "-c", code],
        env={"PATH": "/usr/bin:/bin", "HOME": str(directory), "LANG": "C.UTF-8", "PYTHONPATH": ""},
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_name_and_argument(theirs: Path, tmp_path: Path) -> None:
    released = run(theirs, tmp_path / "theirs", SIGNATURES)
    mine = run(ours().python, tmp_path / "ours", NAMED)

    assert len(released) > 20
    assert released.keys() <= mine.keys()
    for name, arguments in released.items():
        positional = [one for one, kind in arguments if kind == "POSITIONAL_OR_KEYWORD"]
        own = [one for one, kind in mine[name] if kind == "POSITIONAL_OR_KEYWORD"]
        assert own[: len(positional)] == positional, name
        accepted = {one for one, _ in mine[name]} | set(Options.__annotations__)
        # what only its own modules pass to each other
        assert {one for one, _ in arguments} - accepted <= {"_get_info"}, name


def test_the_same_uris(theirs: Path, tmp_path: Path) -> None:
    released = run(theirs, tmp_path / "theirs", URIS)

    assert run(ours().python, tmp_path / "ours", URIS) == released
    assert released.count("refused") == 4


def test_what_it_kept_is_found(theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import kachery

    uri = run(
        theirs, tmp_path / "theirs", "import json, kachery; print(json.dumps(kachery.store_text_local('kept', 'a')))"
    )
    assert uri.startswith("kachery::sha1:")
    monkeypatch.setenv("HOME", str(tmp_path / "theirs"))
    assert kachery.load_text(uri) == "kept"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KACHERY_DIR", str(tmp_path / "theirs" / ".kachery"))
    assert kachery.load_file(uri).startswith(str(tmp_path / "theirs"))


# names are found in ours when they are asked for
NAMED = SIGNATURES.replace("for name in dir(kachery):", "for name in kachery.__all__:")
