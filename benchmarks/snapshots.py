"""Lines about whole directories: stored beside DVC, git-annex and DataLad; listed; one file out of very many.

Each of the others works in a repository of its own, which is made and filled with a copy of the directory before its
clock starts; what is measured is the command by which a person has it keep the directory.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from kachery import manifests
from kachery.store import Store
from measure import ContenderFailed, Sample, run
from report import Contender, Goal, Line
from rigs.gateway import KACHERY
from rigs.release import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from lines import Bench

MIB = 1 << 20

#: Entries of the large snapshot, and the memory that reading it may take, in bytes.
ENTRIES = 100_000
MEMORY = 300 * MIB

#: Seconds that listing it, and loading one file out of it, may take.
LISTED, LOADED = 1.5, 0.3

# of each program: how its repository is made, and how it keeps the directory `d`
_OTHERS = {
    "dvc add": ([["git", "init", "-q"], ["dvc", "init", "-q"]], ["dvc", "add", "-q", "d"]),
    "git annex add": ([["git", "init", "-q"], ["git", "annex", "init", "-q"]], ["git", "annex", "add", "-q", "d"]),
    "datalad save": (
        [["datalad", "-l", "error", "create", "--force", "."]],
        ["datalad", "-l", "error", "save", "-m", "all", "d"],
    ),
}

_IDENTITY = ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL")


def small_files(bench: Bench) -> Line:
    """Store a directory of many small files."""
    for number in range(bench.files):
        bench.random_file(f"many/{number:06d}", 4096)
    return Line(
        "snapshot-small",
        f"Store a directory of {bench.files:,} files of 4 KiB on this machine",
        bench.files,
        "files",
        _contenders(bench, "many"),
        [
            *(Goal("kachery store", "cpu", 3.0, name) for name in _OTHERS),
            *(Goal("kachery store", "wall", 2.0, name) for name in _OTHERS),
        ],
        rounds=3,
    )


def large_files(bench: Bench) -> Line:
    """Store a directory of large files."""
    size = 5 * MIB if bench.size >= 1000 * MIB else bench.size // 200
    for number in range(200):
        bench.random_file(f"few/{number:03d}", size)
    return Line(
        "snapshot-large",
        f"Store a directory of 200 files of {size / MIB:.1f} MiB on this machine",
        200 * size / MIB,
        "MiB",
        _contenders(bench, "few"),
        [Goal("kachery store", "wall", 1.0, name) for name in _OTHERS],
        rounds=3,
    )


def many_entries(bench: Bench) -> Line:
    """List a snapshot of very many entries, and load one file out of it."""
    client = bench.client(bench.ours)
    entries = ENTRIES if bench.files >= 10_000 else 1000
    names = {f"recording_{number:06d}.dat": b"%d" % number for number in range(entries)}
    tree = manifests.empty()
    for name, content in names.items():
        tree["files"][name] = {"size": len(content), "sha1": hashlib.sha1(content, usedforsecurity=False).hexdigest()}
    store = Store(client.directory)
    uri = f"sha1dir://{store.add_bytes(manifests.to_bytes(tree))}.large"
    last, content = list(names.items())[-1]
    store.add_bytes(content)

    def command(*arguments: str) -> Callable[[], Sample]:
        return lambda: run([str(KACHERY), *arguments], client.variables())

    def reading() -> Sample:
        worker = Path(__file__).with_name("worker.py")
        return run([str(bench.ours.python), str(worker), "list_directory", uri], client.variables(), reports=True)

    return Line(
        "snapshot-entries",
        f"A snapshot with {entries:,} entries: list it, load its last file; whole processes",
        0,
        "",
        [
            Contender("kachery ls", command("ls", uri)),
            Contender("kachery cat", command("cat", f"{uri}/{last}")),
            Contender("kachery.read_dir", reading),
        ],
        [
            Goal("kachery ls", "wall", LISTED),
            Goal("kachery cat", "wall", LOADED),
            Goal("kachery.read_dir", "peak", MEMORY),
        ],
    )


def _contenders(bench: Bench, name: str) -> list[Contender]:
    source = bench.scratch / name
    return [
        Contender("kachery store", _ours(bench, source)),
        *(Contender(other, _other(bench, source, other)) for other in _OTHERS),
    ]


def _ours(bench: Bench, source: Path) -> Callable[[], Sample]:
    def measure() -> Sample:
        # left in place until the end, as those of the others: see `Bench.worker`
        client = bench.client(bench.ours)
        return run([str(KACHERY), "store", "--local", str(source)], client.variables())

    return measure


def _other(bench: Bench, source: Path, name: str) -> Callable[[], Sample]:
    making, keeping = _OTHERS[name]
    programs = environment("snapshots") / "bin"
    places = bench.scratch / "repositories"

    def measure() -> Sample:
        place = places / f"{name.replace(' ', '-')}-{source.name}-{len(list(places.glob('*')))}"
        home = place / "home"
        home.mkdir(parents=True)
        variables = {
            "PATH": os.pathsep.join([str(programs), os.defpath]),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "DVC_NO_ANALYTICS": "1",
            **{f"GIT_{role}": "bench@example.org" for role in _IDENTITY},
        }
        repository = place / "repository"
        repository.mkdir()
        for command in making:
            done = subprocess.run(command, cwd=repository, env=variables, capture_output=True, check=False)
            if done.returncode:
                raise ContenderFailed(f"{' '.join(command)}: {done.stderr.decode()[-2000:]}")
        shutil.copytree(source, repository / "d")
        return run(keeping, variables, cwd=repository)

    return measure
