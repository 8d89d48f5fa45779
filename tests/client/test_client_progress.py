"""Progress on a terminal."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from typing import Any

import pytest

from tav_client._progress import duration, read_video, watching_job, watching_video


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    return Terminal()


def test_a_bar_shows_phase_step_loss_and_remaining_time(service: Any, terminal: Terminal) -> None:
    with redirect_stderr(terminal), watching_job(True) as show:
        show(service.job("running", phase="tuning", step=61, total_steps=150, progress=0.3, loss=0.1434, eta_seconds=52))
    for part in ("tuning", "30%", "61/150", "loss 0.1434", "about 52 s left"):
        assert part in terminal.getvalue()


def test_a_prompt_is_shown_as_it_is(service: Any, terminal: Terminal) -> None:
    with redirect_stderr(terminal), watching_video(True) as show:
        show(service.video("in_progress", progress=40, prompt="a [red]ball[/red]"))
    assert "a [red]ball[/red]" in terminal.getvalue()
    assert read_video(service.video("in_progress", progress=40)).line() == " 40%  in progress  a blue ball"


def test_nothing_is_shown_unasked(service: Any, terminal: Terminal) -> None:
    with redirect_stderr(terminal), watching_job(False) as show:
        show(service.job("running"))
    assert terminal.getvalue() == ""


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (5400, "1 h 30 min")])
def test_durations_are_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text
