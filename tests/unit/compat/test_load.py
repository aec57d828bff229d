"""Loading: what is found, what is `None` with a reason, and what is an error."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import kachery_cloud as kc
from kachery import errors, files, http
from kachery.errors import InvalidInput, NotAllowed, WrongContent
from kachery_cloud._outcomes import none_if_missing

from .conftest import CONTENT, ELSEWHERE, SHA1, URI

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import StandIn


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Gives what was said on the log since it was last asked, as warnings or worse."""

    def said() -> str:
        text = "\n".join(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)
        caplog.clear()
        return text

    return said


LOADS: list[Callable[[str], Any]] = [
    kc.load_file,
    kc.load_text,
    kc.load_json,
    kc.load_npy,
    kc.load_pkl,
    kc.load_file_info,
    lambda uri: kc.load_bytes(uri, 0, 1),
    lambda uri: kc.load_file(uri, _get_info=True),
]


@pytest.mark.parametrize("load", LOADS)
def test_nobody_has_it(rig: StandIn, load: Callable[[str], Any], warned: Callable[[], str]) -> None:
    assert load(ELSEWHERE) is None
    assert "lab" in warned()
    assert set(rig.kinds()) == {"findFile"}


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("load", LOADS)
def test_nobody_can_be_reached(load: Callable[[str], Any], warned: Callable[[], str]) -> None:
    assert load(URI) is None
    assert "cannot be reached" in warned()


@pytest.mark.parametrize("load", LOADS)
def test_no_gateway_is_known(load: Callable[[str], Any], warned: Callable[[], str]) -> None:
    assert load(URI) is None
    assert "no gateway" in warned()


def test_a_page_instead_of_an_answer(rig: StandIn, warned: Callable[[], str]) -> None:
    rig.body = b"<html>please sign in</html>"

    assert kc.load_file(URI) is None
    assert "HTML" in warned()


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize(
    "uri",
    [
        "foo://a",
        "ipfs://QmY",
        "jot://abc",
        "relative/path",
        "",
        "gh://user",
        "sha1://abc",
        "sha1://" + "A" * 40,
        "sha1-enc://00.ag_x",
        "kachery-feed://abcdefabcdef",
        "zenodo://1/../../x",
    ],
)
def test_what_cannot_be_loaded(load: Callable[[str], Any], uri: str, warned: Callable[[], str]) -> None:
    # D-17: `None` for compatibility, but never without a reason
    assert load(uri) is None
    assert warned()


@pytest.mark.parametrize("load", LOADS)
def test_what_is_no_text_is_a_mistake(load: Callable[[Any], Any]) -> None:
    # as when a value that was never set is handed on
    with pytest.raises(InvalidInput):
        load(None)


def test_a_path(tmp_path: Path, warned: Callable[[], str]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(CONTENT)

    assert kc.load_file(str(path)) == str(path)
    assert kc.load_file(str(path), dest=str(tmp_path / "copy")) == str(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert kc.load_file(str(tmp_path / "missing")) is None
    assert "missing" in warned()


def test_public_files_need_no_keys(rig: StandIn, own_environment: Path) -> None:
    # D-02
    rig.files[SHA1] = CONTENT

    path = kc.load_file(f"{URI}?label=x")

    assert path == str(own_environment / "sha1" / "b9" / "71" / "c6" / SHA1)
    assert not (own_environment / "private.pem").exists()
    # from now on it is here
    rig.files.clear()
    assert kc.load_text(URI) == CONTENT.decode()


@pytest.mark.parametrize(
    "spelling", [URI, f"{URI}/name.txt", f"{URI}?label=a%20b", f"{URI}?x", f"kachery:lab:sha1:{SHA1}"]
)
def test_spellings(rig: StandIn, spelling: str) -> None:
    rig.files[SHA1] = CONTENT

    assert kc.load_text(uri=spelling) == CONTENT.decode()


def test_dest(rig: StandIn, tmp_path: Path) -> None:
    rig.files[SHA1] = CONTENT
    dest = tmp_path / "there.txt"
    dest.write_bytes(b"something older and longer than the content")

    assert kc.load_file(uri=URI, dest=str(dest), verbose=True) == str(dest)
    assert dest.read_bytes() == CONTENT
    assert kc.load_file(URI, local_only=True) is not None


@pytest.mark.parametrize(
    "alter", [lambda _: b"TEST-content\n", lambda data: data[:-1], lambda data: data + b"x", lambda _: b""]
)
@pytest.mark.parametrize("size", [len(CONTENT), 3_000_000])
def test_nothing_of_wrong_content_is_kept_or_given(
    rig: StandIn, own_environment: Path, alter: Any, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # D-03
    monkeypatch.setattr(http, "_LONGEST_PAUSE", 0.01)
    content = (CONTENT * size)[:size]
    uri = f"sha1://{sha1_of(content)}"
    rig.files[uri.removeprefix("sha1://")] = content
    rig.alter = alter if size < 100 else lambda data: alter(data[:13]) + data[13:]

    def loaded() -> object:
        try:
            return kc.load_file(uri)
        except WrongContent:
            return None

    assert loaded() is None
    rig.alter = None
    rig.files.clear()
    assert loaded() is None
    assert [path for path in (own_environment / "sha1").rglob("*") if path.is_file()] == []


def sha1_of(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def test_same_size_other_bytes_raise(rig: StandIn) -> None:
    rig.files[SHA1] = b"TEST-content\n"

    for load in (kc.load_file, kc.load_text):
        with pytest.raises(WrongContent, match=SHA1[:10]):
            load(URI)


def test_a_damaged_copy_is_replaced(rig: StandIn, own_environment: Path) -> None:
    rig.files[SHA1] = CONTENT
    path = own_environment / "sha1" / "b9" / "71" / "c6" / SHA1
    path.parent.mkdir(parents=True)
    path.write_bytes(b"TEST-content\n")

    assert kc.load_text(URI) == CONTENT.decode()


def test_refused_for_want_of_keys(rig: StandIn, warned: Callable[[], str]) -> None:
    rig.refuse = "anonymous users are not authorized to download from this zone"

    for load in LOADS:
        assert load(URI) is None
        assert "kachery-cloud-init" in warned()


def test_refused_is_an_error(rig: StandIn) -> None:
    kc.get_client_id(generate_if_missing=True)
    rig.refuse = "user is not authorized to download from this zone"

    for load in (kc.load_file, kc.load_json, kc.load_file_info):
        with pytest.raises(NotAllowed, match="not authorized"):
            load(URI)


@pytest.mark.parametrize(
    ("error", "missing"),
    [
        (errors.NotFound, True),
        (errors.Unreachable, True),
        (errors.TimedOut, True),
        (errors.BadReply, True),
        (errors.NotConfigured, True),
        (errors.NotIdentified, True),
        (errors.NotSupported, True),
        (errors.InvalidURI, True),
        (errors.InvalidName, False),
        (errors.NotAllowed, False),
        (errors.NotRegistered, False),
        (errors.WrongContent, False),
        (errors.Collision, False),
        (errors.StorageFull, False),
        (errors.TooLarge, False),
        (errors.SourceChanged, False),
        (errors.Conflict, False),
    ],
)
def test_which_errors_are_none(error: type[errors.KacheryError], missing: bool, warned: Callable[[], str]) -> None:
    def load() -> str:
        raise error("the reason", hint="the way out")

    if missing:
        assert none_if_missing(load) is None
        assert warned() == "the reason (the way out)"
    else:
        with pytest.raises(error):
            none_if_missing(load)


def test_info(rig: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.files[SHA1] = CONTENT

    info = kc.load_file_info(f"{URI}?label=x")

    assert info == {
        "type": "findFile",
        "found": True,
        "size": 13,
        "bucketUri": "r2://rig",
        "objectKey": f"sha1/b9/71/c6/{SHA1}",
        "cacheHit": False,
    }
    assert kc.load_file(URI, _get_info=True) == info
    # D-16: asking is not requesting
    rig.files.clear()
    rig.resource = [{"status": "completed", "size": 13}]
    monkeypatch.setenv("KACHERY_RESOURCE_URL", f"{rig.url}/r/rig")
    rig.requests.clear()
    assert kc.load_file_info(URI) is None
    assert rig.requests == []


def test_a_resource_brings_what_the_zone_lacks(rig: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KACHERY_RESOURCE_URL", f"{rig.url}/r/rig")
    monkeypatch.setattr(files.loading, "_RESOURCE_PAUSE", 0.01)
    rig.resource = [{"status": "queued", "size": 13}, {"status": "running", "size": 13, "bytesUploaded": 5}]

    class Brings(list[dict[str, Any]]):
        def pop(self, index: Any = -1) -> dict[str, Any]:
            rig.files[SHA1] = CONTENT
            return super().pop(index)

    rig.resource = Brings([*rig.resource, {"status": "completed", "size": 13}])

    assert kc.load_file(URI, do_request=False) is None
    assert rig.requests == []
    assert kc.load_text(URI) == CONTENT.decode()


@pytest.mark.parametrize("status", [{"status": "not-found"}, {"status": "error", "error": "out of order"}])
def test_a_resource_that_cannot(
    rig: StandIn, monkeypatch: pytest.MonkeyPatch, status: dict[str, Any], warned: Callable[[], str]
) -> None:
    monkeypatch.setenv("KACHERY_RESOURCE_URL", f"{rig.url}/r/rig")
    rig.resource = [status]

    assert kc.load_file(URI) is None
    assert status.get("error", "the resource does not have it") in warned()


def test_a_resource_that_never_gets_anywhere(rig: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    # D-57
    monkeypatch.setenv("KACHERY_RESOURCE_URL", f"{rig.url}/r/rig")
    monkeypatch.setattr(files.loading, "_RESOURCE_PAUSE", 0.01)
    monkeypatch.setattr(files.loading, "_RESOURCE_PATIENCE", 0.1)
    rig.resource = [{"status": "queued"}]

    assert kc.load_file(URI) is None


def test_places_in_a_uri_are_not_trusted(rig: StandIn, tmp_path: Path, warned: Callable[[], str]) -> None:
    # D-18: neither a device nor somebody else's file
    other = tmp_path / "other"
    other.write_bytes(b"TEST-content\n")
    for place in ("/dev/zero", str(other), str(tmp_path)):
        assert kc.load_file(f"{URI}?location={place}") is None
    right = tmp_path / "right"
    right.write_bytes(CONTENT)
    assert kc.load_file(f"{URI}?label=x&location={right}") == str(right)
    assert warned()


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(2, 5, b"st-"), (None, None, CONTENT), (5, 5, b""), (13, 13, b""), (4, None, CONTENT[4:])],
)
def test_parts(rig: StandIn, start: int | None, end: int | None, expected: bytes, capfdbinary: Any) -> None:
    rig.files[SHA1] = CONTENT

    assert kc.load_bytes(URI, start, end) == expected
    assert kc.load_bytes(URI, start, end, write_to_stdout=True) is None
    assert capfdbinary.readouterr().out == expected


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (0, 1000), (5, 3), (14, None)])
def test_parts_that_are_not_there(rig: StandIn, start: int, end: int | None) -> None:
    rig.files[SHA1] = CONTENT

    with pytest.raises(InvalidInput):
        kc.load_bytes(URI, start, end)


def test_a_part_does_not_fetch_the_whole(rig: StandIn) -> None:
    # D-41
    content = bytes(range(256)) * 40_000
    rig.files[SHA1] = content

    assert kc.load_bytes(URI, 5_000_000, 5_000_100) == content[5_000_000:5_000_100]
    (headers,) = [headers for method, _, headers in rig.requests if method == "GET"]
    first, _, last = headers["range"].removeprefix("bytes=").partition("-")
    assert int(last) - int(first) < 1_000_000


def test_cat(rig: StandIn, capfdbinary: Any, warned: Callable[[], str]) -> None:
    rig.files[SHA1] = CONTENT

    kc.cat_file(URI)
    assert capfdbinary.readouterr().out == CONTENT
    kc.cat_file(ELSEWHERE)
    assert capfdbinary.readouterr().out == b""
    assert warned()


def test_values_come_back() -> None:
    tree = {"a": [1, 2.5, None, True, "é\x7f"], "b": {"c": []}}
    assert kc.load_json(kc.store_json_local(tree)) == tree
    assert kc.load_text(kc.store_text_local("a\r\nb\nç")) == "a\r\nb\nç"
    array = np.arange(12, dtype=">f4").reshape(3, 4)
    loaded = kc.load_npy(kc.store_npy_local(array))
    assert loaded is not None
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)


def test_pickles_come_back_whatever_numpy_it_is() -> None:
    # D-25
    value = {"a": np.arange(3), "b": np.float32(1.5), "c": (1, [2j, slice(1, 2), range(3)]), "d": np.bool_(True)}

    loaded = kc.load_pkl(kc.store_pkl_local(value))

    assert loaded is not None
    np.testing.assert_array_equal(loaded.pop("a"), value.pop("a"))
    assert loaded == value


def test_content_of_another_kind(tmp_path: Path) -> None:
    class Dangerous:
        def __reduce__(self) -> tuple[Any, ...]:
            return (json.loads, ("{}",))

    (tmp_path / "pickle").write_bytes(pickle.dumps(Dangerous()))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")

    with pytest.raises(WrongContent):
        kc.load_pkl(kc.store_file_local(str(tmp_path / "pickle")))
    binary = kc.store_file_local(str(tmp_path / "binary"))
    for load in (kc.load_text, kc.load_json, kc.load_npy, kc.load_pkl):
        with pytest.raises(WrongContent):
            load(binary)


def test_settings_are_read_at_each_call(rig: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.files[SHA1] = CONTENT
    for name in ("one", "two"):
        monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / name))
        monkeypatch.setenv("KACHERY_ZONE", name)
        assert str(kc.load_file(URI)).startswith(str(tmp_path / name))
        assert rig.calls[-1]["zone"] == name
    monkeypatch.setenv("KACHERY_GATEWAY_URL", "")
    monkeypatch.setenv("KACHERY_CLOUD_DIR", str(tmp_path / "three"))
    assert kc.load_file(URI) is None
