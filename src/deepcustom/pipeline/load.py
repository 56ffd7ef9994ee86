"""Loads what several stages need: splits as tensors, networks as they were stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepcustom.base.errors import InputError
from deepcustom.pipeline import workspace
from deepcustom.pipeline.run import StageRun

if TYPE_CHECKING:
    from torch import Tensor

    from deepcustom.data.arrays import Split
    from deepcustom.data.datasets import DatasetSpec
    from deepcustom.training.compute import Compute
    from deepcustom.training.nets.base import Classifier


def load_dataset(stage: StageRun) -> DatasetSpec:
    """The description of the row's data set, as ``prepare`` wrote it.

    Raises:
        InputError: it is not prepared, or the file describes something else.
    """
    from deepcustom.data.datasets import load_spec

    path = stage.read(workspace.dataset(stage.row.dataset))
    spec = load_spec(path)
    if spec.name != stage.row.dataset:
        raise InputError(f"{path} describes {spec.name!r}, expected {stage.row.dataset!r}")
    return spec


def load_split(stage: StageRun, spec: DatasetSpec, name: str) -> Split:
    """A prepared split, checked."""
    from deepcustom.data.arrays import Split

    return Split.load(stage.read(workspace.split(stage.row.dataset, name)), spec)


def to_device(split: Split, compute: Compute) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) in [0, 1] and labels (N,) on the device, moved once."""
    x, y = split.tensors()
    return x.to(compute.device), y.to(compute.device)


def new_classifier(stage: StageRun, compute: Compute) -> Classifier:
    """A fresh network of the subject's architecture."""
    from deepcustom.training.nets.base import build_classifier

    return compute.place(build_classifier(stage.subject.network))


def load_classifier(stage: StageRun, name: str, compute: Compute) -> Classifier:
    """A network of the subject by its name in the tables, frozen, in eval mode."""
    from deepcustom.training.nets.base import build_classifier
    from deepcustom.training.weights import load_network

    net = build_classifier(stage.subject.network)
    load_network(stage.read(workspace.network(stage.row.subject, name)), net)
    return compute.place(net)


def load_analysis(
    stage: StageRun, spec: DatasetSpec, name: str, compute: Compute
) -> dict[str, Tensor]:
    """What an analysis of the subject's target network found, array name → tensor with one row per class.

    Raises:
        InputError: the file is missing, is not an analysis, or has another number of classes.
    """
    from deepcustom.training.weights import load_tensors

    path = stage.read(workspace.analysis(stage.row.subject, name))
    arrays, _ = load_tensors(path)
    for key, array in arrays.items():
        if array.shape[:1] != (spec.num_classes,):
            found = tuple(array.shape)
            raise InputError(f"{path}: {key} is {found}, expected {spec.num_classes} rows")
    return {key: array.to(compute.device) for key, array in arrays.items()}
