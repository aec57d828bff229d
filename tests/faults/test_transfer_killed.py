"""Clients that are killed while they load or store: nothing acknowledged is lost, the next one continues."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import kachery
from kachery.store import Store, audit, keys
from rigs.cloud import Cloud

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rigs.liar import Exchange

MIB = 1024 * 1024
SIZE = 96 * MIB


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with Cloud() as server:
        monkeypatch.setenv("KACHERY_GATEWAY_URL", server.url)
        monkeypatch.setenv("KACHERY_TIMEOUT", "10")
        keys.load_or_create()
        yield server


LOAD = "import kachery, sys\nfor uri in sys.argv[1:]: print(kachery.load_file(uri), flush=True)"


def measured(exchange: Exchange, content: bytes) -> None:
    """Send a file as from a little further away, so that there is time for a disaster."""
    start, end = exchange.request.range or (0, len(content))
    given = {"Content-Length": str(end - start)}
    if exchange.request.range:
        given["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
    exchange.head(206 if exchange.request.range else 200, given)
    for position in range(start, end, MIB):
        exchange.send(content[position : min(position + MIB, end)])
        exchange.over.wait(0.004)


def test_a_download_that_is_killed_again_and_again_continues(cloud: Cloud) -> None:
    content = random.Random(2).randbytes(SIZE)
    uri = f"sha1://{cloud.add(content)}"
    cloud.lies["GET"] = lambda exchange: measured(exchange, content)
    held: list[int] = []
    for turn in range(20):
        child = subprocess.Popen([sys.executable, "-c", LOAD, uri], stdout=subprocess.PIPE, text=True)
        try:
            output, _ = child.communicate(timeout=0.35 + 0.02 * turn)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            output, _ = child.communicate()
        store = Store()
        assert not [entry for entry in store.entries() if entry.size != SIZE]
        if output:
            break
        with store.receive(uri[7:], SIZE) as incoming:
            held.append(incoming.held)
    assert held == sorted(held)
    assert held
    assert held[-1] > 0

    path = kachery.load_file(uri)
    with open(path, "rb") as file:
        assert hashlib.file_digest(file, "sha1").hexdigest() == uri[7:]
    assert list((Store().root / "tmp").iterdir()) == []
    # what had arrived was not asked for again
    asked = sum(end - start for request in cloud.asked() if (range_ := request.range) for start, end in [range_])
    assert asked > 0
    assert min(request.range[0] for request in cloud.asked()[-1:] if request.range) > 0


def test_several_processes_that_load_the_same_file_fetch_it_once(cloud: Cloud) -> None:
    content = random.Random(3).randbytes(SIZE // 2)
    small = os.urandom(5000)
    uris = [f"sha1://{cloud.add(data)}" for data in (content, small)]
    cloud.lies["GET"] = lambda exchange: (
        exchange.file(small) if uris[1][7:] in exchange.request.target else measured(exchange, content)
    )
    children = [
        subprocess.Popen([sys.executable, "-c", LOAD, *uris], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    printed = {child.communicate(timeout=100)[0] for child in children}

    assert printed == {"".join(Store().layout.blob(uri[7:]) + "\n" for uri in uris)}
    ranges = [request.range for request in cloud.asked() if request.range]
    assert len(ranges) == len(set(ranges))
    assert all(isinstance(item, audit.Entry) for item in Store().verify())
    assert list((Store().root / "tmp").iterdir()) == []


STORE = """
import random, sys
import kachery
choice = random.Random(int(sys.argv[1]))
for number in range(1000):
    data = choice.randbytes(choice.choice([0, 100, 50_000, 2_000_000]))
    print(kachery.store_text(data.hex(), cache_locally=bool(number % 2)), flush=True)
"""


def test_a_killed_upload_acknowledged_nothing_that_is_not_there(cloud: Cloud) -> None:
    acknowledged: list[str] = []
    for turn in range(8):
        child = subprocess.Popen([sys.executable, "-c", STORE, str(turn)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(0.03 * turn)
        child.kill()
        acknowledged += (first + child.stdout.read()).split("\n")[:-1]
        child.wait()
        child.stdout.close()

    assert len(acknowledged) >= 8
    for uri in acknowledged:
        assert hashlib.sha1(cloud.files[uri[7:47]]).hexdigest() == uri[7:47]
        assert kachery.load_text(uri) is not None
    assert all(hashlib.sha1(content).hexdigest() == hash_ for hash_, content in cloud.files.items())


MEASURE = """
import re, sys
import kachery
way, what = sys.argv[1:]
if way == "load":
    print(kachery.load_file(what))
elif way == "store":
    print(kachery.store_file(what))
else:
    with kachery.open(what) as file:
        while file.read(1024 * 1024):
            pass
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


def test_memory_does_not_grow_with_the_file(cloud: Cloud) -> None:
    """A file of 2 GiB is loaded, and read as a stream, in 150 MB."""
    size = 2 * 1024**3
    zeros = bytes(4 * MIB)
    digest = hashlib.sha1()
    for _ in range(size // len(zeros)):
        digest.update(zeros)
    hash_ = digest.hexdigest()
    answer = {"type": "findFile", "found": True, "size": size, "url": f"{cloud.url}/bucket/{hash_}"}
    cloud.lies["findFile"] = lambda exchange: exchange.json(200, answer)

    def send(exchange: Exchange) -> None:
        start, end = exchange.request.range or (0, size)
        given = {"Content-Length": str(end - start), "Content-Range": f"bytes {start}-{end - 1}/{size}"}
        exchange.head(206, given)
        for position in range(start, end, len(zeros)):
            exchange.send(memoryview(zeros)[: min(len(zeros), end - position)])  # type: ignore[arg-type]

    cloud.lies["GET"] = send
    for way in ("read", "load"):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, way, f"sha1://{hash_}"], check=True, capture_output=True, text=True
        )
        assert int(done.stdout.split()[-1]) < 150 * 1024, way
    os.unlink(Store().layout.blob(hash_))
