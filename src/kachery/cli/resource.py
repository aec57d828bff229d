"""`kachery-resource`: the commands of upstream's program of that name, for those whose scripts call it.

    kachery-resource init      asks five questions, writes ./kachery-resource.yaml
    kachery-resource share     shares as that file says, until it is ended

The questions, their order and the file are upstream's. The file is readable for its owner alone, since it holds a
secret; errors end with our exit codes instead of a stack trace.
"""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import settings
from .._version import __version__
from ..errors import InvalidInput, KacheryError
from . import output

if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = """\
kachery-resource <command>

Commands:
  kachery-resource init   Initialize a resource in the current directory
  kachery-resource share  Share the resource in the current directory

Options:
  --help     Show help
  --version  Show version number

`kachery share --help` tells of more that can be chosen."""

_DEFAULT_UPLOADS = 2


def main() -> None:
    """The entry point of the `kachery-resource` program."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Do what a command line says.

    Args:
        arguments: What follows the name of the program.

    Returns:
        The exit code.
    """
    output.begin(arguments)
    if "--help" in arguments:
        output.data(USAGE)
        return 0
    if "--version" in arguments:
        output.data(__version__)
        return 0
    try:
        match list(arguments):
            case ["init"]:
                init(Path())
            case ["share"]:
                share(Path())
            case _:
                output.tell(USAGE)
                return InvalidInput.exit_code
    except KacheryError as error:
        return output.fail(error)
    except (KeyboardInterrupt, EOFError):
        return output.INTERRUPTED
    except Exception as error:
        return output.unexpected(error)
    return 0


def init(directory: Path) -> None:
    """Ask how a resource is set up, and write its file.

    Args:
        directory: Where the file is, or will be.

    Raises:
        InvalidInput: If an answer makes no sense; nothing is written then.
    """
    from .. import names
    from ..node import config as configuration

    path = directory / configuration.FILE_NAME
    content = configuration.read(path)
    before = dict(content)

    zone = content.get("kacheryZone")
    answers: dict[str, Any] = {
        "resourceName": _ask("Resource name", content.get("resourceName")),
        # the sign in the middle is upstream's
        "kacheryZone": _ask("Kachery zone$ (use . for default zone)", zone or "."),
        "maxConcurrentUploads": _ask(
            "Maximum concurrent uploads", content.get("maxConcurrentUploads", _DEFAULT_UPLOADS)
        ),
        "proxyUrl": _ask("Proxy URL", content.get("proxyUrl")),
        "proxySecret": _ask("Proxy secret", content.get("proxySecret"), hidden=True),
    }
    if answers["kacheryZone"] == ".":
        answers["kacheryZone"] = "default"
    answers["maxConcurrentUploads"] = _number(
        answers["maxConcurrentUploads"], before.get("maxConcurrentUploads", _DEFAULT_UPLOADS)
    )
    content |= {key: value for key, value in answers.items() if value not in (None, "")}
    if content.get("resourceName"):
        configuration.require_name(str(content["resourceName"]))
    if content.get("proxyUrl"):
        configuration.require_relay(str(content["proxyUrl"]))
    names.zone(str(content["kacheryZone"]))
    configuration.require_uploads(content["maxConcurrentUploads"])
    if before.get("proxyUrl") != content.get("proxyUrl"):
        # another relay has another gateway, with a key of its own
        content.pop("gatewayKey", None)
    configuration.write(path, content)
    output.data(f"Wrote ./{configuration.FILE_NAME}")


def share(directory: Path) -> None:
    """Share as a directory's file says.

    Args:
        directory: Where the file is.

    Raises:
        NotConfigured: If there is no file, it lacks something, or it is for another zone than the environment's.
    """
    from . import share as sharing

    config = sharing.load(directory)
    sharing.require_zone(config, settings.zone())
    sharing.run([config])


def _ask(question: str, default: object, *, hidden: bool = False) -> str | None:
    shown = "" if default is None or hidden else f" ({default})"
    prompt = f"? {question}{shown} "
    if hidden and sys.stdin.isatty():
        answer = getpass.getpass(prompt, stream=sys.stderr)
    else:
        # what is typed into a pipe leaves no line behind
        sys.stderr.write(prompt if sys.stdin.isatty() else prompt + "\n")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        answer = line
    answer = answer.strip()
    return answer or (None if default is None else str(default))


def _number(answer: object, default: object) -> object:
    """A number as it was typed; what is none keeps the default."""
    try:
        return int(str(answer))
    except ValueError:
        return default
