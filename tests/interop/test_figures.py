"""figurl 0.3.1 and sortingview 0.14.2 as released, on ours and on the released kachery 2.0.3: the same figures.

A figure's data names the data inside it by their URIs, so equal addresses mean that everything in them is equal, too.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from rigs.gateway import OPEN
from rigs.release import ROOT, environment

if TYPE_CHECKING:
    from pathlib import Path

    from rigs.gateway import Gateway
    from rigs.person import Person

# their environments are made first
pytestmark = pytest.mark.timeout(600)

DRIVER = ROOT / "tests" / "rigs" / "figures.py"

#: Those that need nothing else, and take little time.
EXAMPLES = [
    "markdown_example",
    "example_autocorrelograms",
    "example_markdown",
    "example_position_plot",
    "example_raster_plot",
    "example_sorting_curation",
    "example_timeseries_graph",
    "example_track_position_animation",
    "example_unit_locations",
    "example_unit_metrics_graph",
]


@dataclass
class Figures:
    """What the examples gave with one kachery.

    Attributes:
        printed: Addresses of figures, by example.
        files: URIs of files that threads stored.
        view: What was found in a file that was stored on this machine and loaded again.
    """

    printed: dict[str, list[str]]
    files: list[str]
    view: dict[str, Any]

    @property
    def data(self) -> list[str]:
        """The URIs of the figures' data."""
        return [parse_qs(urlsplit(address).query)["d"][0] for shown in self.printed.values() for address in shown]


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter of an environment with figurl and sortingview, and without any kachery."""
    return environment("sortingview-0.14.2") / "bin" / "python"


def figures(python: Path, kachery: Path, directory: Path, **variables: str) -> Figures:
    """Run the examples with the `kachery` of a directory."""
    directory.mkdir()
    reply = directory / "reply.json"
    done = subprocess.run(
        [str(python), "-W", "ignore", str(DRIVER), str(reply), *EXAMPLES],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "KACHERY_DIR": str(directory / "kachery"),
            "KACHERY_CLOUD_DIR": str(directory / "kachery-cloud"),
            "PYTHONPATH": str(kachery),
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        },
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answer: dict[str, Any] = json.loads(reply.read_bytes())
    assert answer["module"].startswith(str(kachery))
    assert set(answer["printed"]) == set(EXAMPLES)
    assert all(answer["printed"].values())
    return Figures(answer["printed"], answer["files"], answer["view"])


def theirs() -> Path:
    """The released kachery 2.0.3 alone."""
    (packages,) = environment("kachery-released").glob("lib/python*/site-packages")
    return packages


def stored(directory: Path) -> dict[str, bytes]:
    """What lies in a plain directory, by hash."""
    return {path.name: path.read_bytes() for path in (directory / "sha1").iterdir()}


def test_the_same_figures_in_a_plain_directory(python: Path, tmp_path: Path) -> None:
    made = []
    for name, kachery in [("theirs", theirs()), ("ours", ROOT / "src")]:
        plain = {"KACHERY_STORE_FILE_DIR": str(tmp_path / f"{name}-files"), "KACHERY_STORE_FILE_PREFIX": "$dir"}
        made.append(figures(python, kachery, tmp_path / name, **plain))

    assert made[1] == made[0]
    assert stored(tmp_path / "ours-files") == stored(tmp_path / "theirs-files")
    assert len(stored(tmp_path / "ours-files")) > 2 * len(EXAMPLES)
    assert len(set(made[0].files)) == 30
    assert made[0].view["frames"] > 0
    assert all(re.fullmatch(r"\$dir/sha1/[0-9a-f]{40}\?label=\d+\.jpeg", uri) for uri in made[0].files)


def test_the_same_figures_in_a_zone(
    python: Path, gateway: Gateway, alice: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        "KACHERY_BASE_URL": gateway.url,
        "KACHERY_API_KEY": gateway.admin("api-key", "add", alice.name),
        "KACHERY_ZONE": OPEN,
        # as the released one spells them, since they become part of what is stored
        "KACHERY_URI_TYPE": "2",
    }

    mine = figures(python, ROOT / "src", tmp_path / "ours", **variables)
    released = figures(python, theirs(), tmp_path / "theirs", **variables)

    assert mine == released
    assert all(uri.startswith(f"kachery:{OPEN}:sha1:") for uri in mine.data + mine.files)

    import kachery

    monkeypatch.setenv("KACHERY_GATEWAY_URL", gateway.url)
    waiting, loaded = mine.data + mine.files, set()
    while waiting:
        uri = waiting.pop()
        if uri not in loaded:
            loaded.add(uri)
            content = kachery.load_bytes(uri).decode("latin-1")
            waiting += re.findall(rf"kachery:{OPEN}:sha1:[0-9a-f]{{40}}", content)
    assert len(loaded) > 2 * len(EXAMPLES)
