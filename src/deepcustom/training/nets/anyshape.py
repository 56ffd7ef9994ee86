"""Generators for images of any size: one for a single class, and one that is told the label.

Both work at half the resolution, where a convolution costs a quarter. They have convolutions only, so one
architecture fits every size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcustom.training.nets.base import Conditional
from deepcustom.training.nets.sizes import at_least

WIDTH = 32
BLOCKS = 3


class _Residual(nn.Module):
    """Two convolutions of 3 x 3, and a shortcut around them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = h + self.conv2(F.relu(self.conv1(h)))
        return out


class _Halved(nn.Module):
    """Patches of 2 x 2 pixels become pixels, 32 maps, three residual blocks, and back again.

    62,444 parameters for three channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(4 * channels, WIDTH, 3, padding=1)
        self.blocks = nn.Sequential(*(_Residual() for _ in range(BLOCKS)))
        self.decoder = nn.Conv2d(WIDTH, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """(N, C, H, W) in [0, 1] to the same shape and range, float32.

        Args:
            x: images; a last row or column is repeated where a side is odd, and cropped in the end.
            shift: (N, 32), added to the maps of each image.
        """
        height, width = x.shape[2:]
        even = x
        if height % 2 or width % 2:
            even = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        h = self.encoder(F.pixel_unshuffle(even, 2))
        if shift is not None:
            h = h + shift[:, :, None, None].to(h.dtype)
        h = self.decoder(F.relu(self.blocks(F.relu(h))))
        # The sigmoid runs in float32: bfloat16 has 8 bits, too few for pixels between 0.5 and 1.
        return torch.sigmoid(F.pixel_shuffle(h, 2)[:, :, :height, :width].float())


class AnyGenerator(nn.Module):
    """A DGN of one class for images of any size."""

    def __init__(self, shape: Sequence[int]) -> None:
        """A fresh one for images of ``shape`` (C, H, W); only the channels decide anything."""
        super().__init__()
        self.net = _Halved(at_least(shape, "AnyGenerator", 1)[0])

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to the same shape and range, float32."""
        out: Tensor = self.net(x)
        return out


class AnyConditional(Conditional):
    """A DGN of all classes for images of any size. Each label adds a vector of its own to the 32 maps."""

    def __init__(self, shape: Sequence[int], classes: int) -> None:
        """A fresh one for images of ``shape`` (C, H, W) with ``classes`` labels."""
        super().__init__()
        self.classes = classes
        self.net = _Halved(at_least(shape, "AnyConditional", 1)[0])
        self.label = nn.Embedding(classes, WIDTH)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        out: Tensor = self.net(x, self.label(y))
        return out
