"""One job for a file, so many at once, results that are kept for a while."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from kachery.errors import StorageFull, WrongContent
from kachery.node import jobs as jobs_module
from kachery.node.jobs import Counter, Jobs
from kachery.node.sharing import Shared, Sharing
from kachery.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Zone:
    """Takes the place of a zone; each file waits until it is let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.running = 0
        self.most_running = 0
        self.gate = threading.Semaphore(0)
        self.failures: list[Exception] = []
        self._lock = threading.Lock()

    def take(self, shared: Shared, counter: Counter) -> None:
        with self._lock:
            self.begun.append(shared.hash)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            counter.advance(1)
            assert self.gate.acquire(timeout=30)
            counter.advance(1)
            if self.failures:
                raise self.failures.pop()
        finally:
            with self._lock:
                self.running -= 1


@pytest.fixture
def files(tmp_path: Path) -> Callable[[int], list[str]]:
    """Links so many files; gives their hashes."""

    def make(count: int) -> list[str]:
        hashes = []
        for number in range(count):
            path = tmp_path / f"{number}.dat"
            path.write_bytes(b"%06d" % number)
            hashes.append(Store().link(path)[0])
        return hashes

    return make


def run(test: Callable[[Zone, Jobs], Any], most: int = 2) -> None:
    async def all_of_it() -> None:
        zone = Zone()
        made = Jobs(Sharing(), most, zone.take)
        try:
            async with asyncio.timeout(60):
                await test(zone, made)
        finally:
            zone.gate.release(100)
            await made.close()

    asyncio.run(all_of_it())


async def begun(zone: Zone, count: int) -> None:
    while len(zone.begun) < count:
        await asyncio.sleep(0.005)


def test_many_who_ask_for_one_file_have_one_job(files: Callable[[int], list[str]]) -> None:
    (hash_,) = files(1)

    async def test(zone: Zone, made: Jobs) -> None:
        asking = [asyncio.create_task(made.request(hash_, 30)) for _ in range(20)]
        await begun(zone, 1)
        assert (await made.request(hash_, 0))["status"] == "running"
        zone.gate.release()
        assert [answer["status"] for answer in await asyncio.gather(*asking)] == ["completed"] * 20
        assert zone.begun == [hash_]

    run(test)


def test_no_more_than_so_many_run_and_the_others_in_order(files: Callable[[int], list[str]]) -> None:
    hashes = files(6)

    async def test(zone: Zone, made: Jobs) -> None:
        asked = [await made.request(hash_, 0) for hash_ in hashes]
        assert [answer["status"] for answer in asked] == ["running"] * 2 + ["queued"] * 4
        # who asks again keeps their place
        for hash_ in hashes[:3]:
            await made.request(hash_, 0)
        for count in range(2, 7):
            await begun(zone, count)
            zone.gate.release()
        zone.gate.release()
        for hash_ in hashes:
            assert (await made.request(hash_, 30))["status"] == "completed"
        assert zone.begun[2:] == hashes[2:]
        assert zone.most_running == 2

    run(test)


def test_progress_moves(files: Callable[[int], list[str]]) -> None:
    (hash_,) = files(1)

    async def test(zone: Zone, made: Jobs) -> None:
        await made.request(hash_, 0)
        await begun(zone, 1)
        while (answer := await made.request(hash_, 0))["bytesUploaded"] != 1:
            await asyncio.sleep(0.005)
        assert answer["size"] == 6
        zone.gate.release()
        assert (await made.request(hash_, 30))["bytesUploaded"] == 6

    run(test)


def test_what_is_done_is_remembered_for_a_while(
    files: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (hash_,) = files(1)

    async def test(zone: Zone, made: Jobs) -> None:
        zone.gate.release(2)
        await made.request(hash_, 30)
        assert (await made.request(hash_, 30))["status"] == "completed"
        assert zone.begun == [hash_]
        monkeypatch.setattr(jobs_module, "KEPT", -1.0)
        assert (await made.request(hash_, 30))["status"] == "completed"
        assert zone.begun == [hash_, hash_]

    run(test)


def test_a_failure_is_told_to_all_who_wait_and_then_tried_anew(files: Callable[[int], list[str]]) -> None:
    (hash_,) = files(1)

    async def test(zone: Zone, made: Jobs) -> None:
        zone.failures = [StorageFull("no room in the bucket")]
        asking = [asyncio.create_task(made.request(hash_, 30)) for _ in range(3)]
        await begun(zone, 1)
        zone.gate.release()
        for answer in await asyncio.gather(*asking):
            assert answer["status"] == "error"
            assert "no room" in answer["error"]
        zone.gate.release()
        assert (await made.request(hash_, 30))["status"] == "completed"

    run(test)


def test_a_failure_that_nobody_waited_for_is_told_to_the_next_who_asks(files: Callable[[int], list[str]]) -> None:
    (hash_,) = files(1)

    async def test(zone: Zone, made: Jobs) -> None:
        zone.failures = [WrongContent("altered on the way")]
        await made.request(hash_, 0)
        zone.gate.release()
        while made._running:
            await asyncio.sleep(0.005)
        assert (await made.request(hash_, 30))["error"] == "altered on the way"
        zone.gate.release()
        assert (await made.request(hash_, 30))["status"] == "completed"

    run(test)


def test_a_mistake_in_one_job_holds_up_no_other(files: Callable[[int], list[str]]) -> None:
    first, second = files(2)

    async def test(zone: Zone, made: Jobs) -> None:
        zone.failures = [ZeroDivisionError()]
        zone.gate.release(2)
        assert (await made.request(first, 30))["status"] == "error"
        assert (await made.request(second, 30))["status"] == "completed"

    run(test, most=1)


@pytest.mark.parametrize("hash_", ["a" * 40, "A" * 40, "../../../etc/passwd" + "x" * 21])
def test_what_is_not_there_leaves_no_job(hash_: str) -> None:
    async def test(zone: Zone, made: Jobs) -> None:
        assert await made.request(hash_, 30) == {"status": "not-found"}
        assert not made._jobs

    run(test)


def test_the_list_of_jobs_does_not_grow_for_ever(
    files: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "MOST_JOBS", 3)
    hashes = files(5)

    async def test(zone: Zone, made: Jobs) -> None:
        answers = [await made.request(hash_, 0) for hash_ in hashes]
        assert [answer["status"] for answer in answers[3:]] == ["error", "error"]
        assert "later" in answers[3]["error"]
        zone.gate.release(10)
        for hash_ in hashes[:3]:
            await made.request(hash_, 30)
        monkeypatch.setattr(jobs_module, "KEPT", -1.0)
        assert (await made.request(hashes[4], 30))["status"] == "completed"

    run(test)
