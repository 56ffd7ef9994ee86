"""The cards of a data set's published models, from what the stages left."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from deepcustom.attacks.conditional import conditional
from deepcustom.base.params import (
    AdversarialTrainParams,
    EvaluateParams,
    OnlineTrainParams,
    Params,
    TrainDgnParams,
    TrainingParams,
)
from deepcustom.data.datasets import DatasetSpec
from deepcustom.evaluation.results import HardenedWith, Result
from deepcustom.pipeline import workspace
from deepcustom.pipeline.provenance import dvc_md5
from deepcustom.pipeline.run import StageRun
from deepcustom.report.cards import Model, card
from deepcustom.training import nets


def model_cards(
    stage: StageRun, spec: DatasetSpec, results: Sequence[Result], hardened_with: HardenedWith
) -> dict[str, str]:
    """File name without suffix → card, of every network that was scored and every bank that attacked.

    Args:
        stage: reads the models, the metrics of ``prepare`` and the settings.
        spec: the data set.
        results: of the data set.
        hardened_with: network → the attack it was hardened with.
    """
    facts = {"data": _data(stage, spec), "threat model": _threat(stage)}
    cards = {}
    for name, model, settings in _models(stage, spec):
        given = settings.model_dump(mode="json", exclude_unset=True)
        cards[name] = card(
            model,
            spec.name,
            spec.title,
            results,
            hardened_with=hardened_with,
            facts=facts,
            settings=given,
        )
    return cards


def _models(stage: StageRun, spec: DatasetSpec) -> Iterator[tuple[str, Model, Params]]:
    """Name of the card, the model, and its section of ``params.yaml``."""
    evaluated = stage.section(EvaluateParams, "evaluate", spec.name)
    classifier = nets.parameter_count(nets.classifier(spec.name))
    settings: Params
    for name in evaluated.networks:
        if name == "target":
            title, settings = (
                "target network",
                stage.section(TrainingParams, "train_target", spec.name),
            )
        else:
            hardened = _hardening(stage, spec, name)
            title, settings = _hardened(name, hardened), hardened
        path = workspace.network(spec.name, name)
        card_name = name if name == "target" else f"robust-{name}"
        yield card_name, _model(stage, "classifier", name, title, path, classifier), settings
    generator = nets.parameter_count(nets.generator(spec.name))
    for name in evaluated.attacks:
        if stage.has("train_dgn", spec.name, name):
            settings = stage.section(TrainDgnParams, "train_dgn", spec.name, name)
            title, path = (
                f"{name}, a bank of {spec.num_classes} DGNs",
                workspace.bank(spec.name, name),
            )
            yield f"dgn-{name}", _model(stage, "bank", name, title, path, generator), settings
    for name in evaluated.networks:
        if name in stage.online_names():
            own = stage.section(OnlineTrainParams, "adversarial_train", spec.name, name)
            per_class = own.generator == "per_class"
            net = conditional(spec.name, spec.num_classes, per_class=per_class)
            title, path = f"{name}, the DGN of the network", workspace.bank(spec.name, name)
            size = nets.parameter_count(net)
            yield f"dgn-{name}", _model(stage, "generator", name, title, path, size), own


def _hardening(
    stage: StageRun, spec: DatasetSpec, name: str
) -> AdversarialTrainParams | OnlineTrainParams:
    keys = ("adversarial_train", spec.name, name)
    if name in stage.online_names():
        return stage.section(OnlineTrainParams, *keys)
    return stage.section(AdversarialTrainParams, *keys)


def _hardened(name: str, settings: AdversarialTrainParams | OnlineTrainParams) -> str:
    if settings.type == "online":
        return f"{name}, hardened from a generator's proposal"
    if settings.type == "madry":
        return f"{name}, adversarial training as Madry et al. 2018"
    return f"network hardened with {name}"


def _model(stage: StageRun, kind: str, name: str, title: str, path: str, parameters: int) -> Model:
    return Model(kind, name, title, path, dvc_md5(stage.read(path)), parameters)


def _data(stage: StageRun, spec: DatasetSpec) -> str:
    path = stage.read(workspace.metrics(spec.name, "prepare"))
    counts: dict[str, Any] = json.loads(path.read_text())["metrics"]
    train, val, test = (f"{int(counts[f'{name}_images']):,}" for name in ("train", "val", "test"))
    return f"{spec.title}: trained on {train} images, watched on {val}, scored on {test} of its test split"


def _threat(stage: StageRun) -> str:
    return f"L-infinity, eps = {stage.threat().eps:g}, pixels in [0, 1]"
