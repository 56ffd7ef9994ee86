"""Generators that only the comparison has."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from deepcustom.training.nets.base import Conditional
from deepcustom.training.nets.unet import UNet

PATCH = 2


class Patched(Conditional):
    """A U-Net of the package on patches of 2 x 2 pixels: nothing in it works at full resolution."""

    def __init__(
        self, shape: Sequence[int], classes: int, *, widths: Sequence[int], blocks: int
    ) -> None:
        """A fresh one for images of ``shape`` (C, H, W), with even sides."""
        super().__init__()
        self.classes = classes
        self.net = UNet(shape[0] * PATCH**2, widths, blocks)
        self.label = nn.Embedding(classes, sum(widths))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        shifts = self.label(y).split(self.net.widths, dim=1)
        return F.pixel_shuffle(self.net(F.pixel_unshuffle(x, PATCH), shifts), PATCH)
