"""The networks: each data set's classifier, and the generator that attacks it.

A classifier names its hidden layers and hands out their pre-activations, which is what the analyses and
the suspiciousness loss look at. A generator is one DGN: images in, images of the same shape out, in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from deepcustom.errors import UnknownNameError


class Classifier(nn.Module):
    """A network from images (N, C, H, W) in [0, 1] to logits (N, classes), with named hidden layers."""

    def preactivations(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """One pass through the network.

        Args:
            x: images (N, C, H, W) in [0, 1].

        Returns:
            What enters each hidden ReLU, by layer name in forward order, (N, units) for dense layers
            and (N, maps, H, W) for convolutions; and the logits (N, classes).
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W) in [0, 1]."""
        return self.preactivations(x)[1]


class MnistClassifier(Classifier):
    """784 pixels, five dense layers of 30 with ReLU, 10 logits: 27,580 parameters."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [28 * 28, 30, 30, 30, 30, 30]
        self.hidden = nn.ModuleDict(
            {f"dense{i}": nn.Linear(a, b) for i, (a, b) in enumerate(pairwise(sizes), 1)}
        )
        # Modules of their own, one per layer: Captum hooks each.
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

    The study's text gives kernels of 2 and strides 3, 2, 2 for the decoder; only kernels 3, 2, 2 with
    strides 2, 2, 2 give the sizes of its figure, which are the ones here.
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
            *_up(128, 64, kernel=3, stride=2),
            *_up(64, 32, kernel=2, stride=2),
            nn.ConvTranspose2d(32, 1, 2, stride=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 1, 28, 28) in [0, 1] to the same shape and range."""
        # The sigmoid in float32: bfloat16 has 8 bits, an image needs more between 0.5 and 1.
        return F.sigmoid(self.decoder(self.encoder(x)).float())


def _up(inputs: int, outputs: int, *, kernel: int, stride: int) -> list[nn.Module]:
    """One decoder step: transposed convolution, ReLU, batch norm."""
    return [
        nn.ConvTranspose2d(inputs, outputs, kernel, stride=stride),
        nn.ReLU(),
        nn.BatchNorm2d(outputs),
    ]


T = TypeVar("T")

CLASSIFIERS: dict[str, Callable[[], Classifier]] = {"mnist": MnistClassifier}
GENERATORS: dict[str, Callable[[], nn.Module]] = {"mnist": MnistGenerator}


def classifier(dataset: str) -> Classifier:
    """A fresh classifier of the data set's architecture.

    Raises:
        UnknownNameError: no network is known for ``dataset``.
    """
    return _known(CLASSIFIERS, dataset)()


def generator(dataset: str) -> nn.Module:
    """A fresh DGN of the data set's architecture.

    Raises:
        UnknownNameError: no network is known for ``dataset``.
    """
    return _known(GENERATORS, dataset)()


def _known(table: dict[str, T], dataset: str) -> T:
    if dataset not in table:
        raise UnknownNameError("data set", dataset, table)
    return table[dataset]


def parameter_count(net: nn.Module) -> int:
    """How many numbers training adjusts."""
    return sum(p.numel() for p in net.parameters())
