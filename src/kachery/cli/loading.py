"""`kachery load`, `kachery cat` and `kachery info`: get at content by its URI."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InvalidInput
from . import output

if TYPE_CHECKING:
    from ..files import Place

LOAD_EXAMPLES = """\b
Examples:
  kachery load sha1://253cc837e71aa814d19025fb70717353912b2577/session7.nwb
  kachery load URI --dest session7.nwb
  h5ls $(kachery load URI)
  kachery load sha1dir://d7692f526786b5f9c8d305c1f331c7409266a711.session7 --dest session7
  kachery load sha1dir://d7692f526786b5f9c8d305c1f331c7409266a711.session7/probe/raw.dat
"""

CAT_EXAMPLES = """\b
Examples:
  kachery cat URI > copy.nwb
  kachery cat URI --end 1024 | xxd
"""

_STEP = 1024 * 1024

UriArgument = Annotated[str, typer.Argument(metavar="URI", help="As `kachery store` printed it.", show_default=False)]
ZoneOption = Annotated[
    str | None,
    typer.Option(metavar="ZONE", help="The zone to ask; by default the URI's, or that of `kachery status`."),
]
FrOption = Annotated[
    str | None,
    typer.Option("--fr", "-f", metavar="NAME", help="A server of your servers.json, or a zone, to ask instead."),
]


def load(
    uri: UriArgument,
    dest: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Put a copy of your own here, in place of what is there."),
    ] = None,
    zone: ZoneOption = None,
    fr: FrOption = None,
    local_only: Annotated[bool, typer.Option("--local-only", help="Look on this machine only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Have a file or directory on this machine, and print its path.

    It is looked for in the store directory, then in the zone. What is downloaded is verified against the hash in the
    URI, and kept; a download that was interrupted continues. URIs of all generations of kachery are understood, and
    http://, gh:// and zenodo:// addresses.

    The path leads into the store directory: read the file, do not change it. With --dest you get a copy of your own.

    A directory needs --dest, where nothing may be yet: it appears there whole or not at all. Of a file in a directory,
    `sha1dir://HASH.NAME/PATH`, only that file is moved.
    """
    from .. import files

    place = opened(fr)
    if dest is not None and files.is_directory(uri, zone=zone, local_only=local_only, fr=place):
        path = files.load_dir(uri, dest, zone=zone, local_only=local_only, fr=place)
    else:
        path = files.load_file(uri, zone=zone, dest=dest, local_only=local_only, fr=place)
    if as_json:
        output.document({"uri": uri, "path": path})
        return
    output.data(path)
    if dest is None:
        output.suggest("read it where it is and do not change it; `--dest PATH` gives you a copy of your own")


def cat(
    uri: UriArgument,
    start: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="The first byte, counted from 0.", show_default="0")
    ] = None,
    end: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="The byte after the last one.", show_default="the size")
    ] = None,
    zone: ZoneOption = None,
    fr: FrOption = None,
) -> None:
    """Write a file to the standard output.

    The whole file is loaded and verified first, and kept on this machine. With --start or --end only that part is
    fetched; a part that comes from a zone cannot be verified against the hash of the whole.
    """
    from .. import files

    if start is None and end is None:
        with open(files.load_file(uri, zone=zone, fr=opened(fr)), "rb", buffering=0) as file:
            while content := file.read(_STEP):
                output.raw(content)
        return
    with files.open_file(uri, zone=zone, fr=opened(fr)) as part:
        size = part.seek(0, io.SEEK_END)
        first, last = start or 0, size if end is None else end
        if not first <= last <= size:
            raise InvalidInput(
                f"bytes {first} to {last} are not within a file of {size} bytes", hint=f"0 ≤ start ≤ end ≤ {size}"
            )
        part.seek(first)
        while first < last and (content := part.read(min(_STEP, last - first))):
            output.raw(content)
            first += len(content)


def info(
    uri: UriArgument,
    zone: ZoneOption = None,
    fr: FrOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Show the size of a file and who has it, or of a directory."""
    from .. import files

    found = files.any_info(uri, zone=zone, fr=opened(fr))
    if isinstance(found, files.TreeInfo):
        if as_json:
            output.document({"uri": uri, **asdict(found)})
            return
        output.fields(
            [
                ("hash", f"{found.algorithm} {found.hash}"),
                ("name", found.name or "-"),
                ("size", f"{output.size(found.size)} ({found.size} bytes)"),
                ("files", str(found.files)),
                ("directories", str(found.dirs)),
            ]
        )
        return
    if as_json:
        output.document(
            {
                "uri": uri,
                "algorithm": found.algorithm,
                "hash": found.hash,
                "label": found.label,
                "size": found.size,
                "local": {"path": found.local.path, "kind": found.local.kind} if found.local else None,
                "zone": found.zone,
                "problems": list(found.problems),
            }
        )
        return
    here = f"{found.local.path} ({found.local.kind})" if found.local else "no"
    exactly = f" ({found.size} bytes)" if found.size >= 1024 else ""
    output.fields(
        [
            ("name", found.label or "-"),
            (found.algorithm, found.hash),
            ("size", output.size(found.size) + exactly),
            ("on this machine", here),
            ("zone", found.zone or "-"),
        ]
    )
    for problem in found.problems:
        output.warn(problem)


def opened(name: str | None) -> Place | None:
    """The place to ask that was named with `--fr`."""
    from .. import files

    return files.open_place(name, writing=False) if name is not None else None
