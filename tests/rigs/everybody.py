"""Python programs run as other users, who may not enter the directories of the one who runs the tests."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path


@functools.cache
def python() -> tuple[str, dict[str, str]]:
    """An interpreter that everybody may run, and the variables with which it finds what this one finds.

    It is this interpreter where everybody may read it and its packages. Otherwise it is the system's of the same
    version, with the packages linked into a directory that everybody may enter.
    """
    packages = [path for path in sys.path if path and os.path.isdir(path) and not path.startswith(sys.base_prefix)]
    if all(_is_open(path) for path in (sys.executable, sys.base_prefix, *packages)):
        return sys.executable, {"PYTHONPATH": os.pathsep.join(packages)}
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = next(
        (path for path in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}") if _is_open(path)), None
    )
    assert found is not None, f"no {name} that everybody may run; scripts/ci-packages.sh installs one"
    top = Path(tempfile.mkdtemp(prefix="kachery-everybody-", dir="/tmp"))
    top.chmod(0o755)
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    places = []
    for number, path in enumerate(packages):
        place = top / str(number)
        shutil.copytree(path, place, copy_function=_link, symlinks=True)
        places.append(str(place))
    return found, {"PYTHONPATH": os.pathsep.join(places)}


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def _is_open(path: str) -> bool:
    real = Path(os.path.realpath(path))
    if not real.exists() or not real.stat().st_mode & stat.S_IROTH:
        return False
    return all(
        parent.stat().st_mode & stat.S_IXOTH
        for parent in (Path(path).absolute(), *Path(path).absolute().parents, *real.parents)
        if parent.is_dir()
    )
