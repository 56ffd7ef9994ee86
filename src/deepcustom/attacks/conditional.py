"""One DGN for all classes: it is told the label, and its weights lie in one small file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcustom.attacks.labels import check_labels
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError, UnknownNameError
from deepcustom.training.compute import Compute
from deepcustom.training.weights import load_state, load_tensors, save_tensors

KIND = "conditional-dgn"


class Conditional(nn.Module):
    """Images (N, C, H, W) in [0, 1] and labels (N,) to numbers of that shape in [0, 1].

    Attributes:
        classes: how many labels it knows.
    """

    classes: int

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """See :func:`perturbed` for what the numbers mean."""
        raise NotImplementedError


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


class Cifar10Conditional(Conditional):
    """Convolutions on an 8 x 8 grid of 4 x 4 patches, so that it costs less than the network itself.

    3 x 32 x 32 → 48 x 8 x 8, two convolutions of 3 x 3 with 64 maps between, and back; each label shifts
    the maps by a vector of its own.
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


class PerClass(Conditional):
    """A generator for each class, which sees the images of its class alone."""

    def __init__(self, make: Callable[[int], Conditional], classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.generators = nn.ModuleList(make(classes) for _ in range(classes))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Each image by its label's own."""
        made = torch.empty_like(x, dtype=torch.float32)
        for label, generator in enumerate(self.generators):
            rows = torch.nonzero(y == label).flatten()
            if len(rows):
                made = made.index_copy(0, rows, generator(x[rows], y[rows]))
        return made


GENERATORS: dict[str, Callable[[int], Conditional]] = {
    "mnist": MnistConditional,
    "cifar10": Cifar10Conditional,
}


def conditional(dataset: str, num_classes: int, *, per_class: bool = False) -> Conditional:
    """A fresh generator of the data set's architecture.

    Raises:
        UnknownNameError: no conditional generator is known for ``dataset``.
    """
    if dataset not in GENERATORS:
        raise UnknownNameError("data set", dataset, GENERATORS)
    make = GENERATORS[dataset]
    return PerClass(make, num_classes) if per_class else make(num_classes)


def perturbed(generator: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    """The images that a conditional generator offers; differentiable.

    Args:
        generator: gives s in [0, 1] for images and labels.
        x: clean images (N, C, H, W) in [0, 1].
        y: labels (N,) int64.
        threat: the ball and the range.

    Returns:
        What :meth:`~deepcustom.attacks.threat.ThreatModel.spread` makes of s.
    """
    return threat.spread(generator(x, y), x)


@dataclass(frozen=True)
class ConditionalDGN:
    """A conditional generator as an attack, with the interface of :class:`deepcustom.attacks.bank.DGNBank`.

    Attributes:
        dataset: name of the data set, which fixes the architecture.
        loss: what it was trained on.
        per_class: whether it is a generator for each class after all.
        generator: frozen, in eval mode.
    """

    dataset: str
    loss: str
    per_class: bool
    generator: Conditional

    @torch.no_grad()
    def generate(
        self,
        x: Tensor,
        labels: Tensor,
        threat: ThreatModel,
        *,
        compute: Compute,
        batch_size: int = 200,
    ) -> Tensor:
        """Adversarial images, one forward pass each.

        Args:
            x: clean images (N, C, H, W), float32 in [0, 1].
            labels: (N,) int64.
            threat: what the result is projected to.
            compute: device and precision.
            batch_size: images per pass at most.

        Returns:
            (N, C, H, W) float32 on ``x``'s device, inside the threat model.

        Raises:
            InputError: a label is no class, or there are not as many labels as images.
        """
        check_labels(labels, len(x), self.generator.classes)
        made = []
        for images, own in zip(
            torch.split(x, batch_size), torch.split(labels, batch_size), strict=True
        ):
            images, own = images.to(compute.device), own.to(compute.device)
            with compute.autocast():
                offered = perturbed(self.generator, images, own, threat)
                made.append(threat.project(offered, images).to(x.device))
        return torch.cat(made) if made else torch.empty_like(x)

    def save(self, path: Path) -> None:
        """Write it to a safetensors file."""
        about = {"dataset": self.dataset, "loss": self.loss, "per_class": self.per_class}
        save_tensors(path, self.generator.state_dict(), {"kind": KIND, **about})

    @classmethod
    def load(
        cls, path: Path, dataset: str, num_classes: int, device: torch.device
    ) -> ConditionalDGN:
        """Read one for ``dataset``.

        Raises:
            InputError: no such file, or it holds something else.
        """
        tensors, about = load_tensors(path)
        if about.get("kind") != KIND or about.get("dataset") != dataset:
            found = f"{about.get('kind')} for {about.get('dataset')}"
            raise InputError(f"{path} holds a {found}, expected a {KIND} for {dataset}")
        per_class = about.get("per_class") is True
        generator = conditional(dataset, num_classes, per_class=per_class)
        load_state(generator, tensors, path)
        generator = generator.to(device).eval().requires_grad_(False)
        return cls(dataset, str(about.get("loss")), per_class, generator)
