"""What every source of own images gives: its images one after the other, each with label and name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from deepcustom.data.own.pixels import Form, Pixels

Part = Literal["train", "test", "all"]
FEWEST_CLASSES, MOST_CLASSES = 2, 1000


@dataclass(frozen=True)
class Item:
    """One image that is not read yet.

    Attributes:
        name: what messages call it, such as its path.
        part: where the source has it; ``all`` where the source has no test part.
        label: from 0 on.
        read: gives its pixels uint8 (C, H, W); raises ValueError or OSError where it cannot.
    """

    name: str
    part: Part
    label: int
    read: Callable[[Form], Pixels]


@dataclass(frozen=True)
class Images:
    """A source of images.

    Attributes:
        place: its name in messages: the file, folder or function.
        items: the images, in an order that does not change; called once.
        classes: the names of the labels; None: the numbers are the names.
        total: how many images there are, if that is known beforehand.
        halves: whether it has ``train`` and ``test``; None: that shows when it is read.
        ignored: names of files that are no images, for the record.
    """

    place: str
    items: Callable[[], Iterator[Item]]
    classes: tuple[str, ...] | None
    total: int | None
    halves: bool | None
    ignored: tuple[str, ...] = field(default=())
