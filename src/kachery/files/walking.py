"""What a directory on this machine holds, at one moment.

One walk lists it and looks at every file. Links are followed, as classic kachery did; what is neither a file nor a
directory is left out, and said; a link to one of the directories above it is an error, since there would be no end.
`Walked.require_unchanged` looks again: a snapshot of a directory that changed meanwhile would be of none.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import manifests
from ..errors import InvalidInput, NotAllowed, SourceChanged, TooLarge, from_os_error
from ..store.hashing import same_look

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..manifests import Entry, Tree

logger = logging.getLogger(__name__)

# how many of the things that are left out, or may not be loaded again, are named one by one
_NAMED = 5

# what git-annex calls the content of a file: MD5E-s<size>--<md5>.<suffix>
_ANNEX_PLACE = ".git/annex/objects"
_ANNEX_KEY = re.compile(r"MD5E-s([0-9]{1,18})(?:-[A-Za-z][0-9]+)*--([0-9a-f]{32})(?:\..*)?")
_ANNEX_OWN = (".git", ".datalad")


@dataclass(slots=True)
class Source:
    """A file to be read.

    Attributes:
        path: Where it is.
        status: How it looked when the directory was listed.
        entry: Its place in the manifest; its hash is put there.
    """

    path: str
    status: os.stat_result
    entry: Entry


@dataclass
class Walked:
    """What a walk found.

    Attributes:
        path: The directory.
        tree: Its manifest, without the hashes of `sources`.
        sources: The files whose hashes it needs.
        size: Of these, in bytes.
        directories: How the directories looked.
    """

    path: str
    tree: Tree = field(default_factory=manifests.empty)
    sources: list[Source] = field(default_factory=list)
    size: int = 0
    directories: list[tuple[str, os.stat_result]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def require_unchanged(self) -> None:
        """Make sure that everything still looks as it did.

        Raises:
            SourceChanged: If something does not; the message names it.
        """
        for source in self.sources:
            if not _looks(source.path, source.status):
                raise changed(source.path)
        for path, status in self.directories:
            if not _looks(path, status):
                raise SourceChanged(
                    f"{path} changed while it was read: files were added, removed or renamed",
                    hint="try again when nothing writes to it",
                )


def changed(path: str) -> SourceChanged:
    """The error of a file that changed between the walk and now."""
    return SourceChanged(
        f"{path} changed while its directory was read", hint="try again when nothing writes to the directory"
    )


def walk(path: str, *, git_annex: bool = False) -> Walked:
    """List a directory with all that is below it, and look at every file.

    Args:
        path: The directory.
        git_annex: Take the hashes of git-annex files from their links, without their content, and leave out `.git` and
            `.datalad`.

    Raises:
        NotFound, NotAllowed: If something cannot be listed or looked at.
        InvalidInput: If it is no directory, a link leads back to a directory above it, or a git-annex file has a key
            without an MD5.
        SourceChanged: If something vanishes meanwhile.
        TooLarge: If there is more than a manifest may hold.
    """
    found = Walked(path)
    try:
        top = os.stat(path)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError):
            raise InvalidInput(f"not a path: {path!r}: {error}") from error
        raise from_os_error(error, "read", path) from error
    if not stat.S_ISDIR(top.st_mode):
        raise InvalidInput(f"{path} is not a directory", hint="give the path of a directory")
    waiting = [(path, found.tree, top, frozenset([(top.st_dev, top.st_ino)]))]
    entries = 0
    while waiting:
        here, tree, status, above = waiting.pop()
        found.directories.append((here, status))
        if len(above) > manifests.DEEPEST:
            raise TooLarge(f"{here} is more than {manifests.DEEPEST} directories deep", hint="store its parts")
        for name, place, looks in _listed(found, here, tree, git_annex=git_annex):
            if stat.S_ISDIR(looks.st_mode):
                key = (looks.st_dev, looks.st_ino)
                if key in above:
                    raise InvalidInput(
                        f"{place} is a link to a directory that it is in", hint="remove the link, or store its parts"
                    )
                below = manifests.empty()
                tree["dirs"][name] = below
                waiting.append((place, below, looks, above | {key}))
            else:
                entry: Entry = {"size": looks.st_size}
                tree["files"][name] = entry
                found.sources.append(Source(place, looks, entry))
                found.size += looks.st_size
        entries += len(tree["files"]) + len(tree["dirs"])
        if entries > manifests.MOST_ENTRIES:
            raise TooLarge(
                f"{path} holds more than {manifests.MOST_ENTRIES:,} files and directories", hint="store its parts"
            )
    _say(found)
    return found


def _listed(found: Walked, here: str, tree: Tree, *, git_annex: bool) -> Iterator[tuple[str, str, os.stat_result]]:
    """The files and directories in a directory, by their name, path and look."""
    try:
        with os.scandir(here) as listing:
            # in an order that is the same everywhere, so that errors and notices are, too
            entries = sorted(listing, key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise changed(here) from error
    except OSError as error:
        raise from_os_error(error, "list", here) from error
    prefix = here.rstrip("/")
    for entry in entries:
        place = f"{prefix}/{entry.name}"
        is_link = entry.is_symlink()
        if git_annex and is_link and (key := _annex_entry(place)) is not None:
            tree["files"][entry.name] = key
            continue
        try:
            looks = entry.stat()
        except OSError as error:
            if is_link and error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
                found.left_out.append(f"{place} (a link to nothing)")
                continue
            if isinstance(error, FileNotFoundError):
                raise changed(place) from error
            raise from_os_error(error, "look at", place) from error
        if stat.S_ISDIR(looks.st_mode):
            if not (git_annex and entry.name in _ANNEX_OWN):
                yield entry.name, place, looks
        elif stat.S_ISREG(looks.st_mode):
            yield entry.name, place, looks
        else:
            found.left_out.append(f"{place} (neither a file nor a directory)")


def _annex_entry(path: str) -> Entry | None:
    """What a git-annex link says of its content; `None` when it is another link."""
    real = os.path.realpath(path)
    if _ANNEX_PLACE not in real:
        return None
    key = os.path.basename(real)
    match = _ANNEX_KEY.fullmatch(key)
    if match is None:
        raise InvalidInput(
            f"{path} has the git-annex key {key[:80]!r}, which holds no MD5",
            hint="`git annex migrate --backend=MD5E` gives it one",
        )
    return {"size": int(match.group(1)), "md5": match.group(2)}


def _looks(path: str, status: os.stat_result) -> bool:
    try:
        return same_look(os.stat(path), status)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as error:
        raise NotAllowed(f"{path} can no longer be looked at", hint="check who may read it") from error


def _say(found: Walked) -> None:
    for what in found.left_out[:_NAMED]:
        logger.warning("left out: %s", what)
    if len(found.left_out) > _NAMED:
        logger.warning("left out: %d more links to nothing, pipes, sockets or devices", len(found.left_out) - _NAMED)
    problems = [
        "/".join([*path, problem])
        for path, tree in manifests.walk(found.tree)
        for problem in manifests.name_problems(tree)
    ]
    for problem in problems[:_NAMED]:
        logger.warning("load_dir will refuse this directory elsewhere: %s", problem)
