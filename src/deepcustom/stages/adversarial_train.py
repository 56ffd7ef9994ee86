"""A hardened network."""

from __future__ import annotations

from functools import partial

import torch

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError
from deepcustom.base.progress import progress
from deepcustom.data import arrays
from deepcustom.data.datasets import DatasetSpec
from deepcustom.data.mapped import MappedImages
from deepcustom.hardening.ways import way_of
from deepcustom.pipeline import workspace
from deepcustom.pipeline.cluster.connection import engine
from deepcustom.pipeline.load import labelled, load_dataset, load_split, starting_classifier
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.figures import loss_curves
from deepcustom.training.compute import Compute
from deepcustom.training.rows import LabelledImages
from deepcustom.training.weights import save_network
from deepcustom.training.whole import trained


def run(ws: Workspace, subject: str, name: str) -> None:
    """Train the hardened network ``name`` of ``subject``."""
    with StageRun(ws, "adversarial_train", subject, name) as stage:
        way = way_of(stage.row.settings, stage.row.place, stage.stage)
        params = stage.settings(way.Settings)
        threat = ThreatModel.of(stage.subject.threat)
        compute = stage.compute(together=way.together)

        spec = load_dataset(stage)
        split = load_split(stage, spec, "train")
        train = labelled(split, compute)
        val = labelled(load_split(stage, spec, "val"), compute)
        made = _adversarial_set(stage, spec, split, name, compute) if way.reads_set else None

        net = starting_classifier(stage, compute)
        learn = partial(way(params, threat, spec.num_classes).train, made=made)
        with (
            progress(stage.name, params.training.epochs) as advance,
            engine(stage, compute, whole=True) as elsewhere,
        ):
            job = stage.job(compute, advance, elsewhere)
            history = trained(learn, (net, train, val), [net], job)

        about = {"kind": "classifier", "dataset": subject, "network": name}
        save_network(stage.write(workspace.robust(subject, name)), net, about)

        stage.log({key: curve[-1] for key, curve in history.items()}, history)
        stage.figure("curves", loss_curves(history, f"{spec.title}: network hardened with {name}"))


def _adversarial_set(
    stage: StageRun, spec: DatasetSpec, split: arrays.Split, name: str, compute: Compute
) -> LabelledImages:
    """The images of the train split's adversarial set ``name``, and each one's position in that split."""
    path = workspace.adversarial(stage.row.subject, "train", name)
    made = arrays.AdversarialSet.load(stage.read(path), spec)
    if not len(made):
        raise InputError(f"the adversarial set {name!r} is empty: there is nothing to train on")
    row = torch.from_numpy(split.rows_of(made.index, f"the adversarial set {name!r}", "train"))
    return MappedImages.on(made.x_adv, compute.device), row.to(compute.device)
