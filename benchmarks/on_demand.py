"""Lines about files that only a lab's machine has: they come through the relay when somebody asks."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from measure import ContenderFailed, Sample, bytes_read, run
from nginx import CONFIGURATIONS
from report import Contender, Goal, Line
from rigs.lab import SECRET, Lab

if TYPE_CHECKING:
    from collections.abc import Callable

    from lines import Bench
    from rigs.release import Release

WORKER = Path(__file__).with_name("worker.py")
UPSTREAM_RESOURCE = Path(__file__).with_name("upstream_resource.py")
MIB = 1 << 20
RESOURCE = "bench-lab"


def on_demand(bench: Bench) -> Line:
    """Load a large file that only the lab's machine has."""
    bench.random_file("served/large", bench.size)
    copy = bench.scratch / "copy"
    proxied = f"curl -o, reverse proxy, {next(iter(CONFIGURATIONS))}"
    return Line(
        "on-demand",
        f"Load {bench.size // MIB} MiB that are linked on another machine, through the relay",
        bench.size / MIB,
        "MiB",
        [
            Contender("kachery", _loading(bench, bench.ours, bench.size)),
            Contender(bench.upstream_name, _loading(bench, bench.upstream, bench.size)),
            Contender(proxied, bench.program("curl", "-sSf", "-o", str(copy), f"{bench.proxy}/large", fresh=copy)),
        ],
        [Goal("kachery", "wall", 150 / 400, proxied)],
    )


def on_demand_small(bench: Bench) -> Line:
    """Load a file of 10 MB, where most of the time is waiting."""
    size = min(10_000_000, bench.size)
    return Line(
        "on-demand-small",
        f"Load {size / 1e6:.0f} MB that are linked on another machine, through the relay",
        size / MIB,
        "MiB",
        [
            Contender("kachery", _loading(bench, bench.ours, size)),
            Contender(f"{bench.upstream_name}", _loading(bench, bench.upstream, size)),
            Contender(f"{bench.upstream_name} at both ends", _loading_as_upstream(bench, size)),
        ],
        [Goal("kachery", "wall", 3.0, f"{bench.upstream_name} at both ends")],
    )


def on_demand_range(bench: Bench) -> Line:
    """Read a little out of a large file that only the lab's machine has."""
    return Line(
        "on-demand-range",
        f"First 1 MiB out of {bench.size // MIB} MiB that are linked on another machine",
        0,
        "MiB",
        [
            Contender("kachery.open", _loading(bench, bench.ours, bench.size, "read_range", "0", str(MIB))),
            Contender("kachery.load_file", _loading(bench, bench.ours, bench.size)),
        ],
        [Goal("kachery.open", "wall", 10.0, "kachery.load_file")],
    )


def on_demand_hundred(bench: Bench) -> Line:
    """A hundred clients that want the same file at the same time: the lab's machine reads and sends it once."""
    size = min(64 * MIB, bench.size)
    return Line(
        "on-demand-hundred",
        f"{size // MIB} MiB that are linked on another machine, for one reader and for a hundred at once",
        0,
        "MiB",
        [Contender("one", _reading(bench, size, 1)), Contender("a hundred", _reading(bench, size, 100))],
        [Goal("a hundred", "read", 1.25 * size)],
    )


def _reading(bench: Bench, size: int, readers: int) -> Callable[[], Sample]:
    """A sample of readers that begin at once with a file that was linked a moment ago."""
    from kachery.zone import RemoteFile, Zone

    def measure() -> Sample:
        gateway = bench.gateway
        path = bench.random_file("lab/fresh", size)
        with Lab(bench.scratch / "lab", gateway.url, zone=gateway.zone, name=RESOURCE) as lab:
            found = Zone(gateway.zone, gateway.url).request_file(lab.link(path)[7:])
            if not isinstance(found, RemoteFile):
                raise ContenderFailed(f"the lab's machine does not offer its file: {found}")
            before = bytes_read(lab.pid)
            wanted = ["-o", "/dev/null", found.url] * readers
            command = ["curl", "-sSf", "--parallel", "--parallel-immediate", "--parallel-max", str(readers), *wanted]
            try:
                sample = run(command, {"PATH": os.environ.get("PATH", os.defpath)})
                return replace(sample, read=bytes_read(lab.pid) - before)
            finally:
                path.unlink()

    return measure


def _loading_as_upstream(bench: Bench, size: int) -> Callable[[], Sample]:
    """A sample of upstream's way: ask, let the lab's released client upload the file, ask again, download it."""

    def measure() -> Sample:
        gateway = bench.gateway
        path = bench.random_file("lab/fresh", size)
        with path.open("rb") as file:
            sha1 = hashlib.file_digest(file, "sha1").hexdigest()
        client, lab = bench.client(bench.upstream), bench.client(bench.upstream)
        client.environment["KACHERY_RESOURCE_URL"] = f"{gateway.url}/r/{RESOURCE}"
        store = str(bench.upstream.python.with_name("kachery-cloud-store"))
        serving = [sys.executable, str(UPSTREAM_RESOURCE), gateway.url, RESOURCE, gateway.zone, SECRET, str(path), sha1]
        daemon = subprocess.Popen([*serving, store], env=lab.variables(), stdout=subprocess.PIPE, text=True)
        try:
            assert daemon.stdout is not None
            assert daemon.stdout.readline() == "ready\n"
            command = [str(bench.upstream.python), str(WORKER), "download", bench.tiny(), f"sha1://{sha1}"]
            return run(command, client.variables(), reports=True)
        finally:
            daemon.kill()
            daemon.wait()
            shutil.rmtree(client.directory)
            shutil.rmtree(lab.directory)
            path.unlink()

    return measure


def _loading(
    bench: Bench, release: Release, size: int, operation: str = "download", *more: str
) -> Callable[[], Sample]:
    """A sample of loading a file that was linked a moment ago, and that nobody has loaded yet."""

    def measure() -> Sample:
        gateway = bench.gateway
        path = bench.random_file("lab/fresh", size)
        client = bench.client(release)
        with Lab(bench.scratch / "lab", gateway.url, zone=gateway.zone, name=RESOURCE) as lab:
            client.environment["KACHERY_RESOURCE_URL"] = lab.url
            command = [str(release.python), str(WORKER), operation, bench.tiny(), lab.link(path), *more]
            try:
                return run(command, client.variables(), reports=True)
            finally:
                shutil.rmtree(client.directory)
                path.unlink()

    return measure
