"""Stratified draws from a split."""

from __future__ import annotations

import numpy as np

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


def subset(split: Split, size: int | None, seed: int) -> Split:
    """Some images of ``split``, stratified by class, in the order of the official split.

    Args:
        split: what to draw from.
        size: number of images; None keeps all.
        seed: of the draw.

    Raises:
        ParamsError: ``size`` is not that of ``split``, and the draw would have every image of some class,
            or none.
    """
    if size is None:
        return split
    chosen, _ = _draw(split, size, seed, key="size", trivial=len(split))
    return split.take(chosen)


def _draw(split: Split, size: int, seed: int, *, key: str, trivial: int) -> tuple[Array, Array]:
    """Rows of ``size`` stratified images and of the others, each sorted by official index.

    ``trivial`` is a size, 0 or all, that needs no draw.
    """
    rows = np.argsort(split.index, kind="stable")
    if size == trivial:
        return rows[:size], rows[size:]
    n, present = len(split), len(np.unique(split.y))
    if not present <= size <= n - present:
        allowed = f"{trivial}, or {present} (one per class) to {n - present}"
        raise ParamsError(f"{key} is {size}, of {n} images: allowed is {allowed}")
    from sklearn.model_selection import train_test_split

    try:
        rest, chosen = train_test_split(
            rows, test_size=size, random_state=seed, stratify=split.y[rows]
        )
    except ValueError as error:
        raise ParamsError(f"{key} {size}: {error}") from error
    return _sorted(chosen, split.index), _sorted(rest, split.index)


def _sorted(rows: Array, index: Array) -> Array:
    return rows[np.argsort(index[rows], kind="stable")]
