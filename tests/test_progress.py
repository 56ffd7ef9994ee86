"""What long work says: lines off a terminal, a bar on one."""

from __future__ import annotations

import io
import sys
import threading
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest

from deepcustom.base import progress as module
from deepcustom.base.progress import heartbeat, hushed, progress


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


class Clock:
    """Stands in for the clock, and for the threads, which then do not tick by themselves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.ticks: list[object] = []
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))

        class Unstarted(threading.Thread):
            def start(self) -> None:
                """Not: the test ticks."""

            def join(self, timeout: float | None = None) -> None:
                """It never ran."""

        def ticking(tick, every):
            self.ticks.append(tick)
            return real(tick, every)

        real = module.ticking
        monkeypatch.setattr(module, "ticking", ticking)
        monkeypatch.setattr(
            module,
            "threading",
            SimpleNamespace(Thread=Unstarted, Event=threading.Event, Lock=threading.Lock),
        )

    def wait(self, seconds: float) -> None:
        """Let time pass; the threads tick once a second."""
        for _ in range(int(seconds)):
            self.now += 1
            for tick in self.ticks:
                tick()  # type: ignore[operator]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_step_that_takes_long_is_named_every_ten_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("evaluate@a", 3) as advance:
        advance("target: pgd leaves 0.0 %")
        advance("target: apgd-t", steps=0)
        clock.wait(25)
        advance("target: apgd-t", steps=0)  # the same goes on: a restart
        clock.wait(5)
        assert capsys.readouterr().out.splitlines() == [
            "evaluate@a: 1/3, 10 s  target: apgd-t, for 10 s so far",
            "evaluate@a: 1/3, 20 s  target: apgd-t, for 20 s so far",
            "evaluate@a: 1/3, 30 s  target: apgd-t, for 30 s so far",
        ]
        advance("target: apgd-t leaves 0.0 %")
        clock.wait(10)
        assert capsys.readouterr().out == "evaluate@a: 2/3, 40 s  target: apgd-t leaves 0.0 %\n"


def test_what_a_step_said_is_said_once(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("train@a", 4) as advance:
        clock.wait(6)
        advance("loss 1.0")
        advance("loss 0.9")
        clock.wait(25)
        assert capsys.readouterr().out.splitlines() == [
            "train@a: 2/4, 10 s  loss 0.9",
            "train@a: 2/4, 20 s  at work, for 14 s so far",
            "train@a: 2/4, 30 s  at work, for 24 s so far",
        ]


def test_nothing_is_said_where_lines_come_anyway_nor_after_the_last_one(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("train@a", 4) as advance:
        for epoch in range(4):
            clock.wait(6)
            advance(f"epoch {epoch}")
        clock.wait(60)
        advance("saving", steps=0)
    clock.wait(60)
    assert capsys.readouterr().out.splitlines() == [
        "train@a: 1/4, 10 s  epoch 0",
        "train@a: 3/4, 20 s  epoch 2",
        "train@a: 4/4, 24 s  epoch 3",
    ]


def test_after_the_last_step_it_is_the_heartbeat_that_speaks(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with heartbeat("deepcustom generate"), progress("generate@a", 1) as advance:
        advance()
        clock.wait(10)
    said = capsys.readouterr()
    assert said.out == "generate@a: 1/1, 0 s\n"
    assert said.err == "deepcustom generate: at work for 10 s\n"


def test_a_heartbeat_speaks_where_nothing_else_does(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with heartbeat("deepcustom report"):
        clock.wait(12)
        with progress("evaluate@a", 2) as advance:
            clock.wait(8)
            advance("one")
            clock.wait(11)
        with hushed():
            clock.wait(60)
        clock.wait(10)
    clock.wait(60)
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "deepcustom report: at work for 10 s",
        "deepcustom report: at work for 92 s",
    ]
    assert said.out.splitlines() == [
        "evaluate@a: 0/2, 8 s  at work, for 8 s so far",
        "evaluate@a: 1/2, 18 s  one",
    ]


def test_no_silence_is_longer_than_asked_however_contexts_follow_each_other(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = [clock.now]

    def listen() -> None:
        told = capsys.readouterr()
        if told.out or told.err:
            heard.append(clock.now)

    with heartbeat("deepcustom evaluate"):
        clock.ticks.append(listen)
        for _ in range(5):
            clock.wait(9)
            with progress("a", 2):
                clock.wait(9)
    assert len(heard) > 8
    assert max(b - a for a, b in pairwise(heard)) <= 11


def test_the_thread_ticks_by_itself_and_ends_with_the_context(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = threading.active_count()
    with progress("train@a", 2, every=0.05) as advance:
        advance("a note", steps=0)
        time.sleep(0.5)
    lines = capsys.readouterr().out.splitlines()
    assert 3 <= len(lines) <= 10
    assert all(line.startswith("train@a: 0/2, ") and "a note, for " in line for line in lines)
    assert threading.active_count() == before
    time.sleep(0.2)
    assert capsys.readouterr().out == ""


def test_the_thread_ends_where_the_work_fails(capsys: pytest.CaptureFixture[str]) -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="fails"), progress("train@a", 2, every=0.05):
        raise ValueError("fails")
    assert threading.active_count() == before
    assert module._under_way == []


def test_on_a_terminal_the_bar_speaks_and_its_clock_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with heartbeat("deepcustom train", every=0.05), progress("train@a", 5, every=0.05) as advance:
        advance("epoch 2", steps=0)
        time.sleep(2.3)
    shown = screen.getvalue()
    assert "at work" not in shown
    assert "epoch 2" in shown
    assert {"0:00:00", "0:00:01", "0:00:02"} <= {shown[i : i + 7] for i in range(len(shown))}


def test_what_is_resumed_later_adds_to_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("evaluate@a", 9) as advance:
        advance("one attack")
        advance("the first was finished before", steps=3, resumed=True)
        advance("the second was finished before", steps=4, resumed=True)
    assert "8/9" in screen.getvalue()
