"""Adversarial training on the worst images of the moment (Madry et al. 2018, arXiv:1706.06083)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.params import MadryParams, TrainingParams
from deepcustom.base.progress import Advance, silent
from deepcustom.training.checkpoint import NOWHERE, Checkpoint
from deepcustom.training.compute import Compute
from deepcustom.training.epochs import History, epochs_kept, tell_resumed
from deepcustom.training.fit import Terms, fit, watch_accuracy
from deepcustom.training.nets.base import Classifier

_ROWS = 1000  # images at a time, where nothing is learned
_SCALE = 2.0**10  # lifts gradients above float16's smallest number; leaves their signs as they are


def inner_pgd(
    net: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, *, eps_step: float, max_iter: int
) -> Tensor:
    """Images of high loss within the ball: signed gradient steps from a uniform random start.

    The inner maximisation of Madry et al. 2018, equation 2.1, on the device and in the precision of the
    training step that it belongs to, which ART's PGD, made for NumPy arrays, is not.

    Args:
        net: the network to fool.
        x: clean images (n, C, H, W) in [0, 1].
        y: true labels (n,).
        threat: the ball and the range.
        eps_step: length of a step, in units of the pixel range.
        max_iter: how many steps.

    Returns:
        (n, C, H, W), inside ``threat``, without a gradient.
    """
    x_adv = threat.project(x + threat.eps * (2 * torch.rand_like(x) - 1), x)
    for _ in range(max_iter):
        x_adv.requires_grad_()
        with torch.enable_grad():
            loss = _SCALE * F.cross_entropy(net(x_adv).float(), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x_adv)
        x_adv = threat.project(x_adv.detach() + eps_step * gradient.sign(), x)
    return x_adv


def train_madry(
    net: Classifier,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    params: TrainingParams,
    *,
    inner: MadryParams,
    threat: ThreatModel,
    seed: int,
    compute: Compute,
    advance: Advance = silent,
    checkpoint: Checkpoint = NOWHERE,
) -> History:
    """Train on adversarial images alone, made anew in every step against the network as it is.

    Args:
        net: a fresh network, trained in place.
        train: clean images (N, C, H, W) in [0, 1] and labels (N,).
        val: clean images and labels to watch; may be empty.
        params: the training budget.
        inner: steps of the inner attack, and the share of the epochs over which its ball grows.
        threat: the full ball, and the range.
        seed: of the order of the images and of the random starts.
        compute: device and precision.
        advance: called after every epoch with how it stands.
        checkpoint: as in :func:`deepcustom.training.fit.fit`.

    Returns:
        The history: ``loss`` on adversarial images, ``eps`` of the ball, and, where ``val`` is not empty,
        ``val_accuracy`` on clean images and ``val_adversarial`` under the inner attack at full radius.
    """
    watch = watch_accuracy(net, val, silent)
    # The epoch under way: fit tells only when one is over.
    epoch = [epochs_kept(checkpoint) + 1]

    def ball() -> float:
        growing = inner.growth * params.epochs
        return threat.eps * (min(1.0, epoch[0] / growing) if growing else 1.0)

    def terms(x: Tensor, y: Tensor) -> Terms:
        eps = ball()
        x_adv = inner_pgd(
            net,
            x,
            y,
            replace(threat, eps=eps),
            eps_step=inner.eps_step * eps / threat.eps,
            max_iter=inner.max_iter,
        )
        return {"adversarial": F.cross_entropy(net(x_adv), y, reduction="none")}

    def after_epoch(number: int, means: Mapping[str, float]) -> Mapping[str, float]:
        seen = {"eps": ball(), **watch(number, means)}
        if len(val[0]):
            seen["val_adversarial"] = _accuracy_under(net, val, inner, threat)
        advance("  ".join(f"{name} {value:.4f}" for name, value in {**means, **seen}.items()))
        epoch[0] = number + 1
        return seen

    tell_resumed(checkpoint, advance)
    return fit(
        net,
        terms,
        train,
        params,
        seed=seed,
        compute=compute,
        after_epoch=after_epoch,
        checkpoint=checkpoint,
    )


def _accuracy_under(
    net: Classifier, val: tuple[Tensor, Tensor], inner: MadryParams, threat: ThreatModel
) -> float:
    """Share of ``val``, 0 to 1, right under the inner attack on ``net``; in float32."""
    hits = 0
    for x, y in zip(*(torch.split(part, _ROWS) for part in val), strict=True):
        x_adv = inner_pgd(net, x, y, threat, eps_step=inner.eps_step, max_iter=inner.max_iter)
        with torch.no_grad():
            hits += int((net(x_adv).argmax(1) == y).sum())
    return hits / len(val[1])
