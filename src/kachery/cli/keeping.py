"""`kachery ls`, `du`, `verify` and `clean`: look at stored directories, and after the store of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import WrongContent
from . import output
from .loading import FrOption, opened

if TYPE_CHECKING:
    from ..store import audit

JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON.")]


def ls(
    uri: Annotated[
        str | None,
        typer.Argument(
            metavar="URI", help="A directory, as `kachery store` printed it; or one in it.", show_default=False
        ),
    ] = None,
    long: Annotated[bool, typer.Option("-l", "--long", help="With sizes, of a directory's files.")] = False,
    zone: Annotated[str | None, typer.Option(metavar="ZONE", help="The zone to ask for the directory.")] = None,
    fr: FrOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a stored directory, or what is stored on this machine.

    Of a directory, first the directories in it, each with a `/` at its end, then the files, both sorted; no file is
    loaded.

    Without a URI, one line for each thing on this machine: blob or link, size, when it was written, URI, and for a link
    where its content lies. URIs are without names, since the store knows content, not names.
    """
    if uri is not None:
        _list_directory(uri, zone, fr, long=long, as_json=as_json)
        return
    from ..store import Store

    entries = Store().entries()
    if as_json:
        output.documents(_described(entry) for entry in entries)
        return
    count = total = 0
    for entry in entries:
        count, total = count + 1, total + entry.size
        written = output.moment(entry.modified) if entry.modified else "content is gone"
        place = f"  {output.visible(entry.path)}" if entry.kind == "link" else ""
        output.data(f"{entry.kind}  {output.size(entry.size):>10}  {written:16}  {_uri(entry)}{place}")
    output.suggest(f"{output.files(count)}, {output.size(total)}; `kachery verify` checks them")


def _list_directory(uri: str, zone: str | None, fr: str | None, *, long: bool, as_json: bool) -> None:
    from .. import files, manifests

    tree = files.read_dir(uri, zone=zone, fr=opened(fr))
    dirs, names = sorted(tree["dirs"]), sorted(tree["files"])
    if as_json:
        members = ((name, manifests.member(tree["files"][name])) for name in names)
        output.document(
            [
                *({"name": name, "type": "directory"} for name in dirs),
                *(
                    {"name": name, "type": "file", "size": file.size, file.algorithm: file.hash}
                    for name, file in members
                ),
            ]
        )
        return
    pad = 11 if long else 0
    lines = [f"{'':{pad}}{output.visible(name)}/" for name in dirs]
    for name in names:
        size = f"{output.size(tree['files'][name]['size']):>10} " if long else ""
        lines.append(size + output.visible(name))
    output.lines(lines)


def du(as_json: JsonOption = False) -> None:
    """Show how much is stored on this machine."""
    import shutil

    from ..errors import explaining
    from ..store import Store

    store = Store()
    store.layout.require_usable()
    usage = store.usage()
    existing = store.root
    while not existing.exists():
        existing = existing.parent
    with explaining("look at", existing):
        free = shutil.disk_usage(existing).free
    if as_json:
        kinds = {line.kind: {"files": line.files, "bytes": line.size} for line in usage}
        output.document({"directory": str(store.root), "free": free, **kinds})
        return
    lines = [(line.kind, f"{output.size(line.size):>10}  {output.files(line.files)}{_remark(line)}") for line in usage]
    output.fields([("directory", str(store.root)), *lines, ("free", f"{output.size(free):>10}")])
    if any(line.kind == "temporary" and line.files for line in usage):
        output.suggest("`kachery clean` removes temporary files that nobody works on any more")


def verify(as_json: JsonOption = False) -> None:
    """Check everything on this machine against its hash.

    Reads all blobs and linked files again, whatever is remembered of them.
    Damaged blobs are moved to the directory `quarantine`, so that they are never handed out. The exit code is 6 when
    something is damaged.
    """
    from .. import progress
    from ..store import Store, audit

    store = Store()
    sizes = [entry.size for entry in store.entries()]
    good = 0
    problems: list[audit.Problem] = []
    with progress.bar(sum(sizes), "Verifying") as told:
        for result in store.verify(told):
            if isinstance(result, audit.Problem):
                problems.append(result)
            else:
                good += 1
    if as_json:
        described = [{**_described(problem.entry), "reason": problem.reason} for problem in problems]
        output.document({"checked": len(sizes), "bytes": sum(sizes), "good": good, "problems": described})
    else:
        for problem in problems:
            output.data(f"{problem.entry.kind}  {_uri(problem.entry)}  {output.visible(problem.reason)}")
    if problems:
        raise WrongContent(
            f"damaged, changed or unreadable: {len(problems)} of {output.files(len(sizes))}",
            hint=_remedy(problems),
        )
    if not as_json:
        output.say(f"{output.files(good)}, {output.size(sum(sizes))}: all as their hashes say")


def clean(
    older_than: Annotated[
        float, typer.Option(min=0, metavar="HOURS", help="Leave what was touched more recently than this.")
    ] = 24.0,
    damaged: Annotated[
        float,
        typer.Option(min=0, metavar="DAYS", help="Leave damaged content that was moved away more recently than this."),
    ] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Remove what interrupted programs left, and damaged content.

    Lists the temporary files of the store directory that it removes, and what was moved to the directory `quarantine`
    because it was not what its name said. Stored files and links stay, and so does what a running program works on.
    """
    from ..store import Store

    store = Store()
    store.layout.require_usable()
    removed = store.clean(older_than * 3600, damaged * 24 * 3600)
    if as_json:
        output.document({"removed": removed})
        return
    for path in removed:
        output.data(output.visible(path))
    output.say(f"removed {output.files(len(removed))}")


def _uri(entry: audit.Entry) -> str:
    return f"{entry.algorithm}://{entry.hash}"


def _described(entry: audit.Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "uri": _uri(entry),
        "size": entry.size,
        "modified": output.timestamp(entry.modified) if entry.modified else None,
        "path": entry.path,
    }


def _remark(line: audit.Usage) -> str:
    remarks = {
        "links": ", outside the store directory",
        "damaged": ", in the directory quarantine",
        "temporary": ", being written or left behind",
        "other": ": records, keys, mutables",
    }
    return remarks.get(line.kind, "") if line.files else ""


def _remedy(problems: list[audit.Problem]) -> str:
    kinds = {problem.entry.kind for problem in problems}
    remedies = []
    if "blob" in kinds:
        remedies.append("load the blobs again from a zone, or store their sources again")
    if "link" in kinds:
        remedies.append("link files that were changed on purpose again, under their new hash")
    return "; ".join(remedies)
