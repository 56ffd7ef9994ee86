"""``nce``, negative cross entropy: stay close to the clean image, but be misclassified."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from deepcustom.attacks.losses.base import CustomLoss, register_loss
from deepcustom.base.params import Params


def nce_terms(
    x: Tensor, g: Tensor, net: nn.Module, label: int, mse_weight: float, ce_weight: float
) -> dict[str, Tensor]:
    """Distance from the clean image, minus the target network's cross entropy on ``g``.

    Args:
        x: clean images (N, C, H, W) in [0, 1].
        g: generator's output, same shape.
        net: target network, images to logits.
        label: the images' class.
        mse_weight: weight of the mean squared error over the pixels.
        ce_weight: weight of the cross entropy.

    Returns:
        ``mse`` (N,), not negative, and ``negative_cross_entropy`` (N,), not positive.
    """
    logits = net(g)
    y = logits.new_full((len(g),), label).long()
    return {
        "mse": mse_weight * ((g - x) ** 2).flatten(1).mean(1),
        "negative_cross_entropy": -ce_weight * F.cross_entropy(logits, y, reduction="none"),
    }


class NceOptions(Params):
    """Weights of the two terms."""

    mse_weight: float = Field(ge=0)
    cross_entropy_weight: float = Field(ge=0)


@register_loss("nce")
class NceLoss(CustomLoss):
    """Raise the target network's cross entropy while staying close to the image."""

    Options = NceOptions

    def __call__(self, x: Tensor, g: Tensor) -> Mapping[str, Tensor]:
        """See :func:`nce_terms`."""
        o, c = self.options, self.context
        return nce_terms(x, g, c.target_net, c.label, o.mse_weight, o.cross_entropy_weight)
