"""A hardened network, and the generator that trained against it at the same time."""

from __future__ import annotations

from deepcustom.attacks.conditional import ConditionalDGN, conditional
from deepcustom.attacks.losses.base import contexts, find_loss
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.progress import progress
from deepcustom.hardening.online import Online, OnlineSettings, objectives
from deepcustom.pipeline import workspace
from deepcustom.pipeline.cluster.connection import engine
from deepcustom.pipeline.load import (
    architecture,
    labelled,
    load_analysis,
    load_dataset,
    load_split,
    starting_classifier,
)
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.figures import loss_curves
from deepcustom.training.weights import save_network
from deepcustom.training.whole import trained

CROSS_ENTROPY = "negative cross entropy"  # what a generator minimises if its row names no loss


def run(ws: Workspace, subject: str, name: str) -> None:
    """Train the hardened network ``name`` of ``subject`` together with its generator."""
    with StageRun(ws, "train_online", subject, name) as stage:
        params = stage.settings(OnlineSettings)
        threat = ThreatModel.of(stage.subject.threat)
        compute = stage.compute(together=True)

        spec = load_dataset(stage)
        train = labelled(load_split(stage, spec, "train"), compute)
        val = labelled(load_split(stage, spec, "val"), compute)

        net = starting_classifier(stage, compute)
        per_class = params.generator == "per_class"
        generator = compute.place(
            conditional(
                architecture(stage, stage.subject.conditional),
                spec.num_classes,
                per_class=per_class,
            )
        )
        losses = None
        if params.loss is not None:
            wanted = find_loss(params.loss).requires
            analysis = {what: load_analysis(stage, spec, what, compute) for what in wanted}
            losses = objectives(params, contexts(net, threat, analysis, spec.num_classes))

        way = Online(params, threat, spec.num_classes, generator, losses)
        with (
            progress(stage.name, params.training.epochs) as advance,
            engine(stage, compute, whole=True) as elsewhere,
        ):
            job = stage.job(compute, advance, elsewhere)
            history = trained(way.train, (net, train, val), [net, generator], job)

        about = {"kind": "classifier", "dataset": subject, "network": name}
        save_network(stage.write(workspace.robust(subject, name)), net, about)
        dgn = ConditionalDGN(subject, params.loss or CROSS_ENTROPY, per_class, generator)
        dgn.save(stage.write(workspace.bank(subject, name)))

        stage.log({key: curve[-1] for key, curve in history.items()}, history)
        stage.figure("curves", loss_curves(history, f"{spec.title}: network hardened with {name}"))
