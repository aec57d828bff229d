"""The tests of Spyglass that are about kachery, from its source distribution, with our `kachery_cloud` in its place."""

from __future__ import annotations

import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from rigs.release import environment, source

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Lab

# making the environment takes its time, once
pytestmark = pytest.mark.timeout(900)


def test_kachery_is_optional(lab: Lab, tmp_path: Path) -> None:
    with tarfile.open(source("spyglass-0.6.0", "spyglass-neuro")) as archive:
        (member,) = [name for name in archive.getnames() if name.endswith("/tests/test_kachery_optional.py")]
        content = archive.extractfile(member)
        assert content is not None
        (tmp_path / "test_kachery_optional.py").write_bytes(content.read())
    machine = lab.machine
    # what its conftest.py prepares, a database in a container and a recording from far away, these tests do not use
    done = subprocess.run(
        [
            *(*machine.inside, str(environment("spyglass-0.6.0") / "bin" / "python"), "-m", "pytest"),
            *("--noconftest", "--rootdir", str(tmp_path), "-c", "/dev/null", "-p", "no:cacheprovider", "-q"),
            str(tmp_path / "test_kachery_optional.py"),
        ],
        env=machine.variables,
        cwd=machine.home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "6 passed" in done.stdout
