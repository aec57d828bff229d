"""`make docs`: docs/commands.md, made of what `kachery … --help` says. With `--check`: is it up to date?"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "commands.md"

HEAD = """\
# The command line

Made by `make docs` from `kachery --help`; do not edit. What a command is for goes to the standard output, everything
said about it goes to the standard error, and an exit code that is not 0 says that it was not done. With `--json` an
error is one line on the standard error: `{"error": {"code", "message", "hint"}}`.

What a variable of the environment changes stands at the top of
[settings.py](../src/kachery/settings.py); `kachery status` shows what is in use.
"""


def page() -> str:
    """What docs/commands.md should hold."""
    # the help is as wide as the terminal, up to 80
    os.environ["COLUMNS"] = "80"
    import typer.main

    from kachery.cli.main import app

    parts = [HEAD]
    for name, text in _helps(typer.main.get_command(app), "kachery", None):
        level = "#" * min(4, 2 + name.count(" "))
        body = "\n".join(line.rstrip() for line in text.rstrip().splitlines())
        parts.append(f"{level} {name}\n\n```text\n{body}\n```\n")
    return "\n".join(parts)


def _helps(command: Any, name: str, above: Any) -> Iterator[tuple[str, str]]:
    context = command.context_class(command, info_name=name.rpartition(" ")[2], parent=above)
    yield name, command.get_help(context)
    for part, child in getattr(command, "commands", {}).items():
        yield from _helps(child, f"{name} {part}", context)


def main() -> int:
    """Write the page, or say how it differs."""
    parser = argparse.ArgumentParser(description="Write docs/commands.md.")
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if it is not up to date")
    given = parser.parse_args()
    wanted = page()
    there = PAGE.read_text() if PAGE.exists() else ""
    if not given.check:
        PAGE.write_text(wanted)
        return 0
    if there == wanted:
        return 0
    sys.stderr.writelines(
        difflib.unified_diff(there.splitlines(True), wanted.splitlines(True), "docs/commands.md", "kachery --help")
    )
    print("docs/commands.md is not up to date: run `make docs`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
