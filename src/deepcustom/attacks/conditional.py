"""One DGN for all classes: it is told the label, and its weights lie in one small file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from deepcustom.attacks.dgn import DGN, read_dgn, stored
from deepcustom.attacks.threat import ThreatModel
from deepcustom.training.compute import Compute
from deepcustom.training.nets.base import Conditional, Named, build_conditional
from deepcustom.training.weights import load_state, save_tensors

KIND = "conditional-dgn"


class PerClass(Conditional):
    """A generator for each class; each sees only the images of its class."""

    def __init__(self, make: Callable[[int], Conditional], classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.generators = nn.ModuleList(make(classes) for _ in range(classes))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Each image goes through the generator of its label."""
        made = torch.empty_like(x, dtype=torch.float32)
        for label, generator in enumerate(self.generators):
            rows = torch.nonzero(y == label).flatten()
            if len(rows):
                made = made.index_copy(0, rows, generator(x[rows], y[rows]))
        return made


def conditional(generator: Named, num_classes: int, *, per_class: bool = False) -> Conditional:
    """A fresh generator; with ``per_class``, one for each label.

    Raises:
        InputError: there is no such class, or it is not a :class:`Conditional`.
    """
    if per_class:
        return PerClass(partial(build_conditional, generator), num_classes)
    return build_conditional(generator, num_classes)


def perturbed(generator: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    """The images that a conditional generator proposes; differentiable.

    Args:
        generator: gives s in [0, 1] for images and labels.
        x: clean images (N, C, H, W) in [0, 1].
        y: labels (N,) int64.
        threat: the ball and the range.

    Returns:
        What :meth:`~deepcustom.attacks.threat.ThreatModel.spread` makes of s.

    Raises:
        InputError: the generator gives another shape.
    """
    return threat.spread(threat.fits(generator(x, y), x), x)


def _exact(tensor: Tensor) -> Tensor:
    """``tensor`` as banks store it, if that changes no value; else as it is."""
    small = stored(tensor)
    return small if torch.equal(small.to(tensor.dtype), tensor) else tensor


@dataclass(frozen=True)
class ConditionalDGN(DGN):
    """A conditional generator as an attack.

    Attributes:
        dataset: name of the subject that it attacks.
        loss: the loss it was trained on.
        per_class: whether it holds a generator for each class.
        generator: gives what :func:`perturbed` spreads over the ball; frozen and in eval mode once trained.
    """

    dataset: str
    loss: str
    per_class: bool
    generator: Conditional

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return self.generator.classes

    def networks(self) -> list[nn.Module]:
        """The generator."""
        return [self.generator]

    def _generate(
        self, x: Tensor, labels: Tensor, threat: ThreatModel, compute: Compute, batch_size: int
    ) -> Tensor:
        made = []
        for images, own in zip(
            torch.split(x, batch_size), torch.split(labels, batch_size), strict=True
        ):
            images, own = images.to(compute.device), own.to(compute.device)
            with compute.autocast():
                offered = perturbed(self.generator, images, own, threat)
                made.append(threat.project(offered, images).to(x.device))
        return torch.cat(made) if made else torch.empty_like(x)

    def placed(self, compute: Compute) -> ConditionalDGN:
        """Itself, with weights laid out as on ``compute`` convolutions are quickest; its file has another."""
        compute.place(self.generator)
        return self

    def save(self, path: str | Path) -> None:
        """Write it to a safetensors file; weights that are exact in half precision take half the space."""
        about = {"dataset": self.dataset, "loss": self.loss, "per_class": self.per_class}
        tensors = {name: _exact(tensor) for name, tensor in self.generator.state_dict().items()}
        save_tensors(Path(path), tensors, {"kind": KIND, **about})

    @classmethod
    def load(
        cls, path: Path, generator: Named, dataset: str, num_classes: int, device: torch.device
    ) -> ConditionalDGN:
        """Read a DGN of the class ``generator`` for the subject ``dataset``.

        Raises:
            InputError: no such file or class, or the file holds something else.
        """
        tensors, about = read_dgn(path, KIND, dataset)
        per_class = about.get("per_class") is True
        net = conditional(generator, num_classes, per_class=per_class)
        load_state(net, tensors, path)
        net = net.to(device).eval().requires_grad_(False)
        return cls(dataset, str(about.get("loss")), per_class, net)
