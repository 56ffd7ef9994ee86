"""Accuracy per class: how a network does on the images of each class, clean and in the worst case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

UNEQUAL = 2
"""Classes are unequal if the largest has at least this many times the images of the smallest."""


@dataclass(frozen=True)
class ClassAccuracy:
    """A network on the attacked images of one class.

    Attributes:
        network: its name.
        label: name of the class.
        n: number of attacked images of this class, 0 or more.
        clean: share that it gets right without an attack, 0 to 1; nan where ``n`` is 0.
        worst: share that also stands against everything that was tried; likewise.
    """

    network: str
    label: str
    n: int
    clean: float
    worst: float


def by_class(
    network: str, labels: Sequence[str], y: Tensor, clean: Tensor, worst: Tensor
) -> list[ClassAccuracy]:
    """The accuracies of one network, class by class.

    Args:
        network: its name.
        labels: names of the classes, by label.
        y: true labels (n,).
        clean: (n,) bool, which images the network gets right.
        worst: (n,) bool, which of them stand against everything.
    """
    truth, found = y.cpu(), []
    for number, label in enumerate(labels):
        own = truth == number
        shares = [float(stands.cpu()[own].double().mean()) for stands in (clean, worst)]
        found.append(ClassAccuracy(network, label, int(own.sum()), *shares))
    return found


def unequal(rows: Iterable[ClassAccuracy]) -> bool:
    """Whether classes are of very unequal size: by a factor of :data:`UNEQUAL`, or more."""
    sizes = {row.label: row.n for row in rows}.values()
    return bool(sizes) and max(sizes) >= UNEQUAL * min(sizes)
