"""``lrp``: darken the pixels that the class depends on, brighten the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from deepcustom.attacks.losses.base import CustomLoss, LossContext, register_loss
from deepcustom.base.params import Params


def lrp_terms(x: Tensor, g: Tensor, relevant: Tensor, eps: float, c: float) -> dict[str, Tensor]:
    """Squared distance of ``g`` from ``x - eps`` on the relevant pixels and ``x + eps`` elsewhere.

    Args:
        x: clean images (N, C, H, W) in [0, 1].
        g: generator's output, same shape.
        relevant: (k,) int64, places in the flattened image.
        eps: radius of the ball.
        c: weight of the relevant pixels, in [0, 1]; the rest have the weight 1 - c.

    Returns:
        ``relevant`` and ``rest``, each (N,): the weighted mean over its own pixels.
    """
    flat_x, flat_g = x.flatten(1), g.flatten(1)
    is_relevant = flat_x.new_zeros(flat_x.shape[1]).index_fill_(0, relevant, 1.0)
    down = (flat_g - (flat_x - eps)) ** 2
    up = (flat_g - (flat_x + eps)) ** 2
    rest = 1.0 - is_relevant
    return {
        "relevant": c * (down * is_relevant).sum(1) / is_relevant.sum(),
        "rest": (1 - c) * (up * rest).sum(1) / rest.sum().clamp(min=1),
    }


class LrpOptions(Params):
    """``custom_loss_constant`` is c: the weight of the relevant pixels."""

    custom_loss_constant: float = Field(ge=0, le=1)


@register_loss("lrp")
class LrpLoss(CustomLoss):
    """Push the class's most relevant pixels down by eps, and all the others up."""

    Options = LrpOptions
    requires: ClassVar[tuple[str, ...]] = ("relevance",)

    def __init__(self, options: LrpOptions, context: LossContext) -> None:
        super().__init__(options, context)
        self.relevant = context.analysis["relevance"]["pixels"]

    def __call__(self, x: Tensor, g: Tensor) -> Mapping[str, Tensor]:
        """See :func:`lrp_terms`."""
        threat = self.context.threat
        eps = threat.eps * float(threat.ball.corner(torch.ones_like(x[:1])).max())  # of a pixel
        return lrp_terms(x, g, self.relevant, eps, self.options.custom_loss_constant)
