"""The sandbox: shared with child processes, gone when the process that made it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from kachery import settings
from kachery.store import Store

if TYPE_CHECKING:
    from pathlib import Path

MAKE = """
import os, subprocess, sys
from kachery import settings
from kachery.store import Store, sandbox
Store().add_bytes(b"before")
sandbox.use()
inside = settings.store_dir()
assert inside.is_dir() and inside.parent.name == "sandbox", inside
hash_ = Store().add_bytes(b"content")
sandbox.use()
assert settings.store_dir() == inside
child = "from kachery.store import Store; import sys; assert Store().find(sys.argv[1])"
subprocess.run([sys.executable, "-c", child, hash_], check=True)
if os.fork() == 0:
    sys.exit(0)
os.wait()
assert inside.is_dir()
sandbox.use(False)
assert Store().find(hash_) is None
sandbox.use()
assert settings.store_dir() == inside and Store().find(hash_)
print(inside)
"""


def test_the_life_of_a_sandbox(own_environment: Path) -> None:
    done = subprocess.run([sys.executable, "-c", MAKE], check=True, capture_output=True, text=True)

    inside = done.stdout.strip()
    assert inside.startswith(str(own_environment / "sandbox"))
    assert list((own_environment / "sandbox").iterdir()) == []
    assert (own_environment / "sha1").is_dir()
    assert settings.store_dir() == own_environment


def test_a_sandbox_asked_for_from_outside(own_environment: Path) -> None:
    code = "from kachery.store import Store; s = Store(); s.add_bytes(b'x'); print(s.root)"
    command = f'KACHERY_CLOUD_USE_SANDBOX=1 exec {sys.executable} -c "{code}"'
    done = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True)

    assert done.stdout.startswith(str(own_environment / "sandbox"))
    assert [path for path in own_environment.rglob("*") if path.is_file()] == []


HOLD = """
import sys
from kachery import settings
from kachery.store import Store, sandbox
sandbox.use()
Store().add_bytes(b"x")
print(settings.store_dir(), flush=True)
sys.stdin.read()
"""


def test_a_sandbox_of_a_killed_process_goes_and_others_stay(own_environment: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    inside = child.stdout.readline().strip()
    upstreams = own_environment / "sandbox" / "aB3dE6gH"
    upstreams.mkdir()
    for path in (inside, upstreams):
        os.utime(path, (1, 1))
    assert Store().clean() == []

    child.kill()
    child.communicate()

    assert Store().clean() == [inside]
    assert list((own_environment / "sandbox").iterdir()) == [upstreams]
