"""Manifests: every vector of the classic format, what hostile ones hold, and that finding agrees with parsing."""

from __future__ import annotations

import hashlib
import json
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import simplejson
from hypothesis import given
from hypothesis import strategies as st

from kachery import digest, manifests
from kachery.errors import InvalidInput, InvalidName, KacheryError, NotFound, TooLarge, WrongContent
from kachery.manifests import Chunk, Chunks, Member, Tree

if TYPE_CHECKING:
    import random

HELLO = "f572d396fae9206628714fb2ce00f72e94f2258f"
WORLD = "9591818c07e900db7e1e0bc4b884c945e6a61b24"

Json = Any


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def entry(data: bytes, algorithm: str = "sha1") -> Json:
    return {"size": len(data), algorithm: digest.of_bytes(data, algorithm)}


def tree(files: dict[str, Json] | None = None, dirs: dict[str, Json] | None = None) -> Json:
    return {"files": files or {}, "dirs": dirs or {}}


# --- the classic vectors


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tree(), "948c5416e254671a99a7b594ca9998b48cefd549"),
        (tree({"a.txt": entry(b"hello\n")}), "63702fd6cf0ea3234dae25f0fa8b047ac3ceb3a5"),
        (
            tree({"a.txt": entry(b"hello\n")}, {"sub": tree({"b.txt": entry(b"world\n")})}),
            "dc0f3393b67605198b7f8dcde564af98809acdd5",
        ),
        (tree({"é?.txt": entry(b"hello\n")}), "04e8d27f97be291360875865b6cb4c5cca2bf014"),
        (
            tree(
                {
                    "plain.txt": entry(b"plain\n"),
                    "f.txt": {"size": 6, "md5": "b1946ac92492d2347c6235b4d2611184"},
                }
            ),
            "fa4a47eadfdc8461509c01887dc6bfe5a43cac01",
        ),
        (
            tree({name: entry(name.encode()) for name in ("c.txt", "b.txt", "a.txt")}),
            "a75b20119289b9126066694e55e40e7e2de19e1b",
        ),
        (
            tree(
                {"file2.csv": entry(b"a,b\n1,2\n"), "empty.bin": entry(b""), "file1.txt": entry(b"alpha\n")},
                {
                    "emptydir": tree(),
                    "subdir1": tree({"other_file1.txt": entry(b"Content of other_file1.txt\n")}),
                },
            ),
            "d7692f526786b5f9c8d305c1f331c7409266a711",
        ),
    ],
)
def test_the_hashes_of_directories_are_upstreams(content: Tree, expected: str) -> None:
    data = manifests.to_bytes(content)
    assert sha1(data) == expected
    assert manifests.parse(data) == content


def test_the_hash_of_a_directory_of_md5_is_upstreams() -> None:
    data = manifests.to_bytes(tree({"a.txt": entry(b"hello\n", "md5")}))
    assert hashlib.md5(data).hexdigest() == "890dbb8ca27fdbf49f3d4547d9890ff8"


def test_the_bytes_of_a_nested_directory_are_upstreams() -> None:
    nested = tree({"a.txt": entry(b"hello\n")}, {"sub": tree({"b.txt": entry(b"world\n")})})
    expected = (
        '{"files": {"a.txt": {"size": 6, "sha1": "f572d396fae9206628714fb2ce00f72e94f2258f"}}, "dirs": {"sub": {"files"'
        ": "
        '{"b.txt": {"size": 6, "sha1": "9591818c07e900db7e1e0bc4b884c945e6a61b24"}}, "dirs": {}}}}'
    )
    assert manifests.to_bytes(nested) == expected.encode()
    assert len(expected) == 201


def test_what_upstream_listed_in_another_order_is_read() -> None:
    files = {name: entry(name.encode()) for name in ("c.txt", "b.txt", "a.txt")}
    data = simplejson.dumps(tree(files)).encode()
    assert sha1(data) == "513b2f88b9928089a94515c1c7f22f672901911c"
    assert manifests.parse(data) == tree(files)
    assert manifests.find(data, ("a.txt",)) == Member(5, "sha1", sha1(b"a.txt"))


def test_any_spacing_and_any_order_of_keys_is_read() -> None:
    data = json.dumps({"dirs": {}, "files": {"a": {"sha1": HELLO, "size": 6}}}, indent=2).encode()
    assert manifests.parse(data) == tree({"a": {"size": 6, "sha1": HELLO}})
    assert manifests.find(data, ("a",)) == Member(6, "sha1", HELLO)


def test_of_two_hashes_upstream_means_the_md5() -> None:
    both = {"size": 6, "sha1": HELLO, "md5": "b1946ac92492d2347c6235b4d2611184"}
    data = manifests.to_bytes(tree({"a": both}))
    assert manifests.find(data, ("a",)) == Member(6, "md5", "b1946ac92492d2347c6235b4d2611184")
    assert b'"size": 6, "sha1": ' in data


# --- any tree

NAMES = st.text(min_size=1, max_size=8).filter(lambda name: name not in (".", "..") and not set(name) & {"/", "\0"})
ENTRIES = st.one_of(
    st.builds(lambda size, data: {"size": size, "sha1": sha1(data)}, st.integers(0, 2**63 - 1), st.binary(max_size=4)),
    st.builds(lambda size, data: {"size": size, "md5": hashlib.md5(data).hexdigest()}, st.integers(0, 9), st.binary()),
)


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> Json:
    files = draw(st.dictionaries(NAMES, ENTRIES, max_size=4))
    below = draw(st.dictionaries(NAMES, trees(depth - 1), max_size=3)) if depth else {}
    return tree(files, {name: found for name, found in below.items() if name not in files})


@given(trees())
def test_what_is_written_is_read(content: Tree) -> None:
    data = manifests.to_bytes(content)
    assert manifests.parse(data) == content
    assert manifests.to_bytes(manifests.parse(data)) == data
    # the serialiser of the original
    ordered = json.loads(data)
    assert simplejson.dumps(ordered).encode() == data


@given(trees(), st.data())
def test_finding_one_member_agrees_with_reading_all(content: Tree, draws: st.DataObject) -> None:
    data = manifests.to_bytes(content)
    if draws.draw(st.booleans()):
        data = json.dumps(json.loads(data), indent=draws.draw(st.sampled_from([None, 1])), ensure_ascii=False).encode(
            "utf-8", "surrogatepass"
        )
    directories = list(manifests.walk(content))
    path, here = draws.draw(st.sampled_from(directories))
    name = draws.draw(st.one_of(st.sampled_from([*here["files"], *here["dirs"], "x"]), NAMES))

    def outcome(find: Any) -> object:
        try:
            return find()
        except KacheryError as error:
            return type(error)

    wanted = outcome(lambda: manifests.at(manifests.parse(data), (*path, name)))
    assert outcome(lambda: manifests.find(data, (*path, name))) == wanted


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_an_error(data: bytes) -> None:
    for read in (manifests.parse, manifests.parse_chunks, lambda given: manifests.find(given, ("a",))):
        with pytest.raises(KacheryError):
            read(data)  # type: ignore[operator]


@given(trees(), st.data())
def test_a_damaged_manifest_is_read_or_refused(content: Tree, draws: st.DataObject) -> None:
    data = bytearray(manifests.to_bytes(content))
    at = draws.draw(st.integers(0, len(data) - 1))
    data[at] = draws.draw(st.integers(0, 255))
    try:
        found = manifests.parse(bytes(data))
    except KacheryError:
        return
    assert manifests.parse(manifests.to_bytes(found)) == found


# --- hostile ones

ENTRY = {"size": 6, "sha1": HELLO}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"nothing",
        b"null",
        b"[]",
        b'"files"',
        b"{}",
        b'{"files": {}}',
        b'{"files": {}, "dirs": {}, "links": {}}',
        b'{"files": [], "dirs": {}}',
        b'{"files": {}, "dirs": []}',
        b'{"files": {}, "dirs": {"a": null}}',
        b'{"files": {}, "dirs": {}} {}',
        b'{"files": {}, "dirs": {}, "dirs": {}}',
        b'{"files": {"a": {"size": 1e999, "sha1": "' + HELLO.encode() + b'"}}, "dirs": {}}',
        b'{"files": {"a": {"size": NaN, "sha1": "' + HELLO.encode() + b'"}}, "dirs": {}}',
        b'{"files": {"a": {"size": ' + b"9" * 5000 + b', "sha1": "' + HELLO.encode() + b'"}}, "dirs": {}}',
    ],
)
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(WrongContent, match="manifest"):
        manifests.parse(content)
    with pytest.raises(WrongContent, match="manifest"):
        manifests.find(content, ("a",))


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        "target",
        {},
        {"size": 6},
        {"sha1": HELLO},
        {"symlink": "/etc/passwd"},
        {"size": 6, "sha1": HELLO, "symlink": "/etc/passwd"},
        {"device": [8, 0]},
        {"size": -1, "sha1": HELLO},
        {"size": 6.0, "sha1": HELLO},
        {"size": True, "sha1": HELLO},
        {"size": "6", "sha1": HELLO},
        {"size": None, "sha1": HELLO},
        {"size": 2**63, "sha1": HELLO},
        {"size": 6, "sha1": HELLO.upper()},
        {"size": 6, "sha1": HELLO[1:]},
        {"size": 6, "sha1": HELLO + "\n"},
        {"size": 6, "sha1": "../../etc/passwd"},
        {"size": 6, "sha1": None},
        {"size": 6, "sha1": HELLO, "md5": None},
        {"size": 6, "sha1": ["a"]},
        {"size": 6, "md5": HELLO},
        {"files": {}, "dirs": {}},
    ],
)
def test_an_entry_that_is_no_file_is_refused(bad: object) -> None:
    data = json.dumps(tree({"a": bad, "b": ENTRY})).encode()
    for read in (lambda: manifests.parse(data), lambda: manifests.find(data, ("a",))):
        with pytest.raises(WrongContent, match="'a' is not a file"):
            read()
    with pytest.raises(WrongContent):
        manifests.find(data, ("b",))


@pytest.mark.parametrize("name", ["", ".", "..", "../../x", "/etc/passwd", "a/b", "nul\0byte"])
@pytest.mark.parametrize("kind", ["files", "dirs"])
def test_a_name_that_no_file_can_have_is_refused(name: str, kind: str) -> None:
    content = tree({name: ENTRY}) if kind == "files" else tree(dirs={name: tree()})
    with pytest.raises(InvalidName, match="no file can have"):
        manifests.parse(json.dumps(tree(dirs={"deep": content})).encode())


@pytest.mark.parametrize(
    "names",
    [
        ["back\\slash"],
        ["new\nline"],
        ["bell\x07"],
        ["hid\u200bden"],
        ["right\u202eleft"],
        ["half\udc80"],
        ["NUL"],
        ["aux.txt"],
        ["x" * 256],
        ["README", "readme"],
        ["Straße", "STRASSE"],
        ["caf\u00e9", "cafe\u0301"],
        ["\u212b", "\u00e5"],
    ],
)
def test_names_that_confuse_are_read_and_not_written_to_a_disk(names: list[str]) -> None:
    content = tree(dirs={"deep": tree(dict.fromkeys(names, ENTRY))})
    found = manifests.parse(json.dumps(content).encode())
    with pytest.raises(InvalidName, match="'deep'"):
        manifests.require_safe(found)


def test_a_file_and_a_directory_of_one_name_differ_in_more_than_case() -> None:
    with pytest.raises(InvalidName, match="same name"):
        manifests.require_safe(tree({"Sub": ENTRY}, {"sub": tree()}))
    data = json.dumps(tree({"sub": ENTRY}, {"sub": tree()})).encode()
    for read in (lambda: manifests.parse(data), lambda: manifests.find(data, ("sub",))):
        with pytest.raises(WrongContent, match="a file and a directory"):
            read()


def test_usual_names_are_safe() -> None:
    manifests.require_safe(tree({"a b.txt": ENTRY, "é.dat": ENTRY, "日本語": ENTRY, ".hidden": ENTRY, "a": ENTRY}))


def test_a_path_too_long_for_its_place_is_refused() -> None:
    content = tree(dirs={"a" * 200: tree(dirs={"b" * 200: tree({"c" * 200: ENTRY})})})
    manifests.require_safe(content)
    with pytest.raises(InvalidName, match="too long"):
        manifests.require_safe(content, longest=500)


@pytest.mark.parametrize("inside", [0, 1])
def test_a_name_that_is_there_twice_is_refused(inside: int) -> None:
    other = json.dumps(ENTRY).replace(HELLO, WORLD)
    files = f'{{"a": {json.dumps(ENTRY)}, "a": {other}}}'
    text = f'{{"files": {files}, "dirs": {{}}}}'
    if inside:
        text = f'{{"files": {{}}, "dirs": {{"sub": {text}}}}}'
    path = ("sub", "a")[1 - inside :]
    for read in (lambda: manifests.parse(text.encode()), lambda: manifests.find(text.encode(), path)):
        with pytest.raises(WrongContent, match="'a' twice"):
            read()


def test_a_directory_that_is_there_twice_is_refused() -> None:
    one, other = (json.dumps(tree({"a": {"size": 6, "sha1": hash_}})) for hash_ in (HELLO, WORLD))
    data = f'{{"files": {{}}, "dirs": {{"sub": {one}, "sub": {other}}}}}'.encode()
    for read in (lambda: manifests.parse(data), lambda: manifests.find(data, ("sub", "a"))):
        with pytest.raises(WrongContent, match="'sub' twice"):
            read()


@pytest.mark.parametrize("levels", [manifests.DEEPEST + 1, 5_000, 500_000])
def test_directories_in_directories_without_end_are_refused(levels: int) -> None:
    data = b'{"files": {}, "dirs": {"a": ' * levels + b"{}" + b"}}" * levels
    for read in (lambda: manifests.parse(data), lambda: manifests.find(data, ("a",))):
        with pytest.raises((TooLarge, WrongContent)):
            read()


def test_as_deep_as_is_allowed() -> None:
    content: Json = tree({"x": ENTRY})
    for _ in range(manifests.DEEPEST - 1):
        content = tree(dirs={"d": content})
    data = manifests.to_bytes(content)
    assert manifests.find(data, (*["d"] * (manifests.DEEPEST - 1), "x")) == Member(6, "sha1", HELLO)
    manifests.require_safe(manifests.parse(data))
    with pytest.raises(TooLarge, match="deep"):
        manifests.parse(manifests.to_bytes(tree(dirs={"d": content})))


BOMBS = {
    "files": lambda: b'{"files": {' + b", ".join(b'"%d": %s' % (n, JSON) for n in range(1_000_000)) + b'}, "dirs": {}}',
    "directories": lambda: b'{"files": {}, "dirs": {' + b", ".join(b'"%d": {}' % n for n in range(2_000_000)) + b"}}",
    "numbers": lambda: b'{"files": [' + b"0," * 20_000_000 + b'0], "dirs": {}}',
    "a name": lambda: b'{"files": {"' + b"x" * manifests.LARGEST + b'": 0}, "dirs": {}}',
}
JSON = json.dumps(ENTRY).encode()


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_would_fill_the_memory_is_refused_before_it_is_built(bomb: str) -> None:
    data = BOMBS[bomb]()
    before = sys.getallocatedblocks()
    for read in (lambda: manifests.parse(data), lambda: manifests.find(data, ("a",))):
        with pytest.raises(TooLarge, match="too large"):
            read()
    assert sys.getallocatedblocks() - before < 100_000


def test_one_entry_too_many_is_refused() -> None:
    entries = {str(number): ENTRY for number in range(manifests.MOST_ENTRIES)}
    data = manifests.to_bytes(tree(entries))
    assert len(manifests.parse(data)["files"]) == manifests.MOST_ENTRIES
    with pytest.raises(TooLarge, match="300,000"):
        manifests.parse(manifests.to_bytes(tree(entries, {"d": tree()})))


# --- paths


def test_what_is_at_a_path() -> None:
    content = manifests.parse(manifests.to_bytes(tree({"a.txt": ENTRY}, {"sub": tree({"b.txt": ENTRY})})))
    data = manifests.to_bytes(content)
    for find in (lambda *path: manifests.at(content, path), lambda *path: manifests.find(data, path)):
        assert find() == content
        assert find("sub") == content["dirs"]["sub"]
        assert find("sub", "b.txt") == Member(6, "sha1", HELLO)
        with pytest.raises(NotFound, match="has no 'sub/c"):
            find("sub", "c.txt")
        with pytest.raises(NotFound, match="and no directory"):
            find("a.txt", "b")


def test_what_is_a_file_and_what_a_directory() -> None:
    found = Member(6, "sha1", HELLO)
    assert manifests.require_file(found, "x") == found
    assert manifests.require_directory(tree(), "x") == tree()
    with pytest.raises(InvalidInput, match="x is a file"):
        manifests.require_directory(found, "x")
    with pytest.raises(InvalidInput, match="x is a directory"):
        manifests.require_file(tree(), "x")


# --- chunks


def chunked(data: bytes) -> Chunks:
    step = manifests.chunk_size(len(data))
    edges = [*range(0, len(data), step), len(data)]
    chunks = [Chunk(one, two, sha1(data[one:two])) for one, two in pairwise(edges)]
    return Chunks(len(data), sha1(data), tuple(chunks))


@pytest.mark.parametrize(
    ("data", "file", "manifest"),
    [
        (b"\0" * 4_000_001, "d8ae8b3dde7a0b19e26b94d4d893b8bee608e4b1", "a4eecdbdaf0d02a917880194b341d24045bc9c9b"),
        (
            bytes(range(256)) * 20_000,
            "dd018829685a3dded3026ce9bbc140e0ba8dcf76",
            "9430fc7902606a05c36b9b5abae887bec14881ca",
        ),
        (
            bytes(range(256)) * 100_000,
            "cd26aba27d9dd2983c04e7e28719bba53028b2e2",
            "5392764af92f88a9f4708c896c712679d2a61bec",
        ),
    ],
)
def test_the_hashes_of_chunk_manifests_are_upstreams(data: bytes, file: str, manifest: str) -> None:
    content = chunked(data)
    assert content.sha1 == file
    assert sha1(content.to_bytes()) == manifest
    assert manifests.parse_chunks(content.to_bytes()) == content


def test_the_bytes_of_a_chunk_manifest_are_upstreams() -> None:
    expected = (
        '{"size": 25600000, "sha1": "cd26aba27d9dd2983c04e7e28719bba53028b2e2", "chunks": [{"start": 0, "end": 10000000'
        ", "
        '"sha1": "665dee7e4f05f77a7c8ea3485c676a3163d64b76"}, {"start": 10000000, "end": 20000000, "sha1": '
        '"50739ab6d8dc72b9fdf8f82f608083abb2b65ec0"}, {"start": 20000000, "end": 25600000, "sha1": '
        '"90471531918a67f7a47c7683e8a8f911cf6b3980"}]}'
    )
    assert chunked(bytes(range(256)) * 100_000).to_bytes() == expected.encode()
    assert len(expected) == 345


def test_chunks_are_longer_in_files_of_a_gigabyte() -> None:
    assert manifests.chunk_size(999_999_999) == 10_000_000
    assert manifests.chunk_size(1_000_000_000) == 20_000_000


def test_the_chunks_of_an_older_release_are_read() -> None:
    parts = [
        {"start": 0, "end": 3, "sha1": HELLO, "manifest": WORLD},
        {"start": 3, "end": 10, "sha1": WORLD},
    ]
    data = json.dumps({"chunks": parts, "sha1": HELLO, "size": 10}).encode()
    assert manifests.parse_chunks(data) == Chunks(10, HELLO, (Chunk(0, 3, HELLO), Chunk(3, 10, WORLD)))


def part(start: object, end: object, hash_: object = HELLO, **more: object) -> Json:
    return {"start": start, "end": end, "sha1": hash_, **more}


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"size": 10, "sha1": HELLO},
        {"size": 10, "sha1": HELLO, "chunks": [], "more": 1},
        {"size": 10, "sha1": HELLO, "chunks": {}},
        {"size": "10", "sha1": HELLO, "chunks": []},
        {"size": 10, "sha1": "x", "chunks": []},
        {"size": -1, "sha1": HELLO, "chunks": []},
        {"size": 10, "sha1": HELLO, "chunks": []},
        {"size": 10, "sha1": HELLO, "chunks": [None]},
        {"size": 10, "sha1": HELLO, "chunks": [part(0, 9)]},
        {"size": 10, "sha1": HELLO, "chunks": [part(0, 11)]},
        {"size": 10, "sha1": HELLO, "chunks": [part(1, 10)]},
        {"size": 10, "sha1": HELLO, "chunks": [part(0, 5), part(6, 10)]},
        {"size": 10, "sha1": HELLO, "chunks": [part(0, 5), part(4, 10)]},
        {"size": 10, "sha1": HELLO, "chunks": [part(0, 5), part(5, 5), part(5, 10)]},
        {"size": 10, "sha1": HELLO, "chunks": [part(0, 10.0)]},
        {"size": 10, "sha1": HELLO, "chunks": [part(False, 10)]},
        {"size": 10, "sha1": HELLO, "chunks": [part(0, 10, None)]},
        {"size": 10, "sha1": HELLO, "chunks": [part(0, 10, HELLO.upper())]},
        {"size": 10, "sha1": HELLO, "chunks": [part(0, 10, path="/")]},
        {"size": 2**40, "sha1": HELLO, "chunks": [part(0, 2**40)]},
    ],
)
def test_what_is_no_chunk_manifest_is_refused(content: object) -> None:
    with pytest.raises(WrongContent, match="manifest"):
        manifests.parse_chunks(json.dumps(content).encode())


def test_a_chunk_manifest_of_any_size_is_refused_quickly() -> None:
    with pytest.raises(WrongContent, match="too large"):
        manifests.parse_chunks(b"[" * 20_000_000)
    with pytest.raises(KacheryError):
        manifests.parse_chunks(b"[" * 1_000_000)


@given(st.lists(st.integers(1, 1000), max_size=20), st.randoms())
def test_any_chunk_manifest_that_is_written_is_read(lengths: list[int], order: random.Random) -> None:
    chunks, position = [], 0
    for length in lengths:
        chunks.append(Chunk(position, position + length, sha1(order.randbytes(3))))
        position += length
    content = Chunks(position, HELLO, tuple(chunks))
    assert manifests.parse_chunks(content.to_bytes()) == content
