"""An import that is killed again and again: nothing half-copied is to be seen, and the same command finishes it."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from kachery.store import Store, audit

if TYPE_CHECKING:
    from pathlib import Path

IMPORT = "from kachery.cli.main import main; main()"


def looks(directory: Path) -> dict[str, tuple[int, int, int]]:
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ctime_ns)
        for path in directory.rglob("*")
    }


def test_an_import_that_is_killed_again_and_again(tmp_path: Path) -> None:
    choice = random.Random(11)
    old = tmp_path / "old"
    hashes = set()
    for size in [20_000_000] * 4 + [300_000] * 60 + [1000] * 200:
        content = choice.randbytes(size)
        hash_ = hashlib.sha1(content).hexdigest()
        hashes.add(hash_)
        place = old / "sha1" / hash_[:2] / hash_[2:4] / hash_[4:6]
        place.mkdir(parents=True, exist_ok=True)
        (place / hash_).write_bytes(content)
    before = looks(old)
    command = [sys.executable, "-c", IMPORT, "import-from", str(old)]
    seen = 0
    for _ in range(8):
        child = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL)
        time.sleep(choice.uniform(0.25, 0.7))
        child.kill()
        child.wait()
        store = Store()
        found = {entry.hash for entry in store.entries()}
        assert found <= hashes
        assert len(found) >= seen
        seen = len(found)
        assert all(isinstance(item, audit.Entry) for item in store.verify())
    assert looks(old) == before
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {entry.hash for entry in Store().entries()} == hashes
    Store().clean(0)
    assert not list((Store().root / "tmp").iterdir())
