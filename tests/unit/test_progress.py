"""Progress: seen by people who wait, and by nobody else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kachery import progress


def test_nothing_is_shown_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.bar(10**12, "large") as told:
        told.advance(10)
        told.say("busy")

    assert capfd.readouterr() == ("", "")
    assert isinstance(told, progress.Silent)


def test_a_bar_goes_to_stderr_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KACHERY_PROGRESS", "1")
    with progress.bar(100, "a file") as told:
        told.advance(60)
        told.say("uploading")
        told.advance(-20)

    out, err = capfd.readouterr()
    assert out == ""
    assert "a file" in err


def test_a_files_name_does_not_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KACHERY_PROGRESS", "1")
    with progress.bar(100, "Storing a\x1b[31m\nb\udcff Zoë") as told:
        told.advance(1)

    err = capfd.readouterr().err
    assert "Storing a?[31m?b? Zoë" in err
    assert "\x1b[31m" not in err


def test_a_bar_is_closed_when_work_fails(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("KACHERY_PROGRESS", "1")
    with pytest.raises(KeyError), progress.bar(None, "unknown size"):
        raise KeyError

    assert capfd.readouterr().out == ""


def test_who_wants_to_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert progress.wanted(None)
    assert progress.wanted(progress.WORTH_A_BAR)
    assert not progress.wanted(progress.WORTH_A_BAR - 1)
    monkeypatch.setenv("KACHERY_PROGRESS", "0")
    assert not progress.wanted(None)
    monkeypatch.setenv("KACHERY_PROGRESS", "1")
    assert progress.wanted(1)
    monkeypatch.setenv("KACHERY_PROGRESS", "nonsense")
    assert progress.wanted(None)


def test_a_process_without_stderr_shows_nothing() -> None:
    code = "import sys; sys.stderr = None\nfrom kachery import progress\nprint(progress.wanted(None))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
