"""Images that a function of the user's own yields."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deepcustom.base.errors import InputError, ParamsError, one_line
from deepcustom.data.own.pixels import from_array, from_picture
from deepcustom.data.own.source import Images, Item, Part

Function = Callable[..., Any]

_FORM = "(image, label) or (image, label, 'train' or 'test')"


def find_function(root: Path, name: str) -> Function:
    """The function called ``own.data.module:name`` of the project in ``root``.

    Raises:
        ParamsError: there is none, or its module cannot be imported; the message is one line.
    """
    module, _, attribute = name.partition(":")
    if str(root.resolve()) not in sys.path:
        sys.path.insert(0, str(root.resolve()))
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # the user's own file may raise anything
        why = one_line(error)
        raise ParamsError(f"function {name}: importing {module} failed: {why}") from error
    if not callable(found):
        raise ParamsError(f"function {name}: {module} has no function {attribute}")
    return found  # type: ignore[no-any-return]


def find_by_function(
    root: Path, name: str, path: str | None, classes: tuple[str, ...] | None
) -> Images:
    """The images that a function yields, as pairs of image and label, or with the part as a third.

    An image is an array uint8 (H, W), (H, W, C) or (C, H, W), or one of Pillow's. A label is an integer
    from 0 on, or one of ``classes``.

    Args:
        root: the project.
        name: ``own.data.module:name``.
        path: what the function is called with, as a path; None: it is called without.
        classes: names of the classes.

    Raises:
        ParamsError: as :func:`find_function`.
    """
    call = find_function(root, name)
    arguments = () if path is None else (root / path,)

    def items() -> Iterator[Item]:
        try:
            values = iter(call(*arguments))
        except Exception as error:
            raise _raised(name, error) from error
        row = 0
        while True:
            try:
                value = next(values)
            except StopIteration:
                return
            except Exception as error:
                raise _raised(f"{name}, after image {row}", error) from error
            yield _item(f"{name}, image {row + 1}", value, classes)
            row += 1

    return Images(f"function {name}", items, classes, None, None)


def _raised(where: str, error: Exception) -> InputError:
    why = one_line(error)
    return InputError(f"function {where}: {why}")


def _item(name: str, value: Any, classes: tuple[str, ...] | None) -> Item:
    if not isinstance(value, tuple) or len(value) not in (2, 3):
        raise InputError(f"{name}: a function yields {_FORM}, found {type(value).__name__}")
    image, label, *rest = value
    part: Part = rest[0] if rest else "all"
    if rest and part not in ("train", "test"):
        raise InputError(f"{name}: its part is {part!r}, expected 'train' or 'test'")
    return Item(name, part, _label(name, label, classes), partial(_read, image))


def _label(name: str, label: Any, classes: tuple[str, ...] | None) -> int:
    if isinstance(label, str) and classes is not None:
        if label not in classes:
            raise InputError(f"{name}: {label!r} is no class; allowed: {', '.join(classes)}")
        return classes.index(label)
    if isinstance(label, bool) or not isinstance(label, int | np.integer):
        raise InputError(
            f"{name}: its label is {label!r}, expected an integer, or a name in classes"
        )
    return int(label)


def _read(image: Any, form: Any) -> Any:
    from PIL.Image import Image

    return from_picture(image, form) if isinstance(image, Image) else from_array(image, form)
