"""What runs in a process of Ray before the package is there: it travels by value, and unpacks the package.

So it uses nothing of the package by name. Ray can send code itself, but nodes on one machine share the folder
that it unpacks to, and one removes it while another still needs it.
"""

from __future__ import annotations

import atexit
import importlib
import io
import os
import shutil
import sys
import tempfile
import zipfile
from typing import Any, NamedTuple

PACKAGE = "deepcustom"
THREADS = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "10000"}


def work(parcel: list[Any]) -> Any:
    """Do one task, in a process of Ray's.

    Args:
        parcel: references to the code, to what all tasks share, and to the task's own arguments. Ray does not
            look for them in a list, so they are unpacked only when the code is there.
    """
    import ray

    code, *rest = parcel
    unpack(ray.get(code))
    perform = importlib.import_module(f"{PACKAGE}.pipeline.cluster.perform").perform
    return perform(*(ray.get(one) for one in rest))


def unpack(code: bytes) -> None:
    """Put the code, a zip archive, into a folder of this process's own, from which it then imports; once."""
    if PACKAGE in sys.modules:
        return
    os.environ.update(THREADS)  # before torch is imported
    folder = tempfile.mkdtemp(prefix="deepcustom-code-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with zipfile.ZipFile(io.BytesIO(code)) as archive:
        archive.extractall(folder)
    sys.path.insert(0, folder)
    os.chdir(folder)


class Standing(NamedTuple):
    """How a task stands.

    Attributes:
        begun: how many times it began.
        node: where.
        steps: how many it has made since it began.
        note: what it said last.
        beats: its signs of life.
    """

    begun: int
    node: str
    steps: int = 0
    note: str = ""
    beats: int = 0


class Board:
    """Where tasks tell how they stand; an actor of Ray."""

    def __init__(self) -> None:
        """Nothing is told yet."""
        self._tasks: dict[int, Standing] = {}
        self._news: set[int] = set()

    def begin(self, place: int, node: str) -> None:
        """A task begins, perhaps not for the first time."""
        before = self._tasks.get(place)
        self._set(place, Standing((before.begun if before else 0) + 1, node))

    def tell(self, place: int, note: str, steps: int) -> None:
        """A task has made progress."""
        one = self._tasks[place]
        self._set(place, one._replace(note=note or one.note, steps=one.steps + steps))

    def beat(self, place: int) -> None:
        """A task lives."""
        one = self._tasks[place]
        self._set(place, one._replace(beats=one.beats + 1))

    def _set(self, place: int, one: Standing) -> None:
        self._tasks[place] = one
        self._news.add(place)

    def news(self) -> dict[int, Standing]:
        """How those tasks stand that told something since this was last asked."""
        found, self._news = {place: self._tasks[place] for place in self._news}, set()
        return found
