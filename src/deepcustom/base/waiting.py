"""How threads wait for each other: briefly awake, then asleep, so that a busy machine keeps its cores."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

# Whoever sets one of these has decided. GOMP_ is GNU's OpenMP, which torch brings, KMP_ is Intel's.
DECIDED = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "KMP_LIBRARY")
TURNS = "10000"


def wait_asleep(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's threads sleep soon while they wait, unless the user has decided how they wait.

    By default they spin for milliseconds, on cores that another process needs: two processes of two
    threads each on two cores slow each other fivefold. What is computed is the same. OpenMP reads
    the variable when torch is imported; call this before.
    """
    if not any(name in environ for name in DECIDED):
        environ["GOMP_SPINCOUNT"] = TURNS
