"""The one place where the command line writes.

What a command is for goes to stdout; everything said about it goes to stderr. There are three ways to say it:

    for people     `error: …`, `hint: …`, `warning: …`; a next step after an action, only on a terminal
    --json         documents on stdout, `{"error": {"code", "message", "hint"}}` in one line on stderr; no next steps
    --quiet        as for people, without next steps, notices and progress bars

Texts from outside (file names, labels, what a server says) never reach a terminal with their control characters.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
import unicodedata
from typing import TYPE_CHECKING, Any, NoReturn

from .. import settings
from ..errors import KacheryError, explaining

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: The exit code of a command that was ended by Ctrl-C, and of one whose reader went away, as a shell would give it.
INTERRUPTED = 130
NOT_READ = 141

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_COLOURS = {"error": "31;1", "warning": "33;1", "hint": "36"}

# what shows nothing, or shows something else than what is there
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")

_as_json = False
_quiet = False


def begin(arguments: Sequence[str]) -> None:
    """Learn from a command line how its reader wants to be spoken to.

    Args:
        arguments: What follows the name of the program.
    """
    global _as_json, _quiet
    before_files = list(arguments)[: arguments.index("--")] if "--" in arguments else arguments
    _as_json, _quiet = "--json" in before_files, False
    logger = logging.getLogger("kachery")
    logger.handlers = [_Spoken()]
    logger.setLevel(logging.DEBUG if settings.debug() else logging.WARNING)
    for name in ("stdout", "stderr"):
        # closed by whoever started us (`>&-`)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 — until the program ends
    for stream in (sys.stdout, sys.stderr):
        # a path need not be text, and must not end a command
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape" if stream is sys.stdout else "backslashreplace")


def follow() -> None:
    """Tell what the library logs as it happens, each line with its time: for programs that run for days."""
    logger = logging.getLogger("kachery")
    logger.handlers = [_Followed()]
    if not settings.debug():
        logger.setLevel(logging.WARNING if _quiet else logging.INFO)


def be_quiet() -> None:
    """Say only what the command is for, and what goes wrong."""
    global _quiet
    _quiet = True
    os.environ["KACHERY_PROGRESS"] = "0"


def end(code: int) -> NoReturn:
    """End the program with an exit code."""
    try:
        sys.stdout.flush()
    except OSError:
        # that this cannot be written was said when it was tried first
        _discard()
    sys.exit(code)


# --- stdout


def data(text: str) -> None:
    """A line of what the command is for."""
    _write(text + "\n")


def lines(texts: Sequence[str]) -> None:
    """Many lines of what the command is for, all at once."""
    if texts:
        _write("\n".join(texts) + "\n")


def raw(content: bytes) -> None:
    """Bytes of what the command is for."""
    with explaining("write to", "the standard output"):
        try:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            _end_quietly()


def document(value: Any, *, indent: int = 2) -> None:
    """A JSON value."""
    _write(json.dumps(value, indent=indent) + "\n")


def documents(values: Iterable[Any]) -> None:
    """A JSON array of values that come one after the other; it is a whole one even when they end with an error."""
    separator = "["
    try:
        for value in values:
            _write(f"{separator}\n  {json.dumps(value)}")
            separator = ","
    finally:
        _write("[]\n" if separator == "[" else "\n]\n")


def fields(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values, one pair a line."""
    rows = list(pairs)
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        data(f"{name.ljust(width)}  {visible(value)}")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows under their headings."""
    cells = [list(columns), *([visible(text) for text in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    for row in cells:
        data("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _write(text: str) -> None:
    with explaining("write to", "the standard output"):
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            _end_quietly()


def _end_quietly() -> None:
    _discard()
    sys.exit(NOT_READ)


def _discard() -> None:
    # what is still in the buffer would be written, and complained about, at the very end
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- stderr


def tell(text: str) -> None:
    """What a person must know, a quiet one too."""
    _tell(visible(text))


def say(text: str) -> None:
    """A notice: what was done, or is waited for."""
    if not _quiet:
        tell(text)


def suggest(text: str) -> None:
    """What one would do next; for people at a terminal."""
    if not (_quiet or _as_json) and sys.stderr.isatty():
        _tell(f"{_coloured('hint')}: {visible(text)}")


def warn(text: str) -> None:
    """Something that a person should know, and that does not stop the command."""
    if _as_json:
        _tell(json.dumps({"warning": {"message": text}}))
    else:
        _tell(f"{_coloured('warning')}: {visible(text)}")


def fail(error: KacheryError) -> int:
    """Say what went wrong and what to do next.

    Returns:
        The exit code that tells it.
    """
    return complain(error.code, error.message, error.hint, error.exit_code)


def complain(code: str, message: str, hint: str | None, exit_code: int) -> int:
    """As `fail`, for what is no error of ours."""
    if _as_json:
        _tell(json.dumps({"error": {"code": code, "message": message, "hint": hint}}))
        return exit_code
    _tell(f"{_coloured('error')}: {visible(message)}")
    if hint:
        _tell(f"{_coloured('hint')}: {visible(hint)}")
    return exit_code


def unexpected(error: BaseException) -> int:
    """Say that something happened that should not have.

    Returns:
        The exit code that tells it.
    """
    if settings.debug():
        _tell("".join(traceback.format_exception(error)).rstrip())
        hint = "this is a mistake in kachery; please report it with what stands above"
    else:
        hint = "this is a mistake in kachery; run it again with KACHERY_DEBUG=1 to see where it is, and report that"
    text = str(error).strip()
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return complain("unexpected", f"something unexpected happened: {message}", hint, 1)


def _tell(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        # nobody listens, and there is nowhere else to say so
        pass


def _coloured(word: str) -> str:
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        return f"\x1b[{_COLOURS[word]}m{word}\x1b[0m"
    return word


class _Spoken(logging.Handler):
    """What the library logs, as the command line speaks, each thing once."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text in self._said:
            return
        self._said.add(text)
        if record.levelno >= logging.WARNING:
            warn(text)
        else:
            say(f"{record.name}: {text}")


class _Followed(logging.Handler):
    """What the library logs, one line each: time, level, text."""

    def emit(self, record: logging.LogRecord) -> None:
        moment = timestamp(record.created)
        tell(f"{moment} {record.levelname.lower()}: {record.getMessage()}")
        if record.exc_info and settings.debug():
            _tell("".join(traceback.format_exception(*record.exc_info)).rstrip())


# --- texts


def visible(text: str) -> str:
    """A text with what would move a terminal's cursor, or hide, written out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _HIDDEN else character
        for character in text
    )


def size(count: int) -> str:
    """A number of bytes for people, such as `557.3 KiB`."""
    if count < 1024:
        return f"{count} B"
    amount, unit = float(count), 0
    while amount >= 1023.95 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.1f} {_UNITS[unit]}"


def files(count: int) -> str:
    """A number of files for people."""
    return "1 file" if count == 1 else f"{count} files"


def moment(seconds: float) -> str:
    """A Unix time for people, in their own zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def timestamp(seconds: float) -> str:
    """A Unix time for programs: ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
