"""Content that arrives in pieces: any order, resumed, verified, thrown away when it is wrong."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kachery.errors import KacheryError, NotAllowed, StorageFull, TimedOut, WrongContent
from kachery.store import Store

if TYPE_CHECKING:
    from pathlib import Path

DATA = random.Random(7).randbytes(3_000_000)
HASH = hashlib.sha1(DATA).hexdigest()
STEP = 500_000


def temporary(store: Store) -> set[str]:
    return {path.name for path in store.root.glob("tmp/*")}


def content(store: Store) -> bytes:
    found = store.find(HASH)
    assert found is not None
    with open(found.path, "rb") as file:
        return file.read()


@pytest.mark.parametrize("order", ["forwards", "backwards", "mixed"])
def test_ranges_in_any_order(order: str) -> None:
    store = Store()
    with store.receive(HASH, len(DATA)) as incoming:
        ranges = incoming.missing(STEP)
        assert ranges == [(start, start + STEP) for start in range(0, len(DATA), STEP)]
        if order != "forwards":
            ranges.reverse()
        if order == "mixed":
            random.Random(3).shuffle(ranges)
        for start, end in ranges:
            incoming.write(start, DATA[start : start + 1000])
            incoming.write(start + 1000, memoryview(DATA)[start + 1000 : end])
            incoming.mark(start, end)
        assert incoming.missing(STEP) == []
        path = incoming.finish()

    assert path == store.layout.blob(HASH)
    assert content(store) == DATA
    assert temporary(store) == set()


@hypothesis_settings(max_examples=40)
@given(st.data())
def test_any_pieces_in_any_order_from_any_number_of_sessions(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, 3000))
    whole = random.Random(size).randbytes(size)
    hash_ = hashlib.sha1(whole).hexdigest()
    store = Store(tmp_path_factory.mktemp("store"))
    while True:
        with store.receive(hash_, size) as incoming:
            pieces = incoming.missing(data.draw(st.integers(size // 8 + 1, size + 1)))
            held = sum(end - start for start, end in pieces)
            assert incoming.held == size - held
            if data.draw(st.booleans()):
                pieces.reverse()
            for start, end in pieces:
                if data.draw(st.integers(0, 9)) == 9:
                    # written and not marked: as if the process had ended here
                    incoming.write(start, b"?" * (end - start) if start != incoming._frontier else whole[start:end])
                    break
                incoming.write(start, whole[start:end])
                incoming.mark(start, end)
            else:
                incoming.finish()
                break
    found = store.find(hash_)
    assert found is not None
    assert found.kind == "blob"


def test_an_interrupted_file_continues_with_what_is_missing() -> None:
    store = Store()
    with store.receive(HASH, len(DATA)) as incoming:
        for start, end in [(0, STEP), (2 * STEP, 3 * STEP)]:
            incoming.write(start, DATA[start:end])
            incoming.mark(start, end)
    assert temporary(store) == {f"sha1.{HASH}.part", f"sha1.{HASH}.part.ranges"}
    assert store.find(HASH) is None

    with store.receive(HASH, len(DATA)) as incoming:
        assert incoming.held == 2 * STEP
        assert incoming.missing(10 * STEP) == [(STEP, 2 * STEP), (3 * STEP, len(DATA))]
        for start, end in incoming.missing(10 * STEP):
            incoming.write(start, DATA[start:end])
            incoming.mark(start, end)
        incoming.finish()

    assert content(store) == DATA


def test_wrong_content_is_thrown_away_whole() -> None:
    store = Store()
    with store.receive(HASH, len(DATA)) as incoming:
        wrong = bytearray(DATA)
        wrong[1_234_567] ^= 1
        incoming.write(0, wrong)
        incoming.mark(0, len(DATA))
        with pytest.raises(WrongContent, match="nothing of it was kept"):
            incoming.finish()

    assert store.find(HASH) is None
    assert temporary(store) == set()
    with store.receive(HASH, len(DATA)) as incoming:
        assert incoming.held == 0


def test_less_than_the_whole_is_not_finished() -> None:
    store = Store()
    with store.receive(HASH, len(DATA)) as incoming:
        incoming.write(0, DATA[:STEP])
        incoming.mark(0, STEP)
        with pytest.raises(WrongContent, match="only 500000 of 3000000 bytes"):
            incoming.finish()
        assert incoming.held == STEP


def test_what_was_digested_is_not_overwritten() -> None:
    store = Store()
    with store.receive(HASH, len(DATA)) as incoming:
        incoming.write(0, DATA[:STEP])
        incoming.mark(0, STEP)
        incoming.write(0, b"?" * 100 + DATA[100 : 2 * STEP])
        incoming.write(2 * STEP, DATA[2 * STEP :])
        incoming.mark(STEP, len(DATA))
        incoming.finish()

    assert content(store) == DATA


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0 3000000",
        "0 500000\n1000000 20000",
        "0 500000\nnonsense\n-1 5\n7 3\n0 99999999\n0 5 6\n\n",
        "0 500000\n" + "9" * 6000 + " 1\n",
    ],
)
def test_a_damaged_list_of_ranges(text: str) -> None:
    store = Store()
    with store.receive(HASH, len(DATA)) as incoming:
        incoming.write(0, DATA[:STEP])
        incoming.mark(0, STEP)
    (store.root / f"tmp/sha1.{HASH}.part.ranges").write_text(text)

    with store.receive(HASH, len(DATA)) as incoming:
        assert incoming.held in (0, STEP)
        for start, end in incoming.missing(STEP):
            incoming.write(start, DATA[start:end])
            incoming.mark(start, end)
        incoming.finish()
    assert content(store) == DATA


def test_a_list_that_promises_more_than_the_file_holds() -> None:
    store = Store()
    with store.receive(HASH, len(DATA)) as incoming:
        incoming.write(0, DATA)
        incoming.mark(0, len(DATA))
    os.truncate(store.root / f"tmp/sha1.{HASH}.part", STEP)

    with store.receive(HASH, len(DATA)) as incoming:
        assert incoming.held == 0


def test_ranges_that_lie_are_found_out() -> None:
    store = Store()
    with store.receive(HASH, len(DATA)) as incoming:
        incoming.write(len(DATA) - 1, b"x")
        incoming.mark(0, len(DATA))
        with pytest.raises(WrongContent):
            incoming.finish()
    assert temporary(store) == set()


def test_an_impossible_size_is_refused_at_once() -> None:
    store = Store()
    with pytest.raises(StorageFull, match="room for fewer"):
        store.receive(HASH, 10**18)


def test_a_link_in_the_parts_place_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    store = Store()
    for name in (f"sha1.{HASH}.part", f"sha1.{HASH}.part.ranges"):
        (store.root / "tmp").mkdir(parents=True, exist_ok=True)
        (store.root / "tmp" / name).symlink_to(victim)
        with pytest.raises(KacheryError):
            store.receive(HASH, len(DATA))
        (store.root / "tmp" / name).unlink()
    assert victim.read_bytes() == b"precious"


def test_who_comes_second_waits_and_finds_it_done() -> None:
    store = Store()
    first = store.receive(HASH, len(DATA))
    seen: list[bool] = []

    def second() -> None:
        with Store().receive(HASH, len(DATA)) as incoming:
            seen.append(Store().find(HASH) is not None)
            incoming.abandon()

    thread = threading.Thread(target=second)
    thread.start()
    first.write(0, DATA)
    first.mark(0, len(DATA))
    assert seen == []
    with first:
        first.finish()
    thread.join(20)

    assert seen == [True]
    assert content(store) == DATA
    assert temporary(store) == set()


def test_who_comes_second_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_TIMEOUT", "0.3")
    store = Store()
    with store.receive(HASH, len(DATA)), pytest.raises(TimedOut, match="without progress"):
        store.receive(HASH, len(DATA))


RECEIVE_AND_DIE = """
import os, signal, sys
from kachery.store import Store
data = open(sys.argv[1], "rb").read()
incoming = Store().receive(sys.argv[2], len(data))
for start in range(0, 1_500_000, 100_000):
    incoming.write(start, data[start:start + 100_000])
    incoming.mark(start, start + 100_000)
incoming.write(1_500_000, b"?" * 50_000)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_what_another_continues(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(DATA)
    done = subprocess.run([sys.executable, "-c", RECEIVE_AND_DIE, str(tmp_path / "data"), HASH], check=False)
    assert done.returncode == -9

    store = Store()
    with store.receive(HASH, len(DATA)) as incoming:
        assert incoming.held == 1_500_000
        incoming.write(1_500_000, DATA[1_500_000:])
        incoming.mark(1_500_000, len(DATA))
        incoming.finish()
    assert content(store) == DATA
    assert temporary(store) == set()


@pytest.mark.parametrize("size", [0, 1])
def test_the_smallest_files(size: int) -> None:
    store = Store()
    data = b"x" * size
    hash_ = hashlib.sha1(data).hexdigest()
    with store.receive(hash_, size) as incoming:
        if size:
            incoming.write(0, data)
            incoming.mark(0, size)
        assert incoming.finish() == store.layout.blob(hash_)


def test_a_directory_in_the_way(own_environment: Path) -> None:
    own_environment.mkdir()
    (own_environment / "tmp").write_text("a file")
    with pytest.raises((NotAllowed, KacheryError), match="tmp"):
        Store().receive(HASH, 5)
