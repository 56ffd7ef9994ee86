"""A hardened network, and the generator that learned against it meanwhile."""

from __future__ import annotations

import inspect
from pathlib import Path

from deepcustom.attacks.conditional import ConditionalDGN, conditional
from deepcustom.attacks.losses import contexts, find_loss
from deepcustom.base.progress import progress
from deepcustom.data import datasets
from deepcustom.hardening.online import Online, OnlineSettings, objectives
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import load_analysis, load_split, to_device, way_of_network
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.figures import loss_curves
from deepcustom.training import nets
from deepcustom.training.job import Job
from deepcustom.training.weights import save_network

CROSS_ENTROPY = "negative cross entropy"  # what a generator learns on where no loss is named


def run(ws: Workspace, dataset: str, name: str) -> None:
    """Train the robust network ``name`` of ``dataset``, of ``type: online``, and its generator."""
    spec = datasets.spec(dataset)
    with StageRun(ws, "train_online", dataset, name) as stage:
        way_of_network(stage, name)
        params = stage.section(OnlineSettings, "adversarial_train", dataset, name)
        threat, compute = stage.threat(), stage.compute()

        train = to_device(load_split(stage, spec, "train"), compute)
        val = to_device(load_split(stage, spec, "val"), compute)

        net = compute.place(nets.classifier(dataset))
        per_class = params.generator == "per_class"
        generator = compute.place(conditional(dataset, spec.num_classes, per_class=per_class))
        losses, code = None, []
        if params.loss is not None:
            loss = find_loss(params.loss)
            analysis = {what: load_analysis(stage, spec, what, compute) for what in loss.requires}
            losses = objectives(params, contexts(net, threat, analysis, spec.num_classes))
            code = [Path(inspect.getfile(loss))]

        with progress(f"train_online@{dataset}-{name}", params.training.epochs) as advance:
            job = Job(stage.seed, compute, advance, stage.checkpoint(*code))
            way = Online(params, threat, spec.num_classes, generator, losses)
            history = way.train(net, train, val, job)

        about = {"kind": "classifier", "dataset": dataset, "network": name}
        save_network(stage.write(workspace.robust(dataset, name)), net, about)
        dgn = ConditionalDGN(dataset, params.loss or CROSS_ENTROPY, per_class, generator)
        dgn.save(stage.write(workspace.bank(dataset, name)))

        stage.log({key: curve[-1] for key, curve in history.items()}, history)
        stage.figure("curves", loss_curves(history, f"{spec.title}: network hardened with {name}"))
