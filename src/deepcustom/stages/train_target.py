"""The network under attack."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import Module

from deepcustom.base.progress import progress
from deepcustom.base.settings import TargetParams
from deepcustom.pipeline import workspace
from deepcustom.pipeline.brought import brought, tried_target
from deepcustom.pipeline.cluster.connection import engine
from deepcustom.pipeline.load import labelled, load_dataset, load_split, new_classifier
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.figures import loss_curves
from deepcustom.training.chance import Guessing
from deepcustom.training.fit import train_classifier
from deepcustom.training.nets.base import parameter_count
from deepcustom.training.prediction import accuracy
from deepcustom.training.weights import save_network
from deepcustom.training.whole import trained

FEW = 1000  # training images that a network is tried on, if val is empty


def run(ws: Workspace, subject: str) -> None:
    """Train the classifier of ``subject`` on clean images, or check and measure one that is brought."""
    with StageRun(ws, "train_target", subject) as stage:
        params = stage.settings(TargetParams)
        compute = stage.compute(together=params.epochs > 0)

        spec = load_dataset(stage)
        train = labelled(load_split(stage, spec, "train"), compute)
        val = labelled(load_split(stage, spec, "val"), compute)

        net = new_classifier(stage, compute)
        about: dict[str, Any] = {"kind": "classifier", "dataset": subject, "network": "target"}
        about |= brought(stage, net, params, spec, compute)
        judged: Module = net
        if not params.epochs:
            some = val if len(val[1]) else (train[0][:FEW], train[1][:FEW])
            judged, healed = tried_target(stage, net, some, spec, compute)
            about |= healed
        history = {}
        if params.epochs:
            with (
                progress(stage.name, params.epochs) as advance,
                engine(stage, compute, whole=True) as elsewhere,
            ):
                job = stage.job(compute, advance, elsewhere)
                history = trained(train_classifier, (net, train, val, params), [net], job)

        save_network(stage.write(workspace.target(subject)), net, about)

        final = {name: curve[-1] for name, curve in history.items()}
        if not history:
            final = {"val_accuracy": accuracy(judged, *val)}
        if "val_accuracy" in history:  # of a network that is brought, the trial has told
            _warn_near_chance(stage.name, final["val_accuracy"], val[1], spec.num_classes)
        stage.log({**final, "parameters": parameter_count(net)}, history)
        if history:
            stage.figure("curves", loss_curves(history, f"{spec.title}: target network"))


def _warn_near_chance(name: str, val_accuracy: float, y: Tensor, classes: int) -> None:
    """Say if the network is hardly better than one answer to every image; ``y`` (N,) are val's labels."""
    guessing = Guessing.of_hits(round(val_accuracy * len(y)) if len(y) else 0, y, classes)
    if guessing.near_chance:
        print(f"warning: {name}: the network {guessing}: attacks on it tell nothing")
