"""Loads what several stages need: splits as tensors, networks as they were stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepcustom.base.errors import InputError, ParamsError
from deepcustom.base.rows import START, SUBJECTS
from deepcustom.pipeline import workspace
from deepcustom.pipeline.own_nets import must_be_seen
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.template import START_DEP, listed

REMEDY = "remedy"
"""Where the file of a network says what has to be put around it."""

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from deepcustom.base.settings import ArchitectureParams
    from deepcustom.data.arrays import Split
    from deepcustom.data.datasets import DatasetSpec
    from deepcustom.training.compute import Compute
    from deepcustom.training.nets.base import Architecture, Classifier
    from deepcustom.training.rows import LabelledImages


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


def labelled(split: Split, compute: Compute) -> LabelledImages:
    """Images (N, C, H, W), float32 in [0, 1] when they are read, and labels (N,); on the device."""
    from deepcustom.data.arrays import labels
    from deepcustom.data.mapped import MappedImages

    return MappedImages.on(split.x, compute.device), labels(split.y).to(compute.device)


def architecture(stage: StageRun, params: ArchitectureParams) -> Architecture:
    """What a network of the row's subject is made from, with the facts of the data set.

    Raises:
        ParamsError: its class lies where DVC does not see it.
    """
    from deepcustom.training.nets.base import Architecture

    must_be_seen(f"params.yaml: {SUBJECTS}.{stage.row.subject}", params.name)
    spec = load_dataset(stage)
    facts = {"shape": spec.shape, "classes": spec.num_classes, "num_classes": spec.num_classes}
    return Architecture(params.name, params.options, facts)


def new_classifier(stage: StageRun, compute: Compute) -> Classifier:
    """A fresh network of the subject's architecture."""
    return compute.place(fresh_classifier(stage))


def starting_classifier(stage: StageRun, compute: Compute) -> Classifier:
    """A network to be hardened: fresh, or with the weights that its row starts from.

    Raises:
        ParamsError: the network cannot learn.
        InputError: the weights do not fit, or DVC would not see a change of them.
    """
    from deepcustom.training.weights import load_weights

    net = new_classifier(stage, compute)
    must_learn(net, f"params.yaml: {stage.row.place} cannot be trained")
    fresh = workspace.split(
        stage.row.dataset, "train"
    )  # as the row says that its weights are fresh
    start = stage.row.about.get(START, fresh)
    if start != fresh:
        if not listed(stage.ws.root, stage.stage, START_DEP):
            raise InputError(
                f"dvc.yaml does not list {start}, which {stage.row.place} starts from: `deepcustom upgrade` "
                "writes it anew"
            )
        load_weights(net, stage.read(start))
    return net


def load_classifier(stage: StageRun, name: str, compute: Compute) -> Classifier:
    """A network of the subject by its name in the tables, frozen, in eval mode."""
    from deepcustom.training.nets.healed import Healed, Remedy
    from deepcustom.training.weights import load_network

    net = fresh_classifier(stage)
    about = load_network(stage.read(workspace.network(stage.row.subject, name)), net)
    if REMEDY in about:
        net = Healed(net, Remedy.from_json(about[REMEDY])).eval()
    return compute.place(net)


def fresh_classifier(stage: StageRun) -> Classifier:
    """A fresh network of the subject, which tells its pre-activations, and takes images in [0, 1].

    Raises:
        ParamsError: ``mean`` and ``std`` are not one number for each channel, ``layers`` has a module that is
            none of the network's, or the network lies where DVC does not see it.
        InputError: the network cannot be made, or is made without weights.
    """
    from deepcustom.training.nets.base import Classifier, build
    from deepcustom.training.nets.exported import SUFFIX, load_exported
    from deepcustom.training.nets.foreign import Foreign
    from deepcustom.training.weights import has_weights

    params, channels = stage.subject.network, load_dataset(stage).shape[0]
    place = f"params.yaml: {SUBJECTS}.{stage.row.subject}.network"
    if params.mean and len(params.mean) != channels:
        raise ParamsError(
            f"{place}.mean must have one number for each of "
            f"{channels} channels, found {len(params.mean)}"
        )
    if params.name.endswith(SUFFIX):
        must_be_seen(place, params.name)
        net: Module = load_exported(stage.read(params.name))
    else:
        net = build(architecture(stage, params))
        has_weights(net, f"{place}: {params.name}")
    if isinstance(net, Classifier) and not (params.mean or params.layers):
        return net
    try:
        return Foreign(
            net,
            mean=params.mean,
            std=params.std,
            layers=params.layers,
            classes=load_dataset(stage).num_classes,
        )
    except InputError as error:
        raise ParamsError(f"{place}.layers: {error}") from None


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


def must_learn(net: Module, otherwise: str) -> None:
    """Refuse to train a network without parameters, such as an exported program.

    Raises:
        ParamsError: it has none; ``otherwise`` begins the message.
    """
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise ParamsError(f"{otherwise}: the network has no parameter that could learn")
