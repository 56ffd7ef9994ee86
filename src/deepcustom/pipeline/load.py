"""Loading what several stages need: splits as tensors, networks as they were stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepcustom.base.errors import InputError, ParamsError
from deepcustom.pipeline import workspace
from deepcustom.pipeline.run import StageRun

if TYPE_CHECKING:
    from torch import Tensor

    from deepcustom.attacks.bank import DGNBank
    from deepcustom.attacks.conditional import ConditionalDGN
    from deepcustom.data.arrays import Split
    from deepcustom.data.datasets import DatasetSpec
    from deepcustom.hardening.base import Way
    from deepcustom.training.compute import Compute
    from deepcustom.training.nets import Classifier

HARDENING = ("adversarial_train", "train_online")
"""The stages that train hardened networks."""


def way_of_network(stage: StageRun, name: str) -> type[Way[Any]]:
    """The way that the network ``name`` of the stage's data set is hardened.

    Raises:
        ParamsError: ``params.yaml`` names none; or it does not train so in this stage, if it is one that
            trains hardened networks.
    """
    from deepcustom.hardening.ways import way_of

    keys = ("adversarial_train", stage.dataset, name)
    where = ".".join(keys)
    values = stage.expect(*keys)
    way = way_of(values, where)
    if way.stage != stage.stage and stage.stage in HARDENING:
        kind = values["type"]
        raise ParamsError(f"params.yaml: {where}: type {kind} is trained by {way.stage}")
    return way


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
    from deepcustom.training import nets
    from deepcustom.training.weights import load_network

    net = nets.classifier(spec.name)
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
    kind = ConditionalDGN if name in online else DGNBank
    path = stage.read(workspace.bank(spec.name, name))
    return kind.load(path, spec.name, spec.num_classes, compute.device)


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
