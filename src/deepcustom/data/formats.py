"""The parts of the readers of raw files: IDX, pickled arrays, PNG sheets, tarballs, and the check by hash.

Files are read in memory: nothing from an archive is ever written to disk. A data set's reader
returns ``train`` and ``test``, verified by sha256, or raises one of the two errors below, or
InputError where the system cannot read a file.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deepcustom.base.errors import InputError
from deepcustom.data.datasets import DatasetSpec

Bytes = npt.NDArray[np.uint8]
Arrays = dict[str, tuple[Bytes, Bytes]]


class MissError(Exception):
    """The data are not there; another source may have them. ``sources`` catches every such error."""


class CorruptError(InputError):
    """The content of the file at ``path`` is wrong. ``sources`` catches every such error."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {' '.join(problem.split())}")
        self.path = path


_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ADMITTED = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
}


class _ArraysOnly(pickle.Unpickler):
    """Admits NumPy arrays and Python's plain types; refuses everything else that a pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return _ADMITTED[module, name]


def idx(content: bytes) -> Bytes:
    """An IDX file of bytes: 0, 0, 8, rank, the sizes as big-endian uint32, then the values."""
    if content[:3] != b"\0\0\x08":
        raise ValueError("not an IDX file of bytes")
    rank = content[3]
    sizes = np.frombuffer(content, ">u4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(sizes.tolist())


def unpickled(content: bytes) -> Any:
    """The content of a pickle of arrays and plain types; strings of Python 2 come back as bytes.

    Raises:
        pickle.UnpicklingError: the pickle asks for something else; none of its code is run.
    """
    return _ArraysOnly(io.BytesIO(content), encoding="bytes").load()


def sheet(content: bytes, shape: tuple[int, int, int]) -> Bytes:
    """A PNG sheet as images (N, C, H, W) of ``shape``: row i holds the pixels of image i, row by row."""
    from PIL import Image

    c, h, w = shape
    with Image.open(io.BytesIO(content), formats=("PNG",)) as page:
        return np.asarray(page).reshape(-1, h, w, c).transpose(0, 3, 1, 2)


def verified(
    spec: DatasetSpec, split: str, kind: Literal["images", "labels"], array: Bytes
) -> Bytes:
    """``array`` in C order, checked against what ``spec`` says of ``split``.

    Raises:
        ValueError: its dtype, shape or sha256 differs.
    """
    official = spec.splits[split]
    images = kind == "images"
    shape = (official.size, *spec.shape) if images else (official.size,)
    problem = f"not the official {spec.name} {split} {kind}"
    if array.dtype != np.uint8 or array.shape != shape:
        found = f"{array.dtype} of shape {array.shape}"
        raise ValueError(f"{problem}: {found}, expected uint8 of shape {shape}")
    array = np.ascontiguousarray(array)
    sha256 = hashlib.sha256(array.data).hexdigest()
    expected = official.x_sha256 if images else official.y_sha256
    if sha256 != expected:
        raise ValueError(f"{problem}: sha256 {sha256}, expected {expected}")
    return array


def require(paths: Sequence[Path]) -> None:
    """Check that all ``paths``, which are in one folder, are files.

    Raises:
        MissError: files are missing; the message names each.
    """
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise MissError(f"{paths[0].parent} lacks {', '.join(missing)}")


def members(tarball: Path, names: Sequence[str]) -> dict[str, bytes]:
    """The named regular files of a tarball, in one pass.

    Raises:
        MissError: there is no such tarball.
        CorruptError: the file is not a tarball, or lacks a named file.
    """
    require([tarball])
    contents = {}
    with reading(tarball):
        with tarfile.open(tarball, "r|gz") as archive:
            for member in archive:
                wanted = member.name in names and member.isreg()
                if wanted and (file := archive.extractfile(member)):
                    contents[member.name] = file.read()
        if missing := [name for name in names if name not in contents]:
            raise ValueError(f"it lacks {', '.join(missing)}")
    return contents


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """A context that turns any error in reading a file into one line that names the file.

    Raises:
        InputError: the system cannot read the file.
        CorruptError: anything else.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise InputError(f"{path}: {error.strerror}") from error
        raise CorruptError(path, str(error)) from error
    except ValueError as error:
        raise CorruptError(path, str(error)) from error
    except Exception as error:  # a file from outside can make its parsers raise anything
        raise CorruptError(path, f"{type(error).__name__}: {error}") from error
