"""How long to train the suspiciousness DGNs: target accuracy on ``val`` against the training budget.

Run from the project's top folder after ``dvc repro suspiciousness@mnist``; it writes a CSV and a picture
beside this file. Nothing here touches the test split.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from deepcustom import datasets, nets
from deepcustom.compute import Compute
from deepcustom.dgn import train_bank
from deepcustom.figures import save_figure
from deepcustom.params import ComputeParams, ThreatParams, TrainDgnParams, load
from deepcustom.pipeline import workspace
from deepcustom.pipeline.workspace import Workspace
from deepcustom.threat import ThreatModel
from deepcustom.weights import load_network, load_tensors

HERE = Path(__file__).parent
DATASET, LOSS = "mnist", "suspiciousness"


@dataclass(frozen=True)
class Budget:
    """Peak learning rate of a one-cycle schedule over so many epochs."""

    learning_rate: float
    epochs: int


BUDGETS = [Budget(1e-3, 1), Budget(1e-3, 2), Budget(1e-3, 3), Budget(1e-3, 6), Budget(3e-3, 12)]


def curves(ws: Workspace) -> dict[Budget, list[float]]:
    """Budget → target accuracy on the projected validation images after each epoch."""
    spec = datasets.spec(DATASET)
    base = load(ws.params, TrainDgnParams, "train_dgn", DATASET, LOSS)
    threat = ThreatModel(load(ws.params, ThreatParams, "threat", DATASET).eps)
    compute = Compute.of(load(ws.params, ComputeParams, "compute"))
    train, val = (
        datasets.Split.load(ws.root / workspace.split(DATASET, name), spec).tensors()
        for name in ("train", "val")
    )
    target_net = nets.classifier(DATASET)
    load_network(ws.root / workspace.target(DATASET), target_net)
    arrays, _ = load_tensors(ws.root / workspace.analysis(DATASET, LOSS))

    found = {}
    for budget in BUDGETS:
        changes = {"learning_rate": budget.learning_rate, "epochs": budget.epochs}
        training = base.training.model_copy(update=changes)
        _, history = train_bank(
            DATASET,
            target_net,
            train,
            val,
            {LOSS: arrays},
            base.model_copy(update={"training": training}),
            threat,
            num_classes=spec.num_classes,
            seed=1,
            compute=compute,
        )
        found[budget] = history["val_target_accuracy"]
        print(budget, [round(value, 4) for value in found[budget]], flush=True)
    return found


def main() -> None:
    """Train, write the table and draw it."""
    found = curves(Workspace.here())
    with (HERE / "suspiciousness_budget.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["learning_rate", "epochs", "epoch", "val_target_accuracy"])
        for budget, curve in found.items():
            for epoch, value in enumerate(curve, 1):
                table.writerow([budget.learning_rate, budget.epochs, epoch, f"{value:.6f}"])

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for budget, curve in found.items():
        label = f"{budget.epochs} epochs, rate {budget.learning_rate:g}"
        axes.plot(range(1, len(curve) + 1), [100 * v for v in curve], "o-", label=label)
    axes.set(xlabel="epoch", ylabel="target accuracy on val, %", ylim=(0, 100))
    axes.set_title("MNIST, suspiciousness: longer training weakens the attack", fontsize=10)
    axes.legend(fontsize=8)
    save_figure(figure, HERE / "suspiciousness_budget.png")


if __name__ == "__main__":
    main()
