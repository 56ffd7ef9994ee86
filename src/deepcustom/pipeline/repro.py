"""Which ``dvc repro`` started this process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePath

STARTERS: dict[str, tuple[set[str], ...]] = {
    "dvc": ({"repro"}, {"exp", "run"}, {"experiments", "run"}, {"exp", "exec-run"}),
    "deepcustom": ({"repro"},),
}
"""Programs and the words that make them run stages; exec-run is what runs one queued experiment."""


def repro_key() -> str | None:
    """The same 32 digits for all stages of one ``dvc repro``; None for a stage run by hand.

    They are made of the process's number and start, and say nothing about the machine.
    """
    try:
        import psutil
    except ImportError:  # comes with DVC, and a stage may run without
        return None
    try:
        for process in psutil.Process().parents():
            if starts_stages(process.cmdline()):
                text = f"{process.pid} {process.create_time()}"
                return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    except (psutil.Error, OSError):  # a process that ended meanwhile, or may not be looked at
        pass
    return None


def starts_stages(command: Sequence[str]) -> bool:
    """Whether a command line is that of a program which runs stages."""
    for place, word in enumerate(command):
        ways = STARTERS.get(PurePath(word).name.removesuffix(".exe"), ())
        if any(way <= set(command[place + 1 :]) for way in ways):
            return True
    return False
