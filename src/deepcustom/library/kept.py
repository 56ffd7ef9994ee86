"""What decides a finished piece of work, so that it is known again in a folder that the user names."""

from __future__ import annotations

import hashlib
import inspect
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
from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.conditional import ConditionalDGN
from deepcustom.base.files import check_writable
from deepcustom.evaluation.score_store import ScoreStore
from deepcustom.evaluation.transfer import Network
from deepcustom.evaluation.victim import Counted
from deepcustom.library.given import Gathered
from deepcustom.training.checkpoint import NOWHERE, Checkpoint
from deepcustom.training.compute import Compute

ROOMS = ("base", "data", "training", "attacks", "hardening", "evaluation", "library")
"""Where the code lies that makes numbers."""
PACKAGES = ("torch", "numpy", "adversarial-robustness-toolbox", "pyautoattack", "captum")
ATTACKS, TRAINING = "attacks", "training"
"""What folders of finished attacks, and of the epochs of a training, are called."""
FIRST = 8  # images that a network is known by
DIGITS = 12  # of a hash, in the name of a run


def basis(compute: Compute) -> dict[str, Any]:
    """What decides every number besides what the user hands over: code, versions, and machine."""
    return {
        "code": _code(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "machine": compute.describe(),
        "processor": [platform.machine(), platform.processor()],
    }


def check_keep(keep: str | Path | None) -> None:
    """Refuse a folder for finished work that cannot be written, before any work is done.

    Raises:
        InputError: it cannot.
    """
    if keep is not None:
        check_writable(Path(keep), "keep")


def store(keep: str | Path | None, network: Network, compute: Compute) -> ScoreStore:
    """Where finished attacks are kept: each network has a run of its own, so that none removes another's.

    They lie in a folder of their own below ``keep``, where the store may remove what no run needs any more.
    Networks of one name are told apart by their weights and by what they do.
    """
    if keep is None:
        return ScoreStore()
    own = hashlib.sha256(f"{network.md5} {network.source}".encode()).hexdigest()[:DIGITS]
    name = re.sub(r"[^\w.-]+", "_", network.name)
    return ScoreStore(Path(keep) / ATTACKS, basis(compute), f"{name}-{own}")


def checkpoint(
    keep: str | Path | None,
    compute: Compute,
    what: Mapping[str, Any],
    net: nn.Module,
    *data: Gathered,
) -> Checkpoint:
    """Where a training keeps finished epochs: it goes on only with the same settings, images and network.

    They lie in a folder of their own below ``keep``, which is removed when the training has ended.

    Args:
        keep: the folder; None: nowhere.
        compute: where it trains.
        what: settings, and hashes of whatever else decides it; anything that JSON can hold.
        net: the network, in eval mode.
        *data: the images, those to train on first.
    """
    if keep is None:
        return NOWHERE
    network = [weights_md5(net), _behaviour(net, data[0], compute)]
    about = [basis(compute), what, network, [data_md5(one) for one in data]]
    fingerprint = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return Checkpoint(Path(keep) / f"{TRAINING}-{fingerprint[:DIGITS]}", fingerprint)


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


def bank_md5(bank: DGNBank | ConditionalDGN) -> str:
    """The md5 of all DGNs' states."""
    nets = bank.generators if isinstance(bank, DGNBank) else [bank.generator]
    return weights_md5(nn.ModuleList(nets))


def sources(of: type) -> list[str]:
    """Hashes of the files, outside of this package, that a class and its bases are written in."""
    found = []
    for one in of.__mro__:
        if one.__module__.partition(".")[0] in ("builtins", "abc", "torch", "deepcustom"):
            continue
        with suppress(TypeError, OSError):  # a class typed into a notebook has no file
            found.append(hashlib.sha256(Path(inspect.getfile(one)).read_bytes()).hexdigest())
    return found


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
    with (
        suppress(Exception),
        torch.enable_grad(),
    ):  # it may have no gradient, and may raise anything
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
