"""The networks: each data set's classifier, and the generator that attacks it.

A classifier names its hidden layers and hands out their pre-activations, which is what the analyses and
the suspiciousness loss look at. A generator is one DGN: images in, images of the same shape out, in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcustom.base.errors import UnknownNameError
from deepcustom.training.compute import Compute


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


class MixedPrecision(Classifier):
    """A frozen classifier whose convolutions and matrix products run in ``compute.precision``.

    What comes out is float32, so that a loss or an attack does its own arithmetic in full. In float16 a
    gradient through it needs a scaled loss (:class:`torch.amp.GradScaler`): of an unscaled one most is
    below the smallest number there is.
    """

    def __init__(self, net: Classifier, compute: Compute) -> None:
        super().__init__()
        self.net, self.compute = net, compute

    def preactivations(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """See :meth:`Classifier.preactivations`; float32."""
        with self.compute.autocast():
            seen, logits = self.net.preactivations(x)
        return {name: values.float() for name, values in seen.items()}, logits.float()


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
        # Modules of their own, one per layer: Captum hooks each.
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


class UpConv2d(nn.ConvTranspose2d):
    """Transposed convolution without padding, kept off the CPU library's slow paths (oneDNN 3.x).

    The numbers are those of :class:`torch.nn.ConvTranspose2d`. But there

    * the gradient of a bias inside the convolution takes as long as that of the weights: where there
      will be a gradient, the bias is added afterwards;
    * with a bias inside and a stride of 2, an odd size is 4 to 8 times as slow as the next even one:
      where there will be none, the output is one row and column larger, and cropped.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride)
        self.kernel, self.step = kernel, stride

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, (H - 1) * stride + kernel, likewise for W).

        Raises:
            ValueError: ``output_size`` is given; the size above is the only one.
        """
        if output_size is not None:
            raise ValueError(f"UpConv2d has one output size, found output_size={output_size}")
        if self.bias is not None and torch.is_grad_enabled():
            bare = F.conv_transpose2d(x, self.weight, stride=self.step)
            return bare.add_(self.bias.to(bare.dtype)[:, None, None])
        height, width = ((n - 1) * self.step + self.kernel for n in x.shape[2:])
        odd = self.step > 1 and (height % 2 or width % 2)
        extra = 1 if odd else 0
        wide = F.conv_transpose2d(x, self.weight, self.bias, self.step, output_padding=extra)
        return wide[:, :, :height, :width]


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
            UpConv2d(32, 1, 2, stride=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 1, 28, 28) in [0, 1] to the same shape and range."""
        # The sigmoid in float32: bfloat16 has 8 bits, an image needs more between 0.5 and 1.
        return F.sigmoid(self.decoder(self.encoder(x)).float())


class Cifar10Generator(nn.Module):
    """Convolutional autoencoder 32 → 30 → 14 → 12 → 5 → 11 → 14 → 30 → 32, sigmoid at the end.

    The study's text gives the decoder kernels of 2, 1, 2, 1 and strides of 3, 4, 4, 3, and the encoder
    its strides of 2 at the first and third convolution; only decoder kernels 3, 4, 4, 3 with strides
    2, 1, 2, 1 and encoder strides of 2 at the second and fourth give the sizes of its figure, which are
    the ones here.
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
            *_up(128, 128, kernel=3, stride=2),
            *_up(128, 64, kernel=4, stride=1),
            *_up(64, 32, kernel=4, stride=2),
            UpConv2d(32, 3, 3, stride=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) in [0, 1] to the same shape and range."""
        return F.sigmoid(self.decoder(self.encoder(x)).float())


def _up(inputs: int, outputs: int, *, kernel: int, stride: int) -> list[nn.Module]:
    """One decoder step: transposed convolution, ReLU, batch norm."""
    return [
        UpConv2d(inputs, outputs, kernel, stride=stride),
        nn.ReLU(),
        nn.BatchNorm2d(outputs),
    ]


T = TypeVar("T")

CLASSIFIERS: dict[str, Callable[[], Classifier]] = {
    "mnist": MnistClassifier,
    "cifar10": Cifar10Classifier,
}
GENERATORS: dict[str, Callable[[], nn.Module]] = {
    "mnist": MnistGenerator,
    "cifar10": Cifar10Generator,
}


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
