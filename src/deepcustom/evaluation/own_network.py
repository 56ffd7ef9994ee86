"""Load a user's own network from a file: weights for a class, or an exported program; never a pickle."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from deepcustom.base.errors import InputError
from deepcustom.data.datasets import DatasetSpec
from deepcustom.training.compute import Compute
from deepcustom.training.nets.base import build
from deepcustom.training.weights import load_state


class Normalized(nn.Module):
    """A network behind (x - mean) / std, so that an attack's eps stays in units of the pixel range."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W) in [0, 1]."""
        logits: Tensor = self.net((x - self.mean) / self.std)
        return logits


class Exported(nn.Module):
    """An exported program. It stays in the mode that it was exported in, and ``eval()`` cannot change it."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self._program = [program]  # in a list, so not a submodule: it refuses eval()

    def forward(self, x: Tensor) -> Tensor:
        """The program's output."""
        logits: Tensor = self._program[0](x)
        return logits


def load_own(
    path: Path,
    spec: DatasetSpec,
    compute: Compute,
    *,
    default: str,
    architecture: str | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> nn.Module:
    """Load a frozen network that maps images (N, C, H, W) in [0, 1] to logits (N, classes).

    Args:
        path: a ``.safetensors`` file with the state of ``architecture``; or a ``.pt2`` file from
            ``torch.export.save``, exported in eval mode with a dynamic number of images.
        spec: the data set, which fixes the shapes.
        compute: device.
        default: the class of the network under attack, written like ``architecture``.
        architecture: ``package.module:Class``, called without arguments; the current folder is
            searched too. None: ``default``.
        mean: mean of each channel, subtracted from the images; empty: no normalisation.
        std: likewise the standard deviation, by which the images are then divided.

    Raises:
        InputError: the file or the class cannot be loaded, or does not fit the data set.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing")
    if path.suffix == ".pt2":
        if architecture:
            raise InputError(f"{path} holds its own architecture: leave --architecture out")
        net: nn.Module = _exported(path)
    elif path.suffix == ".safetensors":
        net = _with_weights(path, build(architecture or default))
    else:
        raise InputError(f"{path}: want .safetensors or .pt2; a pickle (.pt, .pth) is not read")
    net = net.to(compute.device)
    if mean or std:
        channels = spec.shape[0]
        if len(mean) != channels or len(std) != channels or min(std) <= 0:
            raise InputError(f"--mean and --std: want {channels} numbers each, std above 0")
        net = Normalized(net, mean, std).to(compute.device)
    net.eval().requires_grad_(False)
    _check_outputs(path, net, spec, compute)
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


def _with_weights(path: Path, net: nn.Module) -> nn.Module:
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is no safetensors file, or is corrupted: {reason}") from None
    load_state(net, tensors, path)
    return net


# The files that torch.export.save writes for a network of plain tensors. torch.export.load would unpickle
# other files in the archive, and payloads that its lists mark as pickles.
_PLAIN = re.compile(
    r"[^/]+/(data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt"
    r"|models/model\.json|archive_format|archive_version|byteorder|\.data/(version|serialization_id))"
)


def _refuse_pickles(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        odd = [name for name in names if not _PLAIN.fullmatch(name)]
        for name in names:
            if name.endswith("_config.json"):
                payloads = json.loads(archive.read(name))["config"].values()
                odd += [
                    str(one.get("path_name"))
                    for one in payloads
                    if one.get("use_pickle", True)
                    or not re.fullmatch(r"(weight|tensor)_\d+", str(one.get("path_name")))
                ]
    if odd:
        raise ValueError(f"it holds {odd[0]}, which may be a pickle, and pickles are not read")


def _exported(path: Path) -> nn.Module:
    try:
        _refuse_pickles(path)
        return Exported(torch.export.load(path).module())
    except Exception as error:  # torch raises errors of many kinds
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"{path} is no exported program, or is corrupted: {reason}") from error


def _check_outputs(path: Path, net: nn.Module, spec: DatasetSpec, compute: Compute) -> None:
    """Check that the network turns two and three images into as many rows of finite logits."""
    for count in (2, 3):
        x = torch.full((count, *spec.shape), 0.5, device=compute.device)
        try:
            with torch.no_grad():
                out = net(x)
        except Exception as error:  # the network may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise InputError(
                f"{path}: the network refuses {count} images of shape {spec.shape}: {reason}"
            ) from error
        want = (count, spec.num_classes)
        if not isinstance(out, Tensor) or tuple(out.shape) != want:
            found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise InputError(f"{path}: the network gives {found}, want logits of shape {want}")
        if not bool(out.isfinite().all()):
            raise InputError(f"{path}: the network gives logits that are not finite")
