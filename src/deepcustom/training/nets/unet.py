"""Generators that look at an image at several resolutions: Ronneberger et al. 2015 (arXiv:1505.04597).

The first and the last convolutions see every pixel, and what is costly works on fewer of them. All are
convolutions, so one architecture fits images of every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcustom.base.errors import InputError
from deepcustom.training.nets.base import Conditional
from deepcustom.training.nets.sizes import at_least

WIDTHS = (16, 32, 64)


class NormedConv(nn.Module):
    """A convolution of 3 x 3, batch norm, and ReLU. In eval mode the norm is a part of the convolution."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, h: Tensor, shift: Tensor | None = None) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride); adds ``shift`` (N, outputs)."""
        h = self.norm(self.conv(h)) if self.training else self._folded(h)
        if shift is not None:
            h = h + shift[:, :, None, None].to(h.dtype)
        return F.relu(h)

    def _folded(self, h: Tensor) -> Tensor:
        """One operation for both, since on a CPU the norm would take as long as the convolution."""
        norm, conv = self.norm, self.conv
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = conv.weight * scale[:, None, None, None]
        return F.conv2d(h, weight, norm.bias - norm.running_mean * scale, conv.stride, 1)


class Residual(nn.Module):
    """Two convolutions with batch norm, and a shortcut around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = NormedConv(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = h + self.second(self.first(h))
        return out


class UNet(nn.Module):
    """Down to ever fewer pixels, and up again with what was seen on the way down.

    Each level but the first has half the sides of the one before. A level has one convolution on the way
    down, and on the way up one that is shown the sum of what comes from below, with its pixels repeated, and
    of what the level had. The lowest has residual blocks in between. With the defaults and three channels,
    a generator has 112,275 parameters and takes 26 million operations for an image of 32 x 32 pixels.
    """

    def __init__(self, channels: int, widths: Sequence[int], blocks: int) -> None:
        """A fresh one.

        Args:
            channels: of the images.
            widths: how many maps each level has, from full resolution downwards.
            blocks: residual blocks of the lowest level.

        Raises:
            InputError: a width or ``blocks`` is none of these.
        """
        super().__init__()
        if not widths or min(widths) < 1:
            raise InputError(f"a U-Net's widths are numbers of 1 or more, found {list(widths)}")
        if blocks < 0:
            raise InputError(f"a U-Net's blocks must be 0 or more, found {blocks}")
        self.channels, self.widths = channels, list(widths)
        first, last = widths[0], widths[-1]
        self.down = nn.ModuleList([NormedConv(channels, first)])
        self.down.extend(NormedConv(a, b, stride=2) for a, b in pairwise(widths))
        self.blocks = nn.Sequential(*(Residual(last) for _ in range(blocks)))
        self.narrow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(NormedConv(a, a) for a in widths[:-1])
        self.last = nn.Conv2d(first, channels, 3, padding=1)

    def forward(self, x: Tensor, shifts: Sequence[Tensor] | None = None) -> Tensor:
        """(N, C, H, W) in [0, 1] to the same shape and range, float32.

        Args:
            x: images; a side that cannot be halved often enough is filled by its last pixels, and cropped in
                the end.
            shifts: for each level (N, width), added to its maps on the way down.
        """
        height, width = x.shape[2:]
        h = self._filled(x)
        seen = []
        for level, step in enumerate(self.down):
            h = step(h, shifts[level] if shifts is not None else None)
            seen.append(h)
        h = self.blocks(h)
        for level in reversed(range(len(self.up))):
            h = F.interpolate(self.narrow[level](h), scale_factor=2) + seen[level]
            h = self.up[level](h)
        # The sigmoid runs in float32: bfloat16 has 8 bits, too few for pixels between 0.5 and 1.
        return torch.sigmoid(self.last(h)[:, :, :height, :width].float())

    def _filled(self, x: Tensor) -> Tensor:
        """``x`` with sides that can be halved once for each level below the first."""
        least = 2 ** (len(self.widths) - 1)
        below, right = (-n % least for n in x.shape[2:])
        return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x


class UNetGenerator(nn.Module):
    """A DGN of one class for images of any size."""

    def __init__(
        self, shape: Sequence[int], *, widths: Sequence[int] = WIDTHS, blocks: int = 1
    ) -> None:
        """A fresh one for images of ``shape`` (C, H, W), of which only the channels decide anything.

        Raises:
            InputError: as :class:`UNet`, or there is no channel.
        """
        super().__init__()
        self.net = UNet(at_least(shape, "UNetGenerator", 1)[0], widths, blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to the same shape and range, float32."""
        out: Tensor = self.net(x)
        return out


class UNetConditional(Conditional):
    """A DGN of all classes for images of any size. Each label adds a vector of its own to each level."""

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        *,
        widths: Sequence[int] = WIDTHS,
        blocks: int = 1,
    ) -> None:
        """As :class:`UNetGenerator`, with ``classes`` labels.

        Raises:
            InputError: as there.
        """
        super().__init__()
        self.classes = classes
        self.net = UNet(at_least(shape, "UNetConditional", 1)[0], widths, blocks)
        self.label = nn.Embedding(classes, sum(widths))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        shifts = torch.split(self.label(y), self.net.widths, dim=1)
        out: Tensor = self.net(x, shifts)
        return out
