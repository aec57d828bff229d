"""How a small file gets to its place under three levels of directories, and how it is read again.

.venv/bin/python benchmarks/experiments/small_files.py DIRECTORY

Every way does the same files in turn, each in a store of its own in DIRECTORY, and every single file is timed, so that
a machine that is slow for a moment is slow for all. Nothing is removed: ext4 looks at every inode that was freed in the
last minutes, and whoever makes files then pays for it. Six tenths of the time are the two directories that are new for
nearly every file; a blob that is linked costs what one costs that is renamed, and needs no name, no lock, and nobody
who cleans up.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import secrets
import statistics
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = 10_000
SIZE = 4096

NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_CLOEXEC


def leaf_first(leaf: str) -> None:
    """Try the lowest directory; make those above it when one is missing."""
    try:
        os.mkdir(leaf)
    except FileExistsError:
        pass
    except FileNotFoundError:
        leaf_first(leaf[:-3])
        os.mkdir(leaf)


def middle_first(leaf: str) -> None:
    """Try the middle directory, which is new as long as there are few files; then the lowest."""
    leaf_first(leaf[:-3])
    leaf_first(leaf)


def renamed(leaf: str, name: str, data: bytes) -> None:
    """A temporary name beside the last one, and a lock while it is there."""
    temporary = f"{leaf}/{name}.{secrets.token_hex(5)}"
    fd = os.open(temporary, NEW)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.write(fd, data)
    os.rename(temporary, f"{leaf}/{name}")
    os.close(fd)


def linked(leaf: str, name: str, data: bytes) -> None:
    """No name until the last one."""
    fd = os.open(leaf, os.O_WRONLY | os.O_CLOEXEC | os.O_TMPFILE)
    os.write(fd, data)
    os.link(f"/proc/self/fd/{fd}", f"{leaf}/{name}", src_dir_fd=fd)
    os.close(fd)


def in_place(leaf: str, name: str, data: bytes) -> None:
    """Under its name from the beginning: half a file can be seen. The lower bound."""
    fd = os.open(f"{leaf}/{name}", NEW)
    os.write(fd, data)
    os.close(fd)


def nothing(_leaf: str, _name: str, _data: bytes) -> None:
    """The directories alone."""


def hashed(path: str) -> None:
    """Read and hashed again."""
    fd = os.open(path, READ)
    size = os.fstat(fd).st_size
    hashlib.sha1(os.read(fd, size + 1), usedforsecurity=False).hexdigest()
    os.close(fd)


def believed(path: str) -> None:
    """Looked at, and compared with a record of how it looked when it was hashed."""
    fd = os.open(path, READ)
    status = os.fstat(fd)
    os.close(fd)
    fd = os.open(f"{path}.record", READ)
    assert json.loads(os.read(fd, 4096))["size"] == status.st_size
    os.close(fd)


def report(title: str, samples: dict[str, list[int]]) -> None:
    """Print a table of microseconds."""
    print(f"\n| {title} | µs, median | µs, mean without the slowest and fastest twentieth |\n|---|---|---|")
    for name, values in samples.items():
        kept = sorted(values)[len(values) // 20 : -(len(values) // 20)]
        print(f"| {name} | {statistics.median(values) / 1000:.1f} | {statistics.mean(kept) / 1000:.1f} |")


def main(top: str) -> None:
    """Time every way."""
    ways: dict[str, tuple[Callable[[str], None], Callable[[str, str, bytes], None]]] = {
        "directories, the lowest first": (leaf_first, nothing),
        "directories, the middle one first": (middle_first, nothing),
        "lowest first, renamed under a lock": (leaf_first, renamed),
        "lowest first, linked": (leaf_first, linked),
        "middle first, renamed under a lock": (middle_first, renamed),
        "middle first, linked": (middle_first, linked),
        "middle first, in place": (middle_first, in_place),
    }
    roots = {way: f"{top}/{number}" for number, way in enumerate(ways)}
    for root in roots.values():
        os.makedirs(f"{root}/sha1")
    stored: dict[str, list[int]] = {way: [] for way in ways}
    paths = []
    for _ in range(FILES):
        data = os.urandom(SIZE)
        name = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        turn = list(ways.items())
        random.shuffle(turn)
        for way, (make, put) in turn:
            leaf = f"{roots[way]}/sha1/{name[:2]}/{name[2:4]}/{name[4:6]}"
            start = time.perf_counter_ns()
            make(leaf)
            put(leaf, name, data)
            stored[way].append(time.perf_counter_ns() - start)
        paths.append(f"{roots['middle first, linked']}/sha1/{name[:2]}/{name[2:4]}/{name[4:6]}/{name}")
    report(f"storing {FILES:,} files of {SIZE} bytes", stored)

    for path in paths:
        with open(f"{path}.record", "w") as file:
            json.dump({"size": SIZE, "mtime_ns": 1, "ctime_ns": 1, "dev": 1, "ino": 1}, file)
    loaded: dict[str, list[int]] = {"hashed again": [], "believed, with a record": []}
    for path in paths:
        for way, look in (("hashed again", hashed), ("believed, with a record", believed)):
            start = time.perf_counter_ns()
            look(path)
            loaded[way].append(time.perf_counter_ns() - start)
    report("loading", loaded)


if __name__ == "__main__":
    main(sys.argv[1])
