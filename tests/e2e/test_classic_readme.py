"""The page that introduced classic kachery, as it was printed: its commands and its Python, against a server of ours.

Paths are those of the test, hashes those of the test's files (the page's own were never all of one machine), and its
`np.ones(12, 12)`, which no numpy takes, is `np.ones((12, 12))`. The rest is the page's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rigs.gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.prefix) / "bin"
PASSWORD = "not a secret in a test"

SERVER = {
    "channels": [
        {
            "name": "readonly",
            "password": "readonly",
            "downloadQuotas": [{"name": "all", "maxFileSize": 1e9, "maxSimultaneous": 8}],
            "uploadQuotas": [],
        },
        {
            "name": "readwrite",
            "password": PASSWORD,
            "downloadQuotas": [{"name": "all", "maxFileSize": 1e9, "maxSimultaneous": 8}],
            "uploadQuotas": [{"name": "all", "maxFileSize": 1e9, "maxSimultaneous": 8}],
        },
    ]
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A classic server of ours, with a channel that may be read and one that may be written to."""
    gateway = Gateway(tmp_path_factory.mktemp("server"))
    gateway.data.mkdir(parents=True)
    (gateway.data / "kachery.json").write_text(json.dumps(SERVER))
    with gateway:
        yield gateway


class Computer:
    """A person's computer, where the presets of the page name the server."""

    def __init__(self, directory: Path, server: Gateway, **variables: str) -> None:
        self.directory = directory
        presets = directory / ".config" / "kachery" / "servers.json"
        presets.parent.mkdir(parents=True)
        url = f"{server.url}/classic"
        write = {"url": url, "channel": "readwrite", "password": {"env": "KACHERY_DEFAULT_PASSWORD"}}
        read = {"url": url, "channel": "readonly", "password": "readonly"}
        presets.write_text(json.dumps({"configurations": {"default_readwrite": write, "default_readonly": read}}))
        self.variables = {
            "PATH": f"{BIN}:/usr/bin:/bin",
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            **variables,
        }

    def type(self, line: str) -> str:
        """What a line of the page prints, which must succeed and say nothing else."""
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            env=self.variables,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    def python(self, code: str) -> str:
        """What a script of the page prints."""
        return self.type(f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}")


@pytest.fixture
def mine(tmp_path: Path, server: Gateway) -> Computer:
    (tmp_path / "mine").mkdir()
    return Computer(tmp_path / "mine", server, KACHERY_DEFAULT_PASSWORD=PASSWORD)


@pytest.fixture
def somebody_elses(tmp_path: Path, server: Gateway) -> Computer:
    (tmp_path / "theirs").mkdir()
    return Computer(tmp_path / "theirs", server)


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """`/path/to/file.dat`."""
    data = os.urandom(200_000)
    (tmp_path / "file.dat").write_bytes(data)
    return data


@pytest.fixture
def ds001(tmp_path: Path) -> Path:
    """`/path/to/directory/ds001`."""
    top = tmp_path / "ds001"
    for name in ("subdir1/other_file1.txt", "subdir1/other_file2.txt", "subdir2/third.txt", "file1.txt", "file2.csv"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(f"Content of {Path(name).name}\n")
    return top


def test_files_on_the_command_line(mine: Computer, content: bytes, tmp_path: Path) -> None:
    hash_ = hashlib.sha1(content).hexdigest()
    uri = f"sha1://{hash_}/file.dat"

    assert mine.type(f"kachery-store {tmp_path}/file.dat") == f"{uri}\n"
    assert mine.type(f"kachery-load {uri} --dest file.dat") == "file.dat\n"
    assert (mine.directory / "file.dat").read_bytes() == content
    shown = mine.type(f"kachery-info {uri}")
    path = json.loads(shown)["path"]
    assert shown == f'{{\n    "path": "{path}",\n    "size": 200000,\n    "sha1": "{hash_}"\n}}\n'
    assert Path(path).read_bytes() == content
    assert mine.type(f"kachery-cat {uri} > file.dat") == ""
    assert (mine.directory / "file.dat").read_bytes() == content
    assert mine.type(f"kachery-cat {uri} --start 0 --end 180000 > file_portion.dat") == ""
    assert (mine.directory / "file_portion.dat").read_bytes() == content[:180_000]


def test_directories_on_the_command_line(mine: Computer, ds001: Path) -> None:
    uri = mine.type(f"kachery-store {ds001}").rstrip("\n")

    assert uri.startswith("sha1dir://")
    assert uri.endswith(".ds001")
    assert mine.type(f"kachery-ls {uri}") == "subdir1/\nsubdir2/\nfile1.txt\nfile2.csv\n"
    assert mine.type(f"kachery-ls {uri}/subdir1") == "other_file1.txt\nother_file2.txt\n"
    assert mine.type(f"kachery-cat {uri}/subdir1/other_file1.txt") == "Content of other_file1.txt\n"


def test_sharing_on_the_command_line(mine: Computer, somebody_elses: Computer, ds001: Path) -> None:
    uri = mine.type(f"kachery-store {ds001} --to default_readwrite").rstrip("\n")

    assert uri == mine.type(f"kachery-store {ds001}").rstrip("\n")
    listed = somebody_elses.type(f"kachery-ls {uri} --fr default_readonly")
    assert listed == "subdir1/\nsubdir2/\nfile1.txt\nfile2.csv\n"
    shown = somebody_elses.type(f"kachery-cat {uri}/subdir1/other_file2.txt --fr default_readonly")
    assert shown == "Content of other_file2.txt\n"
    somebody_elses.type(f"kachery-load-dir {uri} --dest copy -f default_readonly")
    assert (somebody_elses.directory / "copy" / "subdir2" / "third.txt").read_text() == "Content of third.txt\n"


@pytest.mark.parametrize("program", ["store", "load", "ls", "cat", "info"])
def test_help(mine: Computer, program: str) -> None:
    shown = mine.type(f"kachery-{program} --help")
    assert f"kachery-{program}" in shown
    assert "--remote-only" in shown


def test_python(mine: Computer, content: bytes, ds001: Path, tmp_path: Path) -> None:
    (ds001 / "some_file_in_the_dir.txt").write_text("some words")
    code = f"""
import kachery as ka
import numpy as np

p_text = ka.store_text('some text')
p_obj = ka.store_object(dict(a=['some', 'object', 'that', 'can', 'be', 'json-serialized']))
p_npy = ka.store_npy(np.ones((12, 12)))
p_file = ka.store_file('{tmp_path}/file.dat')
p_dir =ka.store_dir('{ds001}')

txt = ka.load_text(p_text)
obj = ka.load_object(p_obj)
array = ka.load_npy(p_npy)
local_path = ka.load_file(p_file)
bytes0 = ka.load_bytes(p_file, start=0, end=180000)
dir_content = ka.read_dir(p_dir)
txt2 = ka.load_text(p_dir + '/some_file_in_the_dir.txt')

assert p_text == 'sha1://37aa63c77398d954473262e1a0057c1e632eda77/file.txt'
assert (txt, txt2) == ('some text', 'some words')
assert obj == dict(a=['some', 'object', 'that', 'can', 'be', 'json-serialized'])
assert (array == np.ones((12, 12))).all()
assert open(local_path, 'rb').read()[:180000] == bytes0
print(sorted(dir_content['files']), sorted(dir_content['dirs']), len(bytes0))
"""
    expected = "['file1.txt', 'file2.csv', 'some_file_in_the_dir.txt'] ['subdir1', 'subdir2'] 180000\n"
    assert mine.python(code) == expected


def test_python_with_a_server(mine: Computer, somebody_elses: Computer) -> None:
    uri = mine.python("""
import kachery as ka
import numpy as np
ka.set_config(
    fr='default_readwrite',
    to='default_readwrite'
)
p_text = ka.store_text('some text')
print(p_text)
""").rstrip("\n")
    assert uri == "sha1://37aa63c77398d954473262e1a0057c1e632eda77/file.txt"
    shown = somebody_elses.python(f"""
import kachery as ka
p_text = {uri!r}
ka.set_config(
    fr='default_readonly'
)
txt = ka.load_text(p_text)
print(txt)
""")
    assert shown == "some text\n"
