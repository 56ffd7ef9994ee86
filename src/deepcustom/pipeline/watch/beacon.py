"""Says, from a thread of the process that runs a stage, how far the stage is.

What it says goes to the file of :mod:`deepcustom.pipeline.watch.state`, once a second at most, and to the
terminal. Nothing that goes wrong here reaches the stage, and no output depends on it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deepcustom.base.errors import DeepCustomError
from deepcustom.base.files import this_machine
from deepcustom.base.progress import Follower, Standing, followed_by
from deepcustom.pipeline import repro
from deepcustom.pipeline.watch.curve import curves
from deepcustom.pipeline.watch.left import Earlier, Records, after, left
from deepcustom.pipeline.watch.memory import free_and_whole, held
from deepcustom.pipeline.watch.plan import Plan, plan
from deepcustom.pipeline.watch.quantities import size, span
from deepcustom.pipeline.watch.sparkline import levels_for
from deepcustom.pipeline.watch.state import Ended, Process, State, forget_ended, this_process
from deepcustom.tracking.curves import Curves

EVERY = 1.0  # seconds between two looks
SPEAK = 5.0  # seconds after which the file is written though nothing has moved
LONGEST = 500  # characters of an error's line


@dataclass(frozen=True)
class Place:
    """Where a stage stands in the ``dvc repro`` that runs it.

    Attributes:
        number: from 1; None if it is not known.
        of: how many there are.
    """

    number: int | None
    of: int

    def line(self) -> str:
        """For people."""
        return f"stage {self.number} of {self.of}" if self.number else f"one of {self.of} stages"


def place_of(stage: str, found: Plan | None) -> Place | None:
    """Where a stage stands in a plan; None if that is not known."""
    if found is None or stage not in found.stages:
        return None
    return Place(found.place(stage), len(found.stages))


@contextmanager
def telling(root: Path, stage: str, checkpoint: Path) -> Iterator[None]:
    """Say how far the stage is that runs inside.

    Args:
        root: the project, or an experiment's copy of it.
        stage: as DVC names it.
        checkpoint: where its training keeps what it has finished.
    """
    beacon = None
    with suppress(Exception):
        beacon = Beacon(root, stage, checkpoint)
    if beacon is None:
        yield
        return
    beacon.begin()
    try:
        with followed_by(beacon):
            yield
    except BaseException as error:
        beacon.end(_end_of(error))
        raise
    beacon.end(Ended(how="finished", at=time.time()))


class Beacon(Follower):
    """The thread, and what it said last.

    Attributes:
        spent: seconds that its looks have taken.
        looks: how many there were.
    """

    def __init__(self, root: Path, stage: str, checkpoint: Path) -> None:
        """Look around; nothing is said yet."""
        super().__init__()
        begin = time.time()
        found = repro.starter()
        starter = (
            Process(pid=found.pid, created=found.created, words=found.words) if found else None
        )
        self._state = State(
            stage=stage,
            folder=str(root),
            checkpoint=str(checkpoint),
            machine=this_machine(),
            process=this_process(),
            starter=starter,
            repro=repro.repro_key() if found else None,
            began=begin,
            written=begin,
            memory=held(),
        )
        self._curves = Curves(checkpoint, begin)
        self._records = Records(root / "reports/runs").all()
        self._plan = plan(root, found.words) if found else None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="beacon", daemon=True)
        self.spent, self.looks = 0.0, 0

    def begin(self) -> None:
        """Say that the stage runs, and start the thread."""
        with suppress(Exception):
            forget_ended(Path(self._state.folder))
            self._state.write()
            if self._plan and (heading := self._heading()):
                print(heading, flush=True)
        self._thread.start()

    def end(self, how: Ended) -> None:
        """End the thread, and say how the stage ended."""
        self._ended.set()
        self._thread.join(EVERY)
        with suppress(Exception):
            last = self._seen(time.time())
            last.model_copy(update={"ended": how}).write()

    def _heading(self) -> str:
        """What is known of the stage before it has begun."""
        known = self._records.get(self._state.stage)
        place = place_of(self._state.stage, self._plan)
        later = after(self._plan, self._state, self._records).line() if self._plan else ""
        took = f"it took {span(known.seconds)} on {known.day}" if known else ""
        return "; ".join(filter(None, [place.line() if place else "", took, later]))

    def _work(self) -> None:
        while not self._ended.wait(EVERY):
            begin = time.monotonic()
            with suppress(Exception):
                self._look()
            self.spent += time.monotonic() - begin
            self.looks += 1

    def _look(self) -> None:
        now, before = time.time(), self._state
        seen = self._seen(now)
        moved = _marks(seen) != _marks(before)
        if moved:
            with suppress(Exception):
                self._curves.new()
        if moved or now - before.written >= SPEAK:
            self._state = seen
            seen.write()
        self._speak(seen, self._records.get(seen.stage), now)

    def _seen(self, now: float) -> State:
        found: Standing | None = self.standing
        changes: dict[str, object] = {"written": now, "memory": held()}
        if found is not None:
            changes |= {
                "total": found.total,
                "done": found.done,
                "resumed": found.resumed,
                "steps_began": found.began,
                "moved": found.moved,
                "note": found.note,
                "doing": found.doing,
            }
        return self._state.model_copy(update=changes)

    def _speak(self, seen: State, earlier: Earlier | None, now: float) -> None:
        rest = left(seen, earlier, now)
        place = place_of(seen.stage, self._plan)
        memory = f"{size(seen.memory)}, {size(free_and_whole()[0])} free"
        said = [rest.line() if rest else "", memory]
        stream = sys.__stderr__  # the other one may be rich's while a bar is drawn
        levels = levels_for(stream.encoding if stream else None)
        drawn = [curve.line(levels) for curve in curves(self._curves.whole)]
        self.words = "; ".join(filter(None, said))
        self.picture = "; ".join(filter(None, [place.line() if place else "", *said, *drawn]))


def _marks(state: State) -> tuple[object, ...]:
    return state.total, state.done, state.note, state.doing


def _end_of(error: BaseException) -> Ended:
    """How a stage ended by ``error``; the text of a foreign error may name what is nobody's business."""
    now = time.time()
    if isinstance(error, KeyboardInterrupt):
        return Ended(how="interrupted", at=now)
    if isinstance(error, SystemExit) and not error.code:
        return Ended(how="finished", at=now)
    ours = isinstance(error, DeepCustomError | OSError)
    why = " ".join(str(error).split()) if ours else type(error).__name__
    return Ended(how="failed", why=why[:LONGEST], at=now)
