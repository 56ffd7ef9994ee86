"""Follows the tasks of one piece of work: how many are done, running and lost, and which fell silent."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from deepcustom.base.errors import DeepCustomError
from deepcustom.base.progress import Advance
from deepcustom.pipeline.cluster.worker import Standing

ATTEMPTS = 4  # of one task


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
        self._heard: dict[int, float] = {}  # when a task that is under way was last heard of
        self._roomy: float | None = None  # since when no task has to wait for its turn
        self._steps: dict[int, int] = {}  # the most that a task told, in any attempt
        self._given_up: dict[int, int] = {}  # how often
        self._ended: set[int] = set()
        self._lost = 0

    def look(self, told: Mapping[int, Standing], waiting: int) -> None:
        """Pass on what is new; ``waiting``: how many tasks have not ended."""
        for place, one in told.items():
            before = self._standing.get(place)
            self._lost += one.begun - before.begun if before else 0
            self._standing[place] = one
            if place not in self._ended:  # the last news of a task may come after its result
                self._heard[place] = time.monotonic()
        for place, one in told.items():
            # A task's last step is told with its end, so that the tasks that are done count it.
            steps = one.steps if place in self._ended else one.steps - 1
            self._tell(place, one, steps, min(waiting, len(self._heard)))

    def end(self, place: int, waiting: int) -> None:
        """A task is over; ``waiting``: how many tasks have not ended."""
        self._ended.add(place)
        self._heard.pop(place, None)
        if place in self._standing:
            one = self._standing[place]
            self._tell(place, one, one.steps, min(waiting, len(self._heard)))

    def _tell(self, place: int, one: Standing, steps: int, running: int) -> None:
        """Pass on the steps of a task up to ``steps``, if they are more than in any attempt before."""
        more = steps - self._steps.get(place, 0)
        if more > 0:
            self._steps[place] = steps
            lost = f", {self._lost} lost" if self._lost else ""
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
        one = self._standing.get(place, Standing(0, "?"))
        self._given_up[place] = self._given_up.get(place, 0) + 1
        name, where = self.names[place], "" if one.node == "?" else f" on node {one.node}"
        said = f"{name} gave no sign of life{where} for {self._patience:.0f} s"
        if self._given_up[place] >= ATTEMPTS:
            raise DeepCustomError(f"{said}, after {ATTEMPTS - 1} other attempts")
        self._advance(f"{said}: it begins again", 0, resumed=True)
        del self._heard[place]
