"""`kachery`: the command line.

What a command is for goes to stdout; everything said about it goes to stderr (`output.py`). Exit codes are those of
`errors.py`: not 0 means that it was not done.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from .._version import __version__
from ..errors import InvalidInput, KacheryError, from_os_error
from . import admin, importing, keeping, loading, output, programs, relay, share, storing, up, zones

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

EPILOGUE = """\b
First steps:
  kachery init --gateway URL     make this machine a client of your lab's zone
  kachery store FILE             store a file, get its URI
  kachery load URI               have it on another machine, get its path

Without a gateway `kachery store --local`, `kachery link` and `kachery load` work on this machine alone; `kachery up`
starts a gateway of your own.

\b
Exit codes:
  0  done                                6  content is damaged or changed
  2  wrong input                         7  no room, or too large
  3  not found                           8  not supported
  4  not reachable, or no answer         9  not set up
  5  not allowed, or not registered     10  in conflict with somebody else
  1  anything else
"""

app = typer.Typer(
    name="kachery",
    epilog=EPILOGUE,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        output.data(f"kachery {__version__}")
        raise typer.Exit


@app.callback()
def kachery(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notices, hints and progress bars.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Share scientific data by the hash of its content, through a zone that you run yourself."""
    if quiet:
        output.be_quiet()


app.command("init", epilog=zones.INIT_EXAMPLES)(zones.init)
app.command("store", epilog=storing.STORE_EXAMPLES)(storing.store)
app.command("link", epilog=storing.LINK_EXAMPLES)(storing.link)
app.command("load", epilog=loading.LOAD_EXAMPLES)(loading.load)
app.command("cat", epilog=loading.CAT_EXAMPLES)(loading.cat)
app.command("info")(loading.info)
app.command("status")(zones.status)
app.command("ls")(keeping.ls)
app.command("du")(keeping.du)
app.command("verify")(keeping.verify)
app.command("clean")(keeping.clean)
app.command("import-from", epilog=importing.IMPORT_EXAMPLES)(importing.import_from)
app.command("delete", epilog=zones.DELETE_EXAMPLES)(zones.delete)
app.command("share", epilog=share.SHARE_EXAMPLES)(share.share)
app.command("up")(up.up)
app.command("relay")(relay.relay)
app.add_typer(admin.app, name="admin")
# as in kachery 2.x
app.command("store-file", hidden=True)(programs.store)
app.command("store-file-local", hidden=True)(programs.store_local)
app.command("load-file", hidden=True)(programs.load)
app.command("load-file-info", hidden=True)(programs.load_info)
app.command("cat-file", hidden=True)(programs.cat)


def main() -> None:
    """The entry point of the `kachery` program."""
    start(app, "kachery")


def start(program: typer.Typer, name: str) -> NoReturn:
    """Be a program: do what its command line says, and end."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # what `nohup` ignores stays ignored
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _ended)
    output.end(run(sys.argv[1:], program, name))


def _ended(number: int, frame: FrameType | None) -> None:
    # with an exception, so that what is unfinished is cleaned up; the code is the one a shell would give
    sys.exit(128 + number)


def run(arguments: Sequence[str], program: typer.Typer = app, name: str = "kachery") -> int:
    """Do what a command line says.

    Args:
        arguments: What follows the name of the program.
        program: The program.
        name: Its name.

    Returns:
        The exit code.
    """
    output.begin(arguments)
    try:
        # without its own way of ending, which knows neither our exit codes nor our way to speak
        code = program(args=list(arguments), prog_name=name, standalone_mode=False)
    except KacheryError as error:
        return output.fail(error)
    except (KeyboardInterrupt, typer.Abort):
        return output.INTERRUPTED
    except Exception as error:
        if hasattr(error, "format_message"):
            return _misuse(error)
        if isinstance(error, OSError) and error.errno:
            return output.fail(from_os_error(error, "use", error.filename or "the standard output"))
        return output.unexpected(error)
    return code if isinstance(code, int) else 0


def _misuse(error: Exception) -> int:
    """Say what is wrong with a command line. The library's class for this moved between its versions."""
    message = str(error.format_message())  # type: ignore[attr-defined]
    if message.startswith("Usage:"):
        # the help of a group of commands without a command
        sys.stderr.write(message + "\n")
        return InvalidInput.exit_code
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "kachery"
    text = message.strip().removesuffix(".")
    return output.complain(
        "usage", text[:1].lower() + text[1:], f"`{command} --help` explains it", InvalidInput.exit_code
    )


if __name__ == "__main__":
    main()
