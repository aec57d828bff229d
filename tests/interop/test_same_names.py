"""The drop-in has every name of the released clients, with the signatures that programs rely on."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from rigs.release import Release, ours

if TYPE_CHECKING:
    from pathlib import Path

ASK = """
import inspect, json, os
import kachery_cloud
names = {}
for name in dir(kachery_cloud):
    item = getattr(kachery_cloud, name)
    if name.startswith("_") or inspect.ismodule(item):
        continue
    parameters = inspect.signature(item).parameters.values()
    names[name] = [[one.name, str(one.kind), repr(one.default)] for one in parameters]
print(json.dumps(names))
"""


def names(release: Release, directory: Path) -> dict[str, list[Any]]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "KACHERY_CLOUD_DIR": str(directory)}
    done = subprocess.run([release.python, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    found: dict[str, list[Any]] = json.loads(done.stdout)
    return found


def test_every_public_name(release: Release, tmp_path: Path) -> None:
    theirs, mine = names(release, tmp_path), names(ours(), tmp_path)

    assert len(theirs) > 25
    assert theirs.keys() <= mine.keys()
    different = {name for name, parameters in theirs.items() if mine[name] != parameters}
    # 0.4.2 always makes keys where later releases want to be asked
    assert different == ({"get_client_id"} if release.version == "0.4.2" else set())


def test_every_console_script(release: Release) -> None:
    def scripts(one: Release) -> set[str]:
        return {path.name for path in (one.prefix / "bin").glob("kachery-cloud*")}

    # these two never worked in the releases that have them
    broken = {"kachery-cloud-share-local-files-experimental", "kachery-cloud-request-file-experimental"}
    assert scripts(release) - broken <= scripts(ours())
