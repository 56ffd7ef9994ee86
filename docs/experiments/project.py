"""What several experiments read from the project; they run in its top folder."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.conditional import conditional
from deepcustom.attacks.losses import contexts, find_loss
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.params import Params
from deepcustom.base.rows import row
from deepcustom.data import arrays
from deepcustom.data.datasets import DatasetSpec
from deepcustom.hardening.online import Online, OnlineSettings, objectives
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import architecture, load_analysis, load_split
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.training.compute import Compute
from deepcustom.training.nets.base import Classifier

P = TypeVar("P", bound=Params)


def reading(subject: str) -> StageRun:
    """A context that can read everything that the subject's evaluation reads, and writes nothing."""
    return StageRun(Workspace.here(), "evaluate", subject, writes=False)


def settings_of(stage: StageRun, model: type[P], section: str, *names: str) -> P:
    """The settings of a row of the same subject, with those of its recipe.

    Args:
        stage: reads ``params.yaml`` and knows the subject.
        model: the class of the settings.
        section: the section of ``params.yaml`` that holds the row.
        names: the parts of the row's name after the subject.
    """
    return stage.settings_of(row(stage.tree, section, stage.row.subject, *names), model)


def load_bank(stage: StageRun, spec: DatasetSpec, name: str, compute: Compute) -> DGNBank:
    """The subject's bank of DGNs ``name``."""
    subject = stage.row.subject
    path = stage.read(workspace.bank(subject, name))
    classes, device = spec.num_classes, compute.device
    return DGNBank.load(
        path, architecture(stage, stage.subject.generator), subject, classes, device
    )


def load_train_set(
    stage: StageRun, spec: DatasetSpec, name: str, compute: Compute
) -> tuple[Tensor, Tensor]:
    """The images of the adversarial train set ``name``, and the row of each image in the train split."""
    folder = stage.read(workspace.adversarial(stage.row.subject, "train", name))
    made = arrays.AdversarialSet.load(folder, spec)
    split = load_split(stage, spec, "train")
    rows = torch.from_numpy(split.rows_of(made.index, f"the adversarial set {name!r}", "train"))
    return arrays.images(made.x_adv).to(compute.device), rows.to(compute.device)


def with_generator(
    stage: StageRun, spec: DatasetSpec, settings: OnlineSettings, net: Classifier, compute: Compute
) -> Online:
    """A way that hardens ``net`` together with a fresh generator, as the pipeline does."""
    classes, threat = spec.num_classes, ThreatModel.of(stage.subject.threat)
    per_class = settings.generator == "per_class"
    told = architecture(stage, stage.subject.conditional)
    generator = conditional(told, classes, per_class=per_class)
    requires = find_loss(settings.loss).requires if settings.loss else ()
    analysis = {what: load_analysis(stage, spec, what, compute) for what in requires}
    losses = objectives(settings, contexts(net, threat, analysis, classes))
    return Online(settings, threat, classes, compute.place(generator), losses)
