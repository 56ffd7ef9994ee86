"""The victim (a network and the images it is attacked on), an attack on it, and the attack's outcome.

An image *stands* if the network still gets it right under attack; otherwise it *falls*.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.progress import Advance, silent
from deepcustom.training.compute import Compute
from deepcustom.training.prediction import gets_right, predict

Make = Callable[[Tensor, Tensor], Tensor]
"""(x, y) → x_adv: clean images (m, C, H, W) and labels (m,) to adversarial images of that shape."""


@dataclass(frozen=True)
class Cost:
    """What an attack cost.

    Attributes:
        gradients: images whose gradient was computed, summed over all steps.
        queries: images that were shown to the network without computing a gradient.
        seconds: wall-clock time.
    """

    gradients: int = 0
    queries: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.gradients + other.gradients,
            self.queries + other.queries,
            self.seconds + other.seconds,
        )

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            self.gradients - other.gradients,
            self.queries - other.queries,
            self.seconds - other.seconds,
        )


class Linked(nn.Module):
    """A network that always has a gradient.

    The network itself may cut the path back to its input, by detaching or by rounding to integers. The
    gradient is then zero instead of an error: attacks run, and the checks can say that they were blind.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """As the network itself: images (N, C, H, W) to logits (N, classes)."""
        logits: Tensor = self.net(x)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return logits
        return logits + 0 * x.flatten(1).sum(1, keepdim=True).to(logits)


class Counted(Linked):
    """A network as attacks see it: it counts the images it is shown, separately those with a gradient.

    Attacks can compute with all that it gives. Where the network gives nan, that is no answer: the logits
    are zeros, a tie, so that one such image spoils no other, and its gradient is zero. What is infinite is
    large instead. Whether an image stands is judged by the network itself (:meth:`Victim.withstands`).
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.gradients = self.queries = 0

    def forward(self, x: Tensor) -> Tensor:
        """As the network itself: images (N, C, H, W) to logits (N, classes)."""
        asked = torch.is_grad_enabled() and x.requires_grad
        if asked:
            self.gradients += len(x)
        else:
            self.queries += len(x)
        # An attack may write into logits, so they are its own.
        logits = super().forward(_with_finite_gradient(x)) if asked else super().forward(x).clone()
        return _finite(logits)


def _with_finite_gradient(x: Tensor) -> Tensor:
    """``x``; in a gradient that passes through, nan becomes zero, and infinity the largest number."""
    seen = x.view_as(x)
    seen.register_hook(lambda g: None if _is_finite(g) else g.nan_to_num())  # type: ignore[no-untyped-call]
    return seen


def _finite(logits: Tensor) -> Tensor:
    """Zeros in rows that hold nan, and +-1e30 in place of infinity; finite logits stay as they are."""
    if _is_finite(logits):
        return logits
    unknown = logits.isnan().any(1, keepdim=True)
    return torch.where(unknown, 0.0, logits.nan_to_num(posinf=1e30, neginf=-1e30))


def _is_finite(values: Tensor) -> bool:
    """Whether all values are finite, told by their sum, which is quick; it may overflow where they are."""
    return math.isfinite(values.detach().sum().item())


@dataclass(frozen=True)
class Victim:
    """A network, the images to attack it on, and what an attacker may do.

    Attributes:
        name: how tables and checks call it.
        net: frozen, in eval mode, images (N, C, H, W) in [0, 1] to logits (N, num_classes).
        x: clean images (n, C, H, W), float32 in [0, 1], on ``compute.device``.
        y: true labels (n,).
        threat: ball and range.
        num_classes: number of logits.
        seed: seeds everything random.
        compute: device; attacks run in float32.
        advance: called with a note on what is being done.
    """

    name: str
    net: nn.Module
    x: Tensor
    y: Tensor
    threat: ThreatModel
    num_classes: int
    seed: int
    compute: Compute
    advance: Advance = field(default=silent, compare=False)

    @cached_property
    def counted(self) -> Counted:
        """The network, wrapped so that it counts what it is shown."""
        return Counted(self.net)

    @cached_property
    def right(self) -> Tensor:
        """(n,) bool: which clean images the network gets right."""
        return gets_right(predict(self.net, self.x), self.y)

    def withstands(self, x_adv: Tensor, y: Tensor) -> Tensor:
        """(m,) bool: which of the images ``x_adv`` (m, C, H, W) the network gets right; shown and counted."""
        self.counted.queries += len(x_adv)
        return gets_right(predict(self.net, x_adv), y)

    def spent(self) -> Cost:
        """The counts so far, and the time of the clock; the difference of two such readings is a cost."""
        return Cost(self.counted.gradients, self.counted.queries, time.monotonic())


@dataclass(frozen=True)
class Outcome:
    """What one attack did to a network.

    Attributes:
        protocol: a key of :data:`deepcustom.evaluation.results.PROTOCOLS`.
        attack: its name.
        tried: (n,) bool, on the CPU: which images were attacked.
        stands: (n,) bool, on the CPU: which images the network still gets right; those that it gets
            wrong without an attack count as fallen.
        x_adv: (n, C, H, W) the images it was shown; clean ones where no attack was tried.
        cost: of the whole attack.
    """

    protocol: str
    attack: str
    tried: Tensor
    stands: Tensor
    x_adv: Tensor
    cost: Cost

    @property
    def accuracy(self) -> float:
        """Share of all images that the network still gets right, 0 to 1."""
        return float(self.stands.double().mean()) if len(self.stands) else float("nan")


@dataclass(frozen=True)
class Attack:
    """One attack on a victim, before it is run.

    Attributes:
        protocol: a key of :data:`deepcustom.evaluation.results.PROTOCOLS`.
        name: what tables call it.
        settings: everything besides the victim that decides what it does: what JSON can hold, and tensors.
        run: runs the attack.
    """

    protocol: str
    name: str
    settings: Mapping[str, Any]
    run: Callable[[], Outcome]


def attempt(victim: Victim, protocol: str, attack: str, rows: Tensor, make: Make) -> Outcome:
    """Attack some of the images with ``make``, and show the network the result.

    Args:
        victim: the network and the images.
        protocol: for the outcome.
        attack: for the outcome.
        rows: (n,) bool, which images to attack; the others count as fallen.
        make: the attack. Its images are projected into the ball, since its own arithmetic may be off by
            rounding.

    Returns:
        The outcome.
    """
    victim.advance(f"{victim.name}: {attack}", steps=0)
    before = victim.spent()
    x_adv, stands = victim.x.clone(), rows.clone()
    if rows.any():
        x, y = victim.x[rows], victim.y[rows]
        found = make(x.clone(), y.clone()).detach().to(x)  # make may write into its arguments
        x_adv[rows] = victim.threat.project(torch.where(found.isfinite(), found, x), x)
        stands[rows] = victim.withstands(x_adv[rows], y)
    cost = victim.spent() - before
    return Outcome(protocol, attack, rows.cpu(), stands.cpu(), x_adv, cost)


def follow(first: Outcome, second: Outcome) -> Outcome:
    """Merge two attempts into one: ``second`` attacked the images that ``first`` left standing."""
    left = first.stands.to(first.x_adv.device)[:, None, None, None]
    return Outcome(
        first.protocol,
        first.attack,
        first.tried,
        first.stands & second.stands,
        torch.where(left, second.x_adv, first.x_adv),
        first.cost + second.cost,
    )


def in_batches(make: Make, x: Tensor, y: Tensor, size: int) -> Tensor:
    """Run ``make`` on at most ``size`` images at a time."""
    parts = zip(torch.split(x, size), torch.split(y, size), strict=True)
    return torch.cat([make(images, labels) for images, labels in parts])
