"""Which part of what a network gives are its logits: other libraries give tuples, dicts and more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepcustom.base.errors import InputError, some_of

Place = tuple[str | int, ...]
"""Keys, positions and names of fields that lead to one tensor of an output; empty: the output itself."""


def tensors_of(out: Any, place: Place = ()) -> Iterator[tuple[Place, Tensor]]:
    """Every tensor of an output, with its place; arrays of numpy count as tensors."""
    if isinstance(out, Tensor):
        yield place, out
    elif isinstance(out, np.ndarray):
        if out.dtype.kind in "fiub":
            yield place, torch.from_numpy(np.ascontiguousarray(out))
    else:
        for key, part in _parts(out):
            yield from tensors_of(part, (*place, key))


def _parts(out: Any) -> list[tuple[str | int, Any]]:
    if isinstance(out, Mapping):
        return list(out.items())
    if is_dataclass(out):
        return [(field.name, getattr(out, field.name)) for field in fields(out)]
    if hasattr(out, "_fields"):  # a named tuple
        return [(name, getattr(out, name)) for name in out._fields]
    if isinstance(out, list | tuple):
        return list(enumerate(out))
    return [("logits", out.logits)] if hasattr(out, "logits") else []


def tensor_at(out: Any, place: Place) -> Tensor:
    """The tensor of ``out`` at a place that :func:`tensors_of` gave for an output of the same form."""
    for key in place:
        out = dict(_parts(out))[key]
    return out if isinstance(out, Tensor) else torch.from_numpy(np.ascontiguousarray(out))


def as_rows(found: Tensor, n: int, classes: int) -> Tensor | None:
    """``found`` as (n, classes): axes of length 1 do not matter; None if it has another shape."""
    lengths = [length for length in (n, classes) if length != 1]
    fits = [length for length in found.shape if length != 1] == lengths
    return found.reshape(n, classes) if fits else None


def place_of_logits(out: Any, n: int, classes: int) -> Place:
    """Where the logits are.

    Args:
        out: what a network gives for ``n`` images.
        n: how many images.
        classes: how many logits an image should have.

    Returns:
        The place of the only tensor of (n, classes) numbers; of several, of the one called ``logits``.

    Raises:
        InputError: there is none, or it cannot be told which; without the network's name in front.
    """
    found = dict(tensors_of(out))
    fitting = [place for place, one in found.items() if as_rows(one, n, classes) is not None]
    floating = [place for place in fitting if found[place].is_floating_point()]
    named = [place for place in floating if place and place[-1] == "logits"]
    if len(named or floating) == 1:
        return (named or floating)[0]
    told, want = _told(out, found), f"want logits of shape ({n}, {classes}), one for each class"
    if floating:
        raise InputError(
            f"gives {told}, and any may be the logits: call one logits, or give it alone"
        )
    if fitting:
        kind = str(found[fitting[0]].dtype).removeprefix("torch.")
        raise InputError(f"gives {told} of {kind}, {want}: floating-point numbers, not decisions")
    raise InputError(f"gives {told}, {want}")


def _told(out: Any, found: Mapping[Place, Tensor]) -> str:
    if isinstance(out, Tensor | np.ndarray):
        return str(tuple(out.shape))
    shapes = [f"{spelt(place)} {tuple(one.shape)}" for place, one in found.items()]
    kind = type(out).__name__
    return f"{kind} of {some_of(shapes, 5)}" if shapes else f"{kind} without tensors"


def spelt(place: Place) -> str:
    """A place in words."""
    return ".".join(map(str, place))
