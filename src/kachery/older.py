"""Directories in which earlier generations of kachery, and its servers, keep files by their content; only read here.

Below a directory, wherever it begins, these names are understood (ab, cd, ef: the first pairs of the hash; a, bc: its
first digit, and the two after it):

| name | what it is |
|---|---|
| `[…/]ALG/ab/cd/ef/HASH` | a file; ALG is `sha1`, `md5` or `sha256` (all generations, buckets, zones of gateways) |
| `[…/]sha1-cache/…`, `[…/]md5-cache/…` | likewise, of classic servers |
| `[…/]sha1-trash/ab/cd/ef/HASH` | likewise, what a node removed from its cache and still has |
| `[…/]ALG/a/bc/HASH` | a file of classic kachery before 0.4.3, or a block of one, which is not what its name says |
| `[…/]ALG/HASH` | a file in a plain directory (`KACHERY_STORE_FILE_DIR`) |
| `ab/cd/ef/HASH`, `a/bc/HASH` | likewise, when the directory itself is such an ALG |
| `linked_files/sha1/ab/cd/ef/HASH` | JSON: `path` of a file elsewhere (kachery-cloud) |
| `mutables/@linked_files/@sha1/HASH` | likewise, of 2022 |
| `…/HASH.link` | JSON: `path` of a file elsewhere, beside where the content would be (nodes) |
| `…/HASH.hints.json` | JSON: `files[].stat.path` of files elsewhere that had it (classic) |

Everything else is not content by its hash: keys, configuration, mutables, feeds, records, what was being written.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import digest
from .errors import InvalidInput, NotAllowed, NotFound, from_os_error

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOTS = {
    **{algorithm: algorithm for algorithm in digest.HEX_LENGTHS},
    "sha1-cache": "sha1",
    "md5-cache": "md5",
    "sha1-trash": "sha1",
}
_ALGORITHMS = {length: algorithm for algorithm, length in digest.HEX_LENGTHS.items()}
_HASH = re.compile(r"[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}")
_POINTER = re.compile(r"([0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})\.(link|hints\.json)")

# a record longer than this, in bytes, is none
_LONGEST_RECORD = 1024 * 1024

# what is worth a word when it is left behind, by its name at the top of the directory
_REMARKABLE = {
    "feeds.db": "feeds",
    "mutables.db": "mutables of a node",
    "mutables": "local mutables",
    "private.pem": "the private key of its client or node",
    "task_results": "results of tasks",
}


@dataclass(frozen=True)
class OldFile:
    """A file that an old directory has, or knows the place of.

    Attributes:
        algorithm: The hash's algorithm.
        hash: What its content should have.
        path: Where the content is.
        size: In bytes.
        linked: Whether it lies outside the directory, which only has a record of it.
        doubtful: Whether its name may mean something else than a hash of its content.
    """

    algorithm: str
    hash: str
    path: str
    size: int
    linked: bool = False
    doubtful: bool = False


@dataclass(frozen=True)
class OldDirectory:
    """What an old directory holds.

    Attributes:
        files: Its files by algorithm and hash, those that are in it before those that are linked.
        gone: Paths of linked files that are no longer there, by algorithm and hash.
        left: What is in it that is not content by its hash, in a word or two each.
    """

    files: dict[tuple[str, str], list[OldFile]]
    gone: dict[tuple[str, str], str]
    left: list[str]


def look_through(directory: str) -> OldDirectory:
    """What there is in an old directory.

    Args:
        directory: The store directory, storage directory, cache or bucket; or any directory above some of them.

    Raises:
        NotFound: If it is not there.
        InvalidInput: If it is not a directory.
        NotAllowed: If something in it cannot be listed: what is not seen must not look as if it were not there.
    """
    root = os.path.abspath(directory)
    if not os.path.exists(root):
        raise NotFound(f"no such directory: {directory}", hint="check the spelling of the path")
    if not os.path.isdir(root):
        raise InvalidInput(
            f"{directory} is not a directory", hint="give the directory that holds sha1/, not a file in it"
        )
    files: dict[tuple[str, str], list[OldFile]] = {}
    gone: dict[tuple[str, str], str] = {}
    for algorithm, hash_, path, linked, doubtful in _names(root):
        try:
            size = os.stat(path).st_size
        except (FileNotFoundError, NotADirectoryError, ValueError):
            if linked:
                gone[algorithm, hash_] = path
            continue
        except OSError as error:
            raise from_os_error(error, "look at", path) from error
        same = files.setdefault((algorithm, hash_), [])
        if all(path != other.path for other in same):
            same.append(OldFile(algorithm, hash_, path, size, linked, doubtful))
    for same in files.values():
        same.sort(key=lambda file: (file.linked, file.doubtful))
    left = [word for name, word in _REMARKABLE.items() if _is_left(os.path.join(root, name))]
    return OldDirectory(files, {key: path for key, path in gone.items() if key not in files}, left)


def _names(root: str) -> Iterator[tuple[str, str, str, bool, bool]]:
    """Algorithm, hash, path, whether it is linked, and whether that is in doubt, of all there seems to be."""

    def refuse(error: OSError) -> None:
        raise NotAllowed(
            f"could not list {error.filename}: {error.strerror}", hint="ask its owner, or run this as its owner"
        ) from error

    above = os.path.dirname(root)
    for folder, folders, names in os.walk(root, onerror=refuse):
        folders.sort()
        if folder == root and "trash" in folders:
            # what somebody removed from a gateway's bucket
            folders.remove("trash")
        inside = os.path.relpath(folder, above).split(os.sep)
        for name in sorted(names):
            yield from _name(f"{folder}/{name}", inside, name)


def _name(path: str, inside: list[str], name: str) -> Iterator[tuple[str, str, str, bool, bool]]:
    pointer = _POINTER.fullmatch(name)
    if pointer is not None:
        hash_ = pointer[1]
        place = _place(inside, hash_)
        if place is not None:
            for target in _targets(path, pointer[2]):
                yield place[0], hash_, target, True, False
        return
    if not _HASH.fullmatch(name):
        return
    if "linked_files" in inside or inside[-2:] == ["@linked_files", "@sha1"]:
        if len(name) == digest.HEX_LENGTHS["sha1"]:
            for target in _targets(path, "record"):
                yield "sha1", name, target, True, False
        return
    place = _place(inside, name)
    if place is not None:
        yield place[0], name, path, False, place[1]


def _place(inside: list[str], hash_: str) -> tuple[str, bool] | None:
    """The algorithm of a hash in folders of these names, and whether that is in doubt; `None` out of place.

    The first of the folders is the directory that one looks through, which may have any name.
    """
    algorithm = _ALGORITHMS[len(hash_)]
    for fan, doubtful in (
        ([hash_[:2], hash_[2:4], hash_[4:6]], False),
        ([hash_[0], hash_[1:3]], True),
        ([], False),
    ):
        count = len(fan)
        if inside[len(inside) - count :] != fan:
            continue
        above = inside[: len(inside) - count]
        if above and (_ROOTS.get(above[-1]) == algorithm or (fan and len(above) == 1)):
            return algorithm, doubtful
    return None


def _targets(path: str, kind: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            record = json.loads(file.read(_LONGEST_RECORD))
    except PermissionError as error:
        raise from_os_error(error, "read", path) from error
    except (OSError, ValueError, RecursionError):
        return []
    found: list[Any] = []
    if isinstance(record, dict):
        if kind == "hints.json":
            files = record.get("files")
            entries = [item for item in files if isinstance(item, dict)] if isinstance(files, list) else []
            stats = [item["stat"] for item in entries if isinstance(item.get("stat"), dict)]
            found = [stat.get("path") for stat in stats]
        else:
            found = [record.get("path")]
    return [target for target in found if isinstance(target, str) and os.path.isabs(target) and "\0" not in target]


def _is_left(path: str) -> bool:
    if os.path.basename(path) == "mutables":
        # of these, two folders hold what is known of files
        known = {"@linked_files", "@compute_sha1_cache"}
        try:
            return any(name not in known for name in os.listdir(path))
        except OSError:
            return False
    return os.path.exists(path)
