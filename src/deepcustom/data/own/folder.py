"""Images in a folder that has one sub-folder for each class, directly or in ``train`` and ``test``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from deepcustom.base.errors import InputError
from deepcustom.data.own.pixels import SUFFIXES, from_file
from deepcustom.data.own.source import Images, Item, Part


def find_in_folder(root: Path, path: str, *, test_alone: bool = False) -> Images:
    """The images in the folder ``path`` below ``root``; classes are sorted by name, and so are files.

    With ``test_alone``, the images may be those of a ``test`` that has no ``train`` beside it.

    Hidden files are left out, and so are files whose suffix is none of an image's; the latter are counted.

    Raises:
        InputError: a class is empty, or is missing in ``train`` or ``test``; or an image or a folder lies
            where none may. The message is one line that names it.
    """
    if not (root / path).is_dir():
        raise InputError(f"{path} is no folder")
    inside = {entry.name for entry in _folders(root, path)}
    halves: tuple[Part, ...] = ("train", "test")
    named = [part for part in halves if part in inside]
    if named == ["test"] and not test_alone:
        raise InputError(f"{path} has a folder test and no folder train")
    if named and (others := sorted(inside - set(named))):
        raise InputError(
            f"{path}/{others[0]}: beside {' and '.join(named)} there may be no other folder"
        )
    parts: dict[Part, str] = {part: f"{path}/{part}" for part in named}
    if len(named) == 1:
        parts = {"all": f"{path}/{named[0]}"}
    return _images(root, path, parts or {"all": path})


def _images(root: Path, path: str, parts: dict[Part, str]) -> Images:
    classes = {part: tuple(e.name for e in _folders(root, place)) for part, place in parts.items()}
    first = next(iter(classes.values()))
    for part, names in classes.items():
        if missing := sorted(set(first) ^ set(names)):
            side = part if missing[0] in first else next(iter(classes))
            raise InputError(
                f"{parts[side]}/{missing[0]} is missing: {path} has this class on one side only"
            )
    total, ignored = 0, []
    for place in parts.values():
        ignored += _loose(root, place)
        for name in first:
            kept, others = _files(root, f"{place}/{name}")
            total, ignored = total + len(kept), [*ignored, *others]

    def items() -> Iterator[Item]:
        for part, place in parts.items():
            for label, name in enumerate(first):
                for file in _files(root, f"{place}/{name}")[0]:
                    yield Item(file, part, label, partial(from_file, root / file))

    return Images(path, items, first, total, len(parts) == 2, tuple(ignored))


def _folders(root: Path, place: str) -> list[Path]:
    found = (one for one in (root / place).iterdir() if not one.name.startswith("."))
    return sorted((one for one in found if one.is_dir()), key=lambda one: one.name)


def _loose(root: Path, place: str) -> list[str]:
    """Files beside the folders of the classes.

    Raises:
        InputError: one of them is an image.
    """
    names = sorted(one.name for one in (root / place).iterdir() if one.is_file())
    shown = [f"{place}/{name}" for name in names if not name.startswith(".")]
    if images := [name for name in shown if Path(name).suffix.lower() in SUFFIXES]:
        raise InputError(f"{images[0]} lies in no class: put it into a sub-folder of {place}")
    return shown


def _files(root: Path, place: str) -> tuple[list[str], list[str]]:
    """The images of one class, and its other files.

    Raises:
        InputError: the class has no image, or has a folder in it.
    """
    kept: list[str] = []
    others: list[str] = []
    for one in sorted((root / place).iterdir(), key=lambda one: one.name):
        if one.name.startswith("."):
            continue
        if one.is_dir():
            raise InputError(
                f"{place}/{one.name}: a folder inside a class; images lie directly in {place}"
            )
        (kept if one.suffix.lower() in SUFFIXES else others).append(f"{place}/{one.name}")
    if not kept:
        raise InputError(f"{place}: this class has no image; suffixes: {' '.join(SUFFIXES)}")
    return kept, others
