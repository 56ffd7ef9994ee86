"""Splits and adversarial sets as arrays, in memory and in files."""

from __future__ import annotations

import mmap
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import mode
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from deepcustom.base.errors import InputError
from deepcustom.base.files import beside
from deepcustom.data.datasets import DatasetSpec

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[Any]

_DTYPES: dict[str, Any] = {"x": np.uint8, "x_adv": np.float32, "index": np.int64}
_NAMES = ("x", "x_adv", "y", "index")
_IMAGES = ("x", "x_adv")
_CHUNK = 2048


def label_dtype(classes: int) -> np.dtype[Any]:
    """The dtype of labels in files: uint8 for up to 256 classes, uint16 for more."""
    return np.dtype(np.uint8 if classes <= 256 else np.uint16)


@dataclass(frozen=True, eq=False)
class _Arrays:
    """Arrays of one length; each field is a file of that name in a folder."""

    def __len__(self) -> int:
        return len(self._arrays()["y"])

    def _arrays(self) -> dict[str, Array]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def take(self, rows: Array | slice) -> Self:
        """The images at ``rows``, in that order; ``index`` keeps pointing at the official split.

        Rows chosen by number or by mask are copied; a slice is a view.
        """
        return type(self)(**{name: array[rows] for name, array in self._arrays().items()})

    def save(self, folder: Path) -> None:
        """Write one ``.npy`` file per array; the same arrays give the same bytes.

        Args:
            folder: created if missing. These arrays may be mapped from its files.

        Raises:
            InputError: an array has the wrong dtype or shape for its file.
        """
        arrays = self._arrays()
        self._check(folder, arrays["x"].shape[1:], None)
        for name, array in arrays.items():
            with beside(folder / f"{name}.npy") as partial, partial.open("wb") as file:
                np.save(file, np.ascontiguousarray(array), allow_pickle=False)

    def _check(self, folder: Path, image: tuple[int, ...], classes: int | None) -> None:
        """Check each array's form against its file in ``folder``; ``image`` is the shape of one image."""
        for name, array in self._arrays().items():
            shape = image if name in _IMAGES else ()
            _check_form(folder / f"{name}.npy", name, array, (len(self), *shape), classes)

    @classmethod
    def load(cls, folder: Path, spec: DatasetSpec) -> Self:
        """Map the files of ``folder`` into memory, read-only.

        Raises:
            InputError: a file is missing or is not a ``.npy`` file, or an array has an unexpected dtype,
                shape, length or range.
        """
        paths = {field.name: folder / f"{field.name}.npy" for field in fields(cls)}
        arrays = {name: _map(path) for name, path in paths.items()}
        # The length that most arrays have, so that an error names the file that differs.
        n = mode(len(array) if array.ndim else 0 for array in arrays.values())
        for name, path in paths.items():
            shape = spec.shape if name in _IMAGES else ()
            _check_form(path, name, arrays[name], (n, *shape), spec.num_classes)
            _check_range(path, name, arrays[name], spec)
        return cls(**arrays)


@dataclass(frozen=True, eq=False)
class Split(_Arrays):
    """Clean images.

    Attributes:
        x: images, uint8 (N, C, H, W) in 0..255; in memory also float32 in [0, 1].
        y: labels (N,), uint8, or uint16 for more than 256 classes.
        index: row of each image in the official split, int64 (N,), no row twice.
    """

    x: Array
    y: Array
    index: Array

    @classmethod
    def whole(cls, x: Array, y: Array) -> Split:
        """An official split, as :func:`deepcustom.data.sources.fetch` gives it."""
        return cls(x, y, np.arange(len(y), dtype=np.int64))

    def rows_of(self, index: Array, what: str, name: str) -> npt.NDArray[np.int64]:
        """The rows (M,) of this split that have this ``index`` (M,); the split is sorted by ``index``.

        Args:
            index: rows of the official split, as :class:`AdversarialSet` has them.
            what: what ``index`` belongs to, for the message.
            name: the name of this split, for the message.

        Raises:
            InputError: a row of ``index`` is not in this split.
        """
        rows = np.searchsorted(self.index, index)
        known = rows < len(self.index)
        if not (known.all() and np.array_equal(self.index[rows], index)):
            raise InputError(f"{what} was made from another {name} split")
        return rows.astype(np.int64)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Images float32 (N, C, H, W) in [0, 1] and labels int64 (N,), in memory."""
        return images(self.x), labels(self.y)


@dataclass(frozen=True, eq=False)
class AdversarialSet(_Arrays):
    """The images that one attack made from a split or from a part of it; the set may be empty.

    Attributes:
        x: the images they were made from, uint8 (N, C, H, W) in 0..255; in memory also float32 in [0, 1].
        x_adv: adversarial images, float32 (N, C, H, W) in [0, 1].
        y: true labels (N,), uint8, or uint16 for more than 256 classes.
        index: row of each image in the official split, int64 (N,), no row twice.
    """

    x: Array
    x_adv: Array
    y: Array
    index: Array

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Clean and adversarial images float32 (N, C, H, W) in [0, 1], labels int64 (N,)."""
        return images(self.x), images(self.x_adv), labels(self.y)


class SetWriter:
    """A context that writes an adversarial set a chunk of rows at a time; their number need not be known.

    The files are the same, byte for byte, as those of :meth:`AdversarialSet.save`. They get their names
    when the context succeeds; if it raises, no file is left.
    """

    def __init__(self, folder: Path, spec: DatasetSpec) -> None:
        """Write images of the shape that ``spec`` gives to ``folder``, which is created if missing."""
        self._folder, self._shape, self._classes = folder, spec.shape, spec.num_classes
        self._dtypes = {**_DTYPES, "y": label_dtype(spec.num_classes)}
        self._files: dict[str, BinaryIO] = {}
        self._count = 0

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            for name in _NAMES:
                partial = opened.enter_context(beside(self._folder / f"{name}.npy"))
                self._files[name] = opened.enter_context(partial.open("wb"))
            self._write_headers()
            self._opened = opened.pop_all()
        return self

    def append(self, rows: AdversarialSet) -> None:
        """Append ``rows``, which may be empty.

        Raises:
            InputError: an array has the wrong dtype or shape for its file.
        """
        rows._check(self._folder, self._shape, self._classes)
        for name, array in rows._arrays().items():
            self._files[name].write(np.ascontiguousarray(array).data)
        self._count += len(rows)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._opened.__exit__(kind, error, trace)
            return
        with self._opened:
            self._write_headers()
            for file in self._files.values():  # complete every file before one gets its name
                file.close()

    def _write_headers(self) -> None:
        """Write the header of each file at its start. NumPy pads it, so that the length in it can grow."""
        for name, file in self._files.items():
            shape = self._shape if name in _IMAGES else ()
            header = {
                "descr": np.lib.format.dtype_to_descr(np.dtype(self._dtypes[name])),
                "fortran_order": False,
                "shape": (self._count, *shape),
            }
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, header)


def release(*arrays: Array) -> None:
    """Release the memory of those ``arrays`` that are mapped from files; they stay readable.

    Pages that were read count as this process's memory until the system takes them back. A copy-on-write
    mapping (mode ``c``) is left alone: its memory may hold changes that its file does not.
    """
    for array in arrays:
        owner: Any = array
        while isinstance(owner, np.ndarray) and getattr(owner, "mode", "r") != "c":
            owner = owner.base
        if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            owner.madvise(mmap.MADV_DONTNEED)


def images(x: Array) -> Tensor:
    """Images as the networks take them, a copy in memory.

    Args:
        x: uint8 in 0..255, or float32 in [0, 1]; any shape.

    Returns:
        float32 in [0, 1], same shape.
    """
    import torch

    if x.dtype == np.uint8:
        return torch.from_numpy(x.astype(np.float32)).div_(255)
    return torch.from_numpy(np.array(x, dtype=np.float32))


def labels(y: Array) -> Tensor:
    """Labels as the losses take them, int64, a copy in memory."""
    import torch

    return torch.from_numpy(y.astype(np.int64))


def _map(path: Path) -> Array:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected an array (.npy)") from None
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"{path}: no whole .npy file of numbers ({problem})") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: an archive of arrays, expected one array (.npy)")
    return array


def _check_form(
    path: Path, name: str, array: Array, shape: tuple[int, ...], classes: int | None
) -> None:
    """Check dtype and shape; labels may have either of their dtypes where ``classes`` is not known."""
    if name == "y":
        allowed = [label_dtype(n) for n in ((1, 257) if classes is None else (classes,))]
    else:
        allowed = [np.dtype(_DTYPES[name])]
    if array.dtype not in allowed or array.shape != shape:
        found, expected = f"{array.dtype} of shape {array.shape}", " or ".join(map(str, allowed))
        raise InputError(f"{path}: {found}, expected {expected} of shape {shape}")


def _check_range(path: Path, name: str, array: Array, spec: DatasetSpec) -> None:
    """Check that the data set can have every value; the array is read a chunk at a time."""
    if name == "x":  # any byte is a pixel
        return
    rows = max(facts.size for facts in spec.splits.values())
    low, high = {"x_adv": (0, 1), "y": (0, spec.num_classes - 1), "index": (0, rows - 1)}[name]
    seen = np.zeros(rows, dtype=bool)
    for start in range(0, len(array), _CHUNK):
        chunk = array[start : start + _CHUNK]
        least, most = chunk.min(), chunk.max()
        if not (low <= least and most <= high):  # so that nan fails as well
            found = f"values from {least} to {most}"
            raise InputError(f"{path}: {found}, expected {low} to {high}, all finite")
        if name == "index":
            if seen[chunk].any() or len(np.unique(chunk)) < len(chunk):
                raise InputError(f"{path}: a row occurs twice, expected each at most once")
            seen[chunk] = True
        release(array)
