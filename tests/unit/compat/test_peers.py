"""What goes to a gateway, and gateways, threads and installations that make it hard."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import kachery_cloud as kc
from kachery import http

from .conftest import CONTENT, SHA1, URI

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import StandIn

# the releases' gateways refuse a payload with any other key, and any value that is not ASCII text or an integer (D-48)
PAYLOADS = {
    "findFile": {"hashAlg", "hash", "zone"},
    "initiateFileUpload": {"size", "hashAlg", "hash", "zone"},
    "finalizeFileUpload": {"objectKey", "hashAlg", "hash", "size", "zone"},
    "getClientInfo": {"clientId", "zone"},
    "deleteFile": {"hashAlg", "hash", "zone"},
}


def test_payloads_that_every_gateway_knows(rig: StandIn, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    kc.get_client_id(generate_if_missing=True)
    kc.get_client_info()
    kc.store_file(str(tmp_path / "a"), label="é")
    kc.load_file(f"{URI}?label=%C3%A9")
    kc.load_file_info(URI)
    kc.admin_delete_file(URI)

    assert set(rig.kinds()) == set(PAYLOADS)
    for call in rig.calls:
        assert call.keys() == PAYLOADS[call["type"]] | {"type", "timestamp"}
        assert all(type(value) is int or (type(value) is str and value.isascii()) for value in call.values())


def test_somebody_else_is_uploading_the_same(rig: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # D-38
    monkeypatch.setattr(http, "_LONGEST_PAUSE", 0.01)
    kc.get_client_id(generate_if_missing=True)
    (tmp_path / "a").write_bytes(CONTENT)
    answer, pending = rig.answer, 2

    def busy(envelope: dict[str, Any]) -> dict[str, Any]:
        nonlocal pending
        if envelope["payload"]["type"] == "initiateFileUpload" and pending:
            pending -= 1
            return {"type": "initiateFileUpload", "alreadyExists": False, "alreadyPending": True}
        return answer(envelope)

    rig.answer = busy  # type: ignore[method-assign] — the servers ask the rig for it each time

    assert kc.store_file(str(tmp_path / "a")) == URI
    assert rig.files == {SHA1: CONTENT}


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that takes every connection and never says a word."""
    monkeypatch.setenv("KACHERY_TIMEOUT", "0.1")
    monkeypatch.setattr(http, "_LONGEST_PAUSE", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_gateway_that_says_nothing(
    silence: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # D-57: it ends, and says why
    monkeypatch.setenv("KACHERY_GATEWAY_URL", silence)

    assert kc.load_file(URI) is None
    assert "in time" in caplog.text
    kc.get_client_id(generate_if_missing=True)
    with pytest.raises(TimeoutError):
        kc.store_text("x")


def test_a_resource_that_says_nothing(
    rig: StandIn, silence: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from kachery import files
    from kachery.zone import resource

    monkeypatch.setattr(resource, "_MARGIN", 0.1)
    monkeypatch.setattr(files.loading, "_RESOURCE_NEWS", 0.1)
    monkeypatch.setenv("KACHERY_RESOURCE_URL", f"{silence}/r/rig")

    assert kc.load_file(URI) is None
    assert "in time" in caplog.text


def test_many_threads_store_at_once(rig: StandIn, tmp_path: Path) -> None:
    # as programs with a pool of ten do for the tiles of an image
    kc.get_client_id(generate_if_missing=True)
    paths = [tmp_path / f"{number}.bin" for number in range(40)]
    for number, path in enumerate(paths):
        # every content twice
        path.write_bytes(b"tile %d" % (number // 2))

    with ThreadPoolExecutor(10) as pool:
        uris = list(pool.map(lambda path: kc.store_file(str(path), label=path.name, cache_locally=True), paths))

    assert len(rig.files) == 20
    for path, uri in zip(paths, uris, strict=True):
        assert uri.endswith(f"?label={path.name}")
        assert kc.load_text(uri, local_only=True) == path.read_text()


def test_many_make_keys_at_once(own_environment: Path) -> None:
    # D-20: they end up with one identity
    gate = threading.Barrier(8)

    def make(_: int) -> str | None:
        gate.wait()
        return kc.get_client_id(generate_if_missing=True)

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(make, range(8)))

    assert ids == {kc.get_client_id()}
    assert sorted(path.name for path in own_environment.iterdir() if path.is_file()) == ["private.pem", "public.pem"]


def test_without_numpy(own_environment: Path) -> None:
    # D-24
    code = """
import sys
sys.modules["numpy"] = None
import kachery_cloud as kc
assert kc.load_json(kc.store_json_local({"a": [1.5, "x"]})) == {"a": [1.5, "x"]}
assert kc.load_pkl(kc.store_pkl_local({"a": (1, 2)})) == {"a": (1, 2)}
assert kc.load_text(kc.store_text_local("x")) == "x"
assert kc.get_client_id(generate_if_missing=True)
try:
    kc.store_npy_local([1])
except NotImplementedError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "numpy is not installed" in done.stdout


def test_what_spyglass_sets_changes_nothing(rig: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "KACHERY_CLOUD_EPHEMERAL": "TRUE",
        "KACHERY_STORAGE_DIR": str(tmp_path / "storage"),
        "KACHERY_TEMP_DIR": str(tmp_path / "temp"),
        "FIGURL_CHANNEL": "franklab2",
    }.items():
        monkeypatch.setenv(name, value)
    # it shares by linking in one directory, and loads in another, both set between two calls
    analysis = tmp_path / "analysis.nwb"
    analysis.write_bytes(CONTENT)
    monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / "host"))
    uri = kc.link_file(str(analysis))
    assert kc.load_file(uri) == str(analysis)
    assert rig.calls == []
    rig.files[SHA1] = CONTENT
    monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / "client"))
    dest = tmp_path / "elsewhere" / "analysis.nwb"
    dest.parent.mkdir()

    assert kc.load_file(uri, dest=str(dest)) == str(dest)
    assert dest.read_bytes() == CONTENT
    assert os.listdir(tmp_path / "client") != []
    assert not (tmp_path / "storage").exists()
