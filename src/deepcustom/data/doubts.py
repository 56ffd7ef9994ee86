"""What is suspicious about a data set, though it can be used: for the record, with counts and examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deepcustom.data.whole import Digests, Whole

EXAMPLES = 5
UNEQUAL = 10.0
"""From how many times the images of the smallest class the largest is worth a warning."""


@dataclass(frozen=True)
class Doubt:
    """One kind of what is suspicious.

    Attributes:
        key: its name in the record.
        count: how often it occurs; 0 where it does not.
        text: what it says of ``count``.
        examples: some of those.
    """

    key: str
    count: float
    text: str
    examples: list[str]


def find_doubts(
    train: Whole, test: Whole, digests: tuple[Digests, Digests], classes: tuple[str, ...]
) -> list[Doubt]:
    """Look for images that occur on both sides or with two labels, and for classes of unequal size.

    Args:
        train: the whole ``train``.
        test: the whole ``test``.
        digests: of the images of each.
        classes: names of the labels.
    """
    group = _groups(np.concatenate(digests))
    y = np.concatenate([train.y, test.y])
    side = np.arange(len(y)) >= len(train.y)

    def named(position: int) -> str:
        whole, row = (test, position - len(train.y)) if side[position] else (train, position)
        return f"{whole.name(int(whole.rows[row]))} ({classes[int(whole.y[row])]})"

    both, labels = _differing(group, side), _differing(group, y)
    return [
        Doubt(
            "same_image_both_sides",
            int((both & side).sum()),
            "test images are in train too",
            _examples(group, side, both, named),
        ),
        Doubt(
            "same_image_two_labels",
            int(labels.sum()),
            "images occur with another label too",
            _examples(group, y, labels, named),
        ),
        _unequal(train, classes),
    ]


def _groups(digests: Digests) -> npt.NDArray[np.int64]:
    """The same number for the same image (N,)."""
    order = np.lexsort(digests.T)
    ordered = digests[order]
    new = np.r_[True, (ordered[1:] != ordered[:-1]).any(1)]
    group = np.empty(len(digests), np.int64)
    group[order] = np.cumsum(new) - 1
    return group


def _differing(
    group: npt.NDArray[np.int64], values: npt.NDArray[np.generic]
) -> npt.NDArray[np.bool_]:
    """Whether the images equal to each one have more than one of ``values`` (N,)."""
    many = group.max() + 1
    numbers = values.astype(np.int64)
    least, most = np.full(many, np.iinfo(np.int64).max), np.full(many, -1)
    np.minimum.at(least, group, numbers)
    np.maximum.at(most, group, numbers)
    differing: npt.NDArray[np.bool_] = (least < most)[group]
    return differing


def _examples(
    group: npt.NDArray[np.int64],
    values: npt.NDArray[np.generic],
    chosen: npt.NDArray[np.bool_],
    named: Callable[[int], str],
) -> list[str]:
    """Pairs of equal images that differ in ``values``, from some groups among the ``chosen``."""
    shown: list[str] = []
    for one in list(dict.fromkeys(group[chosen].tolist()))[:EXAMPLES]:
        members = np.flatnonzero(group == one)
        other = members[values[members] != values[members[0]]][0]
        shown.append(f"{named(int(members[0]))} and {named(int(other))}")
    return shown


def _unequal(train: Whole, classes: tuple[str, ...]) -> Doubt:
    counts = np.bincount(train.y, minlength=len(classes))
    few, many = int(counts.argmin()), int(counts.argmax())
    ratio = counts[many] / max(1, counts[few])
    text = "times as many images of train are in the largest class as in the smallest"
    shown = [f"{classes[one]}: {counts[one]}" for one in (few, many)]
    unequal = ratio >= UNEQUAL
    return Doubt(
        "unequal_classes", round(float(ratio), 1) if unequal else 0, text, shown if unequal else []
    )
