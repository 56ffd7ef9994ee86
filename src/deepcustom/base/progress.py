"""Progress of long work: a live bar on a terminal, plain lines elsewhere, and no long silence."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

EVERY = 10.0  # seconds that may pass without a line

_under_way: list[object] = []  # only the last, the innermost, prints
_said = 0.0  # when any of them last printed a line


class Advance(Protocol):
    """Reports that ``steps`` more are done; ``note`` says how the work stands.

    With ``steps=0``, ``note`` says what is under way from now on.
    """

    def __call__(self, note: str = "", steps: int = 1, *, resumed: bool = False) -> None:
        """Advance by ``steps``; ``resumed``: an earlier run did them, if any; ``note`` stays to be read."""


def silent(note: str = "", steps: int = 1, *, resumed: bool = False) -> None:
    """An :class:`Advance` that prints nothing."""


@dataclass
class Standing:
    """How far one piece of work is, for whoever follows it from another thread.

    Attributes:
        title: of the work.
        total: its steps.
        done: steps so far, with those that an earlier run did.
        resumed: how many an earlier run did.
        note: what the last step said.
        doing: what is under way, where the work says so.
        began: seconds since 1970 when the first step of this run could begin.
        moved: seconds since 1970 of the last step.
    """

    title: str
    total: int
    done: int = 0
    resumed: int = 0
    note: str = ""
    doing: str = ""
    began: float = 0.0
    moved: float = 0.0

    def move(self, note: str, steps: int, resumed: bool) -> None:
        """Take over what :class:`Advance` was told."""
        now = time.time()
        self.done += steps
        self.doing = note if steps == 0 and not resumed else ""
        if resumed:
            self.resumed += steps
            self.began = self.began if self.done > self.resumed else now
        elif steps:
            self.note, self.moved = note or self.note, now


class Follower:
    """Follows the work of this process.

    Attributes:
        standing: of the innermost piece of work that is under way, or of the last one; None before the first.
        words: what to say beside it, in one line; empty: nothing.
        picture: the same for a terminal, which shows it below the bar.
    """

    def __init__(self) -> None:
        """Nothing is under way."""
        self.standing: Standing | None = None
        self.words = self.picture = ""


follower: Follower | None = None
"""Whoever follows the work of this process, if anybody does; set by :func:`followed_by`."""


@contextmanager
def followed_by(one: Follower) -> Iterator[None]:
    """Let ``one`` follow the work that is done meanwhile."""
    global follower
    before, follower = follower, one
    try:
        yield
    finally:
        follower = before


@contextmanager
def progress(title: str, total: int, *, every: float = EVERY) -> Iterator[Advance]:
    """Show the progress of ``total`` steps.

    Without a terminal it prints lines: at most one every ``every`` seconds as steps end, one whenever no
    line was printed for that long, and one at the end.
    """
    if sys.stderr.isatty():
        with hushed():
            with _bar(title, total) as advance, _standing(title, total, advance) as told:
                yield told
            _heard()  # the bar was seen until now, so a heartbeat has nothing to add yet
    else:
        lines = _Lines(title, total, every)
        with (
            _speaking(lines),
            ticking(lines.tick, every),
            _standing(title, total, lines.advance) as told,
        ):
            yield told


@contextmanager
def _standing(title: str, total: int, advance: Advance) -> Iterator[Advance]:
    """``advance``, which also tells whoever follows this process; as it is where nobody does."""
    one = follower
    if one is None:
        yield advance
        return
    standing = Standing(title, total, began=time.time())

    def told(note: str = "", steps: int = 1, *, resumed: bool = False) -> None:
        standing.move(note, steps, resumed)
        advance(note, steps, resumed=resumed)

    before, one.standing = one.standing, standing
    try:
        yield told
    finally:
        one.standing = before or standing


@contextmanager
def heartbeat(title: str, *, every: float = EVERY) -> Iterator[None]:
    """Print to stderr that ``title`` is at work, whenever nothing was printed for ``every`` seconds."""
    start = time.monotonic()
    beat = object()

    def tick() -> None:
        now = time.monotonic()
        if _under_way[-1:] == [beat] and now - _said >= every:
            _say(f"{title}: at work for {now - start:.0f} s", error=True)

    with _speaking(beat), ticking(tick, every):
        yield


@contextmanager
def hushed() -> Iterator[None]:
    """Print no progress meanwhile, since another program prints or waits for the user."""
    with _speaking(object()):
        yield


@contextmanager
def _speaking(one: object) -> Iterator[None]:
    """Let ``one`` print, and nothing that began earlier."""
    global _said
    if not _under_way:
        _said = time.monotonic()
    _under_way.append(one)
    try:
        yield
    finally:
        _leave(one)


def _leave(one: object) -> None:
    if one in _under_way:
        _under_way.remove(one)


@contextmanager
def ticking(tick: Callable[[], None], every: float) -> Iterator[None]:
    """Call ``tick`` from a thread, again and again until the context ends."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(min(every / 5, 1.0)):
            tick()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _heard() -> None:
    """Note that the user has just seen something."""
    global _said
    _said = time.monotonic()


def _say(line: str, *, error: bool = False) -> None:
    _heard()
    # One write for text and line end, since threads print too; print() alone would make two.
    print(f"{line.rstrip()}\n", end="", flush=True, file=sys.stderr if error else sys.stdout)


@contextmanager
def _bar(title: str, total: int) -> Iterator[Advance]:
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining
    from rich.text import Text

    class Bar(Progress):
        """A bar, with what the follower of this process says below it."""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            if follower and follower.picture:
                yield Text(follower.picture, style="dim", overflow="ellipsis", no_wrap=True)

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *([] if follower else [Remaining()]),  # a follower knows more of the time left
        TextColumn("{task.fields[note]}"),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, note="")

        def advance(note: str = "", steps: int = 1, *, resumed: bool = False) -> None:
            if resumed:
                bar.console.print(f"{title}: {note}", highlight=False, markup=False)
                done = int(bar.tasks[task].completed) + steps
                bar.reset(task, completed=done)  # estimate the time left from new steps alone
            else:
                bar.update(task, advance=steps, note=note)

        yield advance


class _Lines:
    """Prints the progress of one piece of work where there is no terminal."""

    def __init__(self, title: str, total: int, every: float) -> None:
        self._title, self._total, self._every = title, total, every
        self._start = self._last = self._since = time.monotonic()
        self._done, self._doing = 0, ""
        self._unsaid = ""  # what a step said of itself since the last line
        self._lock = threading.Lock()

    def advance(self, note: str = "", steps: int = 1, *, resumed: bool = False) -> None:
        """As :class:`Advance`."""
        with self._lock:
            now = time.monotonic()
            self._done += steps
            doing = note if steps == 0 else ""
            if steps or doing != self._doing:
                self._since, self._doing, self._unsaid = now, doing, note if steps else ""
            if resumed:
                _say(f"{self._title}: {note}")
            elif self._done >= self._total:
                if steps:
                    self._tell(now, note)
                _leave(self)  # a heartbeat may report what this context still does
            elif now - self._last >= self._every:
                self._last = now
                self._tell(now, note)

    def tick(self) -> None:
        """If no line was printed for ``every`` seconds, print what the last step said, if that is new.

        Else print what is under way, and for how long.
        """
        with self._lock:
            now = time.monotonic()
            if _under_way[-1:] == [self] and now - _said >= self._every:
                self._last = now
                waiting = f"{self._doing or 'at work'}, for {now - self._since:.0f} s so far"
                self._tell(now, self._unsaid or waiting)

    def _tell(self, now: float, note: str) -> None:
        self._unsaid, unended = "", self._done < self._total
        beside = f"  [{follower.words}]" if follower and follower.words and unended else ""
        _say(
            f"{self._title}: {self._done}/{self._total}, {now - self._start:.0f} s  {note}{beside}"
        )
