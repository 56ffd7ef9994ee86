"""Test images from a folder, arrays or parquet files, read without a project."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from deepcustom.base.errors import InputError
from deepcustom.base.files import named
from deepcustom.base.progress import silent
from deepcustom.data.arrays import Array
from deepcustom.data.own.array_files import find_in_arrays
from deepcustom.data.own.folder import find_in_folder
from deepcustom.data.own.gather import gather
from deepcustom.data.own.parquet import find_in_parquet
from deepcustom.data.own.pixels import Form
from deepcustom.data.own.source import Images, Item

FORMS = "a folder with a sub-folder for each class, .npy files in a folder, an .npz, or parquet"


@dataclass(frozen=True, eq=False)
class TestImages:
    """Images that networks are scored on.

    Attributes:
        x: uint8 (N, C, H, W), mapped from a file.
        y: labels (N,), int64.
        classes: names of the labels; None: the source has none.
    """

    __test__ = False  # for pytest

    x: Array
    y: Array
    classes: tuple[str, ...] | None


def read_test_images(path: Path, size: tuple[int, int] | None, place: Path) -> TestImages:
    """Read the images at ``path``: those of its test part, if it has one, else all.

    Args:
        path: in one of :data:`FORMS`.
        size: (H, W) that images are brought to; None: all have one size already.
        place: a folder for the pixels, in which ``x`` lies afterwards.

    Raises:
        InputError: in one line: nothing is there, or an image cannot be read.
    """
    if not path.exists():
        raise InputError(f"--images {path}: there is no such file or folder")
    if not (path.is_dir() or path.suffix in (".npz", ".parquet")):
        raise InputError(f"--images {path}: want {FORMS}")
    found = _find(named(path))
    if found.halves:
        found = replace(found, items=_tests_of(found))
    parts, classes = gather(found, Form(size, None), place, silent, every_class=False)
    (part,) = parts.values()
    return TestImages(part.mapped(), part.y(), classes if found.classes else None)


def _find(path: Path) -> Images:
    root, name = path.parent, path.name
    if path.suffix == ".parquet" or (path.is_dir() and any(path.rglob("*.parquet"))):
        return find_in_parquet(root, name, None, test_alone=True)
    if path.suffix == ".npz" or (path.is_dir() and any(path.glob("*.npy"))):
        return find_in_arrays(root, name, None, test_alone=True)
    return find_in_folder(root, name, test_alone=True)


def _tests_of(images: Images) -> Callable[[], Iterator[Item]]:
    """What gives the images of the test part alone."""

    def tests() -> Iterator[Item]:
        return (replace(one, part="all") for one in images.items() if one.part == "test")

    return tests
