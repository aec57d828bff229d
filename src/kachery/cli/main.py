"""`kachery`: the command line.

What a command is for goes to stdout; everything said about it goes to stderr. Exit codes are those of `errors.py`: not
0 means that it was not done.
"""

from __future__ import annotations

import sys

import typer

from ..errors import KacheryError
from . import admin, up

app = typer.Typer(
    name="kachery",
    help="Share scientific data by the hash of its content, through a zone that you run yourself.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
)
app.command("up")(up.up)
app.add_typer(admin.app, name="admin")


def main() -> None:
    """The entry point of the `kachery` program."""
    try:
        app()
    except KacheryError as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # whoever read our output has had enough
        sys.stderr.close()
        sys.exit(141)


def fail(error: KacheryError) -> None:
    """Say what went wrong and what to do next, and end with the error's exit code."""
    typer.echo(f"error: {error.message}", err=True)
    if error.hint:
        typer.echo(f"hint: {error.hint}", err=True)
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
