"""Augmentation of training images: mirrored and shifted (He et al. 2016, arXiv:1512.03385, section 4.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from deepcustom.base.settings import AugmentParams


def augmented(x: Tensor, params: AugmentParams | None) -> Tensor:
    """Each image mirrored and shifted at random.

    Args:
        x: images (n, C, H, W) in [0, 1].
        params: what to do; None: nothing, and nothing is drawn.

    Returns:
        As many images of the same shape; pixels that a shift uncovers are 0.
    """
    if params is None:
        return x
    if params.flip:
        mirrored = torch.rand(len(x)).to(x.device) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    if params.crop:
        x = _shifted(x, params.crop)
    return x


def _shifted(x: Tensor, most: int) -> Tensor:
    """Each image moved by up to ``most`` pixels along both axes."""
    n, _, height, width = x.shape
    dy, dx = torch.randint(0, 2 * most + 1, (2, n)).to(x.device)
    padded = F.pad(x, (most, most, most, most))
    rows = (dy[:, None] + torch.arange(height, device=x.device))[:, None, :, None]
    columns = (dx[:, None] + torch.arange(width, device=x.device))[:, None, None, :]
    image = torch.arange(n, device=x.device)[:, None, None, None]
    channel = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return padded[image, channel, rows, columns]
