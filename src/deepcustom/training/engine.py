"""Independent pieces of long work, and who does them: other processes, perhaps on other machines.

A task gets arrays and settings, and returns what it made. The driver, which asked for it, alone writes files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from deepcustom.base.progress import Advance


@dataclass(frozen=True)
class Task:
    """A piece of work that needs no other.

    Attributes:
        name: what progress calls it.
        run: a function of a module, called ``run(shared, *given, compute=..., advance=...)``: with what all
            tasks share, its own arguments, the device and precision where it runs, and how it tells its
            progress. It writes nothing.
        given: makes its own arguments, arrays and settings, when it is its turn: those of all tasks may be
            more than memory holds.
    """

    name: str
    run: Callable[..., Any]
    given: Callable[[], tuple[Any, ...]] = tuple


class Engine(Protocol):
    """Does tasks elsewhere."""

    def do(self, shared: Any, tasks: Sequence[Task], advance: Advance) -> Iterator[tuple[int, Any]]:
        """Do all ``tasks``, several at a time.

        Args:
            shared: what every task is given first; it travels once to each machine.
            tasks: in the order in which they begin.
            advance: told each task's progress, with how many are done, running and lost.

        Yields:
            A task's place among ``tasks``, and what it returned, as soon as it ends.

        Raises:
            DeepCustomError: a task raised it; or it was lost again and again.
        """


def in_order(found: Iterator[tuple[int, Any]]) -> Iterator[Any]:
    """What tasks returned, in their order: those that ended early wait."""
    waiting: dict[int, Any] = {}
    following = 0
    for place, value in found:
        waiting[place] = value
        while following in waiting:
            yield waiting.pop(following)
            following += 1
