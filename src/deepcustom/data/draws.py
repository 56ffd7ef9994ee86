"""Stratified draws from a split."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deepcustom.base.errors import ParamsError
from deepcustom.data.arrays import Array, Split


def carve(train: Split, val_size: int, seed: int) -> tuple[Split, Split]:
    """Split validation images off, stratified by class.

    Args:
        train: what to split.
        val_size: number of images to split off; 0 gives an empty split.
        seed: of the draw.

    Returns:
        What remains of ``train`` and the validation split, each in the order of the official split.

    Raises:
        ParamsError: ``val_size`` leaves either side without an image of some class.
    """
    chosen, rest = _draw(train, val_size, seed, key="val_size", trivial=0)
    return train.take(rest), train.take(chosen)


def subset(split: Split, size: int | None, seed: int, *, key: str = "size") -> Split:
    """Some images of ``split``, stratified by class, in the order of the official split.

    Args:
        split: what to draw from.
        size: number of images; None keeps all.
        seed: of the draw.
        key: what messages call ``size``.

    Raises:
        ParamsError: ``size`` is not that of ``split``, and the draw would have every image of some class,
            or none.
    """
    if size is None:
        return split
    chosen, _ = _draw(split, size, seed, key=key, trivial=len(split))
    return split.take(chosen)


def in_runs(y: Array) -> bool:
    """Whether labels (N,) come class after class: neighbours are alike far more often than by chance."""
    if len(y) < 2:
        return False
    by_chance = float(((np.bincount(y) / len(y)) ** 2).sum())
    alike = float((y[1:] == y[:-1]).mean())
    return by_chance < 1 and alike > (1 + by_chance) / 2


def _draw(split: Split, size: int, seed: int, *, key: str, trivial: int) -> tuple[Array, Array]:
    """Rows of ``size`` stratified images and of the others, each sorted by official index.

    ``trivial`` is a size, 0 or all, that needs no draw.
    """
    rows = np.argsort(split.index, kind="stable")
    chosen, rest = pick(split.y[rows], size, seed, key=key, trivial=trivial)
    return rows[chosen], rows[rest]


def pick(
    y: Array, size: int, seed: int, *, key: str, trivial: int | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of ``size`` images and of the others, stratified by class, by labels alone.

    Args:
        y: labels (N,) in the order of the official split.
        size: number of images.
        seed: of the draw.
        key: what messages call ``size``.
        trivial: a size, 0 or all, that needs no draw: the first images are taken. None: there is none.

    Returns:
        Both sorted, int64.

    Raises:
        ParamsError: one side would have no image of some class.
    """
    rows = np.arange(len(y), dtype=np.int64)
    if size == trivial:
        return rows[:size], rows[size:]
    n, present = len(y), len(np.unique(y))
    if not present <= size <= n - present:
        whole = "" if trivial is None else f"{trivial}, or "
        allowed = f"{whole}{present} (one per class) to {n - present}"
        raise ParamsError(f"{key} is {size}, of {n} images: allowed is {allowed}")
    found, counts = np.unique(y, return_counts=True)
    if counts.min() < 2:
        whole = "" if trivial is None else f": allowed is {trivial}"
        few = f"class {found[counts.argmin()]} has one image, too few for a draw"
        raise ParamsError(f"{key} is {size}, of {n} images: {few}{whole}")
    from sklearn.model_selection import train_test_split

    rest, chosen = train_test_split(rows, test_size=size, random_state=seed, stratify=y)
    return np.sort(chosen), np.sort(rest)
