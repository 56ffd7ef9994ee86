"""What long work says: lines off a terminal, a bar on one."""

from __future__ import annotations

import io
import sys

import pytest

from deepcustom.base.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_are_few_and_the_last_one_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("train@a", 3) as advance:
        for note in ("one", "two", "three"):
            advance(note)
    assert capsys.readouterr().out == "train@a: 3/3, 0 s  three\n"


def test_a_resumed_line_is_always_said_and_its_steps_count(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress("train@a", 5) as advance:
        advance("resumed after epoch 3", steps=3, resumed=True)
        assert capsys.readouterr().out == "train@a: resumed after epoch 3\n"
        advance("four")
        advance("five")
    assert capsys.readouterr().out == "train@a: 5/5, 0 s  five\n"


def test_on_a_terminal_the_bar_starts_where_the_work_does(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("train@a", 5) as advance:
        advance("resumed after epoch 3", steps=3, resumed=True)
        advance("loss 0.5")
    shown = screen.getvalue()
    assert shown.count("train@a: resumed after epoch 3") == 1
    assert "4/5" in shown
    assert "loss 0.5" in shown
    assert "1/5" not in shown
