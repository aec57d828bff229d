"""A lab and its collaborators: real Spyglass on a real database, two networks, a gateway and the lab's daemon.

The lab is set up with the commands of `docs/spyglass.md`, with other addresses and directories in them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rigs.database import PASSWORD, USER, Database
from rigs.gateway import KACHERY, START, Gateway, line_within
from rigs.networks import WORLD, two_networks
from rigs.notebook import Notebook
from rigs.release import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rigs.networks import Inside

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "spyglass.md").read_text()
SESSION = Path(__file__).with_name("session.py").read_text()

DEFAULT, COLLABORATORS, PUBLIC = "lab.default", "lab.collaborators", "lab.public"
ZONES = (DEFAULT, COLLABORATORS, PUBLIC)

#: What stands beside Spyglass as `kachery_cloud` and `kachery`: ours, or what its extra brings.
OURS = os.pathsep.join([str(ROOT / "src"), str(ROOT / "compat" / "kachery-cloud" / "src")])


def released() -> str:
    """Where the released `kachery_cloud` 0.4.2 and `kachery` 2.0.3 are."""
    return str(next(environment("kachery-released").glob("lib/python*/site-packages")))


def blocks(language: str, where: str) -> list[str]:
    """The blocks of the page that are meant for some place, as they stand there."""
    found = re.findall(rf"^```{language}\n# {where}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/spyglass.md has no {language} for {where}"
    return found


#: What a notebook begins with; `epoch(n)` is the analysis of an epoch.
LOADING = """
import os
import kachery_cloud as kcl
import spyglass.common as sgc
import spyglass.sharing as sgs
from spyglass.position.v1 import TrodesPosV1

def epoch(number):
    return TrodesPosV1 & {"interval_list_name": f"pos {number} valid times"}
"""


@pytest.fixture(scope="session")
def networks() -> Iterator[tuple[Inside, Inside]]:
    if os.geteuid() != 0 and "CI" not in os.environ:
        pytest.skip("only root can make network namespaces")
    with two_networks() as made:
        yield made


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory, networks: tuple[Inside, Inside]) -> Iterator[Database]:
    with Database(tmp_path_factory.mktemp("database"), ("127.0.0.1", WORLD), networks[1]) as running:
        yield running


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory, networks: tuple[Inside, Inside]) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gateway"), DEFAULT, host=WORLD, inside=networks[1]) as running:
        yield running


@dataclass
class Machine:
    """A machine with Spyglass.

    Attributes:
        home: The home of its user.
        variables: The environment of its programs.
        inside: A command that runs something in its network.
        notebook: A notebook of its user.
    """

    home: Path
    variables: dict[str, str]
    inside: Inside
    notebook: Notebook

    def paths(self, name: str) -> list[Path]:
        """Where Spyglass keeps an analysis file here; nowhere, if it is not here."""
        return list((self.home / "nwb" / "analysis").rglob(name))

    def has(self, name: str) -> list[bytes]:
        """The content of an analysis file, if it is here."""
        return [path.read_bytes() for path in self.paths(name)]

    def run(self, cell: str) -> Any:
        """Run a cell in the notebook."""
        return self.notebook.run(cell)

    @property
    def said(self) -> str:
        """What the last cell wrote."""
        return self.notebook.said


@pytest.fixture(scope="session")
def machine(
    tmp_path_factory: pytest.TempPathFactory, database: Database, gateway: Gateway
) -> Iterator[Callable[..., Machine]]:
    """Makes a machine, called with its name, its network, where its kachery clients are, and what its shell sets."""
    made: list[Machine] = []

    def make(name: str, inside: Inside, clients: str = OURS, **settings: str) -> Machine:
        home = tmp_path_factory.mktemp(name)
        (home / "bin").mkdir()
        # Spyglass writes down the packages of its environment with it
        (home / "bin" / "conda").write_text("#!/bin/sh\necho name: base\n")
        (home / "bin" / "conda").chmod(0o755)
        (home / "nwb" / "raw").mkdir(parents=True)
        connection = {
            "database.host": WORLD,
            "database.port": database.port,
            "database.user": USER,
            "database.password": PASSWORD,
            "database.use_tls": False,
            "safemode": False,
            "enable_python_native_blobs": True,
            "filepath_checksum_size_limit": 1024**3,
            "custom": {"spyglass_dirs": {"base": str(home / "nwb")}},
        }
        (home / "dj_local_conf.json").write_text(json.dumps(connection))
        spyglass = environment("spyglass-0.6.0")
        variables = {
            "PATH": os.pathsep.join([str(home / "bin"), str(spyglass / "bin"), "/usr/local/bin", "/usr/bin", "/bin"]),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": clients,
            "PYTHONWARNINGS": "ignore",
            "KACHERY_PROGRESS": "1",
            "QT_QPA_PLATFORM": "offscreen",
            "MPLBACKEND": "agg",
            **settings,
        }
        made.append(Machine(home, variables, inside, Notebook(spyglass / "bin" / "python", home, variables, inside)))
        return made[-1]

    yield make
    for each in made:
        each.notebook.restart()


@dataclass
class Lab:
    """The lab: its machine with Spyglass, and the daemon that shares its files.

    Attributes:
        machine: The machine.
        gateway: The lab's server.
        names: What stands in the page, and what it is here.
        log: The daemon's log.
    """

    machine: Machine
    gateway: Gateway
    names: dict[str, str]
    log: Path
    _daemon: subprocess.Popen[str] | None = field(default=None, repr=False)

    def here(self, text: str) -> str:
        """A text of the page with the names that are used here."""
        for name, own in self.names.items():
            text = text.replace(name, own)
        return text

    def shell(self, block: str) -> str:
        """Run commands of the page; gives what the last of them printed."""
        bin_directory = str(KACHERY.parent)
        variables = {
            "PATH": os.pathsep.join([bin_directory, "/usr/bin", "/bin"]),
            "HOME": str(self.gateway.data.parent),
            "KACHERY_CLOUD_DIR": str(self.gateway.data.parent / "administrator"),
        }
        done = subprocess.run(
            ["bash", "-euc", self.here(block)],
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def switch_on(self) -> None:
        """Start the daemon as its service does, and wait until all zones have it."""
        (start,) = re.findall(r"^ExecStart=(.*)$", PAGE, re.MULTILINE)
        variables = {"PATH": "/usr/bin:/bin", "HOME": str(self.machine.home), "LANG": "C.UTF-8"}
        with self.log.open("ab") as log:
            self._daemon = subprocess.Popen(
                [*self.machine.inside, *shlex.split(self.here(start))],
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._daemon.stdout is not None
        urls = {line_within(self._daemon.stdout, START).strip() for _ in ZONES}
        assert urls == {f"Resource URL: {self.gateway.url}/r/{zone}" for zone in ZONES}, self.log.read_text()

    def switch_off(self) -> None:
        """End the daemon as a power cut would."""
        if self._daemon is None:
            return
        self._daemon.send_signal(signal.SIGKILL)
        self._daemon.wait()
        if self._daemon.stdout is not None:
            self._daemon.stdout.close()
        self._daemon = None

    def server_off(self) -> None:
        """End the server as a power cut would."""
        self.gateway.kill()

    def server_on(self) -> None:
        """Start the server, and wait until the daemon has come back to it."""
        before = self._connections()
        self.gateway.start()
        deadline = time.monotonic() + START
        while self._connections() < before + len(ZONES):
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.05)

    def _connections(self) -> int:
        return self.log.read_text().count(" connected resource=")

    def share(self, number: int, *zones: str) -> tuple[str, str, Path]:
        """Share the analysis of an epoch by its selection; its name, its URI and where it is."""
        name = self.machine.run(f"epoch({number}).fetch1('analysis_file_name')")
        for zone in zones:
            key = {"kachery_zone_name": zone, "analysis_file_name": name}
            self.machine.run(f"sgs.AnalysisNwbfileKacherySelection.insert1({key!r}, skip_duplicates=True)")
        uris = self.machine.run(
            "sgs.AnalysisNwbfileKachery.populate()\n"
            f"list((sgs.AnalysisNwbfileKachery & {{'analysis_file_name': {name!r}}}).fetch('analysis_file_uri'))"
        )
        (uri,) = set(uris)
        (path,) = self.machine.paths(name)
        return name, uri, path

    def init(self, machine: Machine) -> str:
        """Run `kachery init` on a machine as the page says, for the directory that Spyglass uses there; its output."""
        (command,) = re.findall(r"^ {4}(kachery init .*)$", PAGE, re.MULTILINE)
        done = subprocess.run(
            [*machine.inside, str(KACHERY), *shlex.split(self.here(command))[1:], "--no-wait"],
            env=machine.variables | {"KACHERY_CLOUD_DIR": str(machine.home / "nwb" / ".kachery-cloud")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def let_in(self, machine: Machine, name: str, *zones: str) -> None:
        """Register a machine's client for a person in some zones, as the person does on the page of `kachery init`."""
        # since 0.4.10 keys are made when asked for only
        key = machine.run(
            "import inspect, kachery_cloud as kcl\n"
            "kcl.get_client_id(*[True][: len(inspect.signature(kcl.get_client_id).parameters)])"
        )
        for zone in zones:
            self.gateway.admin("client", "add", key, "--owner", name, "--zone", zone)


@pytest.fixture(scope="session")
def lab(
    machine: Callable[..., Machine],
    networks: tuple[Inside, Inside],
    gateway: Gateway,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    """The lab with a session of twelve epochs, analysed, and its daemon running."""
    own = tmp_path_factory.mktemp("disk")
    names = {
        "/srv/kachery": str(gateway.data),
        "/data/kachery": str(own / "data"),
        "/etc/kachery": str(own / "etc"),
        "https://kachery.example.org": gateway.url,
        "/opt/kachery/bin": str(KACHERY.parent),
        "chgrp lab": f"chgrp {os.getegid()}",
        "chown -R share": f"chown -R {os.geteuid()}",
    }
    # as the page says for scientists
    shell = {"KACHERY_RESOURCE_URL": f"{gateway.url}/r/{DEFAULT}"}
    made = Lab(machine("lab", networks[0], **shell), gateway, names, own / "daemon.log")
    said = made.shell(blocks("sh", "on the server")[0])
    made.names["THE-SECRET"] = said.split()[-2]
    made.shell(blocks("sh", "on the machine with the files")[0])
    made.switch_on()
    raw = made.machine.home / "nwb" / "raw" / "session7.nwb"
    made.machine.run(SESSION + f"\nwrite({str(raw)!r})")
    made.machine.run(
        "import spyglass.data_import as sgi\n"
        "from spyglass.position.v1 import TrodesPosParams, TrodesPosSelection, TrodesPosV1\n"
        "sgi.insert_sessions('session7.nwb')\n"
        "TrodesPosParams.insert_default()\n"
        "TrodesPosSelection.insert_with_default({'nwb_file_name': 'session7_.nwb'})\n"
        "TrodesPosV1.populate()"
    )
    made.machine.run(made.here(blocks("python", "in the administrator's notebook")[0]))
    made.machine.run(LOADING)
    yield made
    made.switch_off()
