"""Samples of whole processes: wall time, CPU time and peak memory.

A contender is a process, because the programs that are compared live in different environments. It may say itself how
long the operation took, so that the start of an interpreter is not taken for a slow copy; both figures are kept.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Seconds after which a contender is taken for stuck.
PATIENCE = 900.0

#: Bytes of memory that are touched before each sample: those of the large file on both sides, and some.
TOUCHED = 5 << 29


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Args:
        wall: Seconds that the operation took; the whole process where the program cannot say.
        process: Seconds from the start of the process to its end.
        cpu: User and system seconds of the process and its children.
        peak: Its highest resident memory in bytes, where it could be read.
        read: Bytes that the machine which shares a file has read for it, where that is the point.
    """

    wall: float
    process: float
    cpu: float
    peak: int | None = None
    read: int | None = None


class ContenderFailed(Exception):
    """A program that was to be measured ended with an error."""


def touch_memory() -> None:
    """Have the machine own the memory that is used next.

    A virtual machine gives free memory back to its host and pays for the first touch of each page, more than for
    filling it. Whoever happens to come first would pay for all.
    """
    with mmap.mmap(-1, TOUCHED, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE) as memory:
        memory[0] = 1


def run(
    command: Sequence[str], environment: Mapping[str, str], *, reports: bool = False, cwd: Path | None = None
) -> Sample:
    """Run a program and measure it.

    Args:
        command: The command line. Where `reports` is true, a file name is appended, to which the program writes JSON
            with `wall` in seconds and `peak` in bytes.
        environment: The program's whole environment.
        reports: Whether the program times its operation itself.
        cwd: The directory that it works in.

    Raises:
        ContenderFailed: If it ended with an error or took far too long.
    """
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as output:
        report = Path(scratch) / "report.json"
        # what the last contender wrote must not be written back during this one's time
        os.sync()
        touch_memory()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        process = subprocess.Popen(
            [*command, str(report)] if reports else list(command),
            env=dict(environment),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        # a wait with a time-out would look only every 50 ms
        guard = threading.Timer(PATIENCE, process.kill)
        guard.start()
        code = process.wait()
        whole = time.perf_counter() - start
        guard.cancel()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if code != 0:
            output.seek(0)
            raise ContenderFailed(f"{' '.join(command)} ended with {code}:\n{output.read().decode()[-4000:]}")
        cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        if not reports:
            return Sample(whole, whole, cpu)
        said = json.loads(report.read_bytes())
    return Sample(said["wall"], whole, cpu, said["peak"])


def bytes_read(pid: int) -> int:
    """Bytes that a process has read from files since its start, from whatever cache."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("rchar:"):
            return int(line.split()[1])
    raise ContenderFailed(f"process {pid} has no rchar in its io")


def peak_memory(pid: int) -> int:
    """The highest resident memory of a process since its start, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ContenderFailed(f"process {pid} has no VmHWM in its status")
