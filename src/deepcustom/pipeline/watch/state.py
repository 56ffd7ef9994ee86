"""The small file in which a process says which stage it runs, and how far it is.

The process replaces it once a second, and leaves it at its end. One that was killed leaves it too: its number
and start time then belong to no living process.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from deepcustom.base.experiment import home
from deepcustom.base.files import remove, replace_file, this_machine

FOLDER = ".checkpoints/running"
SAME_START = 2.0
"""Seconds by which two start times of one process may differ: the system counts from a clock that is set."""
SILENT = 60.0
"""Seconds after which a process of another machine, which cannot be looked at, counts as ended."""


class Process(BaseModel):
    """A process, told from a later one of the same number by when it began.

    Attributes:
        pid: its number.
        created: when it began, in seconds since 1970.
        words: its command line; empty where nobody needs it.
    """

    model_config = ConfigDict(frozen=True)

    pid: int
    created: float
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, pid: int, words: Sequence[str] = ()) -> Process:
        """The living process of that number.

        Raises:
            psutil.Error: there is none, or it cannot be inspected.
        """
        import psutil

        return cls(pid=pid, created=psutil.Process(pid).create_time(), words=tuple(words))

    def lives(self) -> bool:
        """Whether it has not ended."""
        import psutil

        try:
            found = psutil.Process(self.pid)
            ended = found.status() == psutil.STATUS_ZOMBIE
            return not ended and abs(found.create_time() - self.created) < SAME_START
        except psutil.NoSuchProcess:
            return False
        except psutil.Error:  # it exists, and is another user's
            return True


class Ended(BaseModel):
    """How a run of a stage ended.

    Attributes:
        how: in a word.
        why: the line of the error; empty where there is none.
        at: seconds since 1970.
    """

    model_config = ConfigDict(frozen=True)

    how: Literal["finished", "failed", "interrupted", "killed"]
    why: str = ""
    at: float


class State(BaseModel):
    """What a process says of the stage that it runs. Moments are seconds since 1970, sizes bytes.

    Attributes:
        stage: as DVC names it, such as ``train_dgn@mnist-lrp``.
        folder: the project, or the copy of it in which an experiment runs.
        checkpoint: where its training keeps what it has finished, and so its curves.
        machine: which one the process runs on, as a hash.
        process: the one that runs the stage.
        starter: the ``dvc repro`` that started it; None if it was run by hand.
        repro: the key of that in the records of runs.
        began: when the stage did.
        written: when this was said.
        total: steps of the work; 0 where it says none.
        done: steps so far; ``resumed`` of them an earlier run did.
        steps_began: when the first step of this run could begin; ``moved``, when the last one ended.
        note: what the last step said; ``doing``, what is under way.
        memory: what the process holds.
        ended: how it ended; None while it runs.
    """

    model_config = ConfigDict(frozen=True)

    stage: str
    folder: str
    checkpoint: str
    machine: str
    process: Process
    starter: Process | None = None
    repro: str | None = None
    began: float
    written: float
    total: int = 0
    done: int = 0
    resumed: int = 0
    steps_began: float = 0.0
    moved: float = 0.0
    note: str = ""
    doing: str = ""
    memory: int = 0
    ended: Ended | None = None

    def path(self) -> Path:
        """Where it is kept: in the project, also for an experiment's copy of it."""
        name = f"{self.machine}-{self.process.pid}.json"
        return home(Path(self.folder)) / FOLDER / name

    def write(self) -> None:
        """Say it; a disk that is full or that cannot be written hinders no stage."""
        from deepcustom.base.errors import DeepCustomError

        with suppress(OSError, DeepCustomError):
            replace_file(self.path(), self.model_dump_json().encode())

    def as_it_is(self) -> State:
        """The same, with its end if the process has ended without saying so."""
        if self.ended or self._lives():
            return self
        return self.model_copy(update={"ended": Ended(how="killed", at=self.written)})

    def _lives(self) -> bool:
        if self.machine != this_machine():
            return time.time() - self.written < SILENT
        return self.process.lives()


def states(root: Path) -> list[State]:
    """What runs, or ran last, in a project, the oldest first; nothing is changed."""
    found = [_read(path) for path in (home(root) / FOLDER).glob("*.json")]
    told = [one.as_it_is() for one in found if one is not None]
    return sorted(told, key=lambda one: one.began)


def forget_ended(root: Path) -> None:
    """Remove what ended runs of stages have left, before another begins."""
    for path in (home(root) / FOLDER).glob("*.json"):
        one = _read(path)
        if one is None or one.as_it_is().ended:
            with suppress(OSError):
                remove(path)


def this_process() -> Process:
    """The process that asks."""
    return Process.of(os.getpid())


def _read(path: Path) -> State | None:
    try:
        found: Any = json.loads(path.read_text())
        return State.model_validate(found)
    except (OSError, ValueError, ValidationError):
        return None
