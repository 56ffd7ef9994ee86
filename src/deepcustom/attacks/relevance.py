"""Which pixels a class depends on: layer-wise relevance propagation (Bach et al. 2015), or gradients.

The true-class logit is propagated down to the pixels by the epsilon rule (eq. 58 there): a unit j hands
its relevance to its inputs i in proportion to their part a_i * w_ij of its pre-activation z_j,
R_i = sum over j of a_i * w_ij / (z_j + epsilon * sign(z_j)) * R_j. Captum does the propagation. It is right
where a network runs each of its layers once, one after the other, and each is of a kind that has a rule. Any
other network is refused: at the additions of a residual network, for one, Captum counts relevance twice.

Two more of Captum's methods need nothing but gradients: the input times the gradient of the logit, and its
mean along the way from a black image (integrated gradients, Sundararajan et al. 2017, arXiv:1703.01365).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from deepcustom.base.errors import InputError
from deepcustom.training.nets.base import Classifier
from deepcustom.training.nets.foreign import ARRANGING, Foreign, unexplained
from deepcustom.training.nets.healed import Healed
from deepcustom.training.rows import Images

LRP = "lrp"
ARRANGED = 1e-12  # next to the numbers that are handed on, it is nothing
RULED = (
    nn.Linear,
    nn.Conv2d,
    nn.ReLU,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.BatchNorm2d,
    nn.Dropout,
)
"""The kinds of layers that Captum's propagation has a rule for."""


def class_relevance(
    target_net: Classifier,
    x: Images,
    y: Tensor,
    num_classes: int,
    *,
    epsilon: float = 1e-6,
    method: str = LRP,
    batch_size: int = 500,
) -> Tensor:
    """Mean signed relevance of every pixel for each class.

    Args:
        target_net: the network to explain.
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,); relevance starts from this logit of each image.
        num_classes: how many classes there are.
        epsilon: stabiliser of the epsilon rule.
        method: ``lrp``, ``input_x_gradient`` or ``integrated_gradients``.
        batch_size: images propagated at a time.

    Returns:
        (num_classes, C, H, W) float32; zero for a class without images.

    Raises:
        InputError: LRP has no rule for a part of the network.
    """
    if isinstance(target_net, Healed):  # propagation goes past what would split the images
        batch_size = min(batch_size, target_net.remedy.most or batch_size)
    if method == LRP and len(x):
        _must_have_rules(target_net, x[:2])
    sums = torch.zeros(num_classes, *x.shape[1:], dtype=torch.float64, device=x.device)
    for start in range(0, len(x), batch_size):
        labels = y[start : start + batch_size]
        some = x[start : start + batch_size]
        if method == LRP:
            relevance = lrp_epsilon(target_net, some, labels, epsilon)
        else:
            relevance = by_gradients(target_net, some, labels, method)
        sums.index_add_(0, labels, relevance.double())
    counts = torch.bincount(y, minlength=num_classes).clamp(min=1)
    return (sums / counts.view(-1, 1, 1, 1)).float()


def lrp_epsilon(net: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """Relevance of each pixel of ``x`` (N, C, H, W) for the logit ``y`` (N,); same shape as ``x``."""
    from captum import attr
    from captum.attr._utils.lrp_rules import EpsilonRule

    net, x = _inside(net, x)
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            # Captum forgets a rule after every call, so it is set anew.
            module.rule = EpsilonRule(epsilon=epsilon)
        elif isinstance(
            module, ARRANGING
        ):  # each number is handed on; Captum has no rule that does this
            module.rule = EpsilonRule(epsilon=ARRANGED)
    x = x.detach().requires_grad_()  # Captum would do this too, but warn
    return cast(Tensor, attr.LRP(net).attribute(x, target=y)).detach()


def by_gradients(net: nn.Module, x: Tensor, y: Tensor, method: str) -> Tensor:
    """Relevance of each pixel of ``x`` (N, C, H, W) for the logit ``y`` (N,), by a method of gradients."""
    from captum.attr import InputXGradient, IntegratedGradients

    x = x.detach().requires_grad_()
    if method == "integrated_gradients":
        found = IntegratedGradients(net).attribute(x, target=y, internal_batch_size=len(x))
    else:
        found = InputXGradient(net).attribute(x, target=y)
    return cast(Tensor, found).detach().to(x.dtype)


def _inside(net: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor]:
    """A network behind its normalisation, which is no layer: it changes every pixel by itself.

    What only decides how many images it is given at once is left out too: at least one image comes here.
    """
    if isinstance(net, Healed) and net.remedy.only_sizes:
        net = net.net
    return (net.net, net.normalized(x)) if isinstance(net, Foreign) else (net, x)


def _must_have_rules(net: nn.Module, x: Tensor) -> None:
    """Refuse a network that LRP would be wrong for; ``x`` (n, C, H, W) is run through it once."""
    fault = unexplained(*_inside(net, x), RULED)
    if fault:
        raise InputError(
            f"LRP has no rule for this network: {fault}; set relevance's method to input_x_gradient or "
            "integrated_gradients"
        )


def top_pixels(relevance: Tensor, k: int) -> Tensor:
    """The ``k`` most relevant pixels of each class.

    Args:
        relevance: (classes, C, H, W).
        k: how many, at most C*H*W.

    Returns:
        (classes, k) int64: places in the flattened C*H*W image, most relevant first; of equal ones
        the earlier place wins.
    """
    order = torch.sort(relevance.flatten(1), dim=1, descending=True, stable=True).indices
    return order[:, :k].contiguous()
