"""What runs in a project at one moment, for people and for programs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from deepcustom.pipeline.watch.beacon import Place, place_of
from deepcustom.pipeline.watch.curve import Curve, curves
from deepcustom.pipeline.watch.left import After, Earlier, Left, Records, after, left, newest
from deepcustom.pipeline.watch.memory import free_and_whole
from deepcustom.pipeline.watch.pipelines import pipelines
from deepcustom.pipeline.watch.plan import Plan, plan
from deepcustom.pipeline.watch.quantities import size, span
from deepcustom.pipeline.watch.sparkline import BLOCKS
from deepcustom.pipeline.watch.state import Process, State, states
from deepcustom.tracking.curves import Curves

WORKSPACES = "workspaces"


@dataclass(frozen=True)
class Running:
    """One stage that runs.

    Attributes:
        state: what its process says.
        place: where it stands in its ``dvc repro``.
        left: what is left of it.
        after: what comes after it.
        curves: of its training, so far.
    """

    state: State
    place: Place | None
    left: Left | None
    after: After | None
    curves: list[Curve]

    def lines(self, now: float, levels: str) -> Iterator[str]:
        """For people."""
        one = self.state
        place = f", {self.place.line()}" if self.place else ""
        yield f"{one.stage}{place}, runs for {span(now - one.began)}"
        if one.total:
            resumed = f", {one.resumed} of them before" if one.resumed else ""
            yield f"  {one.done} of {one.total} done{resumed}  {one.note}".rstrip()
            if one.doing:
                yield f"  now: {one.doing}, for {span(now - max(one.moved, one.steps_began))}"
        times = [self.left.line() if self.left else "", self.after.line() if self.after else ""]
        if any(times):
            yield f"  {'; '.join(filter(None, times))}"
        yield f"  memory: {size(one.memory)} held, {_free()}"
        for curve in self.curves:
            yield f"  {curve.line(levels)}"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        one, rest, later = self.state, self.left, self.after
        return {
            **one.model_dump(exclude={"ended", "machine", "starter", "process"}),
            "pid": one.process.pid,
            "number": self.place.number if self.place else None,
            "of": self.place.of if self.place else None,
            "left_seconds": rest.seconds if rest else None,
            "left_why": rest.why if rest else None,
            "after": vars(later) if later else None,
            "curves": {curve.name: list(curve.values) for curve in self.curves},
        }


@dataclass(frozen=True)
class Look:
    """What a project does at one moment.

    Attributes:
        folder: the project.
        now: seconds since 1970.
        running: its stages that run.
        between: whether DVC is at work there, and no stage runs.
        last: the stage that ran last, if its end is known.
        recorded: otherwise, the newest record.
        elsewhere: the profiles in whose workspaces stages run.
    """

    folder: Path
    now: float
    running: list[Running]
    between: bool
    last: State | None
    recorded: tuple[str, Earlier] | None
    elsewhere: list[str]

    @property
    def at_work(self) -> bool:
        """Whether a pipeline, or a stage, runs."""
        return bool(self.running) or self.between

    def lines(self, levels: str = BLOCKS) -> list[str]:
        """For people."""
        found = [line for one in self.running for line in one.lines(self.now, levels)]
        if not self.running:
            if self.between:
                found = ["DVC is at work, and no stage runs at this moment"]
            else:
                found = [f"nothing runs in {self.folder}"]
            found += [f"last: {self.how_it_ended()}"]
        for profile in self.elsewhere:
            found.append(f"the profile {profile} runs: `deepcustom watch --profile {profile}`")
        return found

    def how_it_ended(self) -> str:
        """What ran last, when it ended, and how."""
        if self.last and self.last.ended:
            end = self.last.ended
            why = f": {end.why}" if end.why else ""
            word = f"was {end.how}" if end.how in ("killed", "interrupted") else end.how
            return f"{self.last.stage} {word} at {_moment(end.at)}{why}"
        if self.recorded:
            name, one = self.recorded
            began = _moment(datetime.fromisoformat(one.started).timestamp())
            return f"{name} began at {began}, by its record"
        return "nothing ran here yet"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        last, recorded = self.last, self.recorded
        free, whole = free_and_whole()
        return {
            "folder": str(self.folder),
            "now": self.now,
            "at_work": self.at_work,
            "running": [one.as_json() for one in self.running],
            "last": {"stage": last.stage, **last.ended.model_dump()}
            if last and last.ended
            else None,
            "recorded": {"stage": recorded[0], "started": recorded[1].started}
            if recorded
            else None,
            "memory_free": free,
            "memory_whole": whole,
            "elsewhere": self.elsewhere,
        }


@dataclass
class Watcher:
    """Looks at a project again and again.

    Attributes:
        root: its folder.
        seen: the ``dvc repro`` that was seen last.
    """

    root: Path
    seen: Process | None = None
    _curves: dict[tuple[int, float], Curves] = field(default_factory=dict, init=False)
    _plans: dict[tuple[str, ...], Plan | None] = field(default_factory=dict, init=False)
    _records: dict[Path, Records] = field(default_factory=dict, init=False)

    def look(self) -> Look:
        """What it does now."""
        now, found = time.time(), states(self.root)
        running = [self._running(one, now) for one in found if one.ended is None]
        ended = [one for one in found if one.ended is not None]
        records = {} if running else self._records_of(self.root).all()
        if running and running[-1].state.starter:
            self.seen = running[-1].state.starter
        return Look(
            folder=self.root,
            now=now,
            running=running,
            between=not running and self._between(),
            last=max(ended, key=lambda one: one.ended.at if one.ended else 0.0, default=None),
            recorded=newest(records),
            elsewhere=self._elsewhere(),
        )

    def _between(self) -> bool:
        """Whether DVC is between two stages, or has not come to the first."""
        if self.seen and self.seen.lives():
            return True
        self.seen = next(iter(pipelines(self.root)), None)
        return self.seen is not None

    def _running(self, state: State, now: float) -> Running:
        folder = Path(state.folder)
        records = self._records_of(folder).all()
        known = self._plan_of(folder, state.starter) if state.starter else None
        process = (state.process.pid, state.process.created)
        seen = self._curves.setdefault(process, Curves(Path(state.checkpoint), state.began))
        seen.new()
        return Running(
            state,
            place_of(state.stage, known),
            left(state, records.get(state.stage), now),
            after(known, state, records) if known else None,
            curves(seen.whole),
        )

    def _records_of(self, folder: Path) -> Records:
        return self._records.setdefault(folder, Records(folder / "reports/runs"))

    def _plan_of(self, folder: Path, starter: Process) -> Plan | None:
        key = (str(folder), str(starter.pid), str(starter.created))
        if key not in self._plans:
            self._plans[key] = plan(folder, starter.words)
        return self._plans[key]

    def _elsewhere(self) -> list[str]:
        return [
            folder.name
            for folder in sorted((self.root / WORKSPACES).glob("*"))
            if any(one.ended is None for one in states(folder))
        ]


def _free() -> str:
    free, whole = free_and_whole()
    return f"{size(free)} of {size(whole)} free"


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M}"
