"""What the contenders work on: trained networks and prepared images, as the project keeps them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from deepcustom.base.errors import InputError
from deepcustom.data.sources import find_source
from deepcustom.pipeline import workspace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from deepcustom.attacks.dgn import DGN
    from deepcustom.attacks.threat import ThreatModel
    from deepcustom.data.arrays import Split
    from deepcustom.data.datasets import DatasetSpec
    from deepcustom.training.compute import Compute
    from deepcustom.training.nets.base import Architecture, Classifier

DGN_BATCH = 200  # images in a pass of a DGN, as the settings have it
NETS = "deepcustom.training.nets"


@dataclass(frozen=True)
class Subject:
    """A classifier under attack, its generators, and the project that has both.

    Attributes:
        title: of the data set and the classifier.
        dataset: a built-in one.
        folder: the project, below the repository's top.
        network: class of the classifier; :mod:`benchmarks.plain` has a port of it.
        generator: class of the generators.
        bank: their name.
        told: whether it is one generator that is told the label; else there is one for each class.
        eps: radius of the ball.
        made_by: commands that make the project's files.
    """

    title: str
    dataset: str
    folder: str
    network: str
    generator: str
    bank: str
    told: bool
    eps: float
    made_by: str


STUDY = (
    "`dvc pull` fetches the networks, `dvc repro prepare@mnist prepare@cifar10` makes the images"
)
SUBJECTS = {
    "mnist": Subject(
        "MNIST",
        "mnist",
        ".",
        f"{NETS}.mnist:MnistClassifier",
        f"{NETS}.mnist:MnistGenerator",
        "nce",
        told=False,
        eps=0.3,
        made_by=STUDY,
    ),
    "cifar10": Subject(
        "CIFAR-10",
        "cifar10",
        ".",
        f"{NETS}.cifar10:Cifar10Classifier",
        f"{NETS}.cifar10:Cifar10Generator",
        "nce",
        told=False,
        eps=0.0313,
        made_by=STUDY,
    ),
    "cifar10-resnet20": Subject(
        "CIFAR-10, ResNet-20",
        "cifar10",
        "examples/cifar10-resnet20",
        f"{NETS}.resnet:ResNet",
        f"{NETS}.unet:UNetConditional",
        "margin",
        told=True,
        eps=0.0313,
        made_by="benchmarks/README.md says how to fetch it",
    ),
    "cifar10-resnet18": Subject(
        "CIFAR-10, ResNet-18",
        "cifar10",
        "build/cifar10-resnet18",
        f"{NETS}.resnet18:ResNet18",
        f"{NETS}.unet:UNetConditional",
        "margin",
        told=True,
        eps=0.0313,
        made_by="benchmarks/README.md says how to train it",
    ),
}
"""What the races are run on; the first two are the study's."""
OF_STUDY = ("mnist", "cifar10")


def lacking(root: Path, name: str, *, train: bool) -> list[str]:
    """The files of a subject that are not there, relative to ``root``; ``train``: also those of train."""
    subject = SUBJECTS[name]
    files = [workspace.target(name), workspace.bank(name, subject.bank)]
    for split in ("test", "train") if train else ("test",):
        files += [f"{workspace.split(subject.dataset, split)}/{array}.npy" for array in ("x", "y")]
    below = [(Path(subject.folder) / file).as_posix() for file in files]
    return [file for file in below if not (root / file).is_file()]


def demand(root: Path, names: Iterable[str], *, train: bool) -> None:
    """Whether all inputs are there.

    Args:
        root: the repository's top folder.
        names: of subjects.
        train: whether the train split is needed too.

    Raises:
        InputError: in one line: what is missing, and how to come by it.
    """
    said = []
    for remedy, some in groupby(names, lambda name: SUBJECTS[name].made_by):
        missing = [file for name in some for file in lacking(root, name, train=train)]
        said += [f"missing: {', '.join(missing)}; {remedy}"] if missing else []
    if said:
        raise InputError("; ".join(said))


@dataclass(frozen=True)
class Inputs:
    """The files of one subject below ``root``; everything is loaded the way the stages load it."""

    root: Path
    name: str

    @property
    def subject(self) -> Subject:
        return SUBJECTS[self.name]

    @property
    def eps(self) -> float:
        return self.subject.eps

    @property
    def spec(self) -> DatasetSpec:
        return find_source(self.subject.dataset).spec

    @property
    def threat(self) -> ThreatModel:
        from deepcustom.attacks.threat import ThreatModel

        return ThreatModel(self.eps)

    def architecture(self, name: str) -> Architecture:
        """A class of networks, with the facts of the data set."""
        from deepcustom.training.nets.base import Architecture

        spec = self.spec
        return Architecture(name, facts={"shape": spec.shape, "classes": spec.num_classes})

    def read(self, path: str) -> Path:
        """Where a file of the project lies."""
        return self.root / self.subject.folder / path

    def split(self, name: str) -> Split:
        """A prepared split, mapped from its files."""
        from deepcustom.data.arrays import Split

        return Split.load(self.read(workspace.split(self.subject.dataset, name)), self.spec)

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

        net = build_classifier(self.architecture(self.subject.network))
        load_network(self.read(workspace.target(self.name)), net)
        return compute.place(net)

    def plain_target_net(self) -> nn.Module:
        """The same in plain PyTorch, as training leaves it: its weights still ask for gradients."""
        from benchmarks import plain
        from deepcustom.training.compute import FLOAT32

        return plain.port(plain.classifier(self.name), self.target_net(FLOAT32))

    def bank(self, compute: Compute) -> DGN:
        """The DGNs, or the one that is told the label."""
        from deepcustom.attacks.bank import DGNBank
        from deepcustom.attacks.conditional import ConditionalDGN

        path = self.read(workspace.bank(self.name, self.subject.bank))
        generator = self.architecture(self.subject.generator)
        about = (path, generator, self.name, self.spec.num_classes, compute.device)
        if self.subject.told:
            return ConditionalDGN.load(*about).placed(compute)
        return DGNBank.load(*about)


def own_compute(precision: str = "auto") -> Compute:
    """What the default settings give: the best precision of this machine, and the allocator's tuning."""
    from deepcustom.base.settings import ComputeParams
    from deepcustom.training.compute import Compute

    chosen = {"device": "auto", "precision": precision, "threads": "auto"}
    return Compute.of(ComputeParams.model_validate(chosen))
