"""Hardening a network in memory."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.conditional import ConditionalDGN, conditional
from deepcustom.attacks.losses.base import find_loss
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError, UnknownNameError
from deepcustom.base.params import validate
from deepcustom.base.progress import progress
from deepcustom.base.rows import overlay
from deepcustom.hardening.base import Way
from deepcustom.hardening.online import Online, OnlineSettings
from deepcustom.hardening.ways import way as way_called
from deepcustom.library.attacking import attack
from deepcustom.library.given import (
    Gathered,
    Images,
    Labels,
    Pair,
    as_module,
    classifier,
    compute_on,
    dice_kept,
    empty,
    fitting,
    gathered,
    pair,
    plainly,
    reason,
)
from deepcustom.library.kept import check_keep, checkpoint
from deepcustom.library.starting import CONDITIONAL, SEED, Start, threat_of
from deepcustom.library.trying import at_least, classes_of, trainable
from deepcustom.training.compute import Compute, derive_seed, seed_everything
from deepcustom.training.epochs import History
from deepcustom.training.job import Job
from deepcustom.training.nets.base import Architecture
from deepcustom.training.nets.exported import Exported
from deepcustom.training.prediction import BATCH

WAYS = ("madry", "online", "goodfellow")


class Hardened(NamedTuple):
    """A hardened network, and how its training went.

    Attributes:
        net: of the same class as the network that was handed over; in eval mode.
        history: what was measured → its value after each epoch.
    """

    net: nn.Module
    history: History

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {curve[-1]:.4f}" for name, curve in self.history.items())
        epochs = max((len(curve) for curve in self.history.values()), default=0)
        return f"{type(self.net).__name__}, hardened for {epochs} epochs; last: {last}"


def harden(
    net: nn.Module,
    x: Images,
    y: Labels | None = None,
    eps: float | str | None = None,
    way: Literal["madry", "online", "goodfellow"] = "madry",
    *,
    bank: DGNBank | ConditionalDGN | None = None,
    epochs: int | None = None,
    val: Pair | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    settings: Mapping[str, Any] | None = None,
    keep: str | Path | None = None,
    norm: str = "linf",
    seed: int = SEED,
    device: str = "auto",
) -> Hardened:
    """Train a copy of a network to withstand attacks.

    Args:
        net: a fresh network, as the pipeline hardens; or a trained one, whose weights are then the start. It
            stays as it is.
        x: images to train on, as :func:`deepcustom.evaluate` takes them.
        y: labels (N,); None with a DataLoader.
        eps: radius of the ball: a number, or text such as ``"8/255"``.
        way: ``madry``: on images that PGD makes of each batch; ``online``: against a generator that learns
            meanwhile; ``goodfellow``: on images that ``bank`` makes once, half of the weight on clean ones.
        bank: DGNs, for ``goodfellow`` alone.
        epochs: None: by the number of images.
        val: images and labels on which the progress is measured.
        mean: of each channel: images in [0, 1] are normalised by it in front of ``net``, and in front of
            the hardened network.
        std: likewise, what they are divided by.
        settings: what is to differ from the settings that a new project begins with, such as
            ``{"inner": {"max_iter": 10}}``.
        keep: a folder for finished epochs, so that an interrupted call goes on when it is made again.
        norm: ``linf``: eps bounds the change of each pixel; ``l2``: the Euclidean length of the change.
        seed: of everything random.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError, UnknownNameError: in one line: something that was handed over cannot be used.
        DivergenceError: the loss is no longer finite.
    """
    if way not in WAYS:
        raise UnknownNameError("way of hardening", str(way), WAYS)
    if (bank is None) == (way == "goodfellow"):
        raise InputError(f"way {way} {'needs a bank' if bank is None else 'takes no bank'}")
    if bank is not None and not isinstance(bank, DGNBank | ConditionalDGN):
        raise InputError("bank: want DGNs, as train_bank makes them")
    check_keep(keep)
    data, compute, threat = gathered(x, y), compute_on(device), threat_of(eps, norm)
    mine = _copied(as_module(net))
    place = next((weight.device for weight in mine.parameters()), torch.device("cpu"))
    whole = compute.place(classifier(mine, data.shape, mean, std))
    with dice_kept(), plainly():
        whole.eval()
        classes = classes_of(whole, data, compute) or at_least(data)
        watched = fitting(pair(val, "val") or empty(data), data, classes, "val")
        start = Start(data.shape, classes, threat.eps, len(data.y), epochs=epochs, norm=norm)
        kind = way_called(way)
        tree = overlay(start.recipes()[way], settings or {})
        params = validate(kind.Settings, tree, "settings")
        sizes = [BATCH, params.training.batch_size]
        whole = trainable(whole, data, classes, compute, sizes=sizes, learner=f"way {way}")
        made = None if bank is None else _made(bank, data, threat, device, compute)
        what = {way: params.model_dump(mode="json"), "eps": threat.eps, "norm": norm, "seed": seed}
        shown = [] if made is None else [Gathered(made[0].cpu().contiguous().numpy(), data.y)]
        kept = checkpoint(keep, compute, what, whole, data, watched, *shown)
        job_seed = derive_seed(seed, kind.stage, way)
        seed_everything(job_seed)
        trainer = _trainer(kind, params, threat, classes, data, compute)
        with progress(f"harden, {way}", params.training.epochs) as say:
            job = Job(job_seed, compute, say, kept)
            history = trainer.train(whole, data.on(compute), watched.on(compute), job, made)
        kept.clear()
    return Hardened(mine.to(place).eval(), history)


def _copied(net: nn.Module) -> nn.Module:
    """A copy to train.

    Raises:
        InputError: it cannot be copied, or has nothing to train.
    """
    if isinstance(net, Exported):
        raise InputError("net is an exported program, which cannot be trained: want its class")
    try:
        mine = copy.deepcopy(net)
    except Exception as error:  # the network may hold anything
        raise InputError(f"net cannot be copied: {reason(error)}") from error
    weights = list(mine.parameters())
    if not weights:
        raise InputError("net has no weights to train")
    if not any(weight.requires_grad for weight in weights):
        mine.requires_grad_(True)
    return mine


def _trainer(
    kind: type[Way[Any]],
    params: Any,
    threat: ThreatModel,
    classes: int,
    data: Gathered,
    compute: Compute,
) -> Way[Any]:
    if not isinstance(params, OnlineSettings):
        return kind(params, threat, classes)
    if params.loss is not None:
        find_loss(params.loss)
        raise InputError("settings: loss: the library's online has its own, so leave it null")
    told = Architecture(CONDITIONAL, facts={"shape": data.shape, "classes": classes})
    per_class = params.generator == "per_class"
    generator = compute.place(conditional(told, classes, per_class=per_class))
    return Online(params, threat, classes, generator)


def _made(
    bank: DGNBank | ConditionalDGN,
    data: Gathered,
    threat: ThreatModel,
    device: str,
    compute: Compute,
) -> tuple[Tensor, Tensor]:
    """What the bank makes of every image, and the image's row."""
    found = attack(bank, data.x, data.y, threat.eps, norm=threat.norm, device=device)
    return found.x_adv.to(compute.device), torch.arange(len(data.y), device=compute.device)
