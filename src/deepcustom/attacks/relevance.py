"""Which pixels a class depends on: layer-wise relevance propagation (Bach et al. 2015).

The true-class logit is propagated down to the pixels by the epsilon rule (eq. 58 there): a unit j hands
its relevance to its inputs i in proportion to their part a_i * w_ij of its pre-activation z_j,
R_i = sum over j of a_i * w_ij / (z_j + epsilon * sign(z_j)) * R_j. Captum does the propagation.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from deepcustom.training.nets.base import Classifier


def class_relevance(
    target_net: Classifier,
    x: Tensor,
    y: Tensor,
    num_classes: int,
    *,
    epsilon: float = 1e-6,
    batch_size: int = 500,
) -> Tensor:
    """Mean signed relevance of every pixel for each class.

    Args:
        target_net: the network to explain.
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,); relevance starts from this logit of each image.
        num_classes: how many classes there are.
        epsilon: stabiliser of the epsilon rule.
        batch_size: images propagated at a time.

    Returns:
        (num_classes, C, H, W) float32; zero for a class without images.
    """
    sums = torch.zeros(num_classes, *x.shape[1:], dtype=torch.float64, device=x.device)
    for start in range(0, len(x), batch_size):
        labels = y[start : start + batch_size]
        relevance = lrp_epsilon(target_net, x[start : start + batch_size], labels, epsilon)
        sums.index_add_(0, labels, relevance.double())
    counts = torch.bincount(y, minlength=num_classes).clamp(min=1)
    return (sums / counts.view(-1, 1, 1, 1)).float()


def lrp_epsilon(net: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """Relevance of each pixel of ``x`` (N, C, H, W) for the logit ``y`` (N,); same shape as ``x``."""
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import EpsilonRule

    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            # Captum forgets a rule after every call, so it is set anew.
            module.rule = EpsilonRule(epsilon=epsilon)
    x = x.detach().requires_grad_()  # Captum would do this too, but warn
    return cast(Tensor, LRP(net).attribute(x, target=y)).detach()


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
