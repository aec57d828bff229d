"""Spyglass's figures of a sorting: the curation by one protocol, its views by another, one server.

Spyglass stores the curation with `kachery_cloud`; sortingview, which it calls, stores the views with `kachery` 2.x.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from .conftest import DEFAULT, LOADING, OURS, released

if TYPE_CHECKING:
    from collections.abc import Callable

    from rigs.networks import Inside

    from .conftest import Lab, Machine

pytestmark = pytest.mark.timeout(900)

CURATION = {"labelsByUnit": {"0": ["accept"], "1": ["noise"]}, "mergeGroups": [["0", "2"]]}

# a sorting with a known truth, and Spyglass's own function for its figure
FIGURE = f"""
import spikeinterface as si
from spyglass.spikesorting.v1.figurl_curation import FigURLCuration, _generate_figurl

recording, sorting = si.generate_ground_truth_recording(durations=[5.0], num_channels=4, num_units=3, seed=7)
curation = kcl.store_json({CURATION!r})
[curation, _generate_figurl(recording, sorting, curation, "recording", "sorting")]
"""

# everything that a figure consists of, by its hash
VIEWING = """
import json, re
import kachery

def hashes(uri, seen):
    hash_ = re.search("[0-9a-f]{40}", uri).group()
    if hash_ not in seen:
        content = kachery.load_bytes(uri)
        seen[hash_] = len(content)
        for found in re.findall(rb'"((?:kachery:[^":]*:sha1:|sha1://)[0-9a-f]{40}[^"]*)"', content):
            hashes(found.decode(), seen)
    return seen
"""


@pytest.mark.parametrize("clients", ["ours", "released"])
def test_a_figure_of_a_sorting(
    lab: Lab, machine: Callable[..., Machine], networks: tuple[Inside, Inside], clients: str, figures: dict[str, object]
) -> None:
    name = f"ida-{clients}"
    lab.gateway.admin("user", "add", name)
    lab.gateway.admin("grant", name, "--zone", DEFAULT, "upload,download")
    settings = {
        "KACHERY_GATEWAY_URL": lab.gateway.url,
        "KACHERY_BASE_URL": lab.gateway.url,
        "KACHERY_API_KEY": lab.gateway.admin("api-key", "add", name),
        "KACHERY_ZONE": DEFAULT,
        # as the released one spells them, since they become part of what is stored
        "KACHERY_URI_TYPE": "2",
    }
    ida = machine(name, networks[1], OURS if clients == "ours" else released(), **settings)
    ida.run(LOADING)
    lab.let_in(ida, name, DEFAULT)

    curation, url = ida.run(FIGURE)

    query = parse_qs(urlsplit(url).query)
    state = json.loads(query["s"][0])
    assert state["sortingCuration"] == curation
    assert curation.startswith("sha1://")
    assert query["zone"] == [DEFAULT]
    assert ida.run(f"FigURLCuration.get_labels({curation!r})") == {"0": ["accept"], "1": ["noise"]}
    assert ida.run(f"FigURLCuration.get_merge_groups({curation!r})") == [["0", "2"]]

    # somebody else, whose only right is the key of a user, and who has nothing yet
    viewer = machine(f"viewer-{clients}", networks[1], OURS, **settings)
    viewer.run(VIEWING)
    assert viewer.run(f"kachery.load_json({curation!r})") == CURATION
    views = viewer.run(f"hashes({query['d'][0]!r}, {{}})")
    assert len(views) > 5
    assert re.fullmatch(r"(kachery:lab\.default:sha1:[0-9a-f]{40}.*|sha1://[0-9a-f]{40}.*)", query["d"][0])
    figures[clients] = (curation, len(views), sum(views.values()))


@pytest.fixture(scope="module")
def figures() -> dict[str, object]:
    """What the tests above have made."""
    return {}


def test_both_figures_are_the_same(figures: dict[str, object]) -> None:
    if len(figures) < 2:
        pytest.fail("a figure was not made")
    assert figures["ours"] == figures["released"]
