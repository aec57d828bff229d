"""How to have a private copy of a file together with its SHA-1, and with which buffer.

The experiment behind `digest.BUFFER_SIZE` and behind copying with copy_file_range in one thread while
`digest.FollowingDigest` digests the copy in another. Ways that are compared, on one file and interleaved:

    cp && sha1sum      the programs of the operating system
    hash, then copy    two passes in Python, the hash from the source: a source that changes gives a wrong hash
    one pass           read, hash, write the same buffer
    copy and follow    copy_file_range, and a thread that digests the copy a little behind it

    python benchmarks/experiments/copy_and_hash.py [--size MIB] [--rounds N] [DIRECTORY]
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kachery import digest

if TYPE_CHECKING:
    from collections.abc import Callable

BUFFERS = [64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 4 << 20]

#: Bytes for one call of copy_file_range: the digest gets news after each, the last step's digest hides behind nothing.
STEPS = [256 << 10, 1 << 20, 8 << 20]
STEP = 1 << 20


def cp_and_sha1sum(source: Path, copy: Path) -> str:
    """The two programs, one after the other, as a person would."""
    subprocess.run(["cp", str(source), str(copy)], check=True)
    done = subprocess.run(["sha1sum", str(copy)], check=True, capture_output=True, text=True)
    return done.stdout.split()[0]


def hash_then_copy(source: Path, copy: Path, buffer: int) -> str:
    """Two passes over the source."""
    hash_ = _hash(source, buffer)
    shutil.copyfile(source, copy)
    return hash_


def one_pass(source: Path, copy: Path, buffer: int) -> str:
    """One loop that reads, hashes and writes."""
    sha1 = hashlib.sha1(usedforsecurity=False)
    view = memoryview(bytearray(buffer))
    with source.open("rb", buffering=0) as reader, copy.open("wb", buffering=0) as writer:
        while count := reader.readinto(view):
            sha1.update(view[:count])
            writer.write(view[:count])
    return sha1.hexdigest()


def copy_and_follow(source: Path, copy: Path, buffer: int, step: int = STEP) -> str:
    """The kernel copies, a thread digests the copy."""
    usual = digest.BUFFER_SIZE
    digest.BUFFER_SIZE = buffer
    try:
        with source.open("rb", buffering=0) as reader, copy.open("w+b", buffering=0) as writer:
            size = os.fstat(reader.fileno()).st_size
            following = digest.FollowingDigest(writer.fileno())
            done = 0
            while count := os.copy_file_range(reader.fileno(), writer.fileno(), step):
                done += count
                following.advance(done)
            assert done == size
            return following.result(done)
    finally:
        digest.BUFFER_SIZE = usual


def _hash(path: Path, buffer: int) -> str:
    sha1 = hashlib.sha1(usedforsecurity=False)
    view = memoryview(bytearray(buffer))
    with path.open("rb", buffering=0) as reader:
        while count := reader.readinto(view):
            sha1.update(view[:count])
    return sha1.hexdigest()


def main() -> int:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Compare ways to copy a file and know its SHA-1.")
    parser.add_argument("directory", nargs="?", type=Path, help="where to work; a temporary directory by default")
    parser.add_argument("--size", type=int, default=1024, help="size of the file in MiB")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()

    ways: list[tuple[str, Callable[[Path, Path], str]]] = [("`cp && sha1sum`", cp_and_sha1sum)]
    for name, way in (
        ("hash, then copy", hash_then_copy),
        ("one pass", one_pass),
        ("copy and follow", copy_and_follow),
    ):
        ways += [(f"{name}, {size >> 10} KiB", functools.partial(way, buffer=size)) for size in BUFFERS]
    follow = functools.partial(copy_and_follow, buffer=digest.BUFFER_SIZE)
    ways += [(f"copy and follow, steps of {step >> 10} KiB", functools.partial(follow, step=step)) for step in STEPS]

    with tempfile.TemporaryDirectory(dir=given.directory) as scratch:
        source, copy = Path(scratch) / "source", Path(scratch) / "copy"
        expected = _write_random(source, given.size << 20)
        times: dict[str, list[float]] = {name: [] for name, _ in ways}
        for number in range(given.rounds):
            for name, work in ways:
                copy.unlink(missing_ok=True)
                os.sync()
                start = time.perf_counter()
                got = work(source, copy)
                times[name].append(time.perf_counter() - start)
                assert got == expected, f"{name} gave another hash"
            print(f"round {number + 1} of {given.rounds} done", file=sys.stderr)

    reference = statistics.median(times["`cp && sha1sum`"])
    print(f"{given.size} MiB, {given.rounds} rounds, {os.cpu_count()} cores, {os.uname().release}\n")
    print("| way | best MiB/s | median MiB/s | median, of `cp && sha1sum` |\n|---|---|---|---|")
    for name, samples in times.items():
        median = statistics.median(samples)
        print(f"| {name} | {given.size / min(samples):.0f} | {given.size / median:.0f} | {reference / median:.2f} |")
    return 0


def _write_random(path: Path, size: int) -> str:
    sha1 = hashlib.sha1(usedforsecurity=False)
    with path.open("wb") as stream:
        for start in range(0, size, 1 << 20):
            block = os.urandom(min(1 << 20, size - start))
            sha1.update(block)
            stream.write(block)
    return sha1.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
