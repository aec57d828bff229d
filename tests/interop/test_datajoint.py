"""DataJoint's tables and attributes with kachery's files: the current DataJoint, and the one that Spyglass uses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rigs.database import PASSWORD, USER, Database
from rigs.gateway import OPEN, PRIVATE, Gateway
from rigs.lab import SECRET, Lab
from rigs.notebook import CellFailed, Notebook
from rigs.release import ROOT, add_ours, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

# making the environment takes its time, once
pytestmark = pytest.mark.timeout(900)

OURS = str(ROOT / "src")

DECLARATION = """
import os
import datajoint as dj
from kachery.integrations.datajoint import hdf5_links, sharing_table, zone_table

dj.config["safemode"] = False
recordings, sharing = (dj.Schema(name) for name in ("lab_recordings", "lab_sharing"))

@recordings
class Recording(dj.Manual):
    definition = '''
    session: int
    ---
    file: varchar(200)
    '''

KacheryZone = zone_table(sharing)
SharedRecording = sharing_table(
    sharing, KacheryZone, Recording, path="file", base=lambda: os.environ["LAB_BASE"], linked=hdf5_links
)

def which(session):
    return Recording & {"session": session}
"""


@dataclass
class Site:
    """A lab and somebody elsewhere, with a database between them.

    Attributes:
        gateway: The lab's server.
        lab: The lab's machine, whose daemon shares what its zone's directory says.
        here: A notebook there.
        elsewhere: A notebook on another machine.
        base: The base directory in the lab.
        other_base: That of the other machine.
    """

    gateway: Gateway
    lab: Lab
    here: Notebook
    elsewhere: Notebook
    base: Path
    other_base: Path

    def insert(self, session: int, path: str | Path) -> None:
        self.here.run(f"Recording.insert1({{'session': {session}, 'file': {str(path)!r}}})")

    def file(self, name: str, content: bytes) -> Path:
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gateway"), environment={"PROXY_SECRET": SECRET}) as running:
        running.admin("zone", "create", PRIVATE, "--private")
        yield running


def variables(prefix: Path, home: Path, database: Database, gateway: Gateway, **others: str) -> dict[str, str]:
    return {
        "PATH": os.pathsep.join([str(prefix / "bin"), "/usr/bin", "/bin"]),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONWARNINGS": "ignore",
        "DJ_HOST": database.host,
        "DJ_PORT": str(database.port),
        "DJ_USER": USER,
        "DJ_PASS": PASSWORD,
        "KACHERY_GATEWAY_URL": gateway.url,
        "KACHERY_ZONE": OPEN,
        "KACHERY_CLOUD_DIR": str(home / "kachery-cloud"),
        **others,
    }


@pytest.fixture(scope="module", params=["datajoint", "spyglass-0.6.0"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, gateway: Gateway) -> Iterator[Site]:
    prefix = environment(request.param)
    top = tmp_path_factory.mktemp("site")
    bases = (top / "lab-data", top / "other-data")
    homes = (top / "lab", top / "other")
    for directory in (*bases, *homes):
        directory.mkdir()
    with (
        Database(top / "database") as database,
        Lab(homes[0], gateway.url, name=f"lab-{request.param.replace('.', '-')}") as lab,
    ):
        notebooks = [
            Notebook(
                prefix / "bin" / "python",
                home,
                variables(prefix, home, database, gateway, LAB_BASE=str(base), PYTHONPATH=OURS),
            )
            for home, base in zip(homes, bases, strict=True)
        ]
        with notebooks[0] as here, notebooks[1] as elsewhere:
            for notebook in notebooks:
                # not all of these can be said in the environment to both versions
                notebook.run(
                    "import datajoint as dj\n"
                    f"dj.config['database.use_tls'], dj.config['database.port'] = False, {database.port}"
                )
                notebook.run(DECLARATION)
            zone = {"kachery_zone_name": OPEN, "description": "", "kachery_proxy": gateway.url}
            here.run(
                f"KacheryZone.insert1({{**{zone!r}, 'kachery_cloud_dir': {lab.variables['KACHERY_CLOUD_DIR']!r}}})"
            )
            here.run(
                f"KacheryZone.insert1({{**{zone!r}, 'kachery_zone_name': {PRIVATE!r}, "
                f"'kachery_cloud_dir': {str(homes[0] / 'private')!r}}})"
            )
            yield Site(gateway, lab, here, elsewhere, *bases)


def test_from_one_machine_to_another(site: Site) -> None:
    content = os.urandom(3_000_000)
    path = site.file("rig 1/session1.dat", content)
    site.insert(1, "rig 1/session1.dat")
    site.here.run(f"SharedRecording.share(which(1), zone={OPEN!r})")
    assert "RecordingKachery" in site.here.said
    (loaded,) = site.elsewhere.run("SharedRecording.load(which(1))")
    assert loaded == str(site.other_base / "rig 1" / "session1.dat")
    assert Path(loaded).read_bytes() == content
    # the source is where it was, and nothing was copied in the lab
    assert path.read_bytes() == content
    assert not list((site.lab.home / "kachery-cloud").rglob("sha1/*/*/*/*"))[1:]
    # again, with the lab's machine off
    site.lab.kill()
    assert site.elsewhere.run("SharedRecording.load(which(1))") == [loaded]
    site.lab.start()


def test_what_an_hdf5_file_needs_comes_with_it(site: Site) -> None:
    (site.base / "traces").mkdir()
    site.here.run(
        "import h5py\n"
        "with h5py.File(os.environ['LAB_BASE'] + '/traces/raw.h5', 'w') as raw:\n"
        "    raw['volts'] = list(range(1000))\n"
        "layout = h5py.VirtualLayout((1000,), 'i8')\n"
        "layout[:] = h5py.VirtualSource('traces/raw.h5', 'volts', (1000,))\n"
        "with h5py.File(os.environ['LAB_BASE'] + '/session2.h5', 'w') as file:\n"
        "    file['group/volts'] = h5py.ExternalLink('traces/raw.h5', 'volts')\n"
        "    file.create_virtual_dataset('again', layout)"
    )
    site.insert(2, site.base / "session2.h5")
    site.here.run(f"SharedRecording.share(which(2), zone={OPEN!r})")
    assert site.here.run("len(SharedRecording.LinkedFile & {'session': 2})") == 1
    total = site.elsewhere.run(
        "import h5py\n"
        "(path,) = SharedRecording.load(which(2))\n"
        "with h5py.File(path) as file:\n"
        "    total = int(file['group/volts'][:].sum()) + int(file['again'][:].sum())\n"
        "total"
    )
    assert total == 999_000


def test_what_is_shared_no_more(site: Site) -> None:
    content = os.urandom(100)
    site.file("session3.dat", content)
    for session in (3, 4):
        site.insert(session, "session3.dat")
    site.here.run(f"SharedRecording.share(Recording & 'session in (3, 4)', zone={OPEN!r})")
    uri = site.here.run("(SharedRecording & {'session': 3}).fetch1('file_uri')")
    link = list((site.lab.home / "kachery-cloud" / "linked_files").rglob(uri[7:47]))
    assert len(link) == 1
    site.here.run("SharedRecording.unshare(which(3))")
    with pytest.raises(CellFailed, match="not shared in any zone"):
        site.elsewhere.run("SharedRecording.load(which(3))")
    # the other row shares it still
    assert link[0].exists()
    # what is linked is known in the lab only
    hidden = site.lab.home / "kachery-cloud.elsewhere"
    (site.lab.home / "kachery-cloud").rename(hidden)
    with pytest.raises(CellFailed, match="is not on this machine"):
        site.here.run("SharedRecording.unshare(which(4))")
    hidden.rename(site.lab.home / "kachery-cloud")
    assert site.here.run("len(SharedRecording & which(4).proj())") == 1
    site.here.run(f"SharedRecording.unshare(which(4), zone={OPEN!r})")
    assert not link[0].exists()
    with pytest.raises(CellFailed, match="does not have it"):
        site.elsewhere.run(f"import kachery\nkachery.load_file({uri!r})")
    assert (site.base / "session3.dat").exists()
    # and once more
    site.here.run(f"SharedRecording.share(which(3), zone={OPEN!r})")
    (loaded,) = site.elsewhere.run("SharedRecording.load(which(3))")
    assert Path(loaded).read_bytes() == content


def test_a_zone_that_refuses_is_not_the_last(site: Site) -> None:
    site.file("session5.dat", b"in two zones")
    site.insert(5, "session5.dat")
    for zone in (OPEN, PRIVATE):
        site.here.run(f"SharedRecording.share(which(5), zone={zone!r})")
    (loaded,) = site.elsewhere.run("SharedRecording.load(which(5))")
    assert Path(loaded).read_bytes() == b"in two zones"
    site.here.run(f"SharedRecording.unshare(which(5), zone={OPEN!r})")
    Path(loaded).unlink()
    site.elsewhere.run("import shutil; shutil.rmtree(os.environ['KACHERY_CLOUD_DIR'])")
    with pytest.raises(CellFailed) as failed:
        site.elsewhere.run("SharedRecording.load(which(5))")
    assert "PermissionError" in failed.value.kinds


def test_what_cannot_be_shared(site: Site, tmp_path: Path) -> None:
    (tmp_path / "outside.dat").write_bytes(b"not below the base")
    site.insert(6, tmp_path / "outside.dat")
    site.insert(7, "missing.dat")
    for session, why in ((6, "is not in"), (7, "missing.dat")):
        with pytest.raises(CellFailed, match=why):
            site.here.run(f"SharedRecording.share(which({session}), zone={OPEN!r})")
        assert site.here.run(f"len(SharedRecording & {{'session': {session}}})") == 0
        site.here.run(f"SharedRecording.unshare(which({session}))")
    with pytest.raises(CellFailed, match="say which rows"):
        site.here.run(f"SharedRecording.share({{}}, zone={OPEN!r})")


def test_nothing_that_is_there_is_overwritten(site: Site) -> None:
    site.file("session8.dat", b"the lab's")
    site.insert(8, "session8.dat")
    site.here.run(f"SharedRecording.share(which(8), zone={OPEN!r})")
    own = site.other_base / "session8.dat"
    own.write_bytes(b"my own!!!")
    with pytest.raises(CellFailed, match="is something else"):
        site.elsewhere.run("SharedRecording.load(which(8))")
    assert own.read_bytes() == b"my own!!!"
    (loaded,) = site.elsewhere.run("SharedRecording.load(which(8), base=os.environ['HOME'])")
    assert Path(loaded).read_bytes() == b"the lab's"


# -- the attribute ----------------------------------------------------------------------------------------------------

ATTRIBUTE = """
import os
import datajoint as dj

dj.config["database.use_tls"] = False
dj.config["safemode"] = False
schema = dj.Schema("lab_attributes")

@schema
class Session(dj.Manual):
    definition = '''
    session: int32
    ---
    recording = null: <kachery>
    '''

def recording(session):
    return (Session & {"session": session}).fetch1("recording")
"""


def test_an_attribute_that_is_a_file(gateway: Gateway, tmp_path: Path) -> None:
    """DataJoint finds the type by itself; the files go to the zone and come from there."""
    prefix = environment("datajoint")
    add_ours(prefix)
    notebooks: list[Notebook] = []
    with Database(tmp_path / "database") as database:
        for name in ("here", "elsewhere"):
            (tmp_path / name).mkdir()
            settings = variables(prefix, tmp_path / name, database, gateway)
            notebooks.append(Notebook(prefix / "bin" / "python", tmp_path / name, settings))
        with notebooks[0] as here, notebooks[1] as elsewhere:
            key = here.run("from kachery.store import keys\nkeys.load_or_create().client_id")
            gateway.admin("user", "add", "hodgkin")
            gateway.admin("grant", "hodgkin", "--zone", OPEN, "upload,download")
            gateway.admin("client", "add", key, "--owner", "hodgkin", "--zone", OPEN)
            for notebook in notebooks:
                notebook.run(ATTRIBUTE)
            content = os.urandom(5_000_000)
            (tmp_path / "session 1.dat").write_bytes(content)
            here.run(f"Session.insert1({{'session': 1, 'recording': {str(tmp_path / 'session 1.dat')!r}}})")
            uri = here.run("str(recording(1))")
            assert uri.startswith(f"kachery:{OPEN}:sha1:")
            # fetching the row moves nothing
            assert elsewhere.run("str(recording(1))") == uri
            assert not (tmp_path / "elsewhere" / "kachery-cloud").exists()
            part = elsewhere.run("file = recording(1).open()\nfile.seek(4_000_000)\nfile.read(4).hex()")
            assert bytes.fromhex(part) == content[4_000_000:4_000_004]
            assert Path(elsewhere.run("recording(1).path")).read_bytes() == content
            assert elsewhere.run("len(open(recording(1), 'rb').read())") == len(content)
            # a URI, and a file that was fetched, are kept as they are
            here.run(f"Session.insert1({{'session': 2, 'recording': {uri!r}}})")
            here.run("Session.insert1({'session': 3, 'recording': recording(2)})")
            here.run("Session.insert1({'session': 4})")
            assert elsewhere.run("recording(3) == recording(1), recording(4)") == [True, None]
            for value, kind in (("7", "TypeError"), ("'sha1://x'", "ValueError"), ("'/missing'", "FileNotFoundError")):
                with pytest.raises(CellFailed) as failed:
                    here.run(f"Session.insert1({{'session': 9, 'recording': {value}}})")
                assert kind in failed.value.kinds, failed.value
            with pytest.raises(CellFailed, match="no @store"):
                here.run("dj.get_codec('kachery').get_dtype(True)")
