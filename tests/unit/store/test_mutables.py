"""Local mutables."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kachery.errors import InvalidInput, InvalidName, NotFound, WrongContent
from kachery.store import Store

if TYPE_CHECKING:
    from pathlib import Path


def test_set_get_delete() -> None:
    mutables = Store().mutables
    assert mutables.get("@a/b") is None
    mutables.set("@a/b", "1")
    mutables.set("@a/b", "2")
    mutables.set("c", "")
    assert (mutables.get("@a/b"), mutables.get("c")) == ("2", "")
    mutables.delete("@a/b")
    assert mutables.get("@a/b") is None
    for key in ("@a/b", "@nowhere/x", "d"):
        with pytest.raises(NotFound):
            mutables.delete(key)


def test_folders_are_deleted_whole() -> None:
    mutables = Store().mutables
    for key in ("@a/b", "@a/@c/d", "@e/f"):
        mutables.set(key, "x")
    mutables.delete_folder("@a")
    assert [mutables.get(key) for key in ("@a/b", "@a/@c/d", "@e/f")] == [None, None, "x"]
    with pytest.raises(NotFound):
        mutables.delete_folder("@a")


def test_a_linked_folder_is_not_followed(tmp_path: Path) -> None:
    store = Store()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    (store.root / "mutables").mkdir(parents=True)
    (store.root / "mutables" / "@link").symlink_to(tmp_path / "precious")
    with pytest.raises(NotFound):
        store.mutables.delete_folder("@link")
    assert (tmp_path / "precious" / "file").exists()


@pytest.mark.parametrize("key", ["../x", "@a/../../x", "/etc/passwd", "@a/b/c", "@a", "", "@a/\x00", "@a/con"])
def test_keys_do_not_escape(key: str) -> None:
    mutables = Store().mutables
    for use in (lambda: mutables.set(key, "x"), lambda: mutables.get(key), lambda: mutables.delete(key)):
        with pytest.raises(InvalidName):
            use()


@hypothesis_settings(max_examples=60)
@given(st.dictionaries(st.from_regex(r"(@[a-z]{1,3}/){0,3}[a-z]{1,5}", fullmatch=True), st.text(), max_size=6))
def test_many_at_once(tmp_path_factory: pytest.TempPathFactory, values: dict[str, str]) -> None:
    mutables = Store(tmp_path_factory.mktemp("store")).mutables
    for key, value in values.items():
        try:
            mutables.set(key, value)
        except (InvalidInput, InvalidName):
            # lone surrogates, and names of devices
            return
    assert {key: mutables.get(key) for key in values} == values


def test_the_longest_name_can_be_written() -> None:
    mutables = Store().mutables
    mutables.set("@a/" + "x" * 255, "value")
    assert mutables.get("@a/" + "x" * 255) == "value"


def test_what_is_no_text_is_refused() -> None:
    store = Store()
    with pytest.raises(InvalidInput):
        store.mutables.set("a", b"bytes")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        store.mutables.set("a", "\ud800")
    store.mutables.set("a", "x")
    (store.root / "mutables" / "a").write_bytes(b"\xff")
    with pytest.raises(WrongContent):
        store.mutables.get("a")


def test_a_failure_keeps_the_old_value_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    store.mutables.set("@a/b", "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(OSError, match="No space"):
        store.mutables.set("@a/b", "new")
    monkeypatch.undo()
    assert [path.name for path in store.root.rglob("*") if path.is_file()] == ["b"]
