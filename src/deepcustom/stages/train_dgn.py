"""One bank of DGNs: one for each class, or a single one that is told the label."""

from __future__ import annotations

from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.conditional import ConditionalDGN, conditional
from deepcustom.attacks.losses.base import contexts, find_loss
from deepcustom.attacks.threat import ThreatModel
from deepcustom.attacks.train_bank import train_bank
from deepcustom.attacks.train_conditional import train_conditional
from deepcustom.base.progress import progress
from deepcustom.base.settings import TrainDgnParams
from deepcustom.pipeline import workspace
from deepcustom.pipeline.cluster.connection import engine, is_asked
from deepcustom.pipeline.load import (
    architecture,
    labelled,
    load_analysis,
    load_classifier,
    load_dataset,
    load_split,
)
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.figures import loss_curves
from deepcustom.training.whole import trained


def run(ws: Workspace, subject: str, name: str) -> None:
    """Train the bank ``name`` of ``subject`` against its target network."""
    with StageRun(ws, "train_dgn", subject, name) as stage:
        params = stage.settings(TrainDgnParams)
        told = params.generator == "conditional"
        threat = ThreatModel.of(stage.subject.threat)
        compute = stage.compute(together=told or not is_asked(stage))
        loss = find_loss(params.loss)

        spec = load_dataset(stage)
        train = labelled(load_split(stage, spec, "train"), compute)
        val = labelled(load_split(stage, spec, "val"), compute)
        target_net = load_classifier(stage, "target", compute)
        analysis = {what: load_analysis(stage, spec, what, compute) for what in loss.requires}

        classes = contexts(target_net, threat, analysis, spec.num_classes)

        total = params.training.epochs * (1 if told else spec.num_classes)
        with (
            progress(stage.name, total) as advance,
            engine(stage, compute, whole=told) as elsewhere,
        ):
            job = stage.job(compute, advance, elsewhere)
            dgn: DGNBank | ConditionalDGN
            if told:
                fresh = compute.place(
                    conditional(architecture(stage, stage.subject.conditional), spec.num_classes)
                )
                given = fresh, subject, classes, train, val, params
                dgn, history = trained(train_conditional, given, [], job)
            else:
                generator = architecture(stage, stage.subject.generator)
                dgn, history = train_bank(generator, subject, classes, train, val, params, job)

        dgn.save(stage.write(workspace.bank(subject, name)))

        stage.log({key: curve[-1] for key, curve in history.items()}, history)
        stage.figure("curves", loss_curves(history, f"{spec.title}: DGNs on {name}"))
