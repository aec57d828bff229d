"""The lines of the benchmark: what is compared, with the goal next to it. One small function a line."""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import on_demand
import snapshots
from measure import ContenderFailed, Sample, peak_memory, run
from nginx import CONFIGURATIONS
from report import Contender, Goal, Line
from rigs.gateway import KACHERY, Gateway
from rigs.release import Client, Release

if TYPE_CHECKING:
    from collections.abc import Callable

WORKER = Path(__file__).with_name("worker.py")
MIB = 1 << 20

#: Resident memory that a client or a gateway may use, in bytes, whatever the size of the file.
MEMORY = 150 * MIB

#: Seconds that `import kachery` and `kachery --help` may take.
START = 0.15


@dataclass
class Bench:
    """What all lines share.

    Args:
        scratch: A directory on the file system that is measured.
        size: Size of the large file in bytes.
        files: Number of small files in the local line.
        transfers: Number of small files in the line that goes through the gateway.
        huge: Size in bytes of the file of the memory line.
        ours: This tree.
        upstream: The released client.
        gateway: Running, with a zone that anybody may read.
        nginx: Base addresses by name, serving `scratch / "served"`.
        proxy: The address of a plain reverse proxy in front of the first of them.
    """

    scratch: Path
    size: int
    files: int
    transfers: int
    huge: int
    ours: Release
    upstream: Release
    gateway: Gateway
    nginx: dict[str, str]
    proxy: str

    def __post_init__(self) -> None:
        self._serial = 0
        self._tiny = ""
        self._identities: dict[str, Path] = {}
        self.upstream_name = f"kachery-cloud {self.upstream.version}"
        # through KACHERY_GATEWAY_URL and not KACHERY_ZONE's look-up, which would ask a public host
        self.zone_variables = {"KACHERY_GATEWAY_URL": self.gateway.url, "KACHERY_ZONE": self.gateway.zone}

    def client(self, release: Release) -> Client:
        """A user with an empty store directory and the release's registered keys."""
        identity = self._identity(release)
        self._serial += 1
        directory = self.scratch / "clients" / str(self._serial)
        directory.mkdir(parents=True)
        for name in ("private.pem", "public.pem"):
            shutil.copy2(identity / name, directory / name)
        return Client(release, directory, {**self.zone_variables, "KACHERY_PROGRESS": "0"})

    def _identity(self, release: Release) -> Path:
        if release.version not in self._identities:
            directory = self.scratch / "identities" / release.version
            directory.mkdir(parents=True)
            client_id = Client(release, directory).make_keys()
            owner, zone = "bench", self.gateway.zone
            if not self._identities:
                self.gateway.admin("user", "add", owner)
                self.gateway.admin("grant", owner, "--zone", zone, "upload,download")
            self.gateway.admin("client", "add", client_id, "--owner", owner, "--zone", zone)
            self._identities[release.version] = directory
        return self._identities[release.version]

    def worker(self, release: Release, operation: str, *arguments: str, keep: bool = False) -> Callable[[], Sample]:
        """A sample of an operation by a client whose store directory is empty.

        Args:
            release: The client.
            operation: What it does, in `worker.py`.
            arguments: With what.
            keep: Leave the directory until the end, instead of removing it. ext4 goes round every inode that was
                freed in the last half minute, so that whoever comes after a removal of many files pays for it.
        """

        def measure() -> Sample:
            client = self.client(release)
            try:
                command = [str(release.python), str(WORKER), operation, *arguments]
                return run(command, client.variables(), reports=True)
            finally:
                if not keep:
                    shutil.rmtree(client.directory)

        return measure

    def program(self, *command: str, fresh: Path | None = None) -> Callable[[], Sample]:
        """A sample of a program that knows nothing of kachery; `fresh` is removed first."""

        def measure() -> Sample:
            if fresh is not None:
                fresh.unlink(missing_ok=True)
            return run(command, {"PATH": os.defpath + ":/usr/local/bin", "LANG": "C"})

        return measure

    def random_file(self, name: str, size: int) -> Path:
        """A file that nobody has stored yet."""
        path = self.scratch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            for start in range(0, size, MIB):
                stream.write(os.urandom(min(MIB, size - start)))
        return path

    def stored(self, path: Path) -> str:
        """The URI of a file that the zone has now."""
        client = self.client(self.ours)
        uri = client.call("store_file", str(path), timeout=900)
        shutil.rmtree(client.directory)
        return str(uri)

    def tiny(self) -> str:
        """The URI of something small in the zone, for a client's first call."""
        if not self._tiny:
            self._tiny = self.stored(self.random_file("tiny", 64))
        return self._tiny

    def address(self, uri: str) -> str:
        """Where the gateway gives a file out, as anybody may ask."""
        hash_ = uri.removeprefix("sha1://")[:40]
        now = int(time.time() * 1000)
        payload = {"type": "findFile", "hashAlg": "sha1", "hash": hash_, "zone": self.gateway.zone, "timestamp": now}
        request = urllib.request.Request(
            self.gateway.url + "/api/gateway",
            data=json.dumps({"payload": payload}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            found = json.load(reply)
        if not found["found"]:
            raise ContenderFailed(f"the gateway does not find {uri}")
        return str(found["url"])


def store_local(bench: Bench) -> Line:
    """Store a large file locally, with its hash."""
    path = bench.random_file("large", bench.size)
    copy = bench.scratch / "copy"
    return Line(
        "store-local",
        f"Store {bench.size // MIB} MiB locally",
        bench.size / MIB,
        "MiB",
        [
            Contender("kachery", bench.worker(bench.ours, "store_local", str(path))),
            Contender(bench.upstream_name, bench.worker(bench.upstream, "store_local", str(path))),
            Contender("cp && sha1sum", bench.program("sh", "-c", f"cp {path} {copy} && sha1sum {copy}", fresh=copy)),
        ],
        [
            Goal("kachery", "wall", 1 / 0.9, bench.upstream_name),
            Goal("kachery", "wall", 2.5, "cp && sha1sum"),
        ],
    )


def small_local(bench: Bench) -> Line:
    """Store and load many small files locally; whole processes, in CPU time."""
    directory = bench.scratch / "small"
    for number in range(bench.files):
        bench.random_file(f"small/{number}", 4096)
    return Line(
        "small-local",
        f"Store and load {bench.files:,} files of 4 KiB locally",
        bench.files,
        "files",
        [
            Contender("kachery", bench.worker(bench.ours, "store_and_load_local", str(directory), keep=True)),
            Contender(
                bench.upstream_name, bench.worker(bench.upstream, "store_and_load_local", str(directory), keep=True)
            ),
            Contender("the layout alone", bench.worker(bench.ours, "file_system_alone", str(directory), keep=True)),
        ],
        [Goal("kachery", "cpu", 2.0, bench.upstream_name)],
    )


def download(bench: Bench) -> Line:
    """Download a large file into the store."""
    path = bench.random_file("served/large", bench.size)
    uri = bench.stored(path)
    copy = bench.scratch / "copy"
    curl = [
        Contender(f"curl -o, {name}", bench.program("curl", "-sSf", "-o", str(copy), f"{url}/large", fresh=copy))
        for name, url in bench.nginx.items()
    ]
    return Line(
        "download",
        f"Download {bench.size // MIB} MiB from a zone into the store; kachery verifies it, the release does not",
        bench.size / MIB,
        "MiB",
        [
            Contender("kachery", bench.worker(bench.ours, "download", bench.tiny(), uri)),
            Contender(bench.upstream_name, bench.worker(bench.upstream, "download", bench.tiny(), uri)),
            *curl,
        ],
        [
            Goal("kachery", "wall", 2.5, bench.upstream_name),
            *[Goal("kachery", "wall", 0.9, contender.name) for contender in curl],
            Goal("kachery", "peak", MEMORY),
        ],
    )


def upload(bench: Bench) -> Line:
    """Upload a large file that the zone does not have."""

    def fresh(release: Release) -> Callable[[], Sample]:
        def measure() -> Sample:
            path = bench.random_file("to upload", bench.size)
            try:
                return bench.worker(release, "upload", str(path))()
            finally:
                path.unlink()

        return measure

    return Line(
        "upload",
        f"Upload {bench.size // MIB} MiB to a zone on the same machine",
        bench.size / MIB,
        "MiB",
        [
            Contender("kachery", fresh(bench.ours)),
            Contender(bench.upstream_name, fresh(bench.upstream)),
        ],
        [Goal("kachery", "wall", 1.3, bench.upstream_name), Goal("kachery", "peak", MEMORY)],
    )


def serve(bench: Bench) -> Line:
    """Serve a large file to curl."""
    path = bench.random_file("served/large", bench.size)
    url = bench.address(bench.stored(path))
    return Line(
        "serve",
        f"Serve {bench.size // MIB} MiB to `curl -o /dev/null`",
        bench.size / MIB,
        "MiB",
        [
            Contender("gateway", bench.program("curl", "-sSf", "-o", "/dev/null", url)),
            *[
                Contender(name, bench.program("curl", "-sSf", "-o", "/dev/null", f"{base}/large"))
                for name, base in bench.nginx.items()
            ],
        ],
        [Goal("gateway", "wall", 1.0, next(iter(CONFIGURATIONS)))],
    )


def small_download(bench: Bench) -> Line:
    """Find and download many small files in one process."""
    client = bench.client(bench.ours)
    paths = [str(bench.random_file(f"small to upload/{number}", 4096)) for number in range(bench.transfers)]
    # one process for all of them
    store_all = "import sys, kachery\nfor path in sys.argv[1:]: print(kachery.store_file(path))"
    uris = client.output("python", "-c", store_all, *paths).split()
    shutil.rmtree(client.directory)
    return Line(
        "small-download",
        f"`findFile` and download {bench.transfers} files of 4 KiB, one after the other",
        bench.transfers,
        "files",
        [
            Contender("kachery", bench.worker(bench.ours, "download", bench.tiny(), *uris, keep=True)),
            Contender(bench.upstream_name, bench.worker(bench.upstream, "download", bench.tiny(), *uris, keep=True)),
        ],
        [Goal("kachery", "wall", 5.0, bench.upstream_name)],
    )


def read_range(bench: Bench) -> Line:
    """Read a little out of a large file that only the zone has."""
    uri = bench.stored(bench.random_file("large", bench.size))
    middle = bench.size // 2
    return Line(
        "read-range",
        f"Read 1 MiB out of {bench.size // MIB} MiB in a zone",
        0,
        "MiB",
        [
            Contender("kachery.open", bench.worker(bench.ours, "read_range", bench.tiny(), uri, str(middle), str(MIB))),
            Contender("kachery.load_file", bench.worker(bench.ours, "load_whole", bench.tiny(), uri)),
        ],
        [Goal("kachery.open", "wall", 50.0, "kachery.load_file")],
    )


def memory(bench: Bench) -> Line:
    """The highest memory of client and gateway while a huge file goes up and comes down; the gateway is a new one."""
    path = bench.random_file("huge", bench.huge)
    bench.gateway.stop()
    bench.gateway.start()
    uris: list[str] = []

    def up() -> Sample:
        sample = bench.worker(bench.ours, "upload", str(path))()
        uris.append(bench.stored(path))
        return sample

    def down() -> Sample:
        return bench.worker(bench.ours, "download", bench.tiny(), uris[-1])()

    def gateway() -> Sample:
        return Sample(0.0, 0.0, 0.0, peak_memory(bench.gateway.pid))

    return Line(
        "memory",
        f"Peak memory for a file of {bench.huge // MIB} MiB",
        0,
        "MiB",
        [Contender("client, upload", up), Contender("client, download", down), Contender("gateway", gateway)],
        [
            Goal("client, upload", "peak", MEMORY),
            Goal("client, download", "peak", MEMORY),
            Goal("gateway", "peak", MEMORY),
        ],
        rounds=1,
    )


def start(bench: Bench) -> Line:
    """What every program and every command waits for."""
    python = str(bench.ours.python)
    return Line(
        "start",
        "Start: `import kachery` and `kachery --help`",
        0,
        "",
        [
            Contender("python -c pass", bench.program(python, "-c", "pass")),
            Contender("import kachery", bench.program(python, "-c", "import kachery")),
            Contender("kachery --help", bench.program(str(KACHERY), "--help")),
            Contender(
                "import kachery_cloud (release)",
                bench.program(str(bench.upstream.python), "-c", "import kachery_cloud"),
            ),
        ],
        [Goal("import kachery", "wall", START), Goal("kachery --help", "wall", START)],
        rounds=15,
    )


LINES = {
    "store-local": store_local,
    "small-local": small_local,
    "download": download,
    "upload": upload,
    "serve": serve,
    "small-download": small_download,
    "read-range": read_range,
    "on-demand": on_demand.on_demand,
    "on-demand-small": on_demand.on_demand_small,
    "on-demand-range": on_demand.on_demand_range,
    "on-demand-hundred": on_demand.on_demand_hundred,
    "snapshot-small": snapshots.small_files,
    "snapshot-large": snapshots.large_files,
    "snapshot-entries": snapshots.many_entries,
    "memory": memory,
    "start": start,
}
