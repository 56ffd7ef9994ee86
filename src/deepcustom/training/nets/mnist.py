"""MNIST's networks: the classifier, a generator for one class, and one that is told the label."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcustom.training.nets.base import Classifier, Conditional, UpConv2d, up_step


class MnistClassifier(Classifier):
    """784 pixels, five dense layers of 30 with ReLU, 10 logits: 27,580 parameters."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [28 * 28, 30, 30, 30, 30, 30]
        self.hidden = nn.ModuleDict(
            {f"dense{i}": nn.Linear(a, b) for i, (a, b) in enumerate(pairwise(sizes), 1)}
        )
        # One module per layer, since Captum hooks each.
        self.relu = nn.ModuleDict({name: nn.ReLU() for name in self.hidden})
        self.logits = nn.Linear(30, 10)

    def preactivations(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """See :meth:`Classifier.preactivations`; layers ``dense1`` to ``dense5``, 30 units each."""
        h = x.flatten(1)
        seen = {}
        for name, layer in self.hidden.items():
            seen[name] = layer(h)
            h = self.relu[name](seen[name])
        return seen, self.logits(h)


class MnistGenerator(nn.Module):
    """Convolutional autoencoder 28 → 14 → 7 → 5 → 3 → 7 → 14 → 28, sigmoid at the end.

    These are the sizes of the study's figure, which the study's text contradicts. In the text, the decoder
    has kernels of 2 and strides of 3, 2, 2; the figure's sizes need kernels of 3, 2, 2 with strides of 2.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
        )
        self.decoder = nn.Sequential(
            *up_step(128, 64, kernel=3, stride=2),
            *up_step(64, 32, kernel=2, stride=2),
            UpConv2d(32, 1, 2, stride=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 1, 28, 28) in [0, 1] to the same shape and range."""
        # The sigmoid runs in float32: bfloat16 has 8 bits, too few for pixels between 0.5 and 1.
        return F.sigmoid(self.decoder(self.encoder(x)).float())


class MnistConditional(Conditional):
    """784 pixels and ten labels, 256 hidden units, 784 pixels: 405,008 parameters."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.net = nn.Sequential(nn.Linear(784 + classes, 256), nn.ReLU(), nn.Linear(256, 784))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, 1, 28, 28) to the same shape."""
        told = torch.cat([x.flatten(1), F.one_hot(y, self.classes).to(x)], dim=1)
        return torch.sigmoid(self.net(told).float()).view_as(x)
