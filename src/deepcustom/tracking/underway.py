"""The run of the stage that is under way in this process, if MLflow shows one; see ``live``."""

from __future__ import annotations

from typing import Protocol


class Underway(Protocol):
    """A run that was begun before its record was written."""

    def hand_over(self, run_key: str, otherwise: str) -> None:
        """Leave the run to the record with this key."""


class _Current:
    run: Underway | None = None


current = _Current()
