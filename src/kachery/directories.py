"""The functions of `import kachery` about whole directories: `store_dir`, `load_dir`, `read_dir`.

They take the settings, and the options of `kachery.configuration` (`to=`, `fr=`, `algorithm=`, …), as those of
`kachery.api` do. One file of a directory, `sha1dir://HASH.NAME/PATH`, is loaded as any other file.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Unpack, cast

from . import configuration, files
from .calls import also_called, chosen_name, located, whence, where_to
from .outcomes import none_if_missing

if TYPE_CHECKING:
    from .configuration import Options
    from .manifests import Tree


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
            left out, with a warning on the log.
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
    where = where_to(configuration.chosen(options), zone, local=local, keep=cache_locally)
    stored = files.store_dir(dirpath, git_annex=git_annex_mode, **where)
    return stored.uri(os.path.basename(os.path.abspath(os.fsdecode(dirpath))) if name is None else name)


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
    text = located(uri)

    def read() -> Tree:
        if "://" in text:
            return files.read_dir(text, local_only=local_only, **whence(chosen, zone))
        if store_files:
            files.store_dir(text, git_annex=git_annex_mode, **where_to(chosen, zone, local=False, keep=False))
        return files.hash_dir(text, git_annex=git_annex_mode, algorithm=chosen.algorithm)

    tree = none_if_missing(read)
    if tree is None or recursive:
        return tree
    # as upstream has it: neither `files` nor `dirs`
    return cast("Tree", {"files": tree["files"], "dirs": {name: {} for name in tree["dirs"]}})
