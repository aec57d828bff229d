from __future__ import annotations

import io
import json
import logging
import sys
from typing import TYPE_CHECKING

import pytest

from kachery import errors
from kachery.cli import keeping, output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard error becomes a terminal; to be called in the test itself, as pytest has its own between its phases."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return stream


def test_nothing_moves_a_terminals_cursor_or_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    output.begin([])
    output.fail(errors.NotFound("no such file: \x1b[2J\x9b\nerror\u202ecod.exe", hint="\x07"))
    text = terminal.getvalue().replace("\x1b[31;1merror\x1b[0m", "").replace("\x1b[36mhint\x1b[0m", "")
    assert text == ": no such file: \\x1b[2J\\x9b\\nerror\\u202ecod.exe\n: \\x07\n"


def test_names_in_other_scripts_stay_readable() -> None:
    assert output.visible("Zoë’s 記録 é.nwb") == "Zoë’s 記録 é.nwb"


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_can_be_done_without(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    terminal = a_terminal(monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    output.begin([])
    output.fail(errors.InvalidInput("no"))
    assert terminal.getvalue() == "error: no\n"


def test_next_steps_are_for_people_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    output.begin([])
    output.suggest("go on")
    assert "go on" in terminal.getvalue()
    output.begin(["ls", "--json"])
    output.suggest("not for programs")
    output.begin([])
    monkeypatch.setenv("KACHERY_PROGRESS", "auto")
    output.be_quiet()
    output.suggest("not for the quiet")
    output.say("nor this")
    output.tell("but this")
    assert "nor this" not in terminal.getvalue()
    assert "not for" not in terminal.getvalue()
    assert "but this" in terminal.getvalue()
    output.begin([])
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    output.suggest("not for a file")
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "as_json"),
    [(["ls", "--json"], True), (["store", "--", "--json"], False), (["ls"], False)],
)
def test_errors_are_json_when_that_was_asked_for(
    capfd: pytest.CaptureFixture[str], arguments: list[str], as_json: bool
) -> None:
    output.begin(arguments)
    code = output.fail(errors.NotRegistered("who are you", hint="say so"))
    text = capfd.readouterr().err
    output.begin([])
    assert code == 5
    if as_json:
        expected = {"error": {"code": "not_registered", "message": "who are you", "hint": "say so"}}
        assert json.loads(text) == expected
        assert text.count("\n") == 1
    else:
        assert text == "error: who are you\nhint: say so\n"


def test_an_array_is_a_whole_one_even_when_it_ends_with_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def two() -> Iterator[int]:
        yield 1
        yield 2
        raise errors.NotFound("no third")

    with pytest.raises(errors.NotFound):
        output.documents(two())
    assert json.loads(capfd.readouterr().out) == [1, 2]
    output.documents([])
    assert json.loads(capfd.readouterr().out) == []


def test_a_warning_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    output.begin([])
    for _ in range(3):
        logging.getLogger("kachery.store").warning("the file %s is damaged", "x\x1b")
    logging.getLogger("kachery.store").info("not of interest")
    assert capfd.readouterr().err == "warning: the file x\\x1b is damaged\n"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (570_686, "557.3 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (2**41, "2.0 TiB"),
    ],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert output.size(count) == text


def test_what_should_not_happen_is_one_line_and_how_to_see_more(
    kachery: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fall_over(*_: object) -> None:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(keeping, "_uri", fall_over)
    assert kachery("store", "--local", __file__).code == 0  # type: ignore[attr-defined]
    short = kachery("ls")
    assert short.code == 1  # type: ignore[attr-defined]
    assert short.err.startswith("error: something unexpected happened: ZeroDivisionError: by nought\nhint: ")  # type: ignore[attr-defined]
    assert "KACHERY_DEBUG=1" in short.err  # type: ignore[attr-defined]
    assert "Traceback" not in short.err  # type: ignore[attr-defined]
    monkeypatch.setenv("KACHERY_DEBUG", "1")
    long = kachery("ls", "--json")
    assert "Traceback" in long.err  # type: ignore[attr-defined]
    assert long.error["code"] == "unexpected"  # type: ignore[attr-defined]
