"""The curves of a training that is under way, as little pictures of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deepcustom.pipeline.watch.sparkline import BLOCKS, sparkline

FIRST = ("loss", "val_accuracy", "val_target_accuracy")
"""The names of what is shown, of those that a training measures."""


@dataclass(frozen=True)
class Curve:
    """One curve so far.

    Attributes:
        name: of what was measured.
        values: by epoch; for a bank, the epochs of one class after those of another.
    """

    name: str
    values: tuple[float, ...]

    def line(self, levels: str = BLOCKS) -> str:
        """Name, picture and last value."""
        return f"{self.name} {sparkline(self.values, levels=levels)} {self.values[-1]:.4f}"


def curves(whole: Mapping[str, Sequence[float]]) -> list[Curve]:
    """The curves to be shown, of all that a checkpoint has.

    Args:
        whole: name → values by epoch. A bank's names begin with that of a class, as ``class_3/loss``.
    """
    joined: dict[str, list[float]] = {}
    for name in sorted(whole, key=_order):
        joined.setdefault(name.rpartition("/")[2], []).extend(whole[name])
    return [Curve(name, tuple(joined[name])) for name in FIRST if joined.get(name)]


def _order(name: str) -> tuple[int, str]:
    number = name.partition("/")[0].rpartition("_")[2]
    return (int(number) if number.isdecimal() else 0, name)
