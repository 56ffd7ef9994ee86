"""``soft_margin``: the logit of the label shall fall below that of another class."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from deepcustom.attacks.losses.base import CustomLoss, register_loss


def soft_margin(logits: Tensor, label: int) -> Tensor:
    """log(1 + exp(m)) for the margin m: the logit of ``label`` less the largest of the other logits.

    The margin is that of Carlini and Wagner 2017 (arXiv:1608.04644), section V; softplus takes the place of
    its maximum with a constant. An image that is fooled by far costs next to nothing and has next to no
    gradient, so the training works on those that are still right.

    Args:
        logits: (N, classes), two classes or more.
        label: the class of all images.

    Returns:
        (N,), not negative; log 2 where the label and another class are as likely as each other.
    """
    others = logits.index_fill(1, torch.tensor([label], device=logits.device), -torch.inf)
    return F.softplus(logits[:, label] - others.amax(1))


@register_loss("soft_margin")
class SoftMarginLoss(CustomLoss):
    """Lower the target network's logit of the label below another."""

    def __call__(self, x: Tensor, g: Tensor) -> Mapping[str, Tensor]:
        """See :func:`soft_margin`; one term, of this name."""
        return {"soft_margin": soft_margin(self.context.target_net(g), self.context.label)}
