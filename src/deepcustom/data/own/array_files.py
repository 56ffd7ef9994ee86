"""Images in arrays: ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

The arrays are ``.npy`` files in a folder, or lie in one ``.npz``. Images are read one after the other from
the file, so that they need not fit into memory.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from deepcustom.base.errors import InputError
from deepcustom.data.own.pixels import from_array
from deepcustom.data.own.source import Images, Item, Part

Open = Callable[[], AbstractContextManager[IO[bytes]]]

PAIRS: dict[Part, tuple[str, str]] = {
    "train": ("x_train", "y_train"),
    "test": ("x_test", "y_test"),
    "all": ("x", "y"),
}
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def find_in_arrays(
    root: Path, path: str, classes: tuple[str, ...] | None, *, test_alone: bool = False
) -> Images:
    """The images in the folder or ``.npz`` at ``path`` below ``root``: uint8 (N, H, W), (N, H, W, C) or
    (N, C, H, W), labels integers (N,). With ``test_alone``, there may be ``x_test`` and ``y_test`` alone.

    Raises:
        InputError: an array is missing, cannot be read, or has another dtype, shape or length. The message
            is one line that names it.
    """
    arrays = _arrays(root, path)
    parts = [part for part in PAIRS if PAIRS[part][0] in arrays]
    halves = parts == ["train", "test"]
    lonely = [["train"], ["all"], *([["test"]] if test_alone else [])]
    if not halves and parts not in lonely:
        found = ", ".join(sorted(arrays)) or "none"
        raise InputError(
            f"{path}: arrays must be x_train, y_train, x_test, y_test, or x, y; found {found}"
        )
    pairs: dict[Part, tuple[str, str]] = {p if halves else "all": PAIRS[p] for p in parts}
    lengths = {part: _length(path, arrays, pair) for part, pair in pairs.items()}

    def items() -> Iterator[Item]:
        for part, (x, y) in pairs.items():
            for row, label in enumerate(_labels(_shown(path, y), arrays[y])):
                if row == 0:
                    images = _rows(_shown(path, x), arrays[x])
                yield Item(
                    f"{_shown(path, x)}[{row}]", part, label, partial(from_array, next(images))
                )

    return Images(path, items, classes, sum(lengths.values()), halves)


def _shown(path: str, name: str) -> str:
    return f"{path}/{name}.npy"


def _arrays(root: Path, path: str) -> dict[str, Open]:
    """Name → how to open it."""
    full = root / path
    if full.is_dir():
        return {file.stem: partial(_opened, file) for file in full.glob("*.npy")}
    try:
        with zipfile.ZipFile(full) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
    except (OSError, zipfile.BadZipFile) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path}: neither a folder of .npy files nor a readable .npz ({why})"
        ) from None
    again = next((name for name in names if names.count(name) > 1), None)
    if again:
        raise InputError(f"{path}: {again} is in it twice")
    return {name.removesuffix(".npy"): partial(_member, full, name) for name in names}


def _opened(file: Path) -> IO[bytes]:
    return file.open("rb")


@contextmanager
def _member(file: Path, name: str) -> Iterator[IO[bytes]]:
    """One array of an ``.npz``."""
    with zipfile.ZipFile(file) as archive, archive.open(name) as stream:
        yield stream


def _header(shown: str, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype; the stream then stands at the first value.

    Raises:
        InputError: it is no array of numbers in C order.
    """
    try:
        version = npy.read_magic(stream)
        shape, fortran, dtype = _HEADERS[version](stream)
    except (ValueError, KeyError, OSError, EOFError, SyntaxError) as error:
        raise InputError(
            f"{shown}: no readable .npy file ({' '.join(str(error).split())})"
        ) from None
    if dtype.hasobject:
        raise InputError(
            f"{shown}: an array of Python objects, expected numbers; pickles are not read"
        )
    if fortran and len(shape) > 1:
        raise InputError(f"{shown}: in Fortran order: save np.ascontiguousarray of it")
    return shape, dtype


def _length(path: str, arrays: dict[str, Open], pair: tuple[str, str]) -> int:
    """The number of images of a part, after a check of both arrays."""
    forms = []
    for name in pair:
        if name not in arrays:
            raise InputError(f"{_shown(path, name)} is missing")
        with arrays[name]() as stream:
            forms.append(_header(_shown(path, name), stream))
    (x, x_type), (y, y_type) = forms
    if x_type != np.uint8 or len(x) not in (3, 4):
        raise InputError(
            f"{_shown(path, pair[0])}: {x_type} of shape {x}, expected uint8 of shape (N, H, W), "
            "(N, H, W, C) or (N, C, H, W)"
        )
    if y_type.kind not in "iu" or y not in ((x[0],), (x[0], 1)):
        raise InputError(
            f"{_shown(path, pair[1])}: {y_type} of shape {y}, expected integers of shape ({x[0]},)"
        )
    return x[0]


def _labels(shown: str, opened: Open) -> list[int]:
    with opened() as stream:
        shape, dtype = _header(shown, stream)
        content = _exactly(shown, stream, shape[0] * dtype.itemsize)
    return [int(value) for value in np.frombuffer(content, dtype)]


def _rows(shown: str, opened: Open) -> Iterator[npt.NDArray[Any]]:
    with opened() as stream:
        (count, *shape), _ = _header(shown, stream)
        size = int(np.prod(shape))
        for _ in range(count):
            yield np.frombuffer(_exactly(shown, stream, size), np.uint8).reshape(shape)


def _exactly(shown: str, stream: IO[bytes], size: int) -> bytes:
    try:
        content = stream.read(size)
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{shown}: cannot be read ({error})") from None
    if len(content) < size:
        raise InputError(f"{shown}: cut off: it holds fewer values than its header says")
    return content
