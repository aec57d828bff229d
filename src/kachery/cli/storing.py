"""`kachery store` and `kachery link`: give files and directories a URI."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidInput, explaining
from . import output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..files import Stored

STORE_EXAMPLES = """\b
Examples:
  kachery store session7.nwb
  kachery store --zone lab.public results/*.csv
  kachery store --local session7.nwb
  kachery store session7/
  tar c session7 | kachery store - --label session7.tar
"""

LINK_EXAMPLES = """\b
Example:
  kachery link /data/raw/session7.dat
"""

_STDIN = "-"


def store(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE", help="Files or directories to store; `-` is the standard input.", show_default=False
        ),
    ],
    zone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="The zone to store in; by default that of `kachery status`.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", "-t", metavar="NAME", help="A server of your servers.json, or a zone; keeps a copy here."),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="Store on this machine only; no zone is needed.")] = False,
    label: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="A name for people in the URI; by default the file's. Empty for none."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep a copy on this machine as well.")] = False,
    git_annex: Annotated[
        bool,
        typer.Option("--git-annex-mode", help="Take the MD5 of git-annex files from their links, without content."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write a JSON array, with hashes and sizes.")] = False,
) -> None:
    """Store files and directories, and print a URI for each.

    The URI is made of the hash of the content: whoever may load from the zone gets the same bytes by it, on any
    machine. When it is printed, the content is where it should be, verified. A file that the zone already has is not
    sent again. Files are only read, never changed.

    A directory is stored with all that is below it: `kachery ls URI` lists it, `kachery load URI/PATH` loads one file,
    `kachery load URI --dest DIR` all of it.
    """
    if local and (zone is not None or to is not None):
        option = "--zone" if zone is not None else "--to"
        raise InvalidInput(f"--local stores nowhere else, so {option} makes no sense with it", hint="leave one out")
    if zone is not None and to is not None:
        raise InvalidInput("--to and --zone both say where to store", hint="leave one of them out")
    if files.count(_STDIN) > 1:
        raise InvalidInput("the standard input can be stored only once", hint="give `-` once")
    if _STDIN in files and sys.stdin is None:
        raise InvalidInput("the standard input is closed", hint="pipe something into it: tar c DIR | kachery store -")
    _check_label(label, files)
    _check_sources(files)

    from .. import files as story

    local = local or (to is None and story.stays_here(zone))
    place = story.open_place(to, writing=True) if to is not None else None
    where: dict[str, Any] = {"zone": zone, "local": local, "keep": keep or place is not None, "to": place}

    def stored() -> Iterator[dict[str, Any]]:
        for name in files:
            if name != _STDIN and os.path.isdir(name):
                yield _store_dir(name, label, git_annex, where)
                continue
            done, uri = _store_one(name, label, where)
            yield {"file": name, "uri": uri, "hash": done.hash, "size": done.size, "zone": done.zone}

    _report(stored(), as_json)
    if local:
        output.suggest("stored on this machine only; `kachery init` makes it a client of a zone")
    else:
        output.suggest("on another machine of the zone: `kachery load URI`")


def link(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="What to link.", show_default=False)],
    label: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="A name for people in the URI; by default the file's. Empty for none."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write a JSON array, with hashes and sizes.")] = False,
) -> None:
    """Make files loadable on this machine without a copy.

    Prints a URI for each. A linked file stays where it is, and is found by its URI as long as it stays what it is; one
    that was changed, moved or removed since is refused. For large files that nobody changes.
    """
    from .. import files as story

    _check_label(label, files)
    _check_sources(files, linked=True)

    def linked() -> Iterator[dict[str, Any]]:
        for name in files:
            done = story.link_file(name)
            uri = done.uri(label if label is not None else os.path.basename(name))
            yield {"file": name, "uri": uri, "hash": done.hash, "size": done.size, "path": os.path.abspath(name)}

    _report(linked(), as_json)
    output.suggest("found on this machine only, and as long as the file stays what it is")


def _store_one(name: str, label: str | None, where: dict[str, Any]) -> tuple[Stored, str]:
    from .. import files as story

    if name == _STDIN:
        done = story.store_stream(sys.stdin.buffer, label=label, **where)
        return done, done.uri(label or "")
    done = story.store_file(name, label=label or None, **where)
    return done, done.uri(label if label is not None else os.path.basename(name))


def _store_dir(name: str, label: str | None, git_annex: bool, where: dict[str, Any]) -> dict[str, Any]:
    from .. import files as story

    done = story.store_dir(name, git_annex=git_annex, **where)
    uri = done.uri(label if label is not None else os.path.basename(os.path.abspath(name)))
    described = {"directory": name, "uri": uri, "hash": done.hash, "size": done.size, "files": done.files}
    return {**described, "zone": done.zone}


def _report(results: Iterator[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        output.documents(results)
        return
    for result in results:
        output.data(result["uri"])


def _check_label(label: str | None, files: list[str]) -> None:
    from .. import names

    if label and len(files) > 1:
        raise InvalidInput(f"one label was given for {len(files)} files", hint="label them one by one")
    if label:
        names.component(label, "label")


def _check_sources(files: list[str], *, linked: bool = False) -> None:
    """Refuse what cannot work before anything is sent."""
    for name in files:
        if name == _STDIN:
            continue
        if not name:
            raise InvalidInput("a file name is empty", hint="check the quotes and variables of the command")
        if name.startswith(("sha1://", "sha1dir://", "kachery:")):
            raise InvalidInput(f"{name[:80]} is a URI, not a file", hint="`kachery load URI` gives the file")
        with explaining("read", name):
            os.stat(name)
        if linked and os.path.isdir(name):
            raise InvalidInput(
                f"{name} is a directory, and only files can be linked", hint="link its files, or `kachery store` it"
            )
