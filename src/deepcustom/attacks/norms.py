"""How long a perturbation is: the norms that a threat model can have, and what follows from each.

A norm decides the ball's shape, and so how a point is brought into it, which direction is steepest, and what
a random point of it is. One more norm is one more class here, and its name in ``base/settings.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

# A float32 sum below 1 is off by at most 2**-25. Stepping that far inside the ball (and once more for
# eps itself) makes |x_adv - x| <= eps hold exactly, not just up to rounding.
_MARGIN = 2.0**-24
_LEAST = 1e-12  # the length below which a direction is taken for none


class Norm(Protocol):
    """A norm on images (N, C, H, W).

    Attributes:
        title: what tables and cards call it.
        bounded: what eps bounds.
        allows: what an attacker may do, with ``{eps:g}`` for the radius.
        steps: what a training attack takes in it, in words.
        art: what ART calls it.
        authors: what the package of AutoAttack's authors calls it.
    """

    title: str
    bounded: str
    allows: str
    steps: str
    art: float
    authors: str

    def limit(self, x_adv: Tensor, x: Tensor, radius: float) -> Tensor:
        """``x_adv`` brought into the ball of ``radius`` around ``x``, exactly; differentiable."""

    def spread(self, s: Tensor, radius: float) -> Tensor:
        """A generator's output in [0, 1] as a perturbation in the ball; 1/2 is none."""

    def steepest(self, gradient: Tensor) -> Tensor:
        """The direction of length 1 in which the loss rises most; zeros where there is no gradient.

        In L2 it is shorter where the gradient is shorter than 1e-12.
        """

    def drawn(self, x: Tensor) -> Tensor:
        """For each image a random perturbation in the ball of radius 1."""

    def corner(self, signs: Tensor) -> Tensor:
        """The perturbation of length 1 whose pixels all change alike, with ``signs`` of -1 and 1."""

    def lengths(self, change: np.ndarray) -> np.ndarray:
        """The length of each change, float64 (n, pixels) to (n,)."""

    def unlimited(self, radius: float, pixels: int) -> float:
        """The radius of a ball that is as little of a limit as that of ``radius`` in L-infinity."""


class LInf:
    """The largest change of a pixel."""

    title, art, authors = "L-infinity", math.inf, "Linf"
    bounded = "largest change of a pixel"
    allows = "change each pixel by at most eps = {eps:g} of the range [0, 1]"
    steps = "signed gradient steps"

    def limit(self, x_adv: Tensor, x: Tensor, radius: float) -> Tensor:
        """See :class:`Norm`."""
        inside = max(radius - _MARGIN, 0.0)
        return torch.minimum(torch.maximum(x_adv, x - inside), x + inside)

    def spread(self, s: Tensor, radius: float) -> Tensor:
        """See :class:`Norm`."""
        return radius * (2 * s - 1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """See :class:`Norm`."""
        return gradient.sign()

    def drawn(self, x: Tensor) -> Tensor:
        """See :class:`Norm`: each pixel by itself."""
        return 2 * torch.rand_like(x) - 1

    def corner(self, signs: Tensor) -> Tensor:
        """See :class:`Norm`."""
        return signs

    def lengths(self, change: np.ndarray) -> np.ndarray:
        """See :class:`Norm`."""
        found: np.ndarray = np.abs(change).max(axis=1, initial=0.0)
        return found

    def unlimited(self, radius: float, pixels: int) -> float:
        """See :class:`Norm`."""
        return radius


class L2:
    """The Euclidean length of the change."""

    title, art, authors = "L2", 2.0, "L2"
    bounded = "Euclidean length of the change"
    allows = (
        "change an image by at most eps = {eps:g} in Euclidean length, where pixels lie in [0, 1]"
    )
    steps = "gradient steps"

    def limit(self, x_adv: Tensor, x: Tensor, radius: float) -> Tensor:
        """See :class:`Norm`: shortened along its own direction."""
        change = x_adv - x
        pixels = math.prod(x.shape[1:])
        # Each pixel of the sum below is off by half a margin at most, and lengths are off in their last bits.
        inside = max(radius * (1 - 1e-6) - _MARGIN * math.sqrt(pixels), 0.0)
        factor = (inside / _length(change).clamp(min=_LEAST)).clamp(max=1.0)
        return torch.where(factor < 1, x + change * factor, x_adv)

    def spread(self, s: Tensor, radius: float) -> Tensor:
        """See :class:`Norm`: what is longer than 1 is shortened to it."""
        direction = 2 * s - 1
        return radius * direction / _length(direction).clamp(min=1.0)

    def steepest(self, gradient: Tensor) -> Tensor:
        """See :class:`Norm`."""
        return gradient / _length(gradient).clamp(min=_LEAST)

    def drawn(self, x: Tensor) -> Tensor:
        """See :class:`Norm`: uniformly in the ball."""
        direction = self.steepest(torch.randn_like(x))
        share = torch.rand(len(x), 1, 1, 1, device=x.device, dtype=x.dtype)
        return direction * share ** (1 / math.prod(x.shape[1:]))

    def corner(self, signs: Tensor) -> Tensor:
        """See :class:`Norm`."""
        return signs / math.sqrt(math.prod(signs.shape[1:]))

    def lengths(self, change: np.ndarray) -> np.ndarray:
        """See :class:`Norm`."""
        found: np.ndarray = np.sqrt((change**2).sum(axis=1))
        return found

    def unlimited(self, radius: float, pixels: int) -> float:
        """See :class:`Norm`: the length of a change by ``radius`` everywhere."""
        return radius * math.sqrt(pixels)


def _length(change: Tensor) -> Tensor:
    """The Euclidean length of each change (N, C, H, W), as (N, 1, 1, 1); its gradient is finite at zero."""
    squares = change.flatten(1).square().sum(1)
    safe = torch.where(squares > 0, squares, torch.ones_like(squares)).sqrt()
    return torch.where(squares > 0, safe, torch.zeros_like(squares))[:, None, None, None]


NORMS: Mapping[str, Norm] = {"linf": LInf(), "l2": L2()}
"""By their names in ``params.yaml``."""
