"""Released programs, each in an environment of its own, unmodified from the package registry; kachery-cloud above all.

An environment is made once and kept in `.cache/releases/`, under a name that changes with its pins.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "releases"
DRIVER = Path(__file__).with_name("driver.py")

#: Seconds after which a client that was asked for something small is taken for stuck.
PATIENCE = 90.0


class ClientFailed(Exception):
    """A function of a client's Python API raised.

    Args:
        kind: The name of the exception's class.
        message: Its text.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message


@dataclass(frozen=True)
class Release:
    """One installed release of kachery-cloud or kachery, or ours.

    Args:
        version: `0.4.2`, `0.4.10`, `2.0.1` to `2.0.3`, or `ours`.
        prefix: The environment's directory.
    """

    version: str
    prefix: Path

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.prefix / "bin" / "python"

    @property
    def module(self) -> str:
        """The module that programs import."""
        return "kachery" if self.version.startswith("2.") else "kachery_cloud"


def ours() -> Release:
    """The drop-in of this tree, in the environment that runs the tests."""
    return Release("ours", Path(sys.prefix))


def installed(version: str) -> Release:
    """A released version, installed if it is not yet."""
    name = "kachery" if version.startswith("2.") else "kachery-cloud"
    return Release(version, environment(f"{name}-{version}"))


def environment(name: str) -> Path:
    """An environment with what `requirements/NAME.txt` pins and nothing else, made if it is not there yet.

    Args:
        name: The pins' name.

    Returns:
        The environment's directory.
    """
    pins = ROOT / "requirements" / f"{name}.txt"
    key = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()[:12]
    prefix = CACHE / f"{name}-{key}"
    with _locked(CACHE / f"{name}.lock"):
        complete = prefix / "complete"
        if not complete.exists():
            for stale in CACHE.glob(f"{name}-*"):
                if stale.name.removeprefix(f"{name}-").isalnum():
                    shutil.rmtree(stale)
            venv.create(prefix, with_pip=True)
            python = str(prefix / "bin" / "python")
            uv = shutil.which("uv")
            install = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
            subprocess.run(
                [*install, "--quiet", "--no-deps", "--require-hashes", "-r", str(pins)],
                check=True,
                stdin=subprocess.DEVNULL,
                # where the settings of uv are
                cwd=ROOT,
                env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_USE_PEP517": "1"},
            )
            complete.touch()
    return prefix


def add_ours(prefix: Path) -> None:
    """Put the kachery of this tree, without what it needs, into an environment that has hatchling and editables."""
    key = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    with _locked(CACHE / f"{prefix.name}.ours.lock"):
        complete = prefix / "ours"
        if not complete.exists() or complete.read_text() != key:
            python = str(prefix / "bin" / "python")
            uv = shutil.which("uv")
            install = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
            command = [*install, "--quiet", "--no-deps", "--no-build-isolation", "-e", str(ROOT)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, cwd=ROOT)
            complete.write_text(key)


def source(name: str, distribution: str) -> Path:
    """The source archive of a pinned distribution, of the hash that `requirements/NAME.txt` gives."""
    prefix = environment(name)
    (pins,) = re.findall(
        rf"^{re.escape(distribution)}==.*?(?:\\\n .*?)*$",
        (ROOT / "requirements" / f"{name}.txt").read_text(),
        re.MULTILINE,
    )
    with _locked(CACHE / f"{name}.lock"):
        sources = prefix / "sources"
        if not sources.exists():
            (prefix / "pins.txt").write_text(pins + "\n")
            pip = [str(prefix / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
            options = ["--no-deps", "--no-binary", distribution, "--require-hashes", "-r", str(prefix / "pins.txt")]
            subprocess.run(
                [*pip, *options, "--dest", str(prefix / "sources.new")], check=True, stdin=subprocess.DEVNULL
            )
            (prefix / "sources.new").rename(sources)
    (archive,) = sources.iterdir()
    return archive


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass
class Client:
    """One user of one release, with a store directory of their own.

    Args:
        release: The program that they use.
        directory: Their `KACHERY_CLOUD_DIR`.
        environment: What else their shell sets.
    """

    release: Release
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    def variables(self) -> dict[str, str]:
        """The whole environment that their programs get; nothing of the caller's leaks in."""
        return {
            "PATH": os.pathsep.join([str(self.release.prefix / "bin"), "/usr/local/bin", "/usr/bin", "/bin"]),
            "HOME": str(self.directory.parent),
            "LANG": "C.UTF-8",
            "KACHERY_CLOUD_DIR": str(self.directory),
            **self.environment,
        }

    def run(self, *command: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[bytes]:
        """Run one of the release's console scripts; the exit code is left to the caller.

        Args:
            command: The script's name and its arguments.
            timeout: Seconds it may take.
        """
        return subprocess.run(
            self.argv(*command),
            env=self.variables(),
            cwd=self.directory.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def argv(self, *command: str) -> list[str]:
        """The command line of one of the release's console scripts."""
        return [str(self.release.prefix / "bin" / command[0]), *command[1:]]

    def output(self, *command: str, timeout: float = PATIENCE) -> str:
        """What a console script that must succeed writes to stdout, without blanks around it."""
        done = self.run(*command, timeout=timeout)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode()}"
        return done.stdout.decode().strip()

    def make_keys(self) -> str:
        """Make the client's keys and give its id. Up to 0.4.9 asking for the id was enough."""
        return str(self.call("get_client_id", *([] if self.release.version == "0.4.2" else [True])))

    def call(self, function: str, *args: Any, timeout: float = PATIENCE, **kwargs: Any) -> Any:
        """Call a function of the release's module in a process of its own.

        Args:
            function: A public name of the module.
            args: Values that JSON knows; `{"ndarray": …, "dtype": …}` stands for an array.
            timeout: Seconds it may take.
            kwargs: Likewise.

        Raises:
            ClientFailed: If the function raised.
        """
        with tempfile.TemporaryDirectory() as scratch:
            reply = Path(scratch) / "reply.json"
            done = subprocess.run(
                [str(self.release.python), str(DRIVER), str(reply)],
                input=json.dumps(
                    {"module": self.release.module, "function": function, "args": args, "kwargs": kwargs}
                ).encode(),
                env=self.variables(),
                cwd=self.directory.parent,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
            assert reply.exists(), f"{function} in {self.release.version}: {done.stderr.decode()}"
            answer = json.loads(reply.read_bytes())
        if "error" in answer:
            raise ClientFailed(**answer["error"])
        return answer["value"]
