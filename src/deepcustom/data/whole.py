"""A whole ``train`` or ``test`` before anything is drawn from it: its facts, and the splits made from it.

Images are read and written a few at a time, so that memory does not grow with their number. Labels, a hash
and a name of each image are in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deepcustom.base.files import beside
from deepcustom.data.arrays import Array, release
from deepcustom.data.datasets import SplitFacts

Rows = npt.NDArray[np.int64]
Digests = npt.NDArray[np.uint64]

_CHUNK = 256


@dataclass(frozen=True, eq=False)
class Whole:
    """All images of one side.

    Attributes:
        x: uint8 (M, C, H, W), in memory or mapped from a file.
        rows: which of ``x`` belong to this side, in order, int64 (N,).
        y: labels (N,), of the dtype that files have.
        name: gives the name of an image by its row of ``x``, for messages.
    """

    x: Array
    rows: Rows
    y: Array
    name: Callable[[int], str]

    def chunks(self, chosen: Rows) -> Iterator[Array]:
        """The images ``chosen`` by their position on this side, some at a time, in that order."""
        for start in range(0, len(chosen), _CHUNK):
            yield np.ascontiguousarray(self.x[self.rows[chosen[start : start + _CHUNK]]])
            release(self.x)

    def everything(self) -> Rows:
        """The position of every image."""
        return np.arange(len(self.y), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Survey:
    """What reading a whole side once tells.

    Attributes:
        facts: size and hashes.
        digests: a hash of each image's pixels, (N, 2).
    """

    facts: SplitFacts
    digests: Digests


def survey(whole: Whole) -> Survey:
    """Read every image of ``whole`` once."""
    of_all, digests = hashlib.sha256(), bytearray()
    for chunk in whole.chunks(whole.everything()):
        of_all.update(chunk.data)
        for image in chunk:
            digests += hashlib.blake2b(image.data, digest_size=16).digest()
    y_sha256 = hashlib.sha256(np.ascontiguousarray(whole.y).data).hexdigest()
    facts = SplitFacts(len(whole.y), of_all.hexdigest(), y_sha256)
    return Survey(facts, np.frombuffer(bytes(digests), np.uint64).reshape(-1, 2))


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of all values, in units of the range [0, 1]."""

    mean: float
    std: float


def write_split(folder: Path, whole: Whole, chosen: Rows) -> Moments:
    """Write the images ``chosen`` by their position as a split, the bytes that ``Split.save`` writes.

    Args:
        folder: created if missing.
        whole: where the images come from.
        chosen: sorted.

    Returns:
        The moments of the split's images, computed from exact counts; 0 for an empty split.
    """
    counts = np.zeros(256, np.int64)
    with GrowingArray(folder / "x.npy", whole.x.shape[1:]) as images:
        for chunk in whole.chunks(chosen):
            images.append(chunk)
            counts += np.bincount(chunk.reshape(-1), minlength=256)
    for name, array in (("y", whole.y[chosen]), ("index", chosen)):
        with beside(folder / f"{name}.npy") as partial, partial.open("wb") as file:
            np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return _moments(counts)


def _moments(counts: npt.NDArray[np.int64]) -> Moments:
    n, values = int(counts.sum()), range(256)
    if n == 0:
        return Moments(0.0, 0.0)
    total = sum(int(count) * value for count, value in zip(counts, values, strict=True))
    squares = sum(int(count) * value**2 for count, value in zip(counts, values, strict=True))
    variance = (n * squares - total**2) / n**2  # of integers, so that nothing cancels
    return Moments(float(total / n / 255), float(variance**0.5 / 255))


class GrowingArray:
    """A context that writes a ``.npy`` file of uint8 a few rows at a time; their number need not be known.

    The file gets its name when the context succeeds; if it raises, no file is left.
    """

    def __init__(self, path: Path, row: tuple[int, ...]) -> None:
        """Write rows of shape ``row`` to ``path``."""
        self._path, self._row, self._count = path, row, 0

    def __enter__(self) -> GrowingArray:
        with ExitStack() as opened:
            self._file = opened.enter_context(opened.enter_context(beside(self._path)).open("wb"))
            self._header()
            self._opened = opened.pop_all()
        return self

    def append(self, rows: Array) -> None:
        """Append uint8 rows (N, ...)."""
        self._file.write(np.ascontiguousarray(rows).data)
        self._count += len(rows)

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            self._opened.__exit__(*error)
            return
        with self._opened:
            self._header()

    def _header(self) -> None:
        """NumPy pads the header, so that the number in it can grow."""
        self._file.seek(0)
        header = {"descr": "|u1", "fortran_order": False, "shape": (self._count, *self._row)}
        np.lib.format.write_array_header_1_0(self._file, header)
