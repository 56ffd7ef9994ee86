"""A small convolutional classifier for images of any size, made for grey ones."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from deepcustom.training.nets.base import Classifier
from deepcustom.training.nets.sizes import at_least


class SmallClassifier(Classifier):
    """Convolutions with 16 and 32 maps, a dense layer of 100, logits; ReLU after each but the last.

    The convolutions are 4 x 4 with stride 2 and padding 1, so each halves the size, rounded down. On MNIST's
    images it has 166,406 parameters.
    """

    def __init__(self, shape: Sequence[int], classes: int) -> None:
        """A fresh one for images of ``shape`` (C, H, W), each side 8 pixels or more, and ``classes`` labels.

        Raises:
            InputError: the images are too small.
        """
        super().__init__()
        channels, height, width = at_least(shape, "SmallClassifier")
        self.hidden = nn.ModuleDict(
            {
                "conv1": nn.Conv2d(channels, 16, 4, stride=2, padding=1),
                "conv2": nn.Conv2d(16, 32, 4, stride=2, padding=1),
                "dense1": nn.Linear(32 * (height // 4) * (width // 4), 100),
            }
        )
        # One module per layer, since Captum hooks each.
        self.relu = nn.ModuleDict({name: nn.ReLU() for name in self.hidden})
        self.logits = nn.Linear(100, classes)

    def preactivations(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """See :meth:`Classifier.preactivations`; ``conv1`` with 16 maps of half the size, ``conv2`` with 32
        of a quarter, and ``dense1`` with 100 units.
        """
        h = x
        seen = {}
        for name, layer in self.hidden.items():
            seen[name] = layer(h.flatten(1) if name == "dense1" else h)
            h = self.relu[name](seen[name])
        return seen, self.logits(h)
