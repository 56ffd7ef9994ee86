"""Example of a loss of your own: the margin of Carlini and Wagner 2017, in a file outside the package.

Copy this file and change the mathematics. The following command writes the bank's rows into ``params.yaml``.
The bank is called ``margin`` here; choose any name::

    deepcustom add bank margin --subject mnist --loss examples.margin_loss:MarginLoss \\
      --set 'options={kappa: 0.0, margin_weight: 1.0, mse_weight: 1.0}'

``dvc repro`` then trains the bank and scores its adversarial set. When this file changes, it does so again.
docs/losses.md continues from here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from deepcustom.attacks.losses import CustomLoss
from deepcustom.base.params import Params


def margin_terms(
    x: Tensor,
    g: Tensor,
    net: nn.Module,
    label: int,
    kappa: float,
    margin_weight: float,
    mse_weight: float,
) -> dict[str, Tensor]:
    """The lead of the true class (Carlini and Wagner 2017, f_6), and the distance from the clean image.

    Args:
        x: clean images (N, C, H, W) in [0, 1].
        g: generator's output, same shape.
        net: target network, images to logits.
        label: the images' class.
        kappa: once another class leads by this much, the loss stops pushing.
        margin_weight: weight of the lead.
        mse_weight: weight of the mean squared error over the pixels.

    Returns:
        ``margin`` (N,), at least -kappa (times its weight), and ``mse`` (N,), not negative.
    """
    logits = net(g)
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1)
    lead = logits[:, label] - others.amax(dim=1)
    return {
        "margin": margin_weight * lead.clamp(min=-kappa),
        "mse": mse_weight * ((g - x) ** 2).flatten(1).mean(1),
    }


class MarginOptions(Params):
    """``kappa`` is the lead that another class should reach, in logits; the others weigh the two terms."""

    kappa: float = Field(ge=0)
    margin_weight: float = Field(ge=0)
    mse_weight: float = Field(ge=0)


class MarginLoss(CustomLoss):
    """Let another class overtake the true one by ``kappa``, while staying close to the image."""

    Options = MarginOptions

    def __call__(self, x: Tensor, g: Tensor) -> Mapping[str, Tensor]:
        """See :func:`margin_terms`."""
        o, c = self.options, self.context
        return margin_terms(x, g, c.target_net, c.label, o.kappa, o.margin_weight, o.mse_weight)
