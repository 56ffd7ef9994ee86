"""Follows the tasks of one piece of work: how many are done, running and lost, and which fell silent."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import NamedTuple

from deepcustom.base.errors import DeepCustomError
from deepcustom.base.progress import Advance

ATTEMPTS = 4  # of one task


class Standing(NamedTuple):
    """How an attempt at a task stands.

    Attributes:
        attempt: a name of its own.
        node: where it runs.
        steps: how many it has made.
        note: what it said last.
    """

    attempt: str
    node: str
    steps: int = 0
    note: str = ""


class Watch:
    """Follows the tasks of one piece of work, and tells how it stands.

    Attributes:
        names: place of a task → what it is called.
    """

    def __init__(self, count: int, advance: Advance, patience: float) -> None:
        """Follow ``count`` tasks, and take one for lost that is silent for ``patience`` seconds."""
        self.names: dict[int, str] = {}
        self._count, self._advance, self._patience = count, advance, patience
        self._standing: dict[int, Standing] = {}
        self._attempts: dict[int, set[str]] = {}  # those that were heard of
        self._heard: dict[int, float] = {}  # when a task that is under way was last heard of
        self._roomy: float | None = None  # since when no task has to wait for its turn
        self._seen: dict[int, int] = {}  # the most steps that a task told, in any attempt
        self._steps: dict[int, int] = {}  # how many of them were passed on
        self._given_up: dict[int, int] = {}  # how often
        self._ended: set[int] = set()

    def look(self, told: Mapping[int, Standing], waiting: int) -> None:
        """Pass on what is new; ``waiting``: how many tasks have not ended."""
        # The last news of a task may come after its result.
        new = {place: one for place, one in told.items() if place not in self._ended}
        for place, one in new.items():
            self._see(place, one)
            self._heard[place] = time.monotonic()
        for place, one in new.items():
            # A task's last step is told with its end, so that the tasks that are done count it.
            self._tell(place, one, self._seen[place] - 1, waiting)

    def end(self, place: int, one: Standing, waiting: int) -> None:
        """A task is over, and stood so at last; ``waiting``: how many tasks have not ended."""
        self._ended.add(place)
        self._heard.pop(place, None)
        self._see(place, one)
        self._tell(place, one, self._seen[place], waiting)

    def _see(self, place: int, one: Standing) -> None:
        self._attempts.setdefault(place, set()).add(one.attempt)
        self._standing[place] = one
        self._seen[place] = max(self._seen.get(place, 0), one.steps)

    def _tell(self, place: int, one: Standing, steps: int, waiting: int) -> None:
        """Pass on the steps of a task up to ``steps``, if they are more than in any attempt before."""
        more = steps - self._steps.get(place, 0)
        if more > 0:
            self._steps[place] = steps
            running = min(waiting, len(self._heard))
            again = sum(len(attempts) - 1 for attempts in self._attempts.values())
            lost = f", {again} lost" if again else ""
            how = f"{len(self._ended)} of {self._count} tasks done, {running} running{lost}"
            self._advance(f"{one.note}  ({how})", more)

    def idle(self, room: bool, waiting: Collection[int]) -> None:
        """Take the tasks ``waiting`` for begun, if there has been ``room`` for them for some time."""
        now = time.monotonic()
        self._roomy = (self._roomy or now) if room else None
        if self._roomy and now - self._roomy > self._patience:
            for place in waiting:
                self._heard.setdefault(place, now)

    def silent(self) -> list[int]:
        """The tasks under way that gave no sign of life for too long."""
        now = time.monotonic()
        return [place for place, at in self._heard.items() if now - at > self._patience]

    def lose(self, place: int) -> None:
        """A task is given up, and will be begun again.

        Raises:
            DeepCustomError: it was, too often.
        """
        one = self._standing.get(place, Standing("", "?"))
        self._given_up[place] = self._given_up.get(place, 0) + 1
        name, where = self.names[place], "" if one.node == "?" else f" on node {one.node}"
        said = f"{name} gave no sign of life{where} for {self._patience:.0f} s"
        if self._given_up[place] >= ATTEMPTS:
            raise DeepCustomError(f"{said}, after {ATTEMPTS - 1} other attempts")
        self._advance(f"{said}: it begins again", 0, resumed=True)
        del self._heard[place]
