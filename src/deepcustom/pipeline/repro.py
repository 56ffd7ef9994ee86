"""Which ``dvc repro`` started this process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

STARTERS: dict[str, tuple[set[str], ...]] = {
    "dvc": ({"repro"}, {"exp", "run"}, {"experiments", "run"}, {"exp", "exec-run"}),
    "deepcustom": ({"repro"},),
}
"""Program → words that make it run stages; ``exec-run`` runs one queued experiment."""


@dataclass(frozen=True)
class Starter:
    """A process that runs stages.

    Attributes:
        pid: its number.
        created: when it began, in seconds since 1970.
        words: its command line.
    """

    pid: int
    created: float
    words: tuple[str, ...]


def repro_key() -> str | None:
    """The same 32 digits for all stages of one ``dvc repro``; None for a stage run by hand.

    They are a hash of the process's number and start time, and say nothing about the machine.
    """
    found = starter()
    if found is None:
        return None
    text = f"{found.pid} {found.created}"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def starter() -> Starter | None:
    """The nearest process above this one that runs stages; None for a stage run by hand."""
    try:
        import psutil
    except ImportError:  # it comes with DVC, and a stage may run without DVC
        return None
    try:
        for process in psutil.Process().parents():
            words = process.cmdline()
            if starts_stages(words):
                return Starter(process.pid, process.create_time(), tuple(words))
    except (psutil.Error, OSError):  # a process ended meanwhile, or cannot be inspected
        pass
    return None


def starts_stages(command: Sequence[str], programs: Iterable[str] = tuple(STARTERS)) -> bool:
    """Whether a command line starts one of these programs, so that it runs stages."""
    for place, word in enumerate(command):
        name = PurePath(word).name.removesuffix(".exe")
        ways = STARTERS[name] if name in programs else ()
        if any(way <= set(command[place + 1 :]) for way in ways):
            return True
    return False
