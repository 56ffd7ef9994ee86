"""Residual networks for small images: He et al. 2016 (arXiv:1512.03385), section 4.2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from deepcustom.base.errors import InputError
from deepcustom.training.nets.base import Classifier
from deepcustom.training.nets.sizes import at_least


class Block(nn.Module):
    """Two convolutions of 3 x 3 with batch norm, and a shortcut without parameters around them.

    If the block halves the size, the shortcut takes every second pixel, and zeros fill the maps that are new
    (option A of the paper).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.more = stride, outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()

    def shortcut(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to what is added to the second convolution's output."""
        short = x[:, :, :: self.stride, :: self.stride]
        return F.pad(short, (0, 0, 0, 0, 0, self.more)) if self.more else short

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, inputs, H, W) to what enters the first ReLU, what enters the second, and the output."""
        first = self.norm1(self.conv1(x))
        second = self.norm2(self.conv2(self.relu1(first))) + self.shortcut(x)
        return first, second, self.relu2(second)


class Residual(Classifier):
    """A convolution of 3 x 3, blocks, the mean over all positions, logits."""

    def __init__(
        self, channels: int, width: int, blocks: Iterable[Block], features: int, classes: int
    ) -> None:
        """A fresh one.

        Args:
            channels: of the images.
            width: maps that the first block takes.
            blocks: made one after the other, after the first convolution.
            features: maps that the last block puts out.
            classes: how many labels there are.
        """
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.blocks = nn.ModuleList(blocks)
        self.logits = nn.Linear(features, classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):  # as the paper's reference 13 does
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")

    def preactivations(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """See :meth:`Classifier.preactivations`; ``stem``, and of each block ``block<n>a``, between its
        convolutions, and ``block<n>b``, after its addition, with n from 1.
        """
        seen = {"stem": self.norm(self.stem(x))}
        h = self.relu(seen["stem"])
        for number, block in enumerate(self.blocks, 1):
            first, second, h = block(h)
            seen |= {f"block{number}a": first, f"block{number}b": second}
        return seen, self.logits(h.mean((2, 3)))


class ResNet(Residual):
    """Three stages of blocks with a shortcut that has no parameters.

    The stages have ``width``, 2 ``width`` and 4 ``width`` maps, and each stage but the first halves the size.
    ``depth`` counts the layers with weights. With 20 layers, a width of 16, three channels and ten classes it
    has 269,722 parameters.
    """

    def __init__(
        self, shape: Sequence[int], classes: int, *, width: int = 16, depth: int = 20
    ) -> None:
        """A fresh one.

        Args:
            shape: (C, H, W) of the images, each side 8 pixels or more; the size itself decides nothing.
            classes: how many labels there are.
            width: maps of the first stage.
            depth: 6 n + 2 layers for n blocks in each stage.

        Raises:
            InputError: ``shape``, ``width`` or ``depth`` is none of these.
        """
        channels, _, _ = at_least(shape, "ResNet")
        if depth < 8 or depth % 6 != 2:
            raise InputError(f"ResNet: depth must be 6 n + 2 (8, 14, 20, 26 ...), found {depth}")
        if width < 1:
            raise InputError(f"ResNet: width must be 1 or more, found {width}")
        super().__init__(channels, width, _stages(width, (depth - 2) // 6), 4 * width, classes)


def _stages(width: int, each: int) -> Iterator[Block]:
    """The blocks of three stages, ``each`` of them in a stage."""
    inputs = width
    for outputs in (width, 2 * width, 4 * width):
        for _ in range(each):
            yield Block(inputs, outputs, 1 if inputs == outputs else 2)
            inputs = outputs
