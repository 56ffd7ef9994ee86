"""Looks at images that a project is to be made for: how many there are, of how many classes, how large.

This counts and reads headers; ``prepare`` checks every image. What lies in a folder it asks the code of
``prepare``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from deepcustom.base.errors import InputError
from deepcustom.base.files import named
from deepcustom.data.own.folder import find_in_folder
from deepcustom.data.own.parquet import IMAGES, LABELS

SAMPLE = 200
"""So many images are opened to find channels and size."""
LARGEST, USUAL = 256, 64
"""Pixels a side: the most that is allowed, and the most that is proposed."""
FORMS = (
    "a folder with a sub-folder for each class (maybe below train and test), a folder of x_train.npy and "
    "y_train.npy (maybe x_test.npy, y_test.npy) or of x.npy and y.npy, an .npz of such arrays, or parquet "
    "with the columns image and label"
)


@dataclass(frozen=True)
class Images:
    """What is known of a data set before it is prepared.

    Attributes:
        source: ``built_in``, ``folder``, ``arrays`` or ``parquet``.
        train: number of images, those of ``test`` not among them.
        test: number of test images; None if they have to be drawn from the others.
        classes: how many there are.
        channels: 1 or 3.
        size: (H, W) that the images are brought to, 1 to 256 each.
        sizes_vary: whether some image has another size.
    """

    source: str
    train: int
    test: int | None
    classes: int
    channels: int
    size: tuple[int, int]
    sizes_vary: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a prepared image."""
        return (self.channels, *self.size)


def built_in(name: str) -> Images:
    """The built-in data set called ``name``.

    Raises:
        UnknownNameError: there is none; the message lists those that there are.
    """
    from deepcustom.data.sources import find_source

    spec = find_source(name).spec
    sizes = {part: facts.size for part, facts in spec.splits.items()}
    channels, height, width = spec.shape
    return Images(
        "built_in", sizes["train"], sizes["test"], spec.num_classes, channels, (height, width)
    )


def look(path: Path) -> Images:
    """Images of one's own.

    Raises:
        InputError: in one line: nothing is there, or it is in none of the forms.
    """
    if not path.exists():
        raise InputError(f"--images {path}: there is no such file or folder")
    parquet = [path] if path.suffix == ".parquet" else sorted(path.rglob("*.parquet"))
    if parquet:
        return _parquet(path, parquet)
    if path.suffix == ".npz" or any(path.glob("*.npy")):
        return _arrays(path)
    if path.is_dir() and any(one.is_dir() for one in path.iterdir()):
        return _folder(path)
    raise InputError(f"--images {path}: want {FORMS}")


# Arrays


def _arrays(path: Path) -> Images:
    shapes = _npz_shapes(path) if path.is_file() else _npy_shapes(path)
    train, test = ("x_train", "y_train"), ("x_test", "y_test")
    if "x" in shapes and "y" in shapes:
        train = ("x", "y")
    elif not {*train} <= {*shapes}:
        there = ", ".join(shapes) or "no arrays"
        raise InputError(f"--images {path}: want x_train and y_train, or x and y; found {there}")
    channels, size = _channels_last_or_first(path, shapes[train[0]])
    labels = _array(path, train[1])
    return Images(
        "arrays",
        shapes[train[0]][0],
        shapes[test[0]][0] if {*test} <= {*shapes} else None,
        len(np.unique(labels)),
        channels,
        size,
    )


def _npy_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    return {one.stem: _array(folder, one.stem).shape for one in sorted(folder.glob("*.npy"))}


def _npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of an archive's arrays, without reading the arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _shape(archive, name) for name in archive.namelist()}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from None


def _shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    with archive.open(name) as file:
        if npy.read_magic(file) == (1, 0):
            return tuple(npy.read_array_header_1_0(file)[0])
        return tuple(npy.read_array_header_2_0(file)[0])


def _array(path: Path, name: str) -> Any:
    """An array of a folder, mapped, or of an archive."""
    try:
        if path.is_dir():
            return np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        with np.load(path, allow_pickle=False) as archive:
            return archive[name]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise _unreadable(path / f"{name}.npy" if path.is_dir() else path, error) from None


def _channels_last_or_first(path: Path, shape: tuple[int, ...]) -> tuple[int, tuple[int, int]]:
    """Channels and (H, W) of arrays (N, H, W), (N, C, H, W) or (N, H, W, C)."""
    if len(shape) == 3:
        return 1, (shape[1], shape[2])
    if len(shape) == 4 and shape[1] in (1, 3):
        return shape[1], (shape[2], shape[3])
    if len(shape) == 4 and shape[3] in (1, 3):
        return shape[3], (shape[1], shape[2])
    raise InputError(
        f"--images {path}: want images (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 channels, "
        f"found {shape}"
    )


# A folder


def _folder(path: Path) -> Images:
    """A folder as ``prepare`` will find it, and as it is refused there."""
    place = named(path)
    try:
        found = find_in_folder(place.parent, place.name)
        items = list(found.items())
    except InputError as error:
        raise InputError(f"--images {path}: {error}") from None
    classes = len(found.classes or ())
    if classes < 2:
        raise InputError(f"--images {path}: want 2 or more classes, found {classes}")
    test = sum(one.part == "test" for one in items)
    files = [place.parent / one.name for one in items if one.part != "test"]
    step = max(1, len(files) // SAMPLE)
    channels, size, vary = _opened((file, file) for file in files[::step][:SAMPLE])
    return Images(
        "folder", len(files), test if found.halves else None, classes, channels, size, vary
    )


def _opened(files: Iterable[tuple[Path, Path | BytesIO]]) -> tuple[int, tuple[int, int], bool]:
    """Channels, proposed size, and whether sizes vary, by the headers of some images.

    Args:
        files: for each image the path that a message names, and what is opened.
    """
    from PIL import Image, UnidentifiedImageError

    modes, sizes = set(), []
    for path, file in files:
        try:
            with Image.open(file) as image:
                modes.add(image.mode)
                sizes.append((image.height, image.width))
        except (OSError, UnidentifiedImageError, ValueError) as error:
            raise _unreadable(path, error) from None
    return 1 if modes <= {"1", "L"} else 3, *_proposed(sizes)


def _proposed(sizes: list[tuple[int, int]]) -> tuple[tuple[int, int], bool]:
    """The one size, if it is allowed; else a square of the smallest shorter side, at most 64."""
    vary = len(set(sizes)) > 1
    if not vary and max(sizes[0]) <= LARGEST:
        return sizes[0], False
    side = min(USUAL, *(min(one) for one in sizes))
    return (side, side), True


# Parquet


def _parquet(path: Path, files: list[Path]) -> Images:
    """Image sets as the Hugging Face hub ships them: ``train-*.parquet`` and maybe ``test-*.parquet``."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"--images {path}: parquet needs pyarrow: pip install pyarrow") from None
    test = [one for one in files if _is_of_test(path, one)]
    train = [one for one in files if one not in test]
    if not train:
        raise InputError(f"--images {path}: has no parquet file but those of test")
    try:
        counts = {one: pq.ParquetFile(one).metadata.num_rows for one in files}
        image, label = _columns(path, pq.read_schema(train[0]).names)
        labels = {
            y for one in train for y in pq.read_table(one, columns=[label])[label].to_pylist()
        }
        some = next(pq.ParquetFile(train[0]).iter_batches(SAMPLE, columns=[image])).to_pylist()
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise _unreadable(path, error) from None
    channels, size, vary = _opened((path, _content(row[image])) for row in some)
    number = {True: sum(counts[one] for one in test), False: sum(counts[one] for one in train)}
    return Images(
        "parquet", number[False], number[True] if test else None, len(labels), channels, size, vary
    )


def _is_of_test(path: Path, file: Path) -> bool:
    """Whether a file of the folder ``path`` has test images, by its name or that of its own folder."""
    below = file.parent != path and file.parent.name == "test"
    return file != path and (below or file.stem.startswith("test"))


def _columns(path: Path, names: list[str]) -> tuple[str, str]:
    """The names of the columns of images and of labels."""
    images, labels = ([one for one in known if one in names] for known in (IMAGES, LABELS))
    if not images or not labels:
        raise InputError(
            f"--images {path}: want a column {' or '.join(IMAGES)} and a column {' or '.join(LABELS)}; found "
            f"{', '.join(names)}"
        )
    return images[0], labels[0]


def _content(row: Any) -> BytesIO:
    """The file of an image in a column of images."""
    content = row.get("bytes") if isinstance(row, Mapping) else row
    return BytesIO(content if isinstance(content, bytes) else b"")


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"--images {path}: cannot be read: {' '.join(str(error).split())}")
