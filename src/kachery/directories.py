"""The functions of `import kachery` about whole directories: `store_dir`, `load_dir`, `read_dir`.

They take the settings, and the options of `kachery.configuration` (`to=`, `fr=`, `algorithm=`, …), as those of
`kachery.api` do. One file of a directory, `sha1dir://HASH.NAME/PATH`, is loaded as any other file.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any, Unpack, cast

from . import configuration, files
from .calls import also_called, chosen_name, located, whence, where_to
from .outcomes import none_if_missing
from .uri import TreeRef, parse

if TYPE_CHECKING:
    from .configuration import Chosen, Options
    from .manifests import Tree

_URIS = ("sha1dir://", "md5dir://")


@also_called(path="dirpath")
def store_dir(
    dirpath: str | os.PathLike[str],
    label: str | None = None,
    git_annex_mode: bool = False,
    *,
    basename: str | None = None,
    zone: str | None = None,
    local: bool = False,
    cache_locally: bool = False,
    **options: Unpack[Options],
) -> str:
    """Store a directory with all that is below it.

    Args:
        dirpath: The directory; it is only read. Links are followed; pipes, sockets, devices and links to nothing are
            left out, with a warning on the log. The URI of a directory is loaded, and stored again.
        label: Its name in the URI, for people; by default its own.
        git_annex_mode: Take the MD5 of git-annex files from their links, without their content.
        basename: The same as `label`.
        zone: The zone to store it in; by default that of the settings.
        local: Store it on this machine only.
        cache_locally: Keep a copy on this machine as well.
        options: As for `store_file`.

    Returns:
        `sha1dir://HASH.NAME`; followed by `/` and a path, it is the URI of a file inside.

    Raises:
        InvalidInput, TooLarge: If it is no directory, a link leads back into it, or it is too large for one snapshot.
        SourceChanged: If something in it changes meanwhile; the message names it.
        KacheryError: As for `store_file`.

    Example:
        >>> store_dir("session7", zone="lab.public")                 # doctest: +SKIP
        'sha1dir://d7692f526786b5f9c8d305c1f331c7409266a711.session7'
    """
    name = chosen_name(label, basename)
    chosen = configuration.chosen(options)
    where = where_to(chosen, zone, local=local, keep=cache_locally)
    text = os.fsdecode(dirpath)
    if text.startswith(_URIS):
        return _store_again(text, name, where, whence(chosen, zone))
    stored = files.store_dir(dirpath, git_annex=git_annex_mode, **where)
    return stored.uri(os.path.basename(os.path.abspath(os.fsdecode(dirpath))) if name is None else name)


def _store_again(uri: str, name: str | None, where: dict[str, Any], source: dict[str, Any]) -> str:
    reference = parse(uri)
    assert isinstance(reference, TreeRef)
    own_name = reference.path[-1] if reference.path else reference.name
    with tempfile.TemporaryDirectory(prefix="kachery-") as directory:
        copy = files.load_dir(uri, os.path.join(directory, "copy"), **source)
        return files.store_dir(copy, **where).uri((own_name or "") if name is None else name)


@also_called(path="uri")
def load_dir(
    uri: str,
    dest: str | os.PathLike[str],
    *,
    zone: str | None = None,
    local_only: bool = False,
    **options: Unpack[Options],
) -> None:
    """Have a copy of a directory on this machine, whole or not at all.

    Args:
        uri: Its URI, which may name a directory inside it.
        dest: Where to put it; nothing may be there. Directories above it are made.
        zone: The zone to ask; by default that of the settings.
        local_only: Ask nobody else.
        options: As for `load_file`.

    Raises:
        Conflict: If something is there.
        InvalidName: If a name in it could escape, or be taken for another; nothing was written then.
        NotFound, Unreachable, NotAllowed, WrongContent: If a file of it cannot be had; the message names it.
        StorageFull: If there is no room.
    """
    files.load_dir(uri, dest, local_only=local_only, **whence(configuration.chosen(options), zone))


@also_called(path="uri")
def read_dir(
    uri: str | os.PathLike[str],
    *,
    recursive: bool = True,
    git_annex_mode: bool = False,
    store_files: bool = False,
    zone: str | None = None,
    local_only: bool = False,
    **options: Unpack[Options],
) -> Tree | None:
    """What a directory holds; none of its files is loaded.

    Args:
        uri: The directory's URI, which may name a directory inside it; or the path of one on this machine, whose files
            are hashed.
        recursive: Whether the directories in it are told with what they hold; otherwise they are `{}`.
        git_annex_mode: Of a directory on this machine, take the MD5 of git-annex files from their links.
        store_files: Of a directory on this machine, store the files, too.
        zone: The zone to ask; by default that of the settings.
        local_only: Ask nobody else.
        options: As for `load_file`; of a directory on this machine also as for `store_file`.

    Returns:
        `{"files": {NAME: {"size": BYTES, "sha1": HASH}, …}, "dirs": {NAME: {"files": …, "dirs": …}, …}}`. `None`, as in
        classic kachery, when it is not found or nobody who may have it can be asked; the log says why.

    Raises:
        InvalidInput: If it is a file.
        NotAllowed, WrongContent, InvalidName, TooLarge: If it may not be loaded, or is no manifest of a directory.
    """
    chosen = configuration.chosen(options)
    if store_files and "://" not in os.fsdecode(uri):
        where = where_to(chosen, zone, local=False, keep=False)
        none_if_missing(lambda: files.store_dir(uri, git_annex=git_annex_mode, **where))
    tree = none_if_missing(lambda: directory(uri, chosen, zone, git_annex_mode=git_annex_mode, local_only=local_only))
    if tree is None or recursive:
        return tree
    # as upstream has it: neither `files` nor `dirs`
    return cast("Tree", {"files": tree["files"], "dirs": {name: {} for name in tree["dirs"]}})


def directory(
    uri: str | os.PathLike[str],
    chosen: Chosen,
    zone: str | None = None,
    *,
    git_annex_mode: bool = False,
    local_only: bool = False,
) -> Tree:
    """As `read_dir`, with an error where there is none."""
    text: str = located(uri)
    if "://" in text:
        return files.read_dir(text, local_only=local_only, **whence(chosen, zone))
    return files.hash_dir(text, git_annex=git_annex_mode, algorithm=chosen.algorithm)
