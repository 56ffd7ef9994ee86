"""Example of a loss of one's own: the margin of Carlini and Wagner 2017, in a file outside the package.

Copy this file, change the mathematics, and name the class where the losses are named. In ``params.yaml``,
a row of ``train_dgn`` (the bank's name, here ``margin``, is yours to choose) trains it, and does so anew
when this file changes; rows of ``generate`` make its adversarial sets::

    train_dgn:
      mnist-margin:
        subject: mnist
        dataset: mnist
        bank: margin
        recipe: mnist-bank
        loss: examples.margin_loss:MarginLoss
        options: {kappa: 0.0, margin_weight: 1.0, mse_weight: 1.0}
        code: examples/margin_loss.py
        reads: models/target/mnist.safetensors  # it reads no analysis
    generate:
      mnist-margin-train: {subject: mnist, dataset: mnist, bank: margin, split: train, recipe: dgn-images}
      mnist-margin-test: {subject: mnist, dataset: mnist, bank: margin, split: test, recipe: dgn-images}

``dvc repro train_dgn@mnist-margin`` trains the bank, and ``dvc repro`` makes its sets too. docs/losses.md
goes on from here: the row that hardens a network with them.
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
    """How far the true class leads (Carlini and Wagner 2017, f_6), and the distance from the image.

    Args:
        x: clean images (N, C, H, W) in [0, 1].
        g: generator's output, same shape.
        net: target network, images to logits.
        label: the images' class.
        kappa: the lead by which another class must win before pushing stops.
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
    """``kappa`` is the confidence asked for, in logits; the others weigh the two terms."""

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
