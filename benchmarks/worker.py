"""One contender's process: ``python -m benchmarks.worker``, commanded by :mod:`benchmarks.race`.

A line of JSON in, a line of JSON out:

* ``{"build": "module:function", "options": {...}}`` → ``{"count": n}``, what one call makes;
* ``{"calls": n}`` → ``{"seconds": [...]}``, of every call;
* ``{"judge": true}`` → ``{"facts": {...}}``, about what the last call made.

What fails is answered with ``{"error": message, "import": whether a package is missing}``.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _nothing(made: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Work:
    """What a contender does.

    Attributes:
        call: does it once; this alone is timed.
        count: how much one call makes: images, or floating-point operations.
        judge: facts about what a call returned, not timed.
    """

    call: Callable[[], Any]
    count: float
    judge: Callable[[Any], dict[str, Any]] = _nothing


class _Contender:
    def __init__(self) -> None:
        self._work: Work | None = None
        self._made: Any = None

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        if "build" in question:
            module, _, function = question["build"].partition(":")
            build = getattr(importlib.import_module(module), function)
            self._work = build(**question["options"])
        assert self._work is not None, "the first line must build"
        if "calls" in question:
            return {"seconds": [self._timed(self._work) for _ in range(question["calls"])]}
        if "judge" in question:
            return {"facts": self._work.judge(self._made)}
        return {"count": self._work.count}

    def _timed(self, work: Work) -> float:
        self._made = None  # freed before the clock starts
        start = time.perf_counter()
        self._made = work.call()
        return time.perf_counter() - start


def main() -> None:
    """Answer until the questions end."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the parent, which ends this process
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what libraries print must not get between the answers
        contender = _Contender()
        for line in sys.stdin:
            try:
                answer = contender.answer(json.loads(line))
            except Exception as error:
                message = " ".join(f"{type(error).__name__}: {error}".split())
                message = re.sub(r" \(/[^)]*\)", "", message)  # where the package lies on this disk
                answer = {"error": message, "import": isinstance(error, ImportError)}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    # As the module that builders import Work from, not as __main__.
    from benchmarks.worker import main as run

    run()
