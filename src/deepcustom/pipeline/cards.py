"""Writes the cards of a subject's published models from what the stages wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch.nn import Module

from deepcustom.attacks.conditional import conditional
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.account import measured
from deepcustom.base.hashes import dvc_md5
from deepcustom.base.params import Params
from deepcustom.base.rows import HARDENING, START, row, rows
from deepcustom.base.settings import TargetParams, TrainDgnParams
from deepcustom.data.datasets import DatasetSpec
from deepcustom.evaluation.by_class import ClassAccuracy
from deepcustom.evaluation.results import HardenedWith, Result
from deepcustom.hardening.online import OnlineSettings
from deepcustom.hardening.ways import way_of
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import architecture, fresh_classifier
from deepcustom.pipeline.run import StageRun
from deepcustom.report.cards import Model, card
from deepcustom.training.nets.base import build, parameter_count

STUDYS = (
    "deepcustom.training.nets.mnist:MnistClassifier",
    "deepcustom.training.nets.cifar10:Cifar10Classifier",
)
"""The networks of the study."""
CLASSIFIERS = ("study", "classifier")
"""The kinds of card that networks have."""


def model_cards(
    stage: StageRun,
    spec: DatasetSpec,
    results: Sequence[Result],
    hardened_with: HardenedWith,
    classes: Sequence[ClassAccuracy] = (),
) -> dict[str, str]:
    """File name without suffix → card, for every network, bank and generator of the subject.

    Args:
        stage: reads the models, the metrics of ``prepare`` and the settings.
        spec: the data set.
        results: the subject's.
        hardened_with: network → the attack it was hardened with.
        classes: the accuracy of each network per class.
    """
    counts, threat = _counts(stage), {"threat model": threat_in_words(stage)}
    found = [*_classifiers(stage), *_banks(stage, spec), *_generators(stage, spec)]
    return {
        name: card(
            model,
            stage.row.subject,
            spec.title,
            results,
            hardened_with=hardened_with,
            norm=ThreatModel.of(stage.subject.threat).ball,
            classes=classes,
            facts={"data": data_in_words(spec.title, counts, settings), **threat},
            settings={
                **_start(stage, model),
                **settings.model_dump(mode="json", exclude_none=True),
            },
        )
        for name, model, settings in found
    }


def _start(stage: StageRun, model: Model) -> dict[str, str]:
    """The weights that a hardened network starts from, if they are not fresh."""
    fresh = workspace.split(stage.row.dataset, "train")
    for one in (one for name in HARDENING for one in rows(stage.tree, name, stage.row.subject)):
        start = one.about.get(START, fresh)
        hardened = model.kind in CLASSIFIERS and model.name == one.about["network"]
        if hardened and start != fresh:
            return {START: start}
    return {}


def threat_in_words(stage: StageRun) -> str:
    """The subject's threat model, as readers of its page and cards see it."""
    threat = ThreatModel.of(stage.subject.threat)
    return f"{threat.ball.title}, eps = {threat.eps:g}, pixels in [0, 1]"


Found = Iterator[tuple[str, Model, Params]]
"""Name of the card, the model, and the settings that it was trained with."""


def _classifiers(stage: StageRun) -> Found:
    subject = stage.row.subject
    size = parameter_count(fresh_classifier(stage))
    kind_of_net = CLASSIFIERS[0 if stage.subject.network.name in STUDYS else 1]

    def model(name: str, title: str) -> Model:
        return _model(stage, kind_of_net, name, title, workspace.network(subject, name), size)

    target = row(stage.tree, "train_target", subject)
    yield "target", model("target", "target network"), stage.settings_of(target, TargetParams)
    for one in (one for trains in HARDENING for one in rows(stage.tree, trains, subject)):
        kind = way_of(one.settings, one.place, one.stage)
        name = one.about["network"]
        title = kind.title.format(name=name)
        yield f"robust-{name}", model(name, title), stage.settings_of(one, kind.Settings)


def _banks(stage: StageRun, spec: DatasetSpec) -> Found:
    subject = stage.row.subject
    for one in rows(stage.tree, "train_dgn", subject):
        name, own = one.about["bank"], stage.settings_of(one, TrainDgnParams)
        if own.generator == "conditional":
            kind, title = "conditional", f"{name}, one DGN for all {spec.num_classes} classes"
            net: Module = conditional(
                architecture(stage, stage.subject.conditional), spec.num_classes
            )
        else:
            kind, title = "bank", f"{name}, a bank of {spec.num_classes} DGNs"
            net = build(architecture(stage, stage.subject.generator))
        path, size = workspace.bank(subject, name), parameter_count(net)
        yield f"dgn-{name}", _model(stage, kind, name, title, path, size), own


def _generators(stage: StageRun, spec: DatasetSpec) -> Found:
    """The generators that trained together with a network."""
    subject = stage.row.subject
    for one in rows(stage.tree, "train_online", subject):
        name, own = one.about["network"], stage.settings_of(one, OnlineSettings)
        made_from = architecture(stage, stage.subject.conditional)
        net = conditional(made_from, spec.num_classes, per_class=own.generator == "per_class")
        title, path = f"{name}, the DGN of the network", workspace.bank(subject, name)
        size = parameter_count(net)
        yield f"dgn-{name}", _model(stage, "generator", name, title, path, size), own


def _model(stage: StageRun, kind: str, name: str, title: str, path: str, parameters: int) -> Model:
    return Model(kind, name, title, path, dvc_md5(stage.read(path)), parameters)


def _counts(stage: StageRun) -> dict[str, int]:
    """How many images train, val and test have."""
    path = stage.read(workspace.metrics(stage.row.dataset, "prepare"))
    found = measured(path)
    return {name: int(found[f"{name}_images"]) for name in ("train", "val", "test")}


def data_in_words(title: str, counts: Mapping[str, int], settings: Params) -> str:
    """What a model has to do with a data set's images.

    Args:
        title: the data set's, for people.
        counts: split → number of its images.
        settings: those that the model was trained with; a target network of no epochs was not trained here.
    """
    train, val, test = (f"{counts[name]:,}" for name in ("train", "val", "test"))
    here = not isinstance(settings, TargetParams) or settings.epochs
    trained = f"trained on {train} images, validated on {val}"
    brought = f"not trained here, but brought as it is; validated on {val} images"
    return f"{title}: {trained if here else brought}, scored on {test} of its test split"
