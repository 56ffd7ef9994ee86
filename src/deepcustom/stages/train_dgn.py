"""One bank of DGNs."""

from __future__ import annotations

import inspect
from pathlib import Path

from deepcustom.attacks.losses import find_loss
from deepcustom.attacks.train_bank import train_bank
from deepcustom.base.params import TrainDgnParams
from deepcustom.base.progress import progress
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import (
    architectures,
    load_analysis,
    load_classifier,
    load_dataset,
    load_split,
    to_device,
)
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.figures import loss_curves


def run(ws: Workspace, dataset: str, name: str) -> None:
    """Train the bank ``name`` of ``dataset`` against the target network."""
    with StageRun(ws, "train_dgn", dataset, name) as stage:
        params = stage.params(TrainDgnParams, name)
        threat, compute = stage.threat(), stage.compute()
        loss = find_loss(params.loss)

        spec = load_dataset(stage)
        train = to_device(load_split(stage, spec, "train"), compute)
        val = to_device(load_split(stage, spec, "val"), compute)
        target_net = load_classifier(stage, spec, "target", compute)
        analysis = {what: load_analysis(stage, spec, what, compute) for what in loss.requires}
        checkpoint = stage.checkpoint(Path(inspect.getfile(loss)))

        total = params.training.epochs * spec.num_classes
        with progress(f"train_dgn@{dataset}-{name}", total) as advance:
            bank, history = train_bank(
                architectures(dataset).generator,
                dataset,
                target_net,
                train,
                val,
                analysis,
                params,
                threat,
                num_classes=spec.num_classes,
                seed=stage.seed,
                compute=compute,
                advance=advance,
                checkpoint=checkpoint,
            )

        bank.save(stage.write(workspace.bank(dataset, name)))

        stage.log({key: curve[-1] for key, curve in history.items()}, history)
        stage.figure("curves", loss_curves(history, f"{spec.title}: DGNs on {name}"))
