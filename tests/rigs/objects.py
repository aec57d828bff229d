"""An S3-compatible object store on loopback, in a directory of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

WEED = Path(sys.prefix) / "bin" / "weed"

KEY, SECRET = "kachery-tests", "a-secret-that-only-tests-know"

#: Seconds that it may take until it answers, on a busy machine.
_START = 60.0


class ObjectStore:
    """A running SeaweedFS with some buckets; `stop` and `start` as often as wanted.

    Args:
        directory: Where it keeps everything.
        buckets: The names of its buckets.
    """

    def __init__(self, directory: Path, buckets: tuple[str, ...] = ("lab", "other")) -> None:
        self._directory = directory
        self._buckets = buckets
        ports = _free_ports(4)
        self._port = ports[0]
        self._options = [
            *("-dir", str(directory / "data"), "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"),
            *("-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *(f"-s3.port={ports[0]}", f"-filer.port={ports[1]}", f"-master.port={ports[2]}"),
            *(f"-volume.port={ports[3]}", f"-bucket={','.join(buckets)}"),
        ]
        (directory / "data").mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = (self._directory / "log").open("ab")
        self._process = subprocess.Popen(
            [str(WEED), "mini", *self._options],
            env={
                "PATH": os.defpath,
                "HOME": str(self._directory),
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "GOMEMLIMIT": "512MiB",
            },
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()
        deadline = time.monotonic() + _START
        while not self._answers():
            assert self._process.poll() is None, (self._directory / "log").read_text()[-4000:]
            assert time.monotonic() < deadline, (self._directory / "log").read_text()[-4000:]
            time.sleep(0.1)

    def _answers(self) -> bool:
        import obstore

        try:
            store = self.open(self._buckets[-1])
            obstore.put(store, "probe", b"x", use_multipart=False)
            obstore.delete(store, "probe")
        except obstore.exceptions.BaseError:
            return False
        return True

    def open(self, bucket: str, **config: str) -> object:
        """A bucket, as the library sees it."""
        from obstore.store import S3Store

        return S3Store(
            bucket,
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id=config.get("access_key_id", KEY),
            secret_access_key=config.get("secret_access_key", SECRET),
            virtual_hosted_style_request=False,
            client_options={"allow_http": True, "timeout": "20s"},
            retry_config={"max_retries": 0},
            **({"prefix": config["prefix"]} if "prefix" in config else {}),
        )

    def stop(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None


@contextmanager
def running() -> Iterator[ObjectStore]:
    """An object store for as long as the block runs."""
    directory = Path(tempfile.mkdtemp(prefix="kachery-s3-"))
    try:
        store = ObjectStore(directory)
        try:
            yield store
        finally:
            store.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free, and so are those 10,000 above them, where the same services speak gRPC."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as probe, socket.socket() as second:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            # below the ports that the system gives to others
            port = 10_000 + port % 20_000
            try:
                second.bind(("127.0.0.1", port + 10_000))
                with socket.socket() as first:
                    first.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
