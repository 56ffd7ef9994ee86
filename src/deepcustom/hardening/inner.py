"""What the ways of hardening by gradient steps share: the steps, their start, and a growing ball."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from deepcustom.attacks.threat import ThreatModel
from deepcustom.training.nets.base import Classifier
from deepcustom.training.rows import LabelledImages

SCALE = 2.0**10  # lifts gradients above float16's smallest number; leaves their signs as they are
_ROWS = 1000  # images at a time, where nothing is trained


@dataclass
class GrowingBall:
    """The ball of the epoch under way, and the step in it: both grow evenly from epoch to epoch.

    Attributes:
        full: the threat model at its full radius.
        step: length of a step at the full radius, in the norm, in units of the pixel range.
        growth: the share of the epochs, 0 to 1, by which the radius is full; 0: from the first epoch.
        epochs: the number of epochs.
        epoch: the epoch under way, from 1.
    """

    full: ThreatModel
    step: float
    growth: float
    epochs: int
    epoch: int = 1

    def begin(self, epoch: int) -> None:
        """Go on to ``epoch``."""
        self.epoch = epoch

    @property
    def eps(self) -> float:
        """The radius in this epoch."""
        growing = self.growth * self.epochs
        return self.full.eps * (min(1.0, self.epoch / growing) if growing else 1.0)

    @property
    def threat(self) -> ThreatModel:
        """The threat model at this radius."""
        return replace(self.full, eps=self.eps)

    @property
    def eps_step(self) -> float:
        """The length of a step in this epoch."""
        return self.step * self.eps / self.full.eps

    @property
    def done(self) -> float:
        """The share of the epochs that are over."""
        return (self.epoch - 1) / self.epochs


def inner_pgd(
    net: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, *, eps_step: float, max_iter: int
) -> Tensor:
    """Images of high loss within the ball: steps along the steepest direction from a uniform random start.

    The inner maximisation of Madry et al. 2018, equation 2.1. It runs on the device and in the precision of
    its training step. ART's PGD would not: it is made for NumPy arrays.

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
    x_adv = nearby(x, x, threat, threat.eps)
    for _ in range(max_iter):
        x_adv = signed_step(net, x_adv, x, y, threat, eps_step)
    return x_adv


def nearby(start: Tensor, x: Tensor, threat: ThreatModel, radius: float) -> Tensor:
    """``start`` moved by a random change of up to ``radius``, inside the ball around ``x``."""
    return threat.project(start + radius * threat.ball.drawn(x), x)


def signed_step(
    net: Classifier, x_adv: Tensor, x: Tensor, y: Tensor, threat: ThreatModel, step: float
) -> Tensor:
    """``x_adv`` moved by ``step`` up its cross entropy, in L-infinity by signs; without a gradient."""
    return along(x_adv, scaled_gradient(net, x_adv, y), x, threat, step)


def along(x_adv: Tensor, uphill: Tensor, x: Tensor, threat: ThreatModel, step: float) -> Tensor:
    """``x_adv`` moved by ``step`` in the direction that is steepest by ``uphill``, inside the ball."""
    return threat.project(x_adv.detach() + step * threat.ball.steepest(uphill), x)


def scaled_gradient(net: Classifier, x_adv: Tensor, y: Tensor) -> Tensor:
    """The gradient of each image's cross entropy with respect to the image, (n, C, H, W), times ``SCALE``."""
    x_adv = x_adv.detach().requires_grad_()
    with torch.enable_grad():
        loss = SCALE * F.cross_entropy(net(x_adv).float(), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x_adv)
    return gradient


def accuracy_under(
    net: Classifier,
    images: LabelledImages,
    threat: ThreatModel,
    *,
    eps_step: float,
    max_iter: int,
) -> float:
    """Share of ``images``, 0 to 1, that ``net`` gets right under :func:`inner_pgd`; in float32."""
    hits = 0
    for start in range(0, len(images[1]), _ROWS):
        x, y = (part[start : start + _ROWS] for part in images)
        x_adv = inner_pgd(net, x, y, threat, eps_step=eps_step, max_iter=max_iter)
        with torch.no_grad():
            hits += int((net(x_adv).argmax(1) == y).sum())
    return hits / len(images[1])
