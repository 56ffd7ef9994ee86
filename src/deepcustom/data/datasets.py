"""The data sets there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deepcustom.base.errors import UnknownNameError
from deepcustom.data import sources
from deepcustom.data.formats import SplitFacts


@dataclass(frozen=True)
class DatasetSpec:
    """What the program knows about a data set before it has any of it.

    Attributes:
        name: what the user calls it.
        title: what tables and figures call it.
        shape: (C, H, W) of an image.
        classes: their names; the position is the label.
        splits: size and sha256 of the official ``train`` and ``test``.
    """

    name: str
    title: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    splits: Mapping[str, SplitFacts]

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)


def _known(name: str, title: str, classes: str) -> DatasetSpec:
    raw = sources.source(name)
    return DatasetSpec(name, title, raw.shape, tuple(classes.split()), raw.splits)


SPECS = {
    known.name: known
    for known in (
        _known("mnist", "MNIST", "0 1 2 3 4 5 6 7 8 9"),
        _known(
            "cifar10",
            "CIFAR-10",
            "airplane automobile bird cat deer dog frog horse ship truck",
        ),
    )
}
"""The data sets there are, by name."""


def spec(name: str) -> DatasetSpec:
    """The spec called ``name``.

    Raises:
        UnknownNameError: no such data set.
    """
    if name not in SPECS:
        raise UnknownNameError("data set", name, SPECS)
    return SPECS[name]
