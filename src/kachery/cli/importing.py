"""`kachery import-from`: take what an old directory has."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import WrongContent
from . import output

if TYPE_CHECKING:
    from ..files.importing import Imported
    from ..older import OldDirectory

IMPORT_EXAMPLES = """\b
Examples:
  kachery import-from ~/old/.kachery-cloud --dry-run
  kachery import-from ~/old/.kachery-cloud --link
  kachery import-from /data/kachery-storage
  kachery import-from /mnt/bucket --to lab.public
"""

_TAKEN = ("copied", "linked", "sent", "present", "wanted")

# what a result is called for people, in the order of the report
_WORDS = {
    "wanted": "to import",
    "copied": "copied",
    "linked": "linked",
    "sent": "sent",
    "present": "there already",
    "damaged": "damaged",
    "unreadable": "unreadable",
    "refused": "refused",
    "gone": "linked and gone",
    "block": "blocks of files",
}


def import_from(
    directory: Annotated[
        str,
        typer.Argument(
            metavar="DIRECTORY",
            help="A .kachery-cloud or .kachery directory, a KACHERY_STORAGE_DIR, a sha1-cache, a node's or a classic "
            "server's storage, a bucket's directory.",
            show_default=False,
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option(metavar="ZONE", help="Send the files to this zone; by default they go to the store here."),
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Leave the files where they are, and find them there; no copies.")
    ] = False,
    no_links: Annotated[
        bool,
        typer.Option("--no-links", help="Leave out files that the directory only links to, elsewhere on this machine."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what there is to do, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Take the files of an older kachery, a node or a bucket.

    Each file is verified against its hash before it is taken; the directory is only read. What is there already is left
    alone, so that an import which was interrupted goes on when the same command is given again. Its URIs then load from
    here, in the spelling of any generation. The exit code is 6 when something is damaged, or could not be taken.
    """
    from ..files import importing

    found, results = importing.import_files(directory, zone=to, link=link, links=not no_links, rehearse=dry_run)
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    problems: list[Imported] = []
    for result in results:
        counts[result.outcome] += 1
        sizes[result.outcome] += result.size
        if result.outcome not in (*_TAKEN, "block"):
            problems.append(result)
    if as_json:
        output.document(_document(counts, sizes, problems, found))
    else:
        _report(counts, sizes, problems, found)
    if problems:
        raise WrongContent(
            f"{output.files(len(problems))} of {sum(counts.values())} could not be taken",
            hint="the reasons stand above; give the same command again when they are mended, or look for other copies",
        )
    if not as_json and not dry_run:
        output.suggest("`kachery load URI` finds them now")


def _report(counts: Counter[str], sizes: Counter[str], problems: list[Imported], found: OldDirectory) -> None:
    for problem in problems:
        reason = output.visible(problem.reason or "")
        output.data(f"{problem.outcome}  {problem.algorithm}://{problem.hash}  {reason}")
    rows = [(word, _count(counts[name], sizes[name])) for name, word in _WORDS.items() if counts[name]]
    output.fields(rows or [("found", "no files by their content")])
    if found.left:
        output.say(f"not files by their content, and left where they are: {', '.join(found.left)}")


def _count(files: int, size: int) -> str:
    return f"{output.size(size):>10}  {output.files(files)}"


def _document(
    counts: Counter[str], sizes: Counter[str], problems: list[Imported], found: OldDirectory
) -> dict[str, Any]:
    return {
        "results": {name: {"files": counts[name], "bytes": sizes[name]} for name in _WORDS if counts[name]},
        "problems": [
            {
                "uri": f"{problem.algorithm}://{problem.hash}",
                "outcome": problem.outcome,
                "path": problem.path,
                "reason": problem.reason,
            }
            for problem in problems
        ],
        "left": found.left,
    }
