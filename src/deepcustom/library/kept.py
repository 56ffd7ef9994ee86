"""What decides a finished piece of work, so that it is known again in a folder that the user names."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deepcustom
from deepcustom.evaluation.score_store import ScoreStore
from deepcustom.evaluation.transfer import Network
from deepcustom.evaluation.victim import Counted
from deepcustom.library.given import Gathered
from deepcustom.training.checkpoint import NOWHERE, Checkpoint
from deepcustom.training.compute import Compute

ROOMS = ("base", "data", "training", "attacks", "hardening", "evaluation", "library")
"""Where the code lies that makes numbers."""
PACKAGES = ("torch", "numpy", "adversarial-robustness-toolbox", "pyautoattack", "captum")
FIRST = 8  # images that a network is known by


def basis(compute: Compute) -> dict[str, Any]:
    """What decides every number besides what the user hands over: code, versions, and machine."""
    return {
        "code": _code(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "machine": compute.describe(),
        "processor": [platform.machine(), platform.processor()],
    }


def store(keep: str | Path | None, name: str, compute: Compute) -> ScoreStore:
    """Where finished attacks are kept: each network has a run of its own, so that none removes another's."""
    if keep is None:
        return ScoreStore()
    return ScoreStore(Path(keep), basis(compute), re.sub(r"[^\w.-]+", "_", name))


def checkpoint(
    keep: str | Path | None,
    compute: Compute,
    what: Mapping[str, Any],
    net: nn.Module,
    *data: Gathered,
) -> Checkpoint:
    """Where a training keeps finished epochs: it goes on only with the same settings, images and network."""
    if keep is None:
        return NOWHERE
    about = [basis(compute), what, weights_md5(net), [data_md5(one) for one in data]]
    return Checkpoint(
        Path(keep), hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    )


def known(name: str, net: nn.Module, data: Gathered, compute: Compute) -> Network:
    """A network to score, with hashes of its weights, its modules, and what it does on the first images."""
    return Network(name, weights_md5(net), net, _behaviour(net, data, compute))


def weights_md5(net: nn.Module) -> str:
    """The md5 of a network's state."""
    digest = hashlib.md5(usedforsecurity=False)
    for name, value in net.state_dict().items():
        digest.update(name.encode())
        digest.update(_bytes(value) if isinstance(value, Tensor) else repr(value).encode())
    return digest.hexdigest()


def data_md5(data: Gathered) -> str:
    """The md5 of images and labels."""
    digest = hashlib.md5(f"{data.x.dtype} {data.x.shape}".encode(), usedforsecurity=False)
    digest.update(data.x.data)
    digest.update(data.y.data)
    return digest.hexdigest()


def _behaviour(net: nn.Module, data: Gathered, compute: Compute) -> str:
    """Hash of a network's modules, and of its logits and gradients on the first images.

    A network in memory has no file of code that could be hashed: it may come from a notebook.
    """
    x, y = Gathered(data.x[:FIRST], data.y[:FIRST]).on(compute)
    digest = hashlib.sha256(repr(net).encode())
    with suppress(RuntimeError), torch.enable_grad():  # it may have no gradient at all
        images = x[:].requires_grad_()
        logits = Counted(net)(images)
        digest.update(_bytes(logits))
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits.float(), y), images)
        digest.update(_bytes(gradient))
    return digest.hexdigest()


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _code() -> str:
    digest, top = hashlib.sha256(), Path(deepcustom.__file__).parent
    for room in ROOMS:
        for file in sorted((top / room).rglob("*.py")):
            digest.update(file.relative_to(top).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()
