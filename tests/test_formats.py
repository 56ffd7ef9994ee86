"""Reading the raw files of small data sets, rightly made and wrongly."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from deepcustom.data import cifar10, mnist
from deepcustom.data.datasets import DatasetSpec, SplitFacts
from deepcustom.data.formats import Arrays, CorruptError, MissError

SIZES = {"train": 20, "test": 4}
IMAGES_GZ = "train-images-idx3-ubyte.gz"


def random_arrays(shape: tuple[int, int, int]) -> Arrays:
    rng = np.random.default_rng(0)
    return {
        split: (
            rng.integers(0, 256, (n, *shape), dtype=np.uint8),
            rng.integers(0, 10, n, dtype=np.uint8),
        )
        for split, n in SIZES.items()
    }


def spec_of(name: str, shape: tuple[int, int, int], arrays: Arrays) -> DatasetSpec:
    splits = {
        split: SplitFacts(
            len(y), hashlib.sha256(x.tobytes()).hexdigest(), hashlib.sha256(y.tobytes()).hexdigest()
        )
        for split, (x, y) in arrays.items()
    }
    return DatasetSpec(name, name.title(), shape, tuple("0123456789"), splits)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def tar_gz(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class Mnist:
    """A small MNIST: its arrays, its spec, and its files as each source has them."""

    arrays = random_arrays((1, 5, 5))
    plain: ClassVar = {
        "train-images-idx3-ubyte": idx(arrays["train"][0][:, 0]),
        "train-labels-idx1-ubyte": idx(arrays["train"][1]),
        "t10k-images-idx3-ubyte": idx(arrays["test"][0][:, 0]),
        "t10k-labels-idx1-ubyte": idx(arrays["test"][1]),
    }
    files: ClassVar = {
        f"{name}.gz": gzip.compress(content, mtime=0) for name, content in plain.items()
    }
    spec = spec_of("mnist", (1, 5, 5), arrays)
    tarball = tar_gz({f"package/data/{name}": content for name, content in plain.items()})


def python2_batch(x: np.ndarray, y: np.ndarray) -> bytes:
    """A batch as Python 2 wrote the official ones: protocol 2, ``str`` where bytes are meant."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    ints = b"".join(b"M" + struct.pack("<H", value) for value in x.shape)
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR"
    dtype += b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
    array += b"(K\x01(" + ints + b"t" + dtype + b"\x89" + text(x.tobytes()) + b"tb"
    items = b"]" + b"(" + b"".join(b"K" + bytes([value]) for value in y) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + items + b"u."


def python3_batch(x: np.ndarray, y: np.ndarray) -> bytes:
    return pickle.dumps({b"data": x, b"labels": y.tolist()}, protocol=4)


class Cifar10:
    """A small CIFAR-10 likewise."""

    shape = (3, 4, 4)
    arrays = random_arrays(shape)
    spec = spec_of("cifar10", shape, arrays)
    parts: ClassVar = {f"data_batch_{i + 1}": ("train", slice(4 * i, 4 * i + 4)) for i in range(5)}
    parts["test_batch"] = ("test", slice(None))

    @classmethod
    def official(cls, dumps=python2_batch, **replaced: bytes) -> bytes:
        members = {}
        for name, (split, rows) in cls.parts.items():
            x, y = cls.arrays[split]
            members[name] = dumps(x[rows].reshape(len(x[rows]), -1), y[rows])
        members |= replaced
        return tar_gz({f"cifar-10-batches-py/{name}": content for name, content in members.items()})

    @classmethod
    def npm(cls) -> bytes:
        members = {}
        for name, (split, rows) in cls.parts.items():
            x = cls.arrays[split][0][rows]
            png = io.BytesIO()
            Image.fromarray(x.transpose(0, 2, 3, 1).reshape(len(x), -1, 3)).save(png, "PNG")
            members[f"package/{name}.png"] = png.getvalue()
        for split, (_, y) in cls.arrays.items():
            members[f"package/{split}_lables.json"] = json.dumps(y.tolist()).encode()
        return tar_gz(members)


def assert_same(got: Arrays, expected: Arrays) -> None:
    assert list(got) == ["train", "test"]
    for split, arrays in expected.items():
        for array, wanted in zip(got[split], arrays, strict=True):
            assert array.dtype == np.uint8
            assert array.flags.c_contiguous
            np.testing.assert_array_equal(array, wanted)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


# MNIST


def test_idx_files_are_read_packed_unpacked_and_from_a_tarball(tmp_path):
    packed, unpacked = write(tmp_path / "gz", Mnist.files), write(tmp_path / "idx", Mnist.plain)
    tarball = write(tmp_path, {"mnist.tgz": Mnist.tarball}) / "mnist.tgz"
    assert_same(mnist.read_official(Mnist.spec, packed), Mnist.arrays)
    assert_same(mnist.read_official(Mnist.spec, unpacked), Mnist.arrays)
    assert_same(mnist.read_npm(Mnist.spec, tarball), Mnist.arrays)


def test_missing_files_are_a_miss_that_names_them(tmp_path):
    folder = write(tmp_path, Mnist.files)
    (folder / IMAGES_GZ).unlink()
    with pytest.raises(MissError, match=f"lacks {IMAGES_GZ}$"):
        mnist.read_official(Mnist.spec, folder)
    with pytest.raises(MissError, match=r"lacks mnist\.tgz$"):
        mnist.read_npm(Mnist.spec, folder / "mnist.tgz")


def test_wrong_content_names_its_file_in_one_line(tmp_path):
    folder = write(tmp_path, Mnist.files | {IMAGES_GZ: b"<html>\nno</html>"})
    with pytest.raises(CorruptError) as caught:
        mnist.read_official(Mnist.spec, folder)
    assert caught.value.path == folder / IMAGES_GZ
    assert str(caught.value).startswith(f"{folder / IMAGES_GZ}: Not a gzipped file")
    assert "\n" not in str(caught.value)


# CIFAR-10's pickles and archives, as a stranger might make them


class Payload:
    """Makes a file when a plain unpickler reads it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


def official(folder: Path, content: bytes) -> Path:
    return write(folder, {"cifar-10-python.tar.gz": content})


@pytest.mark.parametrize("dumps", [python2_batch, python3_batch])
def test_batches_of_either_python_are_read(tmp_path, dumps):
    folder = official(tmp_path, Cifar10.official(dumps))
    assert_same(cifar10.read_official(Cifar10.spec, folder), Cifar10.arrays)


def test_sheets_are_read(tmp_path):
    tarball = write(tmp_path, {"cifar10.tgz": Cifar10.npm()}) / "cifar10.tgz"
    assert_same(cifar10.read_npm(Cifar10.spec, tarball), Cifar10.arrays)


def test_malicious_pickle_is_refused_unexecuted(tmp_path):
    marker = tmp_path / "executed"
    bad = pickle.dumps({b"data": Payload(marker), b"labels": []}, protocol=3)
    pickle.loads(bad)
    assert marker.exists(), "the payload works where it is let"
    marker.rmdir()
    folder = official(tmp_path, Cifar10.official(data_batch_2=bad))
    with pytest.raises(CorruptError, match=r"cifar-10-python\.tar\.gz: .* asks for posix\.mkdir"):
        cifar10.read_official(Cifar10.spec, folder)
    assert not marker.exists()


@pytest.mark.parametrize("asked", ["builtins eval", "numpy load", "numpy.core.multiarray scalar"])
def test_unpickler_admits_nothing_else_even_of_numpy(tmp_path, asked):
    bad = b"\x80\x02c" + "\n".join(asked.split()).encode() + b"\n."
    folder = official(tmp_path, Cifar10.official(test_batch=bad))
    with pytest.raises(CorruptError, match=asked.replace(" ", r"\.")):
        cifar10.read_official(Cifar10.spec, folder)


def test_path_traversal_in_a_tarball_writes_nothing(tmp_path):
    members = {f"package/data/{name}": content for name, content in Mnist.plain.items()}
    outside = tmp_path / "outside"
    evil = {"../../escape": b"!", f"{outside}": b"!", "package/data/../../../escape": b"!"}
    folder = write(tmp_path / "a" / "b", {"mnist.tgz": tar_gz(evil | members)})
    before = names(tmp_path)
    assert_same(mnist.read_npm(Mnist.spec, folder / "mnist.tgz"), Mnist.arrays)
    assert names(tmp_path) == before
    assert not (tmp_path.parent / "escape").exists()


def test_link_in_a_tarball_is_not_followed(tmp_path):
    secret = write(tmp_path / "secret", {"file": Mnist.plain["train-images-idx3-ubyte"]}) / "file"
    tarball = tmp_path / "mnist.tgz"
    with tarfile.open(tarball, mode="w:gz") as tar:
        for name in Mnist.plain:
            link = tarfile.TarInfo(f"package/data/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, str(secret)
            tar.addfile(link)
    with pytest.raises(CorruptError, match="lacks package/data/train-images-idx3-ubyte"):
        mnist.read_npm(Mnist.spec, tarball)
