"""``suspiciousness``: excite the units that failures point at, leave the others as they were.

In the study, some terms are sums over the batch and others are means, so that their balance depends on the
batch size. Here every term is one number per image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from deepcustom.attacks.losses.base import CustomLoss, LossContext, register_loss
from deepcustom.base.errors import LossError
from deepcustom.base.params import Params


def dense_terms(
    a_x: Tensor, a_g: Tensor, suspicious: Tensor, theta: float, gamma: float
) -> tuple[Tensor, Tensor]:
    """Excitation of suspicious units, and change of the others, for dense layers.

    Args:
        a_x: pre-activations on clean images (N, units).
        a_g: the same on the generator's output.
        suspicious: (units,) bool.
        theta: weight of the suspicious units.
        gamma: weight of the others.

    Returns:
        Two tensors (N,): theta * sum over suspicious of (a_x - a_g), and gamma * sum over others of
        |a_x - a_g|.
    """
    chosen = suspicious.to(a_x.dtype)
    difference = a_x - a_g
    return theta * (difference * chosen).sum(1), gamma * (difference.abs() * (1 - chosen)).sum(1)


def convolution_terms(
    a_x: Tensor, a_g: Tensor, suspicious: Tensor, alpha: float, beta: float
) -> tuple[Tensor, Tensor]:
    """Excitation of suspicious feature maps, and change of the others, for one convolution.

    Args:
        a_x: pre-activations on clean images (N, maps, H, W).
        a_g: the same on the generator's output.
        suspicious: (maps,) bool.
        alpha: weight of the suspicious maps.
        beta: weight of the others.

    Returns:
        Two tensors (N,): alpha * mean over positions and suspicious maps of (a_x - a_g), and beta * mean
        over positions and other maps of |a_x - a_g|; 0 where there are no such maps.
    """
    chosen = suspicious.to(a_x.dtype)
    others = 1 - chosen
    difference = a_x - a_g
    signed, absolute = difference.mean((2, 3)), difference.abs().mean((2, 3))
    return (
        alpha * (signed * chosen).sum(1) / chosen.sum().clamp(min=1),
        beta * (absolute * others).sum(1) / others.sum().clamp(min=1),
    )


class SuspiciousnessOptions(Params):
    """``custom_loss_constant`` is c: the activations have the weight c, the distance has 1 - c.

    ``theta`` and ``gamma`` weigh the suspicious and the other units of dense layers, ``alpha`` and
    ``beta`` the suspicious and the other feature maps of convolutions.
    """

    custom_loss_constant: float = Field(ge=0, le=1)
    theta: float = Field(ge=0)
    gamma: float = Field(ge=0)
    alpha: float = Field(ge=0)
    beta: float = Field(ge=0)


@register_loss("suspiciousness")
class SuspiciousnessLoss(CustomLoss):
    """Raise the pre-activations of the class's suspicious units and maps, preserve all the others."""

    Options = SuspiciousnessOptions
    requires: ClassVar[tuple[str, ...]] = ("suspiciousness",)

    def __init__(self, options: SuspiciousnessOptions, context: LossContext) -> None:
        super().__init__(options, context)
        arrays = context.analysis["suspiciousness"]
        if int(arrays["failures"]) == 0:
            raise LossError(
                f"loss 'suspiciousness': class {context.label} has no spectrum, since the target "
                "network fails on none of its train images; use another loss for this network"
            )
        prefix = "suspicious."
        self.suspicious = {
            name.removeprefix(prefix): mask
            for name, mask in arrays.items()
            if name.startswith(prefix)
        }

    def __call__(self, x: Tensor, g: Tensor) -> Mapping[str, Tensor]:
        """The terms ``suspicious``, ``others`` and ``mse``, (N,) each."""
        o, net = self.options, self.context.target_net
        with torch.no_grad():
            on_x = net.preactivations(x)[0]
        on_g = net.preactivations(g)[0]
        pairs = [
            convolution_terms(on_x[layer], on_g[layer], mask, o.alpha, o.beta)
            if on_g[layer].dim() == 4
            else dense_terms(on_x[layer], on_g[layer], mask, o.theta, o.gamma)
            for layer, mask in self.suspicious.items()
        ]
        c = o.custom_loss_constant
        return {
            "suspicious": c * sum(first for first, _ in pairs),
            "others": c * sum(second for _, second in pairs),
            "mse": (1 - c) * ((g - x) ** 2).flatten(1).mean(1),
        }
