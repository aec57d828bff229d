"""`kachery://` opened by h5py, pynwb, xarray, pandas, dask and zarr, from a gateway process, with the bytes counted."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from rigs.counting import Wire
from rigs.gateway import OPEN, Gateway
from rigs.release import ROOT, Client, add_ours, environment, ours

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rigs.person import Person

READER = ROOT / "tests" / "rigs" / "fsspec_reader.py"


@dataclass
class Readers:
    """The environment of the libraries, and what was stored for them.

    Args:
        python: The environment's interpreter.
        directory: For files and store directories.
        gateway: Whose zone the files are in.
        stored: Their URIs, by kind.
    """

    python: Path
    directory: Path
    gateway: Gateway
    stored: dict[str, str]

    def run(self, *arguments: str, **variables: str) -> str:
        """Run the reader, which must succeed; gives its stdout."""
        done = subprocess.run(
            [str(self.python), "-W", "ignore", str(READER), *arguments],
            env={"PATH": os.defpath, "HOME": str(self.directory), "LANG": "C.UTF-8", **variables},
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    def read(self, kind: str, uri: str, store: Path) -> tuple[Any, int]:
        """What one library found, on a machine whose store is elsewhere, and how many bytes came from the gateway."""
        with Wire(self.gateway.port) as wire:
            variables = {"KACHERY_GATEWAY_URL": wire.url, "KACHERY_ZONE": OPEN, "KACHERY_CLOUD_DIR": str(store)}
            return json.loads(self.run("read", kind, uri, **variables)), wire.received


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory, gateway: Gateway, alice: Person) -> Readers:
    prefix = environment("fsspec")
    add_ours(prefix)
    return Readers(prefix / "bin" / "python", tmp_path_factory.mktemp("readers"), gateway, {})


@pytest.fixture(scope="module")
def uploader(readers: Readers, gateway: Gateway, alice: Person) -> Client:
    directory = readers.directory / "uploader" / "kachery-cloud"
    directory.mkdir(parents=True)
    client = Client(ours(), directory, {"KACHERY_GATEWAY_URL": gateway.url, "KACHERY_ZONE": OPEN})
    gateway.admin("client", "add", client.make_keys(), "--owner", alice.name, "--zone", OPEN)
    return client


@pytest.fixture(scope="module")
def hash_of(readers: Readers, uploader: Client) -> Callable[[str], str]:
    """Gives the SHA-1 of a file of a kind in the zone; it is made and stored the first time."""

    def give(kind: str) -> str:
        if kind not in readers.stored:
            path = readers.directory / f"file.{kind}"
            readers.run("make", kind, str(path))
            readers.stored[kind] = uploader.call("store_file", str(path), timeout=300)
            path.unlink()
        return readers.stored[kind].removeprefix("sha1://")[:40]

    return give


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The store of a machine that has nothing."""
    return tmp_path / "elsewhere"


MIB = 1024 * 1024

#: What reads which file by which spelling, what it must find, and the most that may come from the gateway, in bytes
READINGS = [
    ("h5py", "h5py", "kachery://sha1/{}/a.h5", {"names": ["a", "b"]}, 2 * MIB),
    ("h5py", "h5py", f"kachery://{OPEN}/sha1/{{}}", {"names": ["a", "b"]}, 2 * MIB),
    ("h5py", "h5py", "sha1://{}?label=a.h5", {"names": ["a", "b"]}, 2 * MIB),
    ("csv", "csv", "kachery://sha1/{}/a.csv", {"rows": 50_000}, None),
    ("csv", "csv", "sha1://{}/a.csv", {"rows": 50_000}, None),
    ("csv.gz", "csv.gz", "kachery://sha1/{}/a.csv.gz", {"rows": 50_000}, None),
    ("csv", "dask", "kachery://sha1/{}/a.csv", {"several": True}, None),
    ("parquet", "parquet", "kachery://sha1/{}/a.parquet", {"rows": 50_000}, None),
    ("parquet", "parquet column", "kachery://sha1/{}/a.parquet", {"rows": 100}, None),
    ("netcdf", "netcdf", "kachery://sha1/{}/a.nc", {"rat": "a"}, 2 * MIB),
    ("netcdf", "netcdf dask", "kachery://sha1/{}/a.nc", {"trials": 40}, None),
    ("zarr.zip", "zarr.zip", "kachery://sha1/{}/a.zip", {"rat": "b"}, None),
]


@pytest.mark.parametrize(("kind", "how", "spelling", "expected", "most"), READINGS)
def test_readings(
    readers: Readers,
    hash_of: Callable[[str], str],
    store: Path,
    kind: str,
    how: str,
    spelling: str,
    expected: dict[str, Any],
    most: int | None,
) -> None:
    found, moved = readers.read(how, spelling.format(hash_of(kind)), store)
    assert found == expected
    assert moved > 0
    if most is not None:
        assert moved < most


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("how", "most"), [("nwb", 0.01), ("nwb raw", 0.01)])
def test_one_array_of_a_recording_of_2_gib(
    readers: Readers, hash_of: Callable[[str], str], store: Path, how: str, most: float
) -> None:
    uri = f"kachery://sha1/{hash_of('nwb')}/recording.nwb"
    found, moved = readers.read(how, uri, store)
    size = 2 * 1024**3
    assert moved < most * size
    if how == "nwb":
        assert found == {"identifier": "kachery-test", "raw": [16_777_216, 64]}


@pytest.mark.timeout(600)
def test_a_recording_of_2_gib_by_its_other_spellings(
    readers: Readers, hash_of: Callable[[str], str], store: Path
) -> None:
    for spelling in ("sha1://{}", "kachery://kachery:lab:sha1:{}:a.nwb"):
        _, moved = readers.read("nwb", spelling.format(hash_of("nwb")), store)
        assert moved < 0.01 * 2 * 1024**3


@pytest.mark.parametrize("zone", ["", f"{OPEN}/"])
def test_a_zarr_directory(readers: Readers, uploader: Client, store: Path, zone: str) -> None:
    if "zarr" not in readers.stored:
        readers.run("make", "zarr", str(readers.directory / "session7.zarr"))
        readers.stored["zarr"] = uploader.output("kachery", "store", str(readers.directory / "session7.zarr"))
    uri = readers.stored["zarr"]
    assert uri.endswith(".session7.zarr")
    found, moved = readers.read("zarr", uri.replace("sha1dir://", f"kachery://{zone}sha1dir/"), store)
    assert found["rat"] == "a"
    assert "read-only" in found["writing"]
    assert 0 < moved < 19_200_000
