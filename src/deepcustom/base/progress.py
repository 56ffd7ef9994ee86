"""Progress of long work: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Says that ``steps`` more are done, and in words how it stands."""

    def __call__(self, note: str = "", steps: int = 1, *, resumed: bool = False) -> None:
        """Advance by ``steps``; ``resumed``: an earlier run did them, which ``note`` says for good."""


def silent(note: str = "", steps: int = 1, *, resumed: bool = False) -> None:
    """An :class:`Advance` that says nothing."""


@contextmanager
def progress(title: str, total: int, *, every: float = 10.0) -> Iterator[Advance]:
    """Show the progress of ``total`` steps.

    Off a terminal it prints a line at most every ``every`` seconds, and one at the end.
    """
    if sys.stderr.isatty():
        with _bar(title, total) as advance:
            yield advance
    else:
        yield _lines(title, total, every)


@contextmanager
def _bar(title: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        Remaining(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, note="")

        def advance(note: str = "", steps: int = 1, *, resumed: bool = False) -> None:
            if resumed:
                bar.console.print(f"{title}: {note}", highlight=False, markup=False)
                bar.reset(
                    task, completed=steps
                )  # the time that is left follows from new steps alone
            else:
                bar.update(task, advance=steps, note=note)

        yield advance


def _lines(title: str, total: int, every: float) -> Advance:
    start = last = time.monotonic()
    done = 0

    def advance(note: str = "", steps: int = 1, *, resumed: bool = False) -> None:
        nonlocal done, last
        done += steps
        if resumed:
            print(f"{title}: {note}", flush=True)
            return
        now = time.monotonic()
        if now - last >= every or done >= total:
            last = now
            print(f"{title}: {done}/{total}, {now - start:.0f} s  {note}".rstrip(), flush=True)

    return advance
