"""One line of the doctor."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """What was found out about one thing.

    Attributes:
        name: of the thing.
        verdict: ``ok``; ``missing``: it is not there; ``cannot``: it is there, and cannot be used.
        says: one line.
        mend: the command that mends it; empty where nothing is to be mended, or no command does it.
        hinders: whether ``dvc repro``, or ``deepcustom ui``, would fail.
    """

    name: str
    verdict: Literal["ok", "missing", "cannot"]
    says: str
    mend: str = ""
    hinders: bool = False

    def line(self) -> str:
        """For people."""
        mend = f": `{self.mend}`" if self.mend else ""
        return f"{self.verdict:8} {self.name:10} {self.says}{mend}"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)
