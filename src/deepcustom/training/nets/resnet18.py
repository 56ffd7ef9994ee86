"""ResNet-18 for small images: He et al. 2016 (arXiv:1512.03385), table 1, without its first pooling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor, nn

from deepcustom.base.errors import InputError
from deepcustom.training.nets.resnet import Block, Residual
from deepcustom.training.nets.sizes import at_least

LEVELS = 4
BLOCKS = 2  # on each level


class ProjectedBlock(Block):
    """A block whose shortcut has parameters where it changes the size or the number of maps.

    There it is a convolution of 1 x 1 with batch norm (option B of the paper).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, stride)
        self.short = nn.Sequential()
        if stride > 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.short = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def shortcut(self, x: Tensor) -> Tensor:
        """See :meth:`Block.shortcut`."""
        added: Tensor = self.short(x)
        return added


class ResNet18(Residual):
    """Four levels of two blocks each.

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
        channels, _, _ = at_least(shape, "ResNet18")
        if width < 1:
            raise InputError(f"ResNet18: width must be 1 or more, found {width}")
        features = width * 2 ** (LEVELS - 1)
        super().__init__(channels, width, _levels(width), features, classes)


def _levels(width: int) -> Iterator[Block]:
    """The blocks of all levels."""
    widths = [width * 2**level for level in range(LEVELS)]
    for level, (inputs, outputs) in enumerate(pairwise([width, *widths])):
        yield ProjectedBlock(inputs, outputs, 2 if level else 1)
        for _ in range(BLOCKS - 1):
            yield ProjectedBlock(outputs, outputs, 1)
