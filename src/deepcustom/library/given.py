"""What the user hands over: images with labels in any of the usual forms, a network, a device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from deepcustom.base.errors import InputError, ParamsError, one_line
from deepcustom.base.params import validate
from deepcustom.base.settings import ComputeParams
from deepcustom.data.arrays import Array, Split, label_dtype, labels
from deepcustom.data.mapped import MappedImages
from deepcustom.library.starting import COMPUTE
from deepcustom.training.compute import Compute
from deepcustom.training.nets.base import Classifier
from deepcustom.training.nets.exported import Exported
from deepcustom.training.nets.foreign import Foreign, check_normalisation
from deepcustom.training.rows import LabelledImages
from deepcustom.training.weights import has_weights

Images = Tensor | Array | DataLoader[Any] | Dataset[Any]
"""Images: a tensor or an array, or a loader or a data set of (images, labels)."""
Labels = Tensor | Array | Sequence[int]
Pair = tuple[Images, Labels] | DataLoader[Any] | Dataset[Any]
"""Images with their labels."""
MOST = 65535
"""The largest label: labels are kept in two bytes at most."""
_LOADED = 500  # images of a data set that are read at a time


@dataclass(frozen=True, eq=False)
class Gathered:
    """Images in memory.

    Attributes:
        x: uint8 in 0..255, or float32 in [0, 1], (N, C, H, W).
        y: labels (N,), int64.
    """

    x: Array
    y: Array

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        _, channels, height, width = self.x.shape
        return channels, height, width

    def split(self, classes: int) -> Split:
        """The same as a split, in which each image is its own row."""
        return Split.whole(self.x, self.y.astype(label_dtype(classes)))

    def on(self, compute: Compute) -> LabelledImages:
        """The same as training and attacks take them: float32 in [0, 1] where they are read."""
        return MappedImages.on(self.x, compute.device), labels(self.y).to(compute.device)


def gathered(x: Images, y: Labels | None = None, name: str = "x") -> Gathered:
    """Images and labels in one piece of memory each: 1 byte a value if uint8, else 4.

    Args:
        x: (N, C, H, W), uint8 in 0..255 or floating point in [0, 1]; or a loader or data set of pairs of
            images and labels, which is read once.
        y: labels (N,), integers; None with a loader or a data set.
        name: what messages call the images.

    Raises:
        InputError: form, type or range is another; in one line.
    """
    if isinstance(x, Dataset):
        x = DataLoader(x, batch_size=_LOADED)
    if isinstance(x, DataLoader):
        if y is not None:
            raise InputError(f"{name} is a loader, which brings its labels: leave y out")
        x, y = _read(x, name)
    if y is None:
        raise InputError(f"y is missing: {name} needs labels (N,), or must be a DataLoader")
    images, truth = _array(x, name), _array(y, f"labels of {name}")
    images = _images(images, name)
    if truth.dtype.kind not in "iu" or truth.shape != (len(images),):
        raise InputError(
            f"labels of {name}: {truth.dtype} of shape {truth.shape}, want integers of shape "
            f"({len(images)},)"
        )
    if truth.min() < 0:
        raise InputError(f"labels of {name}: {truth.min()} is below 0")
    if truth.max() > MOST:
        raise InputError(f"labels of {name} go up to {truth.max()}, want at most {MOST}")
    return Gathered(images, truth.astype(np.int64))


def pair(given: Pair | None, name: str) -> Gathered | None:
    """The same for images and labels in one argument; None stays None.

    Raises:
        InputError: as :func:`gathered`.
    """
    if given is None:
        return None
    if isinstance(given, tuple):
        if len(given) != 2:
            raise InputError(f"{name} has {len(given)} parts, want (images, labels)")
        return gathered(given[0], given[1], name)
    return gathered(given, None, name)


def empty(data: Gathered) -> Gathered:
    """No image, of the same form."""
    return Gathered(data.x[:0], data.y[:0])


def fitting(other: Gathered, data: Gathered, classes: int, name: str) -> Gathered:
    """``other``, after a check that its images have the shape of ``data``, and labels below ``classes``.

    Raises:
        InputError: they have not.
    """
    if other.shape != data.shape:
        raise InputError(f"{name} has images of shape {other.shape}, want {data.shape}")
    if len(other.y) and other.y.max() >= classes:
        raise InputError(f"{name} has labels up to {other.y.max()}, want at most {classes - 1}")
    return other


def _read(loader: Iterable[Any], name: str) -> tuple[Array, Array]:
    parts: tuple[list[Array], list[Array]] = ([], [])
    for batch in _batches(loader, name):
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise InputError(f"{name}: the loader gives {type(batch).__name__}, want (x, y)")
        for found, one in zip(parts, batch, strict=False):
            found.append(_array(one, name))
        if not (parts[0][-1].ndim and parts[1][-1].ndim):
            raise InputError(f"{name}: the loader gives single values, want batches (x, y)")
    if not parts[0]:
        raise InputError(f"{name} has no image")
    return _joined(parts[0], f"{name} has images"), _joined(parts[1], f"{name} has labels")


def _joined(parts: Sequence[Array], what: str) -> Array:
    shapes = dict.fromkeys(part.shape[1:] for part in parts)
    if len(shapes) > 1:
        first, second, *_ = shapes
        raise InputError(f"{what} of shape {first} and {second}, want one shape")
    return np.concatenate(parts)


def _batches(loader: Iterable[Any], name: str) -> Iterator[Any]:
    """What a loader gives; whatever it raises is one line."""
    try:
        yield from loader
    except Exception as error:  # the user's own data set may raise anything
        raise InputError(f"{name}: reading images failed: {reason(error)}") from error


def reason(error: Exception) -> str:
    """An error of something that was handed over, in one line."""
    return one_line(error)


def _array(values: Any, name: str) -> Array:
    try:
        if not isinstance(values, Tensor):
            return np.asarray(values)
        values = values.detach().cpu()
        wide = values.dtype is torch.bfloat16
        return np.asarray((values.float() if wide else values).numpy())
    except (ValueError, TypeError, RuntimeError) as error:  # lists of unequal length, say
        raise InputError(f"{name}: want a tensor or an array: {reason(error)}") from None


def _images(x: Array, name: str) -> Array:
    """Images, checked; float32 where they are not uint8."""
    if x.ndim != 4 or not x.size:
        raise InputError(f"{name} has shape {x.shape}, want images (N, C, H, W)")
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if x.dtype.kind != "f":
        raise InputError(f"{name} is {x.dtype}, want uint8, or floating point in [0, 1]")
    x = np.ascontiguousarray(x, dtype=np.float32)
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):  # so that nan fails as well
        raise InputError(
            f"{name} has values from {low:.3g} to {high:.3g}, want [0, 1]; a network that takes normalised "
            "images is told their mean and std"
        )
    return x


def compute_on(device: str) -> Compute:
    """Device, and the precision that suits it.

    Raises:
        InputError: there is no such device.
    """
    with plainly():
        return Compute.of(validate(ComputeParams, {**COMPUTE, "device": device}, "compute"))


@contextmanager
def plainly() -> Iterator[None]:
    """A context in which messages about settings do not name a file, since there is none."""
    try:
        yield
    except ParamsError as error:
        raise InputError(str(error).removeprefix("params.yaml: ")) from None


def as_module(net: Any, name: str = "net") -> nn.Module:
    """A network in the form in which all else takes it; exported programs too.

    Raises:
        InputError: it is none, or has weights that do not exist yet.
    """
    if isinstance(net, torch.export.ExportedProgram):
        return Exported(net.module())
    if not isinstance(net, nn.Module):
        raise InputError(f"{name} is a {type(net).__name__}, want a torch.nn.Module")
    try:
        net.train(net.training)
    except NotImplementedError:  # an exported program as a module
        return Exported(net)
    has_weights(net, name)
    return net


def classifier(
    net: nn.Module, shape: tuple[int, int, int], mean: Sequence[float], std: Sequence[float]
) -> Classifier:
    """``net`` as a classifier of images in [0, 1].

    Args:
        net: the network; its weights are not copied.
        shape: (C, H, W) of an image.
        mean: of each channel: images are normalised by it in front of ``net``; empty: they are not.
        std: likewise, what they are divided by.

    Raises:
        InputError: there is not one number for each channel.
    """
    mean, std = _numbers(mean, "mean"), _numbers(std, "std")
    if isinstance(net, Classifier) and not (mean or std):
        return net
    if mean or std:
        check_normalisation(mean, std, shape[0], "mean and std")
    return Foreign(net, mean=mean, std=std)


def _numbers(values: Any, name: str) -> list[float]:
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name} {values!r}: want one number for each channel") from None


@contextmanager
def borrowed(net: nn.Module, compute: Compute) -> Iterator[nn.Module]:
    """``net`` on the device, in a fast layout, frozen and in eval mode; afterwards it is as it was."""
    modes = [(module, module.training) for module in net.modules()]
    asked = [(weight, weight.data, weight.requires_grad) for weight in net.parameters()]
    place = next((weight.device for weight in net.parameters()), compute.device)
    try:
        yield compute.place(net).eval().requires_grad_(False)
    finally:
        net.to(place)
        for weight, values, wanted in asked:
            weight.data = values
            weight.requires_grad_(wanted)
        for module, training in modes:
            module.training = training


@contextmanager
def dice_kept() -> Iterator[None]:
    """Random numbers of torch and NumPy go on afterwards as if nothing had been drawn."""
    state = np.random.get_state()
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            np.random.set_state(state)
