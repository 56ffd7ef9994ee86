"""An engine for tests."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from deepcustom.training.compute import FLOAT32
from deepcustom.training.engine import Task


class OneByOne:
    """An engine that does tasks here, with all that they are given and return as if it had travelled."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def do(self, shared: Any, tasks: Sequence[Task], advance: Any) -> Iterator[tuple[int, Any]]:
        for place in reversed(range(len(tasks))):  # they end in any order
            task = tasks[place]
            there, given = pickle.loads(pickle.dumps((shared, task.given())))
            found = task.run(there, *given, compute=FLOAT32, advance=advance)
            self.done.append(task.name)
            yield place, pickle.loads(pickle.dumps(found))
