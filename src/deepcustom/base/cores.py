"""How many processors a process may use."""

from __future__ import annotations

import os


def cores() -> int:
    """Those that the system lets this process use, where it tells; else all of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
