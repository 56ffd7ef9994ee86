"""Lets waiting threads spin only briefly, then sleep, so that other processes get the cores."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

# A user who sets one of these has decided. GOMP_ is GNU's OpenMP, which comes with torch; KMP_ is Intel's.
DECIDED = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "KMP_LIBRARY")
TURNS = "10000"


def wait_asleep(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's threads sleep soon while they wait, unless the user has decided how they wait.

    By default they spin for milliseconds, on cores that another process needs: on two cores, two
    processes of two threads each slow each other down fivefold. The results stay the same. OpenMP reads
    the variable when torch is imported, so call this before.
    """
    if not any(name in environ for name in DECIDED):
        environ["GOMP_SPINCOUNT"] = TURNS
