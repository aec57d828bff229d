"""What Spyglass's tutorial on data sharing shows: shared in the lab, loaded elsewhere; and when that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rigs.networks import unplugged
from rigs.notebook import CellFailed

from .conftest import COLLABORATORS, DEFAULT, LOADING, PUBLIC, blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from rigs.networks import Inside

    from .conftest import Lab, Machine

# making the environment takes its time, once
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def ada(lab: Lab, machine: Callable[..., Machine], networks: tuple[Inside, Inside]) -> Machine:
    """A collaborator with ours, who may load from the collaborators' zone."""
    made = machine("ada", networks[1])
    lab.shell(blocks("sh", "on the server")[1])
    made.run(LOADING)
    assert lab.init(made).startswith(lab.gateway.url)
    lab.let_in(made, "ada", COLLABORATORS)
    return made


def test_the_tutorial(lab: Lab, ada: Machine) -> None:
    sharing, linking = blocks("python", "in a scientist's notebook")
    video = lab.machine.home / "nwb" / "video" / "session7.csv"
    video.write_text("frame,seconds\n" + "".join(f"{frame},{frame / 30}\n" for frame in range(1000)))
    own = lab.machine.run("[os.environ[name] for name in ('KACHERY_CLOUD_DIR', 'KACHERY_ZONE')]")
    lab.machine.run(sharing)
    # what else is done in this notebook is done as before
    assert lab.machine.run("[os.environ[name] for name in ('KACHERY_CLOUD_DIR', 'KACHERY_ZONE')]") == own
    lab.machine.run(linking)
    name = lab.machine.run("epoch(0).fetch1('analysis_file_name')")
    (path,) = lab.machine.paths(name)
    assert ada.has(name) == []
    ada.run(blocks("python", "in a collaborator's notebook")[0])
    assert "Downloading" in ada.said
    assert ada.has(name) == [path.read_bytes()]
    assert (ada.home / "nwb" / "video" / "session7.csv").read_bytes() == video.read_bytes()
    frames = [each.run("epoch(0).fetch1_dataframe().to_csv()") for each in (lab.machine, ada)]
    assert frames[0] == frames[1]
    assert frames[0].count("\n") > 50_000
    assert f"path={str(path)!r}" in lab.log.read_text()


def test_by_its_uri(lab: Lab, ada: Machine) -> None:
    """As the tutorial tries it out: one call, and no database."""
    name, uri, path = lab.share(1, COLLABORATORS)
    dest = ada.home / "somewhere" / "tried.nwb"
    ada.run(
        f"os.environ['KACHERY_ZONE'] = {COLLABORATORS!r}\n"
        f"assert kcl.load_file(uri={uri!r}, dest={str(dest)!r}, verbose=True) == {str(dest)!r}"
    )
    assert dest.read_bytes() == path.read_bytes()
    # what Spyglass then does needs nobody
    ada.run("epoch(1).fetch_nwb()")
    assert ada.has(name) == [path.read_bytes()]


def test_a_file_of_several_zones(lab: Lab, ada: Machine) -> None:
    name, _, path = lab.share(2, COLLABORATORS, PUBLIC)
    ada.run("epoch(2).fetch_nwb()")
    assert ada.has(name) == [path.read_bytes()]


def test_somebody_without_an_account(
    lab: Lab, machine: Callable[..., Machine], networks: tuple[Inside, Inside]
) -> None:
    """Gets what is public; what is not is not there, and the log says why."""
    public, _, path = lab.share(3, PUBLIC)
    private, _, _ = lab.share(4, DEFAULT)
    both, _, _ = lab.share(2, COLLABORATORS, PUBLIC)
    anybody = machine("anybody", networks[1], KACHERY_GATEWAY_URL=lab.gateway.url)
    anybody.run(LOADING + "epoch(3).fetch_nwb()")
    assert anybody.has(public) == [path.read_bytes()]
    with pytest.raises(CellFailed, match="not found in kachery or Dandi"):
        anybody.run("epoch(4).fetch_nwb()")
    assert "kachery init" in anybody.said
    assert anybody.has(private) == []
    anybody.run("epoch(2).fetch_nwb()")
    assert len(anybody.has(both)) == 1


def test_a_collaborator_without_the_right(
    lab: Lab, machine: Callable[..., Machine], networks: tuple[Inside, Inside]
) -> None:
    name, uri, _ = lab.share(5, DEFAULT)
    bob = machine("bob", networks[1], KACHERY_GATEWAY_URL=lab.gateway.url)
    bob.run(LOADING)
    lab.gateway.admin("user", "add", "bob")
    lab.gateway.admin("grant", "bob", "--zone", COLLABORATORS, "download")
    lab.let_in(bob, "bob", DEFAULT, COLLABORATORS)
    with pytest.raises(CellFailed, match=r"lab\.default") as failed:
        bob.run("epoch(5).fetch_nwb()")
    assert "PermissionError" in failed.value.kinds
    assert bob.has(name) == []
    # neither through a zone where he has the right
    assert bob.run(f"os.environ['KACHERY_ZONE'] = {COLLABORATORS!r}; kcl.load_file({uri!r})") is None
    lab.gateway.admin("grant", "bob", "--zone", DEFAULT, "download")
    bob.run("epoch(5).fetch_nwb()")
    assert len(bob.has(name)) == 1
    lab.gateway.admin("revoke", "bob", "--zone", DEFAULT, "download")


def test_the_labs_machine_is_off(lab: Lab, ada: Machine) -> None:
    name, uri, path = lab.share(6, COLLABORATORS)
    lab.switch_off()
    try:
        with pytest.raises(CellFailed, match="not found in kachery or Dandi"):
            ada.run("epoch(6).fetch_nwb()")
        assert f"the resource {COLLABORATORS} of this zone is not connected" in ada.said
        assert ada.run(f"kcl.load_file({uri!r})") is None
        assert ada.has(name) == []
        # what came before stays
        ada.run("epoch(0).fetch_nwb()")
    finally:
        lab.switch_on()
    ada.run("epoch(6).fetch_nwb()")
    assert ada.has(name) == [path.read_bytes()]


def test_the_labs_cable_is_cut(lab: Lab, ada: Machine) -> None:
    """The server does not know yet that the lab's machine is gone."""
    name, uri, path = lab.share(16, COLLABORATORS)
    with unplugged(lab.machine.inside):
        with pytest.raises(CellFailed, match="not found in kachery or Dandi"):
            ada.run("epoch(16).fetch_nwb()")
        assert COLLABORATORS in ada.said
        assert ada.run(f"kcl.load_file({uri!r})") is None
    lab.switch_off()
    lab.switch_on()
    ada.run("epoch(16).fetch_nwb()")
    assert ada.has(name) == [path.read_bytes()]


def test_spyglass_goes_on_to_its_other_sources(lab: Lab, ada: Machine) -> None:
    """A table that can compute its file anew does so when neither the lab nor its server can be reached."""
    name, uri, path = lab.share(7, COLLABORATORS)
    lab.server_off()
    try:
        ada.run(
            "def _make_file(self, recompute_file_name):\n"
            "    import shutil\n"
            "    from spyglass.utils import nwb_helper_fn\n"
            "    target = sgc.AnalysisNwbfile.get_abs_path(recompute_file_name)\n"
            f"    shutil.copyfile({str(path)!r}, target)\n"
            "    return nwb_helper_fn.get_nwb_file(target)\n"
            "TrodesPosV1._make_file = _make_file\n"
            "epoch(7).fetch_nwb()"
        )
        assert "cannot be reached" in ada.said
        assert f"Recomputing {name}" in ada.said
        assert ada.run(f"kcl.load_file({uri!r})") is None
    finally:
        ada.run("del TrodesPosV1._make_file")
        lab.server_on()


def test_a_file_that_changed_after_it_was_shared(lab: Lab, ada: Machine) -> None:
    name, uri, path = lab.share(8, COLLABORATORS)
    lab.machine.run(
        "import h5py\n"
        f"with h5py.File({str(path)!r}, 'a') as file:\n"
        "    file['general/notes'] = 'written later'\n"
        "from spyglass.utils.dj_helper_fn import _update_analysis_file_checksum\n"
        f"_update_analysis_file_checksum({str(path)!r})"
    )
    with pytest.raises(CellFailed, match="not found in kachery or Dandi"):
        ada.run("epoch(8).fetch_nwb()")
    assert "changed, moved or removed since it was linked" in ada.said
    assert str(path) not in ada.said
    assert f"{path} is no longer what it was" in lab.log.read_text()
    assert ada.has(name) == []
    # the lab shares it anew
    lab.machine.run(f"(sgs.AnalysisNwbfileKachery & {{'analysis_file_name': {name!r}}}).super_delete(warn=False)")
    assert lab.share(8, COLLABORATORS)[1] != uri
    ada.run("epoch(8).fetch_nwb()")
    assert ada.has(name) == [path.read_bytes()]


def test_a_linked_file_that_is_gone(lab: Lab, ada: Machine) -> None:
    """Spyglass raises then; nothing that is not whole or not right is left."""
    name, _, _ = lab.share(9, COLLABORATORS)
    linked = lab.machine.home / "nwb" / "video" / "gone.csv"
    linked.write_text("soon gone")
    key = {"kachery_zone_name": COLLABORATORS, "analysis_file_name": name, "linked_file_rel_path": "/video/gone.csv"}
    lab.machine.run(
        f"sgs.KacheryZone.set_zone({{'kachery_zone_name': {COLLABORATORS!r}}})\n"
        f"uri = kcl.link_file({str(linked)!r})\n"
        f"sgs.AnalysisNwbfileKachery.LinkedFile.insert1({{**{key!r}, "
        "'linked_file_uri': uri}, allow_direct_insert=True)"
    )
    linked.unlink()
    with pytest.raises(CellFailed, match=r"gone\.csv cannot be downloaded"):
        ada.run("epoch(9).fetch_nwb()")
    assert not (ada.home / "nwb" / "video" / "gone.csv").exists()
