"""Load a user's own network from a file: weights for a class, or an exported program; never a pickle."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from deepcustom.base.errors import InputError
from deepcustom.data.datasets import DatasetSpec
from deepcustom.training.compute import Compute
from deepcustom.training.nets.base import build
from deepcustom.training.nets.exported import load_exported
from deepcustom.training.nets.foreign import Foreign, check_normalisation
from deepcustom.training.weights import has_weights, load_weights


@dataclass(frozen=True)
class OwnFile:
    """What the user says of a network of their own; see :func:`load_own`.

    Attributes:
        path: its file.
        architecture: ``package.module:Class``, if the file holds weights alone.
        mean: mean of each channel.
        std: standard deviation of each channel.
    """

    path: Path
    architecture: str | None = None
    mean: Sequence[float] = ()
    std: Sequence[float] = ()


def load_own(
    path: Path,
    spec: DatasetSpec,
    compute: Compute,
    *,
    default: Callable[[], nn.Module],
    architecture: str | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> nn.Module:
    """Load a frozen network; whether it maps images (N, C, H, W) in [0, 1] to logits, a trial has to show.

    Args:
        path: a ``.safetensors`` file with the state of ``architecture``; or a ``.pt2`` file from
            ``torch.export.save``, exported in eval mode.
        spec: the data set, which fixes the shapes.
        compute: device.
        default: makes a fresh network like the one under attack.
        architecture: ``package.module:Class``, called without arguments; the current folder is
            searched too. None: ``default`` makes it.
        mean: mean of each channel, subtracted from the images; empty: no normalisation.
        std: likewise the standard deviation, by which the images are then divided.

    Raises:
        InputError: the file or the class cannot be loaded, or weights do not fit the class.
    """
    net = read_own(path, default, architecture)
    if mean or std:
        check_normalisation(mean, std, spec.shape[0], "--mean and --std")
        net = Foreign(net, mean=mean, std=std)
    return compute.place(net).eval().requires_grad_(False)


def read_own(
    path: Path,
    default: Callable[[], nn.Module],
    architecture: str | None = None,
    **facts: Any,
) -> nn.Module:
    """Read a network as its file has it; ``facts`` are told to its class, if it has such parameters.

    Raises:
        InputError: the file or the class cannot be loaded, or a fresh network has no weights.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing")
    if path.suffix == ".pt2":
        if architecture:
            raise InputError(f"{path} holds its own architecture: leave --architecture out")
        return load_exported(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: want .safetensors or .pt2; a pickle (.pt, .pth) is not read")
    net = build(architecture, **facts) if architecture else default()
    has_weights(net, architecture or path.name)
    load_weights(net, path)
    return net


def own_source(
    architecture: str | None, mean: Sequence[float] = (), std: Sequence[float] = ()
) -> str:
    """Hash of everything besides its file and this package that decides a loaded network's output.

    It covers the arguments of :func:`load_own`, and the files of all loaded modules that lie in the
    current folder or in the package of ``architecture``. Packages installed there are left out.
    """
    top = (architecture or "").partition(":")[0].partition(".")[0]
    here, files = Path.cwd(), set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        package = name.partition(".")[0]
        if file is None or package == __name__.partition(".")[0]:
            continue
        installed = "site-packages" in Path(file).parts
        if package == top or (Path(file).is_relative_to(here) and not installed):
            files.add(Path(file))
    code = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file())
    text = json.dumps([architecture, list(mean), list(std), code if architecture else []])
    return hashlib.sha256(text.encode()).hexdigest()
