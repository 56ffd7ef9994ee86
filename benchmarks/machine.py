"""What the figures were measured on and with; nothing that names the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.race import Contender, once
from benchmarks.worker import Work

PACKAGES = (
    "torch",
    "numpy",
    "adversarial-robustness-toolbox",
    "foolbox",
    "torchattacks",
    "deepcustom",
)


def facts() -> dict[str, Any]:
    """Of this machine, found out in a process of its own."""
    found: dict[str, Any] = once(Contender("machine", "this machine", "benchmarks.machine:look"))
    return dict(found["facts"])


def load() -> float:
    """Processes that wanted a core, on average of the last minute; near 0 on an idle machine."""
    return round(os.getloadavg()[0], 2)


def look() -> Work:
    """What torch and the system say."""

    def judge(_: None) -> dict[str, Any]:
        import torch

        return {
            "processor": _cpu("model name") or platform.machine(),
            "cores": _cores(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "system": platform.system(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "bfloat16": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in _cpu("flags")],
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "versions": {package: _version(package) for package in PACKAGES},
        }

    return Work(lambda: None, 0, judge)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu(what: str) -> str:
    """A line of what Linux says of the first core; empty elsewhere."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(what):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
