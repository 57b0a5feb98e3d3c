"""Progress for people and for logs."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from inspection import progress
from inspection.progress import Meter, track


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal that is a string."""
    text = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=text, force_terminal=True, width=100))
    return text


def test_items_come_through_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(iter("abc"), "reading", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().out == "", "stdout carries results only"


def test_a_terminal_shows_a_bar_with_count_and_note(screen: io.StringIO) -> None:
    with Meter("training", 10, done=4) as meter:
        meter.step(5, note="loss 0.25")
        meter.step()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "training" in shown
    assert "10/10" in shown
    assert "loss 0.25" in shown


def test_a_log_gets_a_line_now_and_then_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with Meter("training", 100, done=50) as meter:
        for _ in range(25):
            now += 1
            meter.step(note="loss 1")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["training: 60/100, 40 s left, loss 1", "training: 70/100, 30 s left, loss 1"]


def test_an_exception_leaves_the_terminal_usable(screen: io.StringIO) -> None:
    with pytest.raises(ZeroDivisionError):
        list(track((1 // n for n in (1, 0)), "training", 2))
    assert screen.getvalue().endswith("\x1b[?25h"), "the cursor is shown again"
