"""How much memory a process holds, and how much is free."""

from __future__ import annotations

from pathlib import Path

LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)
"""Where a container says how much it may hold, and how much it does, pages of files among it."""


def held(pid: int | None = None) -> int:
    """Bytes of memory that a process holds; this one by default; 0 if it cannot be looked at."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def free_and_whole() -> tuple[int, int]:
    """Bytes that programs may still take, and the bytes that there are; those of a container, if in one."""
    import psutil

    found = psutil.virtual_memory()
    free, whole = int(found.available), int(found.total)
    for limit, used in LIMITS:
        most, now = _number(limit), _number(used)
        if most is not None and now is not None and most < whole:
            free, whole = min(free, max(0, most - now)), most
    return free, whole


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):  # there is none, or "max"
        return None
