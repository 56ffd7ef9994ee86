"""The network under attack."""

from __future__ import annotations

from deepcustom.base.params import TrainingParams
from deepcustom.base.progress import progress
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import architectures, load_dataset, load_split, to_device
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.figures import loss_curves
from deepcustom.training.fit import train_classifier
from deepcustom.training.nets.base import build_classifier, parameter_count
from deepcustom.training.weights import save_network


def run(ws: Workspace, dataset: str) -> None:
    """Train the classifier of ``dataset`` on clean images."""
    with StageRun(ws, "train_target", dataset) as stage:
        params = stage.params(TrainingParams)
        compute = stage.compute()

        spec = load_dataset(stage)
        train = to_device(load_split(stage, spec, "train"), compute)
        val = to_device(load_split(stage, spec, "val"), compute)

        net = compute.place(build_classifier(architectures(dataset).network))
        with progress(f"train_target@{dataset}", params.epochs) as advance:
            history = train_classifier(
                net,
                train,
                val,
                params,
                seed=stage.seed,
                compute=compute,
                advance=advance,
                checkpoint=stage.checkpoint(),
            )

        about = {"kind": "classifier", "dataset": dataset, "network": "target"}
        save_network(stage.write(workspace.target(dataset)), net, about)

        final = {name: curve[-1] for name, curve in history.items()}
        stage.log({**final, "parameters": parameter_count(net)}, history)
        stage.figure("curves", loss_curves(history, f"{spec.title}: target network"))
