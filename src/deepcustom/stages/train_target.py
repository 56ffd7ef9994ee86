"""The network under attack."""

from __future__ import annotations

from deepcustom.base.params import TrainingParams
from deepcustom.base.progress import progress
from deepcustom.data import datasets
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import load_split, to_device
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.figures import loss_curves
from deepcustom.training import nets
from deepcustom.training.fit import train_classifier
from deepcustom.training.job import Job
from deepcustom.training.weights import save_network


def run(ws: Workspace, dataset: str) -> None:
    """Train the classifier of ``dataset`` on clean images."""
    spec = datasets.spec(dataset)
    with StageRun(ws, "train_target", dataset) as stage:
        params = stage.params(TrainingParams)
        compute = stage.compute()

        train = to_device(load_split(stage, spec, "train"), compute)
        val = to_device(load_split(stage, spec, "val"), compute)

        net = compute.place(nets.classifier(dataset))
        with progress(f"train_target@{dataset}", params.epochs) as advance:
            job = Job(stage.seed, compute, advance, stage.checkpoint())
            history = train_classifier(net, train, val, params, job)

        about = {"kind": "classifier", "dataset": dataset, "network": "target"}
        save_network(stage.write(workspace.target(dataset)), net, about)

        final = {name: curve[-1] for name, curve in history.items()}
        stage.log({**final, "parameters": nets.parameter_count(net)}, history)
        stage.figure("curves", loss_curves(history, f"{spec.title}: target network"))
