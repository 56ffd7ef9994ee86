"""How long work will still take, by its own pace or by the records of earlier runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepcustom.pipeline.watch.plan import Plan
from deepcustom.pipeline.watch.quantities import counted, span
from deepcustom.pipeline.watch.state import State
from deepcustom.tracking.record import RUN_FILE

UNEVEN = "evaluate"
"""The stage whose steps take times that differ by orders of magnitude, so that its pace tells nothing."""


@dataclass(frozen=True)
class Earlier:
    """What the record of an earlier run says.

    Attributes:
        seconds: how long it took; parts that were taken over from a run before it count in full.
        day: when, as ``2026-11-20``.
        steps: of progress that it had; None where the record does not tell.
        repro: which ``dvc repro`` ran it.
        started: when, as the record has it.
    """

    seconds: float
    day: str
    steps: int | None = None
    repro: str | None = None
    started: str = ""


@dataclass(frozen=True)
class Left:
    """What is left of one stage.

    Attributes:
        seconds: about; None if it takes longer than the record says.
        why: what that follows from.
    """

    seconds: float | None
    why: str

    def line(self) -> str:
        """For people."""
        if self.seconds is None:
            return self.why
        return f"about {span(self.seconds)} left {self.why}"


@dataclass(frozen=True)
class After:
    """What comes after the stage that runs.

    Attributes:
        stages: how many.
        seconds: what those took that records tell of.
        unknown: how many no record tells of.
        ordered: False if some may come before it: the order is not known.
    """

    stages: int
    seconds: float
    unknown: int
    ordered: bool = True

    def line(self) -> str:
        """For people; empty if nothing comes."""
        if not self.stages:
            return ""
        stages = counted(self.stages, "stage" if self.ordered else "other stage")
        whole = f"{stages} after it" if self.ordered else stages
        if self.unknown == self.stages:
            return f"{whole}, of which no record tells"
        more = f", {self.unknown} not counted" if self.unknown else ""
        return f"{whole}: at most {span(self.seconds)} by earlier records{more}"


@dataclass
class Records:
    """The records of runs in a project, each read when it is new.

    Attributes:
        folder: where they lie.
    """

    folder: Path
    _read: dict[Path, tuple[int, str, Earlier]] = field(default_factory=dict, init=False)

    def all(self) -> dict[str, Earlier]:
        """Stage → its record; a record that cannot be read is passed over."""
        found = {}
        for path in sorted(self.folder.rglob(RUN_FILE)):
            try:
                stamp = path.stat().st_mtime_ns
                known = self._read.get(path)
                if known is None or known[0] != stamp:
                    known = self._read[path] = (stamp, *_earlier(path))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
            found[known[1]] = known[2]
        return found


def left(state: State, earlier: Earlier | None, now: float) -> Left | None:
    """What is left of a stage at the moment ``now``; None where nothing tells.

    Trainings, and sets of images, have steps that take alike: from the first step on, their own pace tells.
    """
    own = state.done - state.resumed
    if state.total and state.done >= state.total:
        return None
    if own and state.moved > state.steps_began and not state.stage.startswith(f"{UNEVEN}@"):
        pace = (state.moved - state.steps_began) / own
        rest = pace * (state.total - state.done) - (now - state.moved)
        return Left(max(0.0, rest), "at this pace")
    if earlier is None:
        return None
    scale = state.total / earlier.steps if state.total and earlier.steps else 1.0
    whole = earlier.seconds * scale
    share = state.done / state.total if state.total else 0.0
    rest = whole * (1.0 - share) - (now - max(state.moved, state.began))
    scaled = "" if scale == 1.0 else f", for {state.total} steps in place of {earlier.steps}"
    if rest <= 0:
        return Left(None, f"longer than the {span(whole)} of {earlier.day}{scaled}")
    return Left(rest, f"by the record of {earlier.day}{scaled}")


def after(plan: Plan, state: State, records: Mapping[str, Earlier]) -> After:
    """What a ``dvc repro`` goes through after the stage that runs; DVC skips of it what is up to date."""
    later = _later(plan, state, records)
    known = [records[name].seconds for name in later if name in records]
    return After(len(later), sum(known), len(later) - len(known), plan.ordered)


def _later(plan: Plan, state: State, records: Mapping[str, Earlier]) -> list[str]:
    place = plan.place(state.stage)
    if place is not None:
        return list(plan.stages[place:])

    def ran(name: str) -> bool:
        return name in records and state.repro is not None and records[name].repro == state.repro

    return [name for name in plan.stages if name != state.stage and not ran(name)]


def newest(records: Mapping[str, Earlier]) -> tuple[str, Earlier] | None:
    """The stage that ran last by its record; None if there is none."""
    return max(records.items(), key=lambda pair: pair[1].started, default=None)


def _earlier(path: Path) -> tuple[str, Earlier]:
    said: dict[str, Any] = json.loads(path.read_text())
    name = f"{said['stage']}@{said['item']}" if said["item"] else said["stage"]
    parts = sum(float(seconds) for seconds in (said.get("timings") or {}).values())
    started = str(said["started"])
    seconds = max(float(said["seconds"]), parts)
    steps = _steps(said.get("history") or {})
    return name, Earlier(seconds, started[:10], steps, said.get("repro"), started)


def _steps(history: Mapping[str, Iterable[float]]) -> int | None:
    """How many epochs a training had, those of all classes of a bank together."""
    lengths = {name: len(list(curve)) for name, curve in history.items()}
    of_classes = {name.partition("/")[0]: n for name, n in lengths.items() if "/" in name}
    found = sum(of_classes.values()) if of_classes else max(lengths.values(), default=0)
    return found or None
