"""The `kachery-cloud` commands: data on stdout, everything else on stderr, an exit code that tells failure.

Each command is a script of its own (`kachery-cloud-store`) and a sub-command (`kachery-cloud store-file`). Exit codes
are those of `kachery.errors`: 0 done, 2 wrong arguments, 3 not found, 4 not reachable, 5 not allowed, and so on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class _Command:
    name: str
    script: str
    summary: str
    argument: str | None
    options: dict[str, dict[str, Any]]
    run: Callable[[argparse.Namespace], None]


def _init(_: argparse.Namespace) -> None:
    from .init import init as register

    register()


def _store_file(given: argparse.Namespace) -> None:
    from .store_file import store_file as store

    _tell(store(given.FILENAME, label=_label(given), cache_locally=given.cache_locally))


def _store_file_local(given: argparse.Namespace) -> None:
    from .store_file_local import store_file_local as store

    _tell(store(given.FILENAME, label=_label(given), reference=given.reference))


def _link_file(given: argparse.Namespace) -> None:
    from .link_file import link_file as link

    _tell(link(given.FILENAME, label=_label(given)))


# a person at a command line needs the error, not the `None` that programs get from `kachery_cloud.load_file`


def _load_file(given: argparse.Namespace) -> None:
    from kachery import files

    _tell(files.load_file(given.URI, dest=given.dest))


def _load_file_info(given: argparse.Namespace) -> None:
    from .load_file import zone_info

    _tell(json.dumps(zone_info(given.URI), indent=4))


def _cat_file(given: argparse.Namespace) -> None:
    from kachery import files

    from .cat_file import write_out

    write_out(files.load_file(given.URI))


def _admin_delete_file(given: argparse.Namespace) -> None:
    from .admin_delete_file import admin_delete_file as delete

    delete(given.URI)


_LABEL: dict[str, dict[str, Any]] = {"--label": {"metavar": "TEXT", "help": "a name for people, in the URI"}}

_COMMANDS = [
    _Command("init", "kachery-cloud-init", "Register this machine's client, once", None, {}, _init),
    _Command(
        "store-file",
        "kachery-cloud-store",
        "Store a file in the zone and print its URI",
        "FILENAME",
        {"--cache-locally": {"action": "store_true", "help": "keep a copy on this machine as well"}, **_LABEL},
        _store_file,
    ),
    _Command(
        "store-file-local",
        "kachery-cloud-store-local",
        "Store a file on this machine and print its URI",
        "FILENAME",
        {"--reference": {"action": "store_true", "help": "copy nothing; the URI says where the file lies"}, **_LABEL},
        _store_file_local,
    ),
    _Command(
        "link-file",
        "kachery-cloud-link",
        "Make a file findable where it lies and print its URI",
        "FILENAME",
        _LABEL,
        _link_file,
    ),
    _Command(
        "load-file",
        "kachery-cloud-load",
        "Load a file and print its path",
        "URI",
        {"--dest": {"metavar": "TEXT", "help": "where to put a copy"}},
        _load_file,
    ),
    _Command(
        "load-file-info",
        "kachery-cloud-load-info",
        "Print what the zone says of a file, as JSON",
        "URI",
        {},
        _load_file_info,
    ),
    _Command("cat-file", "kachery-cloud-cat", "Write a file's content to stdout", "URI", {}, _cat_file),
    _Command(
        "admin-delete-file",
        "kachery-cloud-admin-delete-file",
        "Remove a file from the zone, as one of its administrators",
        "URI",
        {},
        _admin_delete_file,
    ),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """`kachery-cloud SUB-COMMAND …`; gives the exit code.

    Args:
        arguments: By default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="kachery-cloud", description="Store and load files by their content.", allow_abbrev=False
    )
    commands = parser.add_subparsers(metavar="COMMAND")
    for command in _COMMANDS:
        below = commands.add_parser(command.name, help=command.summary, description=command.summary, allow_abbrev=False)
        _fill(below, command)
    return _run(parser, arguments)


def _script(name: str) -> Callable[..., int]:
    command = next(item for item in _COMMANDS if item.name == name)

    def script(arguments: Sequence[str] | None = None) -> int:
        parser = argparse.ArgumentParser(prog=command.script, description=command.summary, allow_abbrev=False)
        _fill(parser, command)
        return _run(parser, arguments)

    script.__doc__ = f"`{command.script}`; gives the exit code."
    return script


init = _script("init")
store_file = _script("store-file")
store_file_local = _script("store-file-local")
link_file = _script("link-file")
load_file = _script("load-file")
load_file_info = _script("load-file-info")
cat_file = _script("cat-file")
admin_delete_file = _script("admin-delete-file")


def _fill(parser: argparse.ArgumentParser, command: _Command) -> None:
    if command.argument is not None:
        parser.add_argument(command.argument)
    for name, options in command.options.items():
        parser.add_argument(name, **options)
    parser.set_defaults(run=command.run)


def _run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    given = parser.parse_args(arguments)
    if "run" not in given:
        parser.print_help(sys.stderr)
        return 2
    from kachery.errors import KacheryError

    try:
        given.run(given)
    except KacheryError as error:
        print(f"Error: {error.message}", file=sys.stderr)  # noqa: T201
        if error.hint:
            print(f"Hint: {error.hint}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except BrokenPipeError:
        # whoever read stdout has enough; Python must not try to write the rest when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _label(given: argparse.Namespace) -> str:
    label: str = given.label or os.path.basename(given.FILENAME)
    return label


def _tell(line: str) -> None:
    # a path may hold bytes that are no text
    sys.stdout.buffer.write(os.fsencode(line) + b"\n")
    sys.stdout.buffer.flush()
