"""Storing: URIs, where things go, and what is left alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import kachery_cloud as kc
from kachery.errors import InvalidInput, NotAllowed, NotConfigured, NotFound, Unreachable

from .conftest import CONTENT, SHA1, URI

if TYPE_CHECKING:
    from .conftest import StandIn

ARRAY = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.int16)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a b&c.txt"
    path.write_bytes(CONTENT)
    return path


def blob(directory: Path, hash_: str = SHA1) -> Path:
    return directory / "sha1" / hash_[:2] / hash_[2:4] / hash_[4:6] / hash_


def look(path: Path) -> tuple[int, ...]:
    """All that can be seen of a file but when it was last read."""
    found = path.stat()
    return (found.st_mode, found.st_ino, found.st_nlink, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@pytest.mark.parametrize(
    ("stored", "hash_"),
    [
        (lambda: kc.store_text("example text", local=True), "d9e989f651cdd269d7f9bb8a215d024d8d283688"),
        (lambda: kc.store_text_local("example text"), "d9e989f651cdd269d7f9bb8a215d024d8d283688"),
        (lambda: kc.store_json({"example": "dict"}, local=True), "d0d9555e376ff13a08c6d56072808e27ca32d54a"),
        (
            lambda: kc.store_json_local({"b": "é", "a": [1, 2.0, None, True]}),
            "fc06271bd6614934b91ab5652a81ed2cd919eb70",
        ),
        (lambda: kc.store_npy_local(ARRAY), "bb55205a2482c6db2ace544fc7d8397551110701"),
        (lambda: kc.store_text_local(""), "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
    ],
)
def test_vectors(stored: Any, hash_: str) -> None:
    assert stored() == f"sha1://{hash_}"


@pytest.mark.parametrize(
    ("label", "query"), [(None, ""), ("", "?label="), ("a b/c&d.txt", "?label=a%20b/c%26d.txt"), ("é", "?label=%C3%A9")]
)
def test_labels(source: Path, label: str | None, query: str) -> None:
    assert kc.store_file(str(source), label=label, local=True) == URI + query
    assert kc.store_file_local(str(source), label=label) == URI + query
    assert kc.link_file(str(source), label=label) == URI + query
    assert kc.store_text_local(CONTENT.decode(), label) == URI + query


def test_storing_locally_copies(source: Path, own_environment: Path) -> None:
    before = look(source)

    assert kc.store_file_local(os.path.relpath(source)) == URI

    copy = blob(own_environment)
    assert copy.read_bytes() == CONTENT
    assert copy.stat().st_ino != source.stat().st_ino
    assert look(source) == before


def test_storing_what_a_uri_names(source: Path) -> None:
    kc.link_file(str(source))

    assert kc.store_file_local(f"{URI}?label=x", label="y") == f"{URI}?label=y"


def test_a_reference_copies_nothing(source: Path, own_environment: Path) -> None:
    uri = kc.store_file_local(str(source), reference=True, label="x")

    assert uri == f"{URI}?label=x&location={source}"
    assert kc.store_file_local(str(source), reference=True) == f"{URI}?location={source}"
    assert not (own_environment / "sha1").exists()


def test_a_plain_directory_given(source: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"

    uri = kc.store_file_local(str(source), label="q", store_file_dir=str(plain), store_file_prefix="$dir")

    assert uri == f"$dir/sha1/{SHA1}?label=q"
    assert (plain / "sha1" / SHA1).read_bytes() == CONTENT
    assert kc.store_file_local(str(source), store_file_dir=str(plain)) == URI
    assert kc.store_file_local(str(source), store_file_prefix="$dir") == f"$dir/sha1/{SHA1}"


def test_a_plain_directory_from_the_environment(
    source: Path, tmp_path: Path, own_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # read at each call: programs set these between two of them
    monkeypatch.setenv("KACHERY_STORE_FILE_DIR", str(tmp_path / "one"))
    assert kc.store_file(str(source), label="q") == f"{URI}?label=q"
    monkeypatch.setenv("KACHERY_STORE_FILE_DIR", str(tmp_path / "two"))
    monkeypatch.setenv("KACHERY_STORE_FILE_PREFIX", "$dir")
    uri = kc.store_json({"a": 1})

    assert uri == "$dir/sha1/9f89c740ceb46d7418c924a78ac57941d5e96520"
    assert json.loads((tmp_path / "two" / uri.removeprefix("$dir/")).read_bytes()) == {"a": 1}
    assert (tmp_path / "one" / "sha1" / SHA1).read_bytes() == CONTENT
    assert not own_environment.exists()
    # what is meant for this machine goes to its store all the same
    assert kc.store_file(str(source), local=True) == URI
    assert blob(own_environment).exists()


class Backend:
    def __init__(self) -> None:
        self.taken: list[tuple[str, str | None, bytes]] = []

    def store_file(self, filename: str, *, label: str | None = None) -> str:
        self.taken.append((Path(filename).name, label, Path(filename).read_bytes()))
        return "https://host/somewhere"


def test_a_custom_backend(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Backend()
    kc.set_custom_storage_backend(backend)

    assert kc.store_file(str(source), label="x") == "https://host/somewhere"
    assert kc.store_text("é") == "https://host/somewhere"
    assert kc.store_json({"a": 1}, label="y") == "https://host/somewhere"
    assert kc.store_npy(ARRAY) == "https://host/somewhere"
    assert backend.taken[:3] == [
        (source.name, "x", CONTENT),
        ("file.dat", None, "é".encode()),
        ("file.dat", "y", b'{"a":1}'),
    ]
    assert backend.taken[3][0] == "file.npy"
    assert kc.get_client_info() == {"type": "getClientInfo", "found": True, "client": "custom_storage_backend"}
    # neither what stays here nor a plain directory goes to it
    kc.store_text("x", local=True)
    monkeypatch.setenv("KACHERY_STORE_FILE_DIR", str(tmp_path / "plain"))
    kc.store_text("x")
    assert len(backend.taken) == 4
    monkeypatch.delenv("KACHERY_STORE_FILE_DIR")
    kc.set_custom_storage_backend(None)
    with pytest.raises(NotConfigured):
        kc.store_text("x")


def test_storing_in_the_zone(rig: StandIn, source: Path) -> None:
    kc.get_client_id(generate_if_missing=True)

    assert kc.store_file(str(source), label="x") == f"{URI}?label=x"
    assert rig.files[SHA1] == CONTENT
    assert rig.kinds() == ["initiateFileUpload", "finalizeFileUpload"]
    # a second time nothing is sent
    assert kc.store_file(str(source)) == URI
    assert rig.kinds()[2:] == ["initiateFileUpload"]
    assert {call["zone"] for call in rig.calls} == {"lab"}


def test_an_empty_file_is_sent_with_a_length(rig: StandIn, tmp_path: Path) -> None:
    # D-26
    kc.get_client_id(generate_if_missing=True)
    (tmp_path / "empty").touch()

    assert kc.store_file(str(tmp_path / "empty")) == "sha1://da39a3ee5e6b4b0d3255bfef95601890afd80709"

    (headers,) = [headers for method, _, headers in rig.requests if method == "PUT"]
    assert headers["content-length"] == "0"
    assert "transfer-encoding" not in headers


@pytest.mark.parametrize("already_there", [False, True])
def test_caching_locally_caches_and_leaves_the_source_alone(
    rig: StandIn, source: Path, own_environment: Path, already_there: bool
) -> None:
    # D-01
    kc.get_client_id(generate_if_missing=True)
    source.chmod(0o640)
    os.link(source, source.with_name("hard link"))
    before = look(source)
    if already_there:
        rig.files[SHA1] = CONTENT

    assert kc.store_file(str(source), cache_locally=True) == URI

    assert look(source) == before
    assert blob(own_environment).read_bytes() == CONTENT
    assert not (own_environment / "hash0").exists()
    assert kc.load_file(URI, local_only=True) == str(blob(own_environment))


def test_a_refused_upload_raises_and_shows_no_secret(
    rig: StandIn, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # D-54: the address is a right to write
    kc.get_client_id(generate_if_missing=True)
    rig.upload_status = 403

    with pytest.raises(NotAllowed) as caught:
        kc.store_file(str(source))

    assert "secret" not in str(caught.value)
    shown = capfd.readouterr()
    assert "secret" not in shown.out + shown.err


def test_a_zone_that_refuses(rig: StandIn, source: Path) -> None:
    kc.get_client_id(generate_if_missing=True)
    rig.refuse = "user is not authorized to upload to this zone"

    with pytest.raises(NotAllowed, match="not authorized"):
        kc.store_file(str(source))


@pytest.mark.usefixtures("nobody")
def test_a_gateway_that_is_down(source: Path) -> None:
    kc.get_client_id(generate_if_missing=True)

    with pytest.raises(Unreachable):
        kc.store_file(str(source))
    with pytest.raises(Unreachable):
        kc.store_json({})


def test_without_keys_or_gateway(rig: StandIn, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotConfigured, match="keys"):
        kc.store_file(str(source))
    monkeypatch.delenv("KACHERY_GATEWAY_URL")
    with pytest.raises(NotConfigured, match="gateway"):
        kc.store_file(str(source))
    assert rig.calls == []


@pytest.mark.parametrize("zone", ["é", "a b", "../x"])
def test_only_ascii_is_signed(rig: StandIn, source: Path, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    # D-12: generations of gateways disagree on how the rest is signed
    kc.get_client_id(generate_if_missing=True)
    monkeypatch.setenv("KACHERY_ZONE", zone)

    with pytest.raises(InvalidInput, match="zone"):
        kc.store_file(str(source))
    assert rig.calls == []


@pytest.mark.parametrize("store", [kc.store_file_local, kc.link_file, kc.store_file])
def test_sources_that_cannot_be_read(rig: StandIn, tmp_path: Path, store: Any) -> None:
    kc.get_client_id(generate_if_missing=True)
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(NotFound):
        store(str(tmp_path / "missing"))
    with pytest.raises(InvalidInput):
        store(str(tmp_path))
    with pytest.raises(InvalidInput):
        store(str(tmp_path / "pipe"))
    assert rig.files == {}


@pytest.mark.parametrize(
    ("value", "error"), [(float("nan"), ValueError), ({"a": np.int64(1)}, TypeError), ({1, 2}, TypeError)]
)
def test_what_json_does_not_have(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        kc.store_json_local(value)


def test_what_arrays_and_pickles_may_not_hold() -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        kc.store_npy_local(np.array([None, "a"], dtype=object))
    for value in ({1}, b"x", {"a": [object()]}):
        with pytest.raises(InvalidInput):
            kc.store_pkl_local(value)
    with pytest.raises(InvalidInput):
        kc.store_text_local(5)  # type: ignore[arg-type] — as a program without types might


def test_a_linked_file_is_found_until_it_changes(source: Path, own_environment: Path) -> None:
    kc.link_file(str(source))
    record = own_environment / "linked_files" / "sha1" / "b9" / "71" / "c6" / SHA1
    status = source.stat()
    assert record.read_text() == json.dumps(
        {"path": str(source), "size": status.st_size, "mtime": status.st_mtime, "sha1": SHA1}
    )
    assert kc.load_file(URI) == str(source)

    source.write_bytes(b"TEST-content\n")

    assert kc.load_file(URI, local_only=True) is None


def test_deleting_from_the_zone(rig: StandIn) -> None:
    kc.get_client_id(generate_if_missing=True)
    rig.files[SHA1] = CONTENT

    kc.admin_delete_file(f"{URI}?label=x")

    assert rig.files == {}
    with pytest.raises(NotFound):
        kc.admin_delete_file(URI)
    with pytest.raises(InvalidInput):
        kc.admin_delete_file("/etc/passwd")
