"""What it costs to receive a byte with the HTTP clients that Python has.

The experiment behind `kachery.connections`. Each way fetches one file from nginx over loopback and hands the pieces to
SHA-1 and to a file, as a download into the store does; those that keep connections also fetch a small file many times.
Libraries that are not installed are left out of the table (`pip install requests httpx aiohttp` adds them).

    python benchmarks/experiments/http_clients.py [--size MIB] [--rounds N]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import http.client
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "tests")]

from nginx import CONFIGURATIONS, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    Take = Callable[[bytes | memoryview], object]

BUFFER = 256 << 10


def ours(url: str, take: Take) -> None:
    """kachery.http, into a buffer that is used again."""
    from kachery import http as kachery_http

    view = memoryview(bytearray(BUFFER))
    with kachery_http.request("GET", url) as response:
        while count := response.readinto(view):
            take(view[:count])


def standard_library(url: str, take: Take) -> None:
    """http.client, into a buffer that is used again."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request("GET", parts.path)
    view = memoryview(bytearray(BUFFER))
    with connection.getresponse() as response:
        while count := response.readinto(view):
            take(view[:count])
    connection.close()


def urllib3_read1(url: str, take: Take) -> None:
    """urllib3, whatever has come in."""
    import urllib3

    with urllib3.PoolManager() as pool, pool.request("GET", url, preload_content=False) as response:
        while data := response.read1(BUFFER):
            take(data)


def urllib3_read(url: str, take: Take) -> None:
    """urllib3, full buffers."""
    import urllib3

    with urllib3.PoolManager() as pool, pool.request("GET", url, preload_content=False) as response:
        while data := response.read(BUFFER):
            take(data)


def requests_small(url: str, take: Take) -> None:
    """requests in pieces of 8 KiB, as released clients do."""
    import requests

    with requests.get(url, stream=True, timeout=60) as response:
        for data in response.iter_content(8192):
            take(data)


def requests_large(url: str, take: Take) -> None:
    """requests in larger pieces."""
    import requests

    with requests.get(url, stream=True, timeout=60) as response:
        for data in response.iter_content(BUFFER):
            take(data)


def httpx_raw(url: str, take: Take) -> None:
    """httpx without decoding."""
    import httpx

    with httpx.stream("GET", url) as response:
        for data in response.iter_raw(BUFFER):
            take(data)


def aiohttp_any(url: str, take: Take) -> None:
    """aiohttp, whatever has come in."""
    import aiohttp

    async def fetch() -> None:
        async with aiohttp.ClientSession(read_bufsize=1 << 20) as session, session.get(url) as response:
            async for data in response.content.iter_any():
                take(data)

    asyncio.run(fetch())


WAYS: list[tuple[str, str, Callable[[str, Any], None]]] = [
    ("kachery.http readinto", "kachery", ours),
    ("http.client readinto", "http.client", standard_library),
    ("urllib3 read1", "urllib3", urllib3_read1),
    ("urllib3 read", "urllib3", urllib3_read),
    ("requests, 8 KiB", "requests", requests_small),
    ("requests, 256 KiB", "requests", requests_large),
    ("httpx iter_raw", "httpx", httpx_raw),
    ("aiohttp iter_any", "aiohttp", aiohttp_any),
]


def small_ours(url: str, count: int) -> None:
    """kachery.http."""
    from kachery import http as kachery_http

    for _ in range(count):
        kachery_http.exchange("GET", url)


def small_standard_library(url: str, count: int) -> None:
    """http.client."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    for _ in range(count):
        connection.request("GET", parts.path, headers={"Accept-Encoding": "identity"})
        with connection.getresponse() as response:
            response.read()
    connection.close()


def small_urllib3(url: str, count: int) -> None:
    """urllib3."""
    import urllib3

    with urllib3.PoolManager() as pool:
        for _ in range(count):
            pool.request("GET", url, decode_content=False)


def small_requests(url: str, count: int) -> None:
    """requests."""
    import requests

    with requests.Session() as session:
        for _ in range(count):
            session.get(url, timeout=60)


SMALL_WAYS: list[tuple[str, str, Callable[[str, int], None]]] = [
    ("kachery.http", "kachery", small_ours),
    ("http.client", "http.client", small_standard_library),
    ("urllib3", "urllib3", small_urllib3),
    ("requests", "requests", small_requests),
]


def measure_small(url: str, rounds: int, count: int = 1000) -> None:
    """Print a Markdown table of what a short request on a kept connection costs."""
    ways = [(name, way) for name, module, way in SMALL_WAYS if importlib.util.find_spec(module)]
    wall: dict[str, list[float]] = {name: [] for name, _ in ways}
    for _, way in ways:
        way(url, 1)
    for _ in range(rounds):
        for name, way in ways:
            start = time.perf_counter()
            way(url, count)
            wall[name].append((time.perf_counter() - start) / count * 1e6)
    print("\n| client | µs a request of 4 KiB, best | median |\n|---|---|---|")
    for name, _ in ways:
        print(f"| {name} | {min(wall[name]):.0f} | {statistics.median(wall[name]):.0f} |")


def main() -> int:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Compare HTTP clients by the cost of a byte.")
    parser.add_argument("--size", type=int, default=1024, help="size of the file in MiB")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    ways = [(name, way) for name, module, way in WAYS if importlib.util.find_spec(module)]
    wall: dict[str, list[float]] = {name: [] for name, _ in ways}
    cpu: dict[str, list[float]] = {name: [] for name, _ in ways}

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "served"
        root.mkdir()
        block = os.urandom(1 << 20)
        with (root / "large").open("wb") as stream:
            for _ in range(given.size):
                stream.write(block)
        with serving(root, CONFIGURATIONS["nginx, no sendfile"], Path(scratch) / "nginx") as base:
            (root / "small").write_bytes(block)
            for _, way in ways:
                # the import of the library is not its speed
                way(f"{base}/small", len)
            for number in range(given.rounds):
                for name, way in ways:
                    with (Path(scratch) / "copy").open("wb", buffering=0) as copy:
                        os.sync()
                        sha1 = hashlib.sha1(usedforsecurity=False)

                        def take(data: bytes | memoryview, sha1: Any = sha1, copy: Any = copy) -> None:
                            sha1.update(data)
                            copy.write(data)

                        start, used = time.perf_counter(), time.process_time()
                        way(f"{base}/large", take)
                        wall[name].append(time.perf_counter() - start)
                        cpu[name].append(time.process_time() - used)
                        assert copy.tell() == given.size << 20, f"{name} brought {copy.tell()} bytes"
                print(f"round {number + 1} of {given.rounds} done", file=sys.stderr)
            (root / "tiny").write_bytes(block[:4096])
            measure_small(f"{base}/tiny", given.rounds)

    print(f"\n{given.size} MiB over loopback, into a file and SHA-1; {given.rounds} rounds\n")
    print("| client | best MiB/s | median MiB/s | CPU s/GiB, median |\n|---|---|---|---|")
    for name, _ in ways:
        median = statistics.median(wall[name])
        per_gib = statistics.median(cpu[name]) * 1024 / given.size
        print(f"| {name} | {given.size / min(wall[name]):.0f} | {given.size / median:.0f} | {per_gib:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
