"""Reads all images of a source once, into arrays on disk, and says in one line what is wrong with them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from os import cpu_count
from pathlib import Path

import numpy as np

from deepcustom.base.errors import InputError
from deepcustom.base.image_settings import LARGEST
from deepcustom.base.progress import Advance
from deepcustom.data.arrays import Array
from deepcustom.data.own.pixels import Form, Pixels
from deepcustom.data.own.source import FEWEST_CLASSES, MOST_CLASSES, Images, Item
from deepcustom.data.whole import GrowingArray

_BATCH = 64  # images that are read at a time
_READERS = 8  # threads at most


@dataclass
class Gathered:
    """One part of a source.

    Attributes:
        x: its file.
        labels: of its images.
    """

    x: Path
    labels: array[int] = field(default_factory=lambda: array("q"))
    _names: bytearray = field(default_factory=bytearray)
    _ends: array[int] = field(default_factory=lambda: array("q", [0]))

    def add(self, item: Item) -> None:
        """Keep label and name of the next image."""
        self.labels.append(item.label)
        self._names += item.name.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._names))

    def name(self, row: int) -> str:
        """The name of an image."""
        return self._names[self._ends[row] : self._ends[row + 1]].decode("utf-8", "replace")

    def y(self) -> Array:
        """All labels, int64 (N,)."""
        return np.frombuffer(self.labels, np.int64).copy()

    def mapped(self) -> Array:
        """All images, uint8 (N, C, H, W), mapped from the file."""
        found: Array = np.load(self.x, mmap_mode="r", allow_pickle=False)
        return found


def gather(
    images: Images, form: Form, folder: Path, advance: Advance, *, every_class: bool = True
) -> tuple[dict[str, Gathered], tuple[str, ...]]:
    """Read every image of a source once, and write the pixels of each part to ``folder``.

    Args:
        images: the source.
        form: what each image is brought to. Where it leaves size or channels open, those of the first image
            count.
        folder: created if missing.
        advance: told of every image.
        every_class: whether each class must have an image in every part.

    Returns:
        The parts, which are ``train`` and ``test``, or ``all``; and the names of the classes.

    Raises:
        InputError: an image cannot be read or differs from the first, a label is out of range, or a class
            has no image in some part. The message is one line that names it.
    """
    parts: dict[str, Gathered] = {}
    with ExitStack() as files:
        writers: dict[str, GrowingArray] = {}
        shape: tuple[int, ...] | None = None
        for items, pixels in _read(images.items(), form):
            for item, image in zip(items, pixels, strict=True):
                shape = _same_shape(item, image, shape)
                _check_label(item, images.classes)
                if item.part not in parts:
                    parts[item.part] = Gathered(folder / f"{item.part}.npy")
                    writer = GrowingArray(parts[item.part].x, shape)
                    writers[item.part] = files.enter_context(writer)
                writers[item.part].append(image[np.newaxis])
                parts[item.part].add(item)
            advance(steps=len(items))
    _check_parts(images.place, parts)
    return parts, _check_classes(images, parts, every_class)


def _read(items: Iterator[Item], form: Form) -> Iterator[tuple[Sequence[Item], Sequence[Pixels]]]:
    """Some items at a time with their pixels, in order, read by several threads."""

    def pixels(item: Item) -> Pixels:
        try:
            return item.read(form)
        except Exception as error:  # an image from outside can make its parser raise anything
            why = " ".join(str(getattr(error, "strerror", None) or error).split())
            raise InputError(f"{item.name}: {why}") from error

    with ThreadPoolExecutor(min(_READERS, cpu_count() or 1)) as pool:
        while batch := list(islice(items, _BATCH)):
            yield batch, list(pool.map(pixels, batch))


def _same_shape(item: Item, image: Pixels, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if shape is None and max(image.shape[1:]) > LARGEST:
        found = f"{image.shape[1]} x {image.shape[2]} pixels"
        raise InputError(f"{item.name}: {found}, at most {LARGEST} x {LARGEST} are read: set size")
    if shape is not None and image.shape != shape:
        key = "channels" if image.shape[1:] == shape[1:] else "size"
        raise InputError(
            f"{item.name}: {_form(image.shape)}, the images before have {_form(shape)}: set {key}"
        )
    return image.shape


def _form(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[2]} pixels and {shape[0]} channel(s)"


def _check_label(item: Item, classes: Sequence[str] | None) -> None:
    most = (len(classes) if classes else MOST_CLASSES) - 1
    if not 0 <= item.label <= most:
        raise InputError(f"{item.name}: its label is {item.label}, expected 0 to {most}")


def _check_parts(place: str, parts: dict[str, Gathered]) -> None:
    if not parts:
        raise InputError(f"{place}: there is no image")
    if set(parts) not in ({"all"}, {"train", "test"}):
        found = ", ".join(sorted(parts))
        raise InputError(
            f"{place}: images must be of train and test, or of no part; found: {found}"
        )


def _check_classes(
    images: Images, parts: dict[str, Gathered], every_class: bool
) -> tuple[str, ...]:
    """The names of the classes, after a check that each has images in every part, if it must."""
    counts = {name: np.bincount(part.y(), minlength=1) for name, part in parts.items()}
    most = max(map(len, counts.values()))
    classes = images.classes or tuple(map(str, range(most)))
    if not FEWEST_CLASSES <= len(classes) <= MOST_CLASSES:
        allowed = f"{FEWEST_CLASSES} to {MOST_CLASSES}"
        raise InputError(f"{images.place}: {len(classes)} class(es), expected {allowed}")
    if again := next((name for name in classes if classes.count(name) > 1), None):
        raise InputError(f"{images.place}: two classes are called {again}")
    for part, count in counts.items():
        there = np.pad(count, (0, len(classes) - len(count)))
        if every_class and not there.all():
            name = classes[int(np.flatnonzero(there == 0)[0])]
            side = "" if part == "all" else f" in {part}"
            raise InputError(f"{images.place}: class {name} has no image{side}")
    return classes
