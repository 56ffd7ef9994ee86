"""How long a command takes, in times of what Python needs to import typer: quick or busy, the same."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

ROUNDS = 12  # until it was quick once: the machine may be busy with something else


def seconds(action: Callable[[], object]) -> float:
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def times_of_python(action: Callable[[], object], limit: float) -> float:
    """The lowest ratio of some rounds, each with both in turn; the first below ``limit`` ends it."""
    bare = [sys.executable, "-c", "import typer"]
    lowest = float("inf")
    for _ in range(ROUNDS):
        unit = seconds(lambda: subprocess.run(bare, check=True))
        lowest = min(lowest, seconds(action) / unit)
        if lowest < limit:
            break
    print(f"{lowest:.1f} times what Python with typer takes")
    return lowest
