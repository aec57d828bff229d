"""How large should the blocks be in which a file is read that stays in its zone?

What pynwb reads of an NWB file of 2 GiB is written down once, read by read. Each way of keeping blocks then answers the
same reads, with its bytes and requests counted, and the time computed that they take on three networks.

    python benchmarks/experiments/reading_blocks.py       in the environment of requirements/fsspec.txt
"""

from __future__ import annotations

import io
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "rigs")]

import h5py
import nwb_file
import pynwb
from fsspec import caching

from kachery import reading

KIB, MIB = 1024, 1024 * 1024

#: The time from a request to its first byte in seconds, and the bytes per second then.
NETWORKS = {"building": (0.001, 500e6), "country": (0.02, 60e6), "ocean": (0.15, 20e6)}


class _Listener(io.RawIOBase):
    """A file that writes down what is read of it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self.reads: list[tuple[int, int]] = []

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        at = self._file.tell()
        count = self._file.readinto(buffer)
        self.reads.append((at, count))
        return count


def traces(path: Path) -> dict[str, list[tuple[int, int]]]:
    """What is read of the file: to open it and read one array, and further ones after that."""
    file = _Listener(path)
    found: dict[str, list[tuple[int, int]]] = {}

    def so_far(name: str) -> None:
        found[name] = file.reads
        file.reads = []

    with pynwb.NWBHDF5IO(file=h5py.File(file, "r"), mode="r") as opened:
        nwb = opened.read()
        so_far("open")
        nwb.processing["behavior"]["Position"]["position"].data[:]
        so_far("position, 1 MB")
        nwb.acquisition["raw"].data[nwb_file.WRITTEN]
        so_far("raw, 4 MB")
        nwb.processing["ecephys"]["LFP"]["lfp"].data[:, 3]
        so_far("LFP, 18 MB")
        nwb.units[:]
        so_far("units, 3 MB")
    found["the first 200 MB, 64 KiB each"] = [(at, 64 * KIB) for at in range(0, 200_000_000, 64 * KIB)]
    return found


class _Network:
    """Counts what is fetched."""

    def __init__(self) -> None:
        self.requests = self.bytes = 0

    def fetch(self, start: int, end: int) -> bytes:
        self.requests += 1
        self.bytes += end - start
        return bytes(end - start)

    def seconds(self, latency: float, bandwidth: float) -> float:
        return self.requests * latency + self.bytes / bandwidth


def ways(size: int) -> dict[str, Any]:
    """The ways to keep blocks, by name; each gives what reads a range through a network."""

    def fsspecs(kind: str, block: int) -> Any:
        def make(network: _Network) -> Any:
            cache = caching.caches[kind](block, network.fetch, size)
            return cache._fetch

        return make

    def ours(block: int) -> Any:
        return lambda network: reading.Blocks(size, network.fetch, block).read

    found = {f"ours, {block // KIB} KiB": ours(block) for block in (64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB)}
    found["fsspec readahead, 5 MiB (its default)"] = fsspecs("readahead", 5 * MIB)
    found["fsspec readahead, 256 KiB"] = fsspecs("readahead", 256 * KIB)
    found["fsspec blockcache, 1 MiB"] = fsspecs("blockcache", MIB)
    found["fsspec blockcache, 256 KiB"] = fsspecs("blockcache", 256 * KIB)
    found["fsspec bytes, 256 KiB"] = fsspecs("bytes", 256 * KIB)
    found["nothing kept"] = fsspecs("none", 0)
    return found


def main() -> None:
    """Print a table for each trace."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "recording.nwb"
        nwb_file.write(str(path))
        size = path.stat().st_size
        found = traces(path)
    running: dict[str, list[tuple[int, int]]] = {"open and position": found.pop("open") + found.pop("position, 1 MB")}
    running |= found
    kept = {name: (network := _Network(), make(network)) for name, make in ways(size).items()}
    for title, reads in running.items():
        print(f"\n{title}: {len(reads)} reads, {sum(count for _, count in reads) / 1e6:.1f} MB of {size / 1e6:.0f} MB")
        print(f"{'':40}{'requests':>9}{'MB':>8}" + "".join(f"{name + ' s':>12}" for name in NETWORKS))
        for name, (network, read) in kept.items():
            network.requests = network.bytes = 0
            for at, count in reads:
                assert len(read(at, at + count)) == count
            times = "".join(f"{network.seconds(*speed):12.2f}" for speed in NETWORKS.values())
            print(f"{name:40}{network.requests:9}{network.bytes / 1e6:8.1f}{times}")


if __name__ == "__main__":
    main()
