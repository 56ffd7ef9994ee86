"""Makes the adversarial images of one chunk of a split: by DGNs or by ART, here or as a task of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, overload

import torch
from torch import Tensor, nn

from deepcustom.attacks.dgn import DGN
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.progress import Advance, silent
from deepcustom.data.arrays import Array, Split, images
from deepcustom.training.compute import Compute
from deepcustom.training.engine import Task
from deepcustom.training.nets.base import Classifier
from deepcustom.training.prediction import predict


class Maker(Protocol):
    """Makes adversarial images; what it needs travels with it."""

    @property
    def target_net(self) -> Classifier:
        """The network to fool."""

    @property
    def threat(self) -> ThreatModel:
        """What images are projected to."""

    def __call__(
        self, x: Tensor, y: Tensor, start: int, *, compute: Compute, advance: Advance = silent
    ) -> Tensor:
        """Perturb a chunk.

        Args:
            x: images (n, C, H, W), float32 in [0, 1].
            y: labels (n,) int64.
            start: the chunk's first row.
            compute: device and precision.
            advance: told how many images are done.

        Returns:
            (n, C, H, W), inside the threat model.
        """

    def networks(self) -> list[nn.Module]:
        """The networks in it, which move to the device where it runs."""


@dataclass(frozen=True)
class ByDgns:
    """Makes images with DGNs, each for its own label or for the one that the network predicts.

    Attributes:
        dgn: the DGNs.
        target_net: the network to fool; it predicts the labels.
        threat: what images are projected to.
        label: ``true`` or ``predicted``.
        batch_size: images per pass at most.
    """

    dgn: DGN
    target_net: Classifier
    threat: ThreatModel
    label: Literal["true", "predicted"]
    batch_size: int

    def __call__(
        self, x: Tensor, y: Tensor, start: int, *, compute: Compute, advance: Advance = silent
    ) -> Tensor:
        """See :class:`Maker`."""
        labels = y if self.label == "true" else predict(self.target_net, x).argmax(1)
        made = self.dgn.generate(
            x, labels, self.threat, compute=compute, batch_size=self.batch_size
        )
        advance(steps=len(x))
        return made

    def networks(self) -> list[nn.Module]:
        """See :class:`Maker`."""
        return [self.target_net, *self.dgn.networks()]


@dataclass(frozen=True)
class Chunks(Sequence[Task]):
    """The chunks of a split as tasks.

    Attributes:
        split: the clean images; they may be mapped from files.
        size: images in a chunk.
    """

    split: Split
    size: int

    def __len__(self) -> int:
        return -(-len(self.split) // self.size)

    @overload
    def __getitem__(self, place: int) -> Task: ...

    @overload
    def __getitem__(self, place: slice) -> list[Task]: ...

    def __getitem__(self, place: int | slice) -> Task | list[Task]:
        """The task of a chunk."""
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        start = place * self.size

        def read() -> tuple[Array, Array, int]:
            some = self.split.take(slice(start, start + self.size))
            return some.x, some.y, start

        return Task(f"rows from {start}", make_as_task, read)


def make_as_task(
    maker: Maker, x: Array, y: Array, start: int, *, compute: Compute, advance: Advance
) -> tuple[Array, Array, Array]:
    """Perturb a chunk as a task of an engine: arrays come and go.

    Returns:
        float32 (n, C, H, W), and of each image the predicted label before and after, (n,) int64.
    """
    for net in maker.networks():
        net.to(compute.device)
    laid = images(x).to(compute.device, memory_format=torch.channels_last)
    labels = torch.from_numpy(y.astype("int64")).to(compute.device)
    made = maker(laid, labels, start, compute=compute, advance=advance)
    found = made.detach().to(torch.float32)
    stored = found.cpu().contiguous().numpy()
    maker.threat.verify(
        stored, x
    )  # the driver does so again: predictions need images of the right shape
    before, after = predictions(maker.target_net, laid, found)
    return stored, before.cpu().numpy(), after.cpu().numpy()


def predictions(net: Classifier, x: Tensor, x_adv: Tensor) -> tuple[Tensor, Tensor]:
    """The labels (n,) that ``net`` predicts for clean and for adversarial images (n, C, H, W)."""
    return predict(net, x).argmax(1), predict(net, x_adv).argmax(1)
