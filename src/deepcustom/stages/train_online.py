"""A hardened network, and the generator that learned against it meanwhile."""

from __future__ import annotations

import inspect
from pathlib import Path

from deepcustom.attacks.conditional import ConditionalDGN, conditional
from deepcustom.attacks.losses import find_loss
from deepcustom.base.params import OnlineTrainParams
from deepcustom.base.progress import progress
from deepcustom.hardening.online import objectives, train_online
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import (
    architectures,
    load_analysis,
    load_dataset,
    load_split,
    to_device,
)
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.figures import loss_curves
from deepcustom.training.nets.base import build_classifier
from deepcustom.training.weights import save_network

CROSS_ENTROPY = "negative cross entropy"  # what a generator learns on where no loss is named


def run(ws: Workspace, dataset: str, name: str) -> None:
    """Train the robust network ``name`` of ``dataset``, of ``type: online``, and its generator."""
    with StageRun(ws, "train_online", dataset, name) as stage:
        params = stage.section(OnlineTrainParams, "adversarial_train", dataset, name)
        threat, compute = stage.threat(), stage.compute()

        spec = load_dataset(stage)
        train = to_device(load_split(stage, spec, "train"), compute)
        val = to_device(load_split(stage, spec, "val"), compute)

        made = architectures(dataset)
        net = compute.place(build_classifier(made.network))
        per_class = params.generator == "per_class"
        generator = compute.place(
            conditional(made.conditional, spec.num_classes, per_class=per_class)
        )
        losses, code = None, []
        if params.loss is not None:
            loss = find_loss(params.loss)
            analysis = {what: load_analysis(stage, spec, what, compute) for what in loss.requires}
            losses = objectives(params, net, threat, analysis, spec.num_classes)
            code = [Path(inspect.getfile(loss))]

        with progress(f"train_online@{dataset}-{name}", params.training.epochs) as advance:
            history = train_online(
                net,
                generator,
                train,
                val,
                params.training,
                online=params,
                losses=losses,
                threat=threat,
                seed=stage.seed,
                compute=compute,
                advance=advance,
                checkpoint=stage.checkpoint(*code),
            )

        about = {"kind": "classifier", "dataset": dataset, "network": name}
        save_network(stage.write(workspace.robust(dataset, name)), net, about)
        dgn = ConditionalDGN(dataset, params.loss or CROSS_ENTROPY, per_class, generator)
        dgn.save(stage.write(workspace.bank(dataset, name)))

        stage.log({key: curve[-1] for key, curve in history.items()}, history)
        stage.figure("curves", loss_curves(history, f"{spec.title}: network hardened with {name}"))
