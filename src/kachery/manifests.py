r"""Manifests: which files a directory holds, and which chunks a large file is made of.

A directory's manifest, whose hash is the identity of the snapshot (classic kachery, 0.1 to 0.6; `sha1dir://`):

    {"files": {NAME: {"size": N, "sha1": HASH}, …}, "dirs": {NAME: {"files": {…}, "dirs": {…}}, …}}

| | |
|---|---|
| bytes | ASCII, `", "` and `": "`, `\uXXXX` for the rest, no newline at the end; `size` first, `files` before `dirs` |
| order | sorted names, so that equal directories have equal hashes; upstream wrote what `os.listdir` gave |
| an entry | `sha1` or `md5`, also mixed in one manifest (git-annex); where an entry has both, md5 is meant |
| empty directories | are kept; modes, times, owners and links are not |
| reading | any order, any spacing; nothing else than this shape |

A chunk manifest (classic 0.6.5 on; `?manifest=`), for files of more than 4,000,000 bytes with a SHA-1:

    {"size": N, "sha1": HASH, "chunks": [{"start": 0, "end": 10000000, "sha1": HASH}, …]}

Chunks have 10,000,000 bytes, or 20,000,000 from a size of 1,000,000,000 on; 0.6.5 chose other lengths, so a reader goes
by `start` and `end`.

A manifest comes from outside, so each is checked before anything of it is used: `parse` refuses what is not the shape
and what no file can be called, `require_safe` what a manifest must not hold to be written to a disk.
"""

from __future__ import annotations

import functools
import gc
import json
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Required, TypedDict, cast

from . import digest, names
from .errors import InvalidInput, InvalidName, NotFound, TooLarge, WrongContent

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A directory's manifest has at most this many entries, files and directories together,
MOST_ENTRIES = 300_000
#: this many bytes,
LARGEST = 64 * 1024 * 1024
#: and this many directories inside each other.
DEEPEST = 100

#: Larger files get a chunk manifest when one is asked for, in bytes.
CHUNKED_ABOVE = 4_000_000

#: A chunk manifest of more bytes than this would be for a file of terabytes.
LARGEST_OF_CHUNKS = 16 * 1024 * 1024

# of a chunk, which is held in memory until it is verified, in bytes
_LONGEST_CHUNK = 32 * 1024 * 1024

# each entry has three colons and two commas; more marks than this would be objects that only fill the memory
_MOST_MARKS = 6 * MOST_ENTRIES

# a file's size, in bytes
_MOST_BYTES = 2**63 - 1

_SHA1 = re.compile("[0-9a-f]{40}")
_MD5 = re.compile("[0-9a-f]{32}")
_IMPOSSIBLE = re.compile("[/\0]")


class Entry(TypedDict, total=False):
    """A file in a directory's manifest."""

    size: Required[int]
    sha1: str
    md5: str


class Tree(TypedDict):
    """A directory's manifest, as JSON has it."""

    files: dict[str, Entry]
    dirs: dict[str, Tree]


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a directory.

    Attributes:
        size: In bytes.
        algorithm: `sha1` or `md5`.
        hash: Lower-case hex digits.
    """

    size: int
    algorithm: str
    hash: str


def empty() -> Tree:
    """The manifest of a directory that holds nothing."""
    return {"files": {}, "dirs": {}}


def member(entry: Entry) -> Member:
    """The file that an entry means."""
    algorithm = "md5" if "md5" in entry else "sha1"
    return Member(entry["size"], algorithm, entry[algorithm])  # type: ignore[literal-required]


def parse(data: bytes, what: str = "this") -> Tree:
    """A directory's manifest, when it is one.

    Args:
        data: Its bytes, verified by whoever got them.
        what: What to call it in errors.

    Raises:
        WrongContent: If it is anything else, or has the same name twice.
        InvalidName: If it has a name that no file can have.
        TooLarge: If it is over a limit of this module.
    """
    if len(data) > LARGEST or max(data.count(b":"), data.count(b",")) > _MOST_MARKS:
        raise _too_large(what)
    tree = _json(data, what)
    _require_shape(tree, what)
    return cast("Tree", tree)


def to_bytes(tree: Tree) -> bytes:
    """The bytes of a directory's manifest, with its names sorted."""
    return json.dumps(_sorted(tree)).encode()


def _sorted(tree: Tree) -> dict[str, Any]:
    return {
        "files": {name: _entry_in_order(tree["files"][name]) for name in sorted(tree["files"])},
        "dirs": {name: _sorted(tree["dirs"][name]) for name in sorted(tree["dirs"])},
    }


def _entry_in_order(entry: Entry) -> dict[str, Any]:
    values: dict[str, Any] = dict(entry)
    return {key: values[key] for key in ("size", "sha1", "md5") if key in values}


def walk(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tree]]:
    """Every directory of a snapshot with the components of its path, a directory before those in it."""
    yield path, tree
    for name, below in tree["dirs"].items():
        yield from walk(below, (*path, name))


def at(tree: Tree, path: tuple[str, ...], what: str = "the directory") -> Member | Tree:
    """What a directory has at a path.

    Raises:
        NotFound: If there is nothing.
    """
    here: Member | Tree = tree
    for number, name in enumerate(path):
        if isinstance(here, Member):
            raise NotFound(f"{what} has the file {'/'.join(path[:number])!r}, and no directory of that name")
        if name in here["dirs"]:
            here = here["dirs"][name]
        elif name in here["files"]:
            here = member(here["files"][name])
        else:
            raise NotFound(f"{what} has no {'/'.join(path[: number + 1])!r}", hint="`kachery ls URI` shows what it has")
    return here


def require_safe(tree: Tree, *, longest: int = 4095) -> None:
    """Make sure that a snapshot may be written to a disk, any disk.

    Args:
        tree: As `parse` gave it.
        longest: How many bytes a path inside it may have.

    Raises:
        InvalidName: If a name could escape, is that of a device, hides something, or differs from its neighbour in
            nothing but case or the composition of its characters.
    """
    for path, here in walk(tree):
        for problem in name_problems(here):
            place = f" in {'/'.join(path)!r}" if path else ""
            raise InvalidName(
                f"{problem}{place}", hint="load its files one by one: `kachery ls URI`, `kachery load URI/NAME`"
            )
        above = sum(len(name.encode()) + 1 for name in path)
        for name in (*here["files"], *here["dirs"]):
            if above + len(name.encode()) > longest:
                raise InvalidName(f"the path of {name[:80]!r} is too long here", hint="choose a shorter destination")


def name_problems(tree: Tree) -> Iterator[str]:
    """What is wrong with the names in one directory, for writing them to a disk."""
    seen: dict[str, str] = {}
    for name in (*tree["files"], *tree["dirs"]):
        try:
            names.component(name)
        except InvalidName as error:
            yield error.message
            continue
        folded = name.lower() if name.isascii() else _folded(name)
        other = seen.setdefault(folded, name)
        if other != name:
            yield f"{other!r} and {name!r} are the same name where case or composition does not matter"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _json(data: bytes, what: str) -> object:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise WrongContent(f"{what} is not a manifest: it has the name {twice[:80]!r} twice")
        return found

    collects = gc.isenabled()
    try:
        # the collector would look through all of it again and again, and there are no cycles in it
        gc.disable()
        return json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except RecursionError as error:
        raise _too_deep(what) from error
    except ValueError as error:
        raise WrongContent(f"{what} is not a manifest: it is not JSON") from error
    finally:
        if collects:
            gc.enable()


def _require_shape(tree: object, what: str) -> None:
    waiting: list[tuple[object, int]] = [(tree, 1)]
    entries = 0
    while waiting:
        here, depth = waiting.pop()
        if not isinstance(here, dict) or here.keys() != {"files", "dirs"}:
            _refuse(what, "a directory has `files` and `dirs`, and nothing else")
        if depth > DEEPEST:
            raise _too_deep(what)
        files, dirs = here["files"], here["dirs"]
        if not isinstance(files, dict) or not isinstance(dirs, dict):
            _refuse(what, "`files` and `dirs` are objects")
        entries += len(files) + len(dirs)
        if entries > MOST_ENTRIES:
            raise _too_large(what)
        for name, entry in files.items():
            _require_possible(name, what)
            if not _is_entry(entry):
                _refuse(what, f"{name[:80]!r} is not a file with `size` and `sha1` or `md5`")
        for name, below in dirs.items():
            _require_possible(name, what)
            if name in files:
                _refuse(what, f"{name[:80]!r} is a file and a directory")
            waiting.append((below, depth + 1))


def _is_entry(entry: object) -> bool:
    if type(entry) is not dict:
        return False
    size, sha1, md5 = entry.get("size"), entry.get("sha1"), entry.get("md5")
    return (
        type(size) is int
        and 0 <= size <= _MOST_BYTES
        and len(entry) == 1 + ("sha1" in entry) + ("md5" in entry) > 1
        and ("sha1" not in entry or (type(sha1) is str and _SHA1.fullmatch(sha1) is not None))
        and ("md5" not in entry or (type(md5) is str and _MD5.fullmatch(md5) is not None))
    )


def _require_possible(name: str, what: str) -> None:
    if name in ("", ".", "..") or _IMPOSSIBLE.search(name):
        raise InvalidName(f"{what} holds the name {name[:80]!r}, which no file can have", hint="do not trust its maker")


def _refuse(what: str, reason: str) -> NoReturn:
    raise WrongContent(f"{what} is not the manifest of a directory: {reason}")


def _too_large(what: str) -> TooLarge:
    return TooLarge(
        f"{what} is too large for the manifest of a directory: over {MOST_ENTRIES:,} entries or {LARGEST:,} bytes",
        hint="store its parts as directories of their own",
    )


def _too_deep(what: str) -> TooLarge:
    return TooLarge(f"{what} has directories inside each other, more than {DEEPEST} deep")


# --- one member, without building the rest

# what every writer of such manifests wrote: printable ASCII, and escapes for the rest
_NAME = rb'"[ !#-\[\]-~]*+(?:\\.[ !#-\[\]-~]*+)*+"'
_ENTRY = _NAME + rb': \{"size": (?:0|[1-9][0-9]{0,17}), "(?:sha1": "[0-9a-f]{40}|md5": "[0-9a-f]{32})"\}'


@dataclass(frozen=True)
class _Spelling:
    """The usual spelling of a manifest; compiled when the first member is looked for."""

    #: From the beginning of a directory through all of its files up to its directories.
    files: re.Pattern[bytes]
    one_file: re.Pattern[bytes]
    one_dir: re.Pattern[bytes]


@functools.cache
def _spelling() -> _Spelling:
    return _Spelling(
        re.compile(rb'\{"files": \{(?:' + _ENTRY + rb"(?:, " + _ENTRY + rb')*+)?\}, "dirs": \{'),
        re.compile(_ENTRY),
        re.compile(rb"(" + _NAME + rb"): "),
    )


def find(data: bytes, path: tuple[str, ...], what: str = "this") -> Member | Tree:
    """What a directory's manifest has at a path; as `at(parse(data), path)`, and much faster for a file.

    Args:
        data: The manifest's bytes, verified by whoever got them.
        path: The components of the path.
        what: What to call the directory in errors.

    Raises:
        NotFound: If there is nothing.
        WrongContent, InvalidName, TooLarge: If it is not a manifest.
    """
    found = _scan(data, path) if path and len(data) <= LARGEST else None
    return found if found is not None else at(parse(data, what), path, what)


def _scan(data: bytes, path: tuple[str, ...]) -> Member | None:
    """The file at a path; `None` unless it is there once and everything is spelled in the usual way."""
    spelling = _spelling()
    wanted = [json.dumps(name).encode() for name in path]
    found: Member | None = None
    position, depth = 0, 0
    # how many components of the path the directories that we are in agree with
    agreed = [0]
    seen = set()
    while True:
        run = spelling.files.match(data, position)
        if run is None or depth > DEEPEST:
            return None
        if agreed[-1] == depth == len(path) - 1:
            found = _in_run(data, wanted[-1], position, run.end())
            if found is None:
                return None
        position = run.end()
        depth += 1
        while data.startswith(b"}}", position):
            position, depth = position + 2, depth - 1
            agreed.pop()
            if depth == 0:
                return found if position == len(data) else None
            if data.startswith(b", ", position):
                position += 2
                break
        name = spelling.one_dir.match(data, position)
        if name is None:
            return None
        position = name.end()
        on_the_way = agreed[-1] == depth - 1 and name.group(1) == wanted[depth - 1]
        if on_the_way:
            if depth in seen or depth == len(path):
                return None
            seen.add(depth)
        agreed.append(depth if on_the_way else -1)


def _in_run(data: bytes, name: bytes, start: int, end: int) -> Member | None:
    needle = name + b': {"size": '
    places = []
    place = data.find(needle, start, end)
    while place >= 0:
        # a quote inside a name has a backslash before it
        if data[place - 1 : place] in (b"{", b" "):
            places.append(place)
        place = data.find(needle, place + 1, end)
    if len(places) != 1:
        return None
    whole = _spelling().one_file.match(data, places[0])
    if whole is None:
        return None
    entry = json.loads(b"{" + whole.group() + b"}")
    return member(next(iter(entry.values())))


# --- chunks


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a file.

    Attributes:
        start: Its first byte.
        end: The byte after its last one.
        sha1: Its SHA-1.
    """

    start: int
    end: int
    sha1: str


@dataclass(frozen=True)
class Chunks:
    """A chunk manifest.

    Attributes:
        size: The file's size in bytes.
        sha1: The file's SHA-1.
        chunks: Its parts in their order, without holes.
    """

    size: int
    sha1: str
    chunks: tuple[Chunk, ...]

    def to_bytes(self) -> bytes:
        """The bytes of the manifest."""
        chunks = [{"start": chunk.start, "end": chunk.end, "sha1": chunk.sha1} for chunk in self.chunks]
        return json.dumps({"size": self.size, "sha1": self.sha1, "chunks": chunks}).encode()


def chunk_size(size: int) -> int:
    """How long the chunks of a file are, in bytes.

    Args:
        size: The file's size in bytes.
    """
    return 10_000_000 if size < 1_000_000_000 else 20_000_000


def parse_chunks(data: bytes, what: str = "this") -> Chunks:
    """A chunk manifest, when it is one.

    Raises:
        WrongContent: If it is anything else, or its chunks do not make up the file.
    """

    def refuse(reason: str) -> NoReturn:
        raise WrongContent(f"{what} is not a manifest of chunks: {reason}")

    if len(data) > LARGEST_OF_CHUNKS:
        refuse("it is too large")
    content = _json(data, what)
    if not isinstance(content, dict) or content.keys() != {"size", "sha1", "chunks"}:
        refuse("it has `size`, `sha1` and `chunks`, and nothing else")
    size, sha1, parts = content["size"], content["sha1"], content["chunks"]
    if type(size) is not int or not 0 <= size <= _MOST_BYTES or not _is_sha1(sha1) or not isinstance(parts, list):
        refuse("its `size`, `sha1` or `chunks` is none")
    chunks = []
    position = 0
    for part in parts:
        # 0.6.5 wrote the hash of a manifest into the first chunk
        if not isinstance(part, dict) or not {"start", "end", "sha1"} <= part.keys() <= _CHUNK_KEYS:
            refuse("a chunk has `start`, `end` and `sha1`")
        start, end = part["start"], part["end"]
        if type(start) is not int or type(end) is not int or not _is_sha1(part["sha1"]):
            refuse("the `start`, `end` or `sha1` of a chunk is none")
        if start != position or not 0 < end - start <= _LONGEST_CHUNK:
            refuse(f"its chunks have a hole, overlap, or are longer than {_LONGEST_CHUNK} bytes")
        chunks.append(Chunk(start, end, part["sha1"]))
        position = end
    if position != size:
        refuse(f"its chunks end at {position}, and the file at {size}")
    return Chunks(size, sha1, tuple(chunks))


_CHUNK_KEYS = {"start", "end", "sha1", "manifest"}


def _is_sha1(text: object) -> bool:
    return isinstance(text, str) and digest.is_hash("sha1", text)


def require_directory(found: Member | Tree, what: str) -> Tree:
    """What `find` found, when it is a directory.

    Raises:
        InvalidInput: If it is a file.
    """
    if isinstance(found, Member):
        raise InvalidInput(f"{what} is a file, not a directory", hint="`kachery load` and `kachery cat` take files")
    return found


def require_file(found: Member | Tree, what: str) -> Member:
    """What `find` found, when it is a file.

    Raises:
        InvalidInput: If it is a directory.
    """
    if isinstance(found, Member):
        return found
    raise InvalidInput(
        f"{what} is a directory, not a file", hint="`kachery ls` shows what it has; load_dir loads all of it"
    )
