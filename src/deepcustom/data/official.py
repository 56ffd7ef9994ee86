"""The whole ``train`` and ``test`` of a data set, whatever its source, and what is drawn from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deepcustom.base.errors import ParamsError
from deepcustom.base.image_settings import (
    ArraysParams,
    FolderParams,
    FunctionParams,
    OwnParams,
    ParquetParams,
)
from deepcustom.base.progress import heartbeat, progress, silent
from deepcustom.base.settings import PrepareParams
from deepcustom.data.arrays import Array, label_dtype
from deepcustom.data.datasets import DatasetSpec
from deepcustom.data.doubts import EXAMPLES
from deepcustom.data.draws import pick
from deepcustom.data.formats import Arrays
from deepcustom.data.own.array_files import find_in_arrays
from deepcustom.data.own.folder import find_in_folder
from deepcustom.data.own.function import find_by_function
from deepcustom.data.own.gather import Gathered, gather
from deepcustom.data.own.parquet import find_in_parquet
from deepcustom.data.own.pixels import Form
from deepcustom.data.own.source import Images
from deepcustom.data.whole import Rows, Whole


@dataclass(frozen=True)
class Official:
    """A data set before anything is drawn from it.

    Attributes:
        title: what tables call it.
        classes: their names; the position is the label.
        train: all its images.
        test: all its images.
        about: what else the record says of them.
    """

    title: str
    classes: tuple[str, ...]
    train: Whole
    test: Whole
    about: Mapping[str, Any] = field(default_factory=dict)


def built_in(arrays: Arrays, spec: DatasetSpec) -> Official:
    """A built-in data set, as :func:`deepcustom.data.sources.fetch` gives it."""

    def whole(side: str) -> Whole:
        x, y = arrays[side]
        return Whole(x, np.arange(len(y), dtype=np.int64), y, lambda row: f"{side} image {row}")

    return Official(spec.title, spec.classes, whole("train"), whole("test"))


def own(root: Path, name: str, params: OwnParams, folder: Path, place: str, seed: int) -> Official:
    """The user's own images, read once.

    Args:
        root: the project.
        name: of the data set, which is its title too.
        params: where they lie, and what they are brought to.
        folder: where their pixels are kept meanwhile.
        place: the dotted place of ``params``, for messages.
        seed: of the draw of ``test``, where the source has none.

    Raises:
        InputError: something about the images is wrong; the message is one line that names the file.
        ParamsError: ``test_share`` does not suit the source; the message is one line.
    """
    images, form = find_images(root, params), _form(params)
    if images.halves is not None:
        _check_share(params.test_share, images.halves, place)
    if images.total is None:
        with heartbeat(f"reading {images.place}"):
            parts, classes = gather(images, form, folder, silent)
    else:
        with progress(f"reading {images.place}", images.total) as advance:
            parts, classes = gather(images, form, folder, advance)
    whole = {part: _whole(found, len(classes)) for part, found in parts.items()}
    _check_share(params.test_share, "all" not in whole, place)
    ignored = {"count": len(images.ignored), "examples": list(images.ignored[:EXAMPLES])}
    about: dict[str, Any] = {"ignored_files": ignored}
    if params.test_share is None:
        return Official(name, classes, whole["train"], whole["test"], about)
    train, test = _halves(whole["all"], classes, params.test_share, place, seed)
    about["test_drawn"] = {"share": params.test_share, "seed": seed, "images": len(test.y)}
    return Official(name, classes, train, test, about)


def _check_share(share: float | None, halves: bool, place: str) -> None:
    """Check that ``test_share`` suits a source that has ``train`` and ``test``, or has not."""
    if halves == (share is None):
        return
    allowed = "null: the source has a" if halves else "a share between 0 and 1: the source has no"
    raise ParamsError(
        f"params.yaml: {place}.test_share must be {allowed} part of its own for test; found {share}"
    )


def _form(params: OwnParams) -> Form:
    size = params.size
    return Form((size, size) if isinstance(size, int) else size, params.channels)


def _whole(part: Gathered, classes: int) -> Whole:
    y = part.y().astype(label_dtype(classes))
    return Whole(part.mapped(), np.arange(len(y), dtype=np.int64), y, part.name)


def find_images(root: Path, params: OwnParams) -> Images:
    """The images of a source, not read yet.

    Raises:
        UserError: the source is not laid out as it should be; the message is one line.
    """
    match params:
        case FolderParams():
            return find_in_folder(root, params.path)
        case ArraysParams():
            return find_in_arrays(root, params.path, params.classes)
        case ParquetParams():
            return find_in_parquet(root, params.path, params.classes)
        case FunctionParams():
            return find_by_function(root, params.function, params.path, params.classes)
    raise TypeError(f"no source reads {type(params).__name__}")


def splits(official: Official, params: PrepareParams, place: str, seed: int) -> dict[str, Rows]:
    """Which images of the whole ``train`` and ``test`` are in ``train``, ``val`` and ``test``.

    Args:
        official: the data set.
        params: sizes of the splits.
        place: the dotted place of ``params``, for messages.
        seed: of the draws.

    Returns:
        Split → positions on its side, sorted.

    Raises:
        ParamsError: there are fewer images than a split needs; the message is one line.
    """
    train, test, classes = official.train, official.test, official.classes

    def some(side: Whole, size: int | None, key: str) -> Rows:
        if size is None:
            return side.everything()
        return _draw(side.y, classes, size, seed, f"{place}.{key}", trivial=len(side.y))[0]

    kept = some(train, params.train_size, "train_size")
    of_val = f"{place}.val_size"
    val, rest = _draw(train.y[kept], classes, params.val_size, seed, of_val, trivial=0)
    return {
        "train": kept[rest],
        "val": kept[val],
        "test": some(test, params.test_size, "test_size"),
    }


def _halves(
    whole: Whole, classes: tuple[str, ...], share: float, place: str, seed: int
) -> tuple[Whole, Whole]:
    """``train`` and ``test`` of a source that has neither."""
    size = round(share * len(whole.y))
    of_share = f"{place}.test_share of {share:g}"
    test, train = _draw(whole.y, classes, size, seed, of_share, trivial=None)
    sides = [Whole(whole.x, whole.rows[rows], whole.y[rows], whole.name) for rows in (train, test)]
    return sides[0], sides[1]


def _draw(
    y: Array, classes: tuple[str, ...], size: int, seed: int, place: str, *, trivial: int | None
) -> tuple[Rows, Rows]:
    """As :func:`deepcustom.data.draws.pick`, but no class may lack an image on either side.

    Raises:
        ParamsError: some class would; the message is one line.
    """
    key = f"params.yaml: {place}"
    single = np.flatnonzero(np.bincount(y, minlength=len(classes)) < 2)
    if size != trivial and len(single):
        raise ParamsError(f"{key}: class {classes[single[0]]} has one image, too few for a draw")
    sides = pick(y, size, seed, key=key, trivial=trivial)
    for rows in sides if size != trivial else ():
        absent = np.flatnonzero(np.bincount(y[rows], minlength=len(classes)) == 0)
        if len(absent):
            there = int((y == absent[0]).sum())
            raise ParamsError(
                f"{key}: {len(rows)} of {len(y)} images would have none of class {classes[absent[0]]}, "
                f"which has {there}"
            )
    return sides
