"""CIFAR-10's networks: the classifier, a generator for one class, and one that is told the label."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcustom.training.nets.base import Classifier, Conditional, UpConv2d, up_step


class Cifar10Classifier(Classifier):
    """Three convolutions with ReLU, the first two max-pooled, a dense layer of 64, 10 logits.

    122,570 parameters; the sizes are 32 → 30 → 15 → 13 → 6 → 4.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.ModuleDict(
            {
                "conv1": nn.Conv2d(3, 32, 3),
                "conv2": nn.Conv2d(32, 64, 3),
                "conv3": nn.Conv2d(64, 64, 3),
                "dense1": nn.Linear(64 * 4 * 4, 64),
            }
        )
        # One module per layer, since Captum hooks each.
        self.relu = nn.ModuleDict({name: nn.ReLU() for name in self.hidden})
        self.pool = nn.ModuleDict({name: nn.MaxPool2d(2) for name in ("conv1", "conv2")})
        self.logits = nn.Linear(64, 10)

    def preactivations(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """See :meth:`Classifier.preactivations`; ``conv1`` to ``conv3`` with 32, 64, 64 maps of
        30x30, 13x13 and 4x4, and ``dense1`` with 64 units.
        """
        h = x
        seen = {}
        for name, layer in self.hidden.items():
            seen[name] = layer(h.flatten(1) if name == "dense1" else h)
            h = self.relu[name](seen[name])
            if name in self.pool:
                h = self.pool[name](h)
        return seen, self.logits(h)


class Cifar10Generator(nn.Module):
    """Convolutional autoencoder 32 → 30 → 14 → 12 → 5 → 11 → 14 → 30 → 32, sigmoid at the end.

    These are the sizes of the study's figure, which the study's text contradicts. In the text, the decoder
    has kernels of 2, 1, 2, 1 and strides of 3, 4, 4, 3, and the encoder has its strides of 2 at the first
    and third convolution. The figure's sizes need decoder kernels of 3, 4, 4, 3 with strides of 2, 1, 2, 1,
    and encoder strides of 2 at the second and fourth convolution.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3),
            nn.ReLU(),
            nn.Conv2d(128, 128, 3, stride=2),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            *up_step(128, 128, kernel=3, stride=2),
            *up_step(128, 64, kernel=4, stride=1),
            *up_step(64, 32, kernel=4, stride=2),
            UpConv2d(32, 3, 3, stride=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) in [0, 1] to the same shape and range."""
        return F.sigmoid(self.decoder(self.encoder(x)).float())


class Cifar10Conditional(Conditional):
    """Convolutions on an 8 x 8 grid of 4 x 4 patches, so that it costs less than the classifier.

    3 x 32 x 32 → 48 x 8 x 8, two convolutions of 3 x 3 with 64 maps in between, and back. Each label shifts
    the 64 maps by a vector of its own.
    """

    PATCH = 4

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        pixels = 3 * self.PATCH**2
        self.encoder = nn.Conv2d(pixels, 64, 3, padding=1)
        self.label = nn.Embedding(classes, 64)
        self.decoder = nn.Conv2d(64, pixels, 3, padding=1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, 3, 32, 32) to the same shape."""
        patches = F.pixel_unshuffle(x, self.PATCH)
        maps = F.relu(self.encoder(patches) + self.label(y)[:, :, None, None])
        return torch.sigmoid(F.pixel_shuffle(self.decoder(maps), self.PATCH).float())
