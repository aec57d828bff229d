"""Names from outside: what may become a path, and what may not."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kachery import names
from kachery.errors import InvalidName

HOSTILE = [
    "",
    ".",
    "..",
    "a/b",
    "a\\b",
    "a\x00b",
    "a\nb",
    "\x7f",
    "a\u202eb",
    "zero\u200bwidth",
    "\ufeffx",
    "line\u2028end",
    "\ud800",
    "\ue000",
    "con",
    "NUL.txt",
    "com1",
    "x" * 256,
    "ü" * 128,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_components_are_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        names.component(text)


@pytest.mark.parametrize(
    "text", ["a", "…", "a b", "-rf", ".hidden", "ünïcode", "数据", "x" * 255, "console", "a:b?c#d%"]
)
def test_honest_components_are_not(text: str) -> None:
    assert names.component(text) == text


@given(st.text())
def test_a_component_stays_in_its_directory(text: str) -> None:
    try:
        names.component(text)
    except InvalidName:
        return
    assert os.path.dirname(os.path.normpath(f"/top/{text}")) == "/top"
    assert text.encode()


@given(st.lists(st.sampled_from(["a", "b c", ".", "..", "", "@x", "\\", "\x00"]), max_size=5).map("/".join))
def test_a_relative_path_stays_below(text: str) -> None:
    try:
        parts = names.relative_path(text)
    except InvalidName:
        return
    assert "/".join(parts) == text
    assert os.path.normpath(f"/top/{text}").startswith("/top/")


def test_an_absolute_path_is_said_to_be_one() -> None:
    with pytest.raises(InvalidName, match="absolute"):
        names.relative_path("/etc/passwd")


@pytest.mark.parametrize("text", ["default", "franklab.default", "a", "A-1_b.c", "9" * 200])
def test_zones(text: str) -> None:
    assert names.zone(text) == text


@pytest.mark.parametrize("text", ["", ".x", "-x", "a/b", "a b", "a..b", "é", "a\n", "x" * 201, "../x"])
def test_what_is_no_zone(text: str) -> None:
    with pytest.raises(InvalidName):
        names.zone(text)


def test_mutable_keys() -> None:
    assert names.mutable_key("name") == ("name",)
    assert names.mutable_key("@a/@b/c") == ("@a", "@b", "c")
    assert names.mutable_folder("@a/@b") == ("@a", "@b")
    for key in ["", "a/b", "@a", "@a/@b", "@a/", "/x", "@a/../x", "@a/.", "@a//b", "@a/b\n"]:
        with pytest.raises(InvalidName):
            names.mutable_key(key)
    for key in ["", "a", "@a/b", "@a/..", "/@a", "@a/"]:
        with pytest.raises(InvalidName):
            names.mutable_folder(key)
