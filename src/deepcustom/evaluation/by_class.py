"""Accuracy per class, where classes are of very unequal size: clean, and in the worst case.

The accuracies of a network travel as the figures of a check, so they are kept and traced with the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepcustom.evaluation.checks import Check

if TYPE_CHECKING:
    from torch import Tensor

CHECK = "classes"
"""The name of the check."""
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


def class_check(network: str, rows: Sequence[ClassAccuracy]) -> Check:
    """A check that warns of classes of which a network gets no clean image right."""
    figures = {}
    for number, row in enumerate(rows):
        figures[f"{number}/n"] = float(row.n)
        if row.n:
            figures |= {f"{number}/clean": row.clean, f"{number}/worst": row.worst}
    blind = sum(row.n > 0 and row.clean == 0 for row in rows)
    text = (
        f"The network gets no clean image right of {blind} of {len(rows)} classes, so its accuracy is that "
        "on the others."
        if blind
        else "Classes are of very unequal size, and the network gets clean images of each right."
    )
    return Check(CHECK, network, "warn" if blind else "ok", figures, text)


def classes_of(checks: Iterable[Check], labels: Sequence[str]) -> list[ClassAccuracy]:
    """The accuracies in the checks of that name; none where classes are of like size.

    Args:
        checks: of an evaluation.
        labels: names of the classes, by label.
    """
    return [
        ClassAccuracy(
            check.about,
            label,
            int(check.figures.get(f"{number}/n", 0)),
            check.figures.get(f"{number}/clean", math.nan),
            check.figures.get(f"{number}/worst", math.nan),
        )
        for check in checks
        if check.name == CHECK
        for number, label in enumerate(labels)
    ]
