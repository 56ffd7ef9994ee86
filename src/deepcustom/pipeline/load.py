"""Loading what several stages need: splits as tensors, networks as they were stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepcustom.base.errors import InputError, ParamsError, UnknownNameError
from deepcustom.pipeline import workspace
from deepcustom.pipeline.run import StageRun

if TYPE_CHECKING:
    from torch import Tensor

    from deepcustom.attacks.bank import DGNBank
    from deepcustom.attacks.conditional import ConditionalDGN
    from deepcustom.data.arrays import Split
    from deepcustom.data.datasets import DatasetSpec
    from deepcustom.training.compute import Compute
    from deepcustom.training.nets.base import Classifier


@dataclass(frozen=True)
class Architectures:
    """Classes as ``package.module:Class``.

    Attributes:
        network: of the classifier under attack, and of the hardened ones.
        generator: of the DGN of one class.
        conditional: of a DGN that is told the label.
    """

    network: str
    generator: str
    conditional: str


NETWORKS = {
    "mnist": Architectures(
        "deepcustom.training.nets.mnist:MnistClassifier",
        "deepcustom.training.nets.mnist:MnistGenerator",
        "deepcustom.training.nets.mnist:MnistConditional",
    ),
    "cifar10": Architectures(
        "deepcustom.training.nets.cifar10:Cifar10Classifier",
        "deepcustom.training.nets.cifar10:Cifar10Generator",
        "deepcustom.training.nets.cifar10:Cifar10Conditional",
    ),
}
"""What each subject is attacked and hardened with."""


def architectures(subject: str) -> Architectures:
    """The classes of a subject's networks.

    Raises:
        UnknownNameError: no networks are known for it.
    """
    if subject not in NETWORKS:
        raise UnknownNameError("subject", subject, NETWORKS)
    return NETWORKS[subject]


def load_dataset(stage: StageRun) -> DatasetSpec:
    """What the stage's data set is, as ``prepare`` wrote it.

    Raises:
        InputError: it is not prepared, or the file describes something else.
    """
    from deepcustom.data.datasets import load_spec

    path = stage.read(workspace.dataset(stage.dataset))
    spec = load_spec(path)
    if spec.name != stage.dataset:
        raise InputError(f"{path} describes {spec.name!r}, expected {stage.dataset!r}")
    return spec


def load_split(stage: StageRun, spec: DatasetSpec, name: str) -> Split:
    """A prepared split, checked."""
    from deepcustom.data.arrays import Split

    return Split.load(stage.read(workspace.split(spec.name, name)), spec)


def to_device(split: Split, compute: Compute) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) in [0, 1] and labels (N,) on the device, moved once."""
    x, y = split.tensors()
    return x.to(compute.device), y.to(compute.device)


def load_classifier(stage: StageRun, spec: DatasetSpec, name: str, compute: Compute) -> Classifier:
    """A network by its name in the tables, frozen, in eval mode."""
    from deepcustom.training.nets.base import build_classifier
    from deepcustom.training.weights import load_network

    net = build_classifier(architectures(spec.name).network)
    load_network(stage.read(workspace.network(spec.name, name)), net)
    return compute.place(net)


def load_dgn(
    stage: StageRun, spec: DatasetSpec, name: str, compute: Compute
) -> DGNBank | ConditionalDGN:
    """DGNs by their name: a bank, or the generator that a network of that name was hardened with.

    Raises:
        ParamsError: ``params.yaml`` has neither; the message lists what is there.
        InputError: the file is missing, or holds something else.
    """
    from deepcustom.attacks.bank import DGNBank
    from deepcustom.attacks.conditional import ConditionalDGN

    online = stage.online_names()
    if name not in online:
        try:
            stage.expect("train_dgn", spec.name, name)
        except ParamsError as error:
            more = f"; with a generator of type online: {', '.join(online)}" if online else ""
            raise ParamsError(f"{error}{more}") from None
    path, made = stage.read(workspace.bank(spec.name, name)), architectures(spec.name)
    about = (spec.name, spec.num_classes, compute.device)
    if name in online:
        return ConditionalDGN.load(path, made.conditional, *about)
    return DGNBank.load(path, made.generator, *about)


def load_analysis(
    stage: StageRun, spec: DatasetSpec, name: str, compute: Compute
) -> dict[str, Tensor]:
    """What an analysis found, array name → tensor with one row per class.

    Raises:
        InputError: the file is missing, is no analysis, or is of another number of classes.
    """
    from deepcustom.training.weights import load_tensors

    path = stage.read(workspace.analysis(spec.name, name))
    arrays, _ = load_tensors(path)
    for key, array in arrays.items():
        if array.shape[:1] != (spec.num_classes,):
            found = tuple(array.shape)
            raise InputError(f"{path}: {key} is {found}, expected {spec.num_classes} rows")
    return {key: array.to(compute.device) for key, array in arrays.items()}
