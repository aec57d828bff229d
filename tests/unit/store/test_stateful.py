"""The store held against a dict, whatever is done to it in whatever order."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from kachery.store import Store, audit
from kachery.store.verified import SMALL

CONTENTS = st.binary(max_size=20) | st.builds(lambda n: bytes([n % 256]) * (SMALL + n), st.integers(1, 5))


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


class StoreAgainstDict(RuleBasedStateMachine):
    """`blobs` is what must be found; `links` the files that may have changed since."""

    sources = Bundle("sources")

    @initialize()
    def begin(self) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="kachery-stateful-"))
        self.root = self.top / "store"
        self.blobs: dict[str, bytes] = {}
        self.links: dict[str, Path] = {}
        self.mutables: dict[str, str] = {}
        self.number = 0

    def teardown(self) -> None:
        shutil.rmtree(self.top, ignore_errors=True)

    @property
    def store(self) -> Store:
        return Store(self.root)

    @rule(target=sources, data=CONTENTS)
    def write_a_source(self, data: bytes) -> Path:
        self.number += 1
        path = self.top / f"source {self.number}"
        path.write_bytes(data)
        return path

    @rule(source=sources)
    def store_a_file(self, source: Path) -> None:
        data = source.read_bytes()
        assert self.store.add_file(source) == (sha1(data), len(data))
        self.blobs[sha1(data)] = data

    @rule(data=CONTENTS)
    def store_bytes(self, data: bytes) -> None:
        assert self.store.add_bytes(data) == sha1(data)
        self.blobs[sha1(data)] = data

    @rule(source=sources)
    def link(self, source: Path) -> None:
        hash_, _ = self.store.link(source)
        assert hash_ == sha1(source.read_bytes())
        self.links[hash_] = source

    @rule(source=sources, data=CONTENTS, keep=st.booleans())
    def change_a_source(self, source: Path, data: bytes, keep: bool) -> None:
        before = os.stat(source)
        source.write_bytes(data)
        if keep:
            os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))

    @rule(data=CONTENTS, cuts=st.lists(st.integers(0, SMALL), max_size=3), spoil=st.booleans())
    def receive(self, data: bytes, cuts: list[int], spoil: bool) -> None:
        edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        sent = bytes([data[0] ^ 1]) + data[1:] if spoil and data else data
        with self.store.receive(sha1(data), len(data)) as incoming:
            for start, end in reversed(list(itertools.pairwise(edges))):
                incoming.write(start, sent[start:end])
                incoming.mark(start, end)
            try:
                incoming.finish()
            except OSError:
                assert sent != data
                return
        assert sent == data
        self.blobs[sha1(data)] = data

    @rule(choice=st.randoms(use_true_random=False))
    def damage_a_blob(self, choice: object) -> None:
        if not self.blobs:
            return
        hash_ = sorted(self.blobs)[choice.randrange(len(self.blobs))]  # type: ignore[attr-defined]
        data = self.blobs.pop(hash_)
        with open(self.store.layout.blob(hash_), "r+b") as file:
            file.write(bytes([data[0] ^ 1]) if data else b"x")

    @rule(key=st.sampled_from(["a", "@x/a", "@x/@y/a"]), value=st.text("aü\n", max_size=5))
    def set_a_mutable(self, key: str, value: str) -> None:
        self.store.mutables.set(key, value)
        self.mutables[key] = value

    @rule()
    def verify(self) -> None:
        sound = {item.hash for item in self.store.verify() if isinstance(item, audit.Entry) and item.kind == "blob"}
        assert sound == set(self.blobs)

    @rule(older_than=st.sampled_from([0.0, audit.ABANDONED_AFTER]))
    def clean(self, older_than: float) -> None:
        self.store.clean(older_than)

    @rule(source=consumes(sources))
    def remove_a_source(self, source: Path) -> None:
        source.unlink()

    @invariant()
    def what_was_stored_is_found_and_nothing_else_is_handed_out(self) -> None:
        if not hasattr(self, "blobs"):
            return
        for hash_, data in self.blobs.items():
            found = self.store.find(hash_)
            assert found is not None
            assert Path(found.path).read_bytes() == data
        for hash_, source in self.links.items():
            found = self.store.find(hash_)
            if found is not None:
                assert sha1(Path(found.path).read_bytes()) == hash_
            elif source.exists():
                assert sha1(source.read_bytes()) != hash_
        for key, value in self.mutables.items():
            assert self.store.mutables.get(key) == value


TestStoreAgainstDict = StoreAgainstDict.TestCase
TestStoreAgainstDict.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
