"""kill -9, again and again, at any moment: what was acknowledged is there, and nothing half-written is to be seen."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import kachery
from kachery.store import Store, audit

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 12

STORE = """
import random, sys
import kachery
top, seed = sys.argv[1], int(sys.argv[2])
choice = random.Random(seed)
for number in range(10_000):
    data = choice.randbytes(choice.choice([0, 10, 5_000, 300_000, 1_500_000, 4_000_000]))
    way = number % 4
    if way == 0:
        uri = kachery.store_file(write(top, number, data), local=True)
    elif way == 1:
        uri = kachery.link_file(write(top, number, data))
    elif way == 2:
        uri = kachery.store_text(data.hex(), local=True)
    else:
        from kachery.store import Store
        import hashlib
        hash_ = hashlib.sha1(data).hexdigest()
        with Store().receive(hash_, len(data)) as incoming:
            for start in range(0, len(data), 100_000):
                end = min(start + 100_000, len(data))
                incoming.write(start, data[start:end])
                incoming.mark(start, end)
            incoming.finish()
        uri = "sha1://" + hash_
    print(uri, flush=True)
"""

WRITE = """
def write(top, number, data):
    path = f"{top}/{number}-{len(data)}-{seed}"
    with open(path, "wb") as file:
        file.write(data)
    return path
"""


def sound(store: Store) -> None:
    """See that whatever lies in a store under a hash has it, and that records can be read."""
    for path in (store.root / "sha1").rglob("*"):
        if path.is_file() and "." not in path.name:
            assert hashlib.sha1(path.read_bytes()).hexdigest() == path.name
    for item in store.verify():
        assert isinstance(item, audit.Entry), item
    for path in store.root.rglob("linked_files/**/*"):
        if path.is_file():
            assert store.links.read(str(path)) is not None


@pytest.mark.parametrize("durability", ["close", "sync"])
def test_what_was_acknowledged_loads_and_nothing_is_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    monkeypatch.setenv("KACHERY_DURABILITY", durability)
    choice = random.Random(durability)
    acknowledged: list[str] = []
    for turn in range(ROUNDS):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITE + STORE, str(tmp_path), str(turn)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(choice.uniform(0, 0.25))
        child.kill()
        # a line that was not finished was not acknowledged
        lines = (first + child.stdout.read()).split("\n")[:-1]
        child.wait()
        acknowledged += lines
        child.stdout.close()
    assert len(acknowledged) > ROUNDS

    store = Store()
    for uri in acknowledged:
        path = kachery.load_file(uri, local_only=True)
        with open(path, "rb") as file:
            assert f"sha1://{hashlib.file_digest(file, 'sha1').hexdigest()}" == uri.partition("/file")[0][:47]
    sound(store)

    # what the killed left behind goes, and nothing else
    files = {path for path in store.root.rglob("*") if path.is_file()}
    for path in (store.root / "tmp").iterdir():
        os.utime(path, (1, 1))
    for path in store.root.rglob("sha1/**/*.*"):
        os.utime(path, (1, 1))
    store.clean()
    gone = files - {path for path in store.root.rglob("*") if path.is_file()}
    assert all(path.parent.name == "tmp" or "." in path.name for path in gone)
    assert [path for path in store.root.rglob("*") if path.is_file() and (path.parent.name == "tmp")] == []
    for uri in acknowledged:
        kachery.load_file(uri, local_only=True)


def test_a_killed_writer_does_not_keep_others_waiting(tmp_path: Path) -> None:
    data = os.urandom(2_000_000)
    hash_ = hashlib.sha1(data).hexdigest()
    code = """
import sys
from kachery.store import Store
incoming = Store().receive(sys.argv[1], 2_000_000)
print("holding", flush=True)
sys.stdin.read()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code, hash_], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "holding\n"
    child.kill()
    child.communicate()

    with Store().receive(hash_, len(data)) as incoming:
        incoming.write(0, data)
        incoming.mark(0, len(data))
        incoming.finish()
    assert Store().find(hash_) is not None


MUTABLES = """
import itertools
from kachery.store import Store
for number in itertools.count():
    Store().mutables.set("@a/b", f"{number} " + "x" * 20_000)
    print(number, flush=True)
"""


def test_a_mutable_is_old_or_new_whenever_its_writer_is_killed(own_environment: Path) -> None:
    for turn in range(6):
        child = subprocess.Popen([sys.executable, "-c", MUTABLES], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(0.02 * turn)
        child.kill()
        last = int((first + child.stdout.read()).split("\n")[-2])
        child.wait()
        child.stdout.close()
        value = Store().mutables.get("@a/b")
        assert value is not None
        number, _, rest = value.partition(" ")
        assert rest == "x" * 20_000
        assert int(number) >= last
    assert [path.name for path in (own_environment / "mutables").rglob("*") if path.is_file()] == ["b"]
