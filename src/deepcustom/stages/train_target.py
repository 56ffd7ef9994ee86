"""The network under attack."""

from __future__ import annotations

from deepcustom.base.progress import progress
from deepcustom.base.settings import TrainingParams
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import load_dataset, load_split, new_classifier, to_device
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.figures import loss_curves
from deepcustom.training.fit import train_classifier
from deepcustom.training.nets.base import parameter_count
from deepcustom.training.weights import save_network


def run(ws: Workspace, subject: str) -> None:
    """Train the classifier of ``subject`` on clean images."""
    with StageRun(ws, "train_target", subject) as stage:
        params = stage.settings(TrainingParams)
        compute = stage.compute()

        spec = load_dataset(stage)
        train = to_device(load_split(stage, spec, "train"), compute)
        val = to_device(load_split(stage, spec, "val"), compute)

        net = new_classifier(stage, compute)
        with progress(stage.name, params.epochs) as advance:
            history = train_classifier(net, train, val, params, stage.job(compute, advance))

        about = {"kind": "classifier", "dataset": subject, "network": "target"}
        save_network(stage.write(workspace.target(subject)), net, about)

        final = {name: curve[-1] for name, curve in history.items()}
        stage.log({**final, "parameters": parameter_count(net)}, history)
        stage.figure("curves", loss_curves(history, f"{spec.title}: target network"))
