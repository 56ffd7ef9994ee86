"""ResNet-18 for small images: He et al. 2016 (arXiv:1512.03385), table 1, without its first pooling."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from deepcustom.base.errors import InputError
from deepcustom.training.nets.base import Classifier
from deepcustom.training.nets.sizes import at_least

LEVELS = 4
BLOCKS = 2  # on each level


class ProjectedBlock(nn.Module):
    """Two convolutions of 3 x 3 with batch norm, and a shortcut around them.

    Where the block changes the size or the number of maps, the shortcut is a convolution of 1 x 1 with batch
    norm (option B of the paper).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.short = nn.Sequential()
        if stride > 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.short = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, inputs, H, W) to what enters the first ReLU, what enters the second, and the output."""
        first = self.norm1(self.conv1(x))
        second = self.norm2(self.conv2(self.relu1(first))) + self.short(x)
        return first, second, self.relu2(second)


class ResNet18(Classifier):
    """A convolution of 3 x 3, four levels of two blocks each, the mean over all positions, logits.

    The levels have ``width``, 2, 4 and 8 times ``width`` maps, and each but the first halves the size. With
    three channels and ten classes it has 11,173,962 parameters, and takes 1.1 GFLOP for an image of 32 x 32
    pixels and one pass.
    """

    def __init__(self, shape: Sequence[int], classes: int, *, width: int = 64) -> None:
        """A fresh one.

        Args:
            shape: (C, H, W) of the images, each side 8 pixels or more; the size itself decides nothing.
            classes: how many labels there are.
            width: maps of the first level.

        Raises:
            InputError: ``shape`` or ``width`` is none of these.
        """
        super().__init__()
        channels, _, _ = at_least(shape, "ResNet18")
        if width < 1:
            raise InputError(f"ResNet18: width must be 1 or more, found {width}")
        widths = [width * 2**level for level in range(LEVELS)]
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        blocks = []
        for level, (inputs, outputs) in enumerate(pairwise([width, *widths])):
            blocks.append(ProjectedBlock(inputs, outputs, 2 if level else 1))
            blocks += [ProjectedBlock(outputs, outputs, 1) for _ in range(BLOCKS - 1)]
        self.blocks = nn.ModuleList(blocks)
        self.logits = nn.Linear(widths[-1], classes)
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
