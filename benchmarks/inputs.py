"""What the contenders work on: trained networks and prepared images, as the project keeps them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepcustom.base.errors import InputError
from deepcustom.data.sources import find_source
from deepcustom.pipeline import workspace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from deepcustom.attacks.bank import DGNBank
    from deepcustom.data.arrays import Split
    from deepcustom.data.datasets import DatasetSpec
    from deepcustom.training.compute import Compute
    from deepcustom.training.nets.base import Classifier

BANK = "nce"
DGN_BATCH = 200  # images in a pass of a DGN, as the settings have it
EPS = {"mnist": 0.3, "cifar10": 0.0313}
NETWORKS = {
    "mnist": "deepcustom.training.nets.mnist:MnistClassifier",
    "cifar10": "deepcustom.training.nets.cifar10:Cifar10Classifier",
}
GENERATORS = {
    "mnist": "deepcustom.training.nets.mnist:MnistGenerator",
    "cifar10": "deepcustom.training.nets.cifar10:Cifar10Generator",
}
"""The classes that :mod:`benchmarks.plain` has ports of."""


def demand(root: Path, names: Iterable[str], *, train: bool) -> None:
    """Whether all inputs are there.

    Args:
        root: the project's top folder.
        names: of data sets.
        train: whether the train split is needed too.

    Raises:
        InputError: in one line: what is missing, and how to come by it.
    """
    missing = []
    for name in names:
        files = [workspace.target(name), workspace.bank(name, BANK)]
        for split in ("test", "train") if train else ("test",):
            files += [f"{workspace.split(name, split)}/{array}.npy" for array in ("x", "y")]
        missing += [file for file in files if not (root / file).is_file()]
    if missing:
        raise InputError(
            f"missing: {', '.join(missing)}; `dvc repro` makes them (`dvc pull` fetches the networks "
            "where a remote holds them)"
        )


@dataclass(frozen=True)
class Inputs:
    """The files of one data set below ``root``; everything is loaded the way the stages load it."""

    root: Path
    name: str

    @property
    def spec(self) -> DatasetSpec:
        return find_source(self.name).spec

    @property
    def threat(self) -> Any:
        from deepcustom.attacks.threat import ThreatModel

        return ThreatModel(EPS[self.name])

    def read(self, path: str) -> Path:
        """Where a file of the project lies."""
        return self.root / path

    def split(self, name: str) -> Split:
        """A prepared split, mapped from its files."""
        from deepcustom.data.arrays import Split

        return Split.load(self.read(workspace.split(self.name, name)), self.spec)

    def test(self, count: int) -> tuple[Tensor, Tensor]:
        """The first test images (n, C, H, W), float32 in [0, 1], contiguous, and their labels (n,)."""
        split = self.split("test")
        if len(split) < count:
            raise InputError(f"{self.name}: {count} test images wanted, {len(split)} are there")
        return split.take(slice(0, count)).tensors()

    def target_net(self, compute: Compute) -> Classifier:
        """The network under attack, as a stage has it."""
        from deepcustom.training.nets.base import build_classifier
        from deepcustom.training.weights import load_network

        net = build_classifier(NETWORKS[self.name])
        load_network(self.read(workspace.target(self.name)), net)
        return compute.place(net)

    def plain_target_net(self) -> nn.Module:
        """The same in plain PyTorch, as training leaves it: its weights still ask for gradients."""
        from benchmarks import plain
        from deepcustom.training.compute import FLOAT32

        return plain.port(plain.classifier(self.name), self.target_net(FLOAT32))

    def bank(self, compute: Compute) -> DGNBank:
        """The DGNs."""
        from deepcustom.attacks.bank import DGNBank

        path = self.read(workspace.bank(self.name, BANK))
        return DGNBank.load(
            path, GENERATORS[self.name], self.name, self.spec.num_classes, compute.device
        )


def own_compute() -> Compute:
    """What the default settings give: the best precision of this machine, and the allocator's tuning."""
    from deepcustom.base.settings import ComputeParams
    from deepcustom.training.compute import Compute

    return Compute.of(ComputeParams(device="auto", precision="auto", threads="auto"))
