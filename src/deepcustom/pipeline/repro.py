"""Which ``dvc repro`` started this process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePath

STARTERS: dict[str, tuple[set[str], ...]] = {
    "dvc": ({"repro"}, {"exp", "run"}, {"experiments", "run"}, {"exp", "exec-run"}),
    "deepcustom": ({"repro"},),
}
"""Program → words that make it run stages; ``exec-run`` runs one queued experiment."""


def repro_key() -> str | None:
    """The same 32 digits for all stages of one ``dvc repro``; None for a stage run by hand.

    They are a hash of the process's number and start time, and say nothing about the machine.
    """
    try:
        import psutil
    except ImportError:  # it comes with DVC, and a stage may run without DVC
        return None
    try:
        for process in psutil.Process().parents():
            if starts_stages(process.cmdline()):
                text = f"{process.pid} {process.create_time()}"
                return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    except (psutil.Error, OSError):  # a process ended meanwhile, or cannot be inspected
        pass
    return None


def starts_stages(command: Sequence[str]) -> bool:
    """Whether a command line starts a program that runs stages."""
    for place, word in enumerate(command):
        ways = STARTERS.get(PurePath(word).name.removesuffix(".exe"), ())
        if any(way <= set(command[place + 1 :]) for way in ways):
            return True
    return False
