"""How long to train DGNs: target accuracy on ``val`` against the training budget.

For lrp the image that minimises the loss exactly is known: x - eps on the relevant pixels and x + eps on
the rest. Its row has no epochs. The control is the same generator, trained only on the distance from the
clean image (the suspiciousness loss with c = 0). The control breaks images by blur alone, so a loss has
an effect of its own only where its curve lies below that of the control.

Run this script from the project's top folder after ``dvc repro suspiciousness@mnist relevance@mnist``; it
writes a CSV and a picture beside this file. It does not touch the test split.
"""

from __future__ import annotations

import csv
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch
from matplotlib.figure import Figure
from project import reading, settings_of
from torch import Tensor

from deepcustom.attacks.losses import contexts
from deepcustom.attacks.threat import ThreatModel
from deepcustom.attacks.train_bank import train_bank
from deepcustom.base.hashes import dvc_md5
from deepcustom.base.settings import TrainDgnParams
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import (
    architecture,
    labelled,
    load_analysis,
    load_classifier,
    load_dataset,
    load_split,
)
from deepcustom.pipeline.run import StageRun
from deepcustom.report.figures import save_figure
from deepcustom.training.job import Job
from deepcustom.training.nets.base import Classifier
from deepcustom.training.prediction import accuracy

HERE = Path(__file__).parent
SUBJECT = "mnist"


@dataclass(frozen=True)
class Budget:
    """A loss, the number of epochs, and the peak rate of the one-cycle schedule over them."""

    loss: str
    learning_rate: float
    epochs: int


BUDGETS = [
    *(Budget("control", 1e-3, epochs) for epochs in (1, 3, 6)),
    *(Budget("lrp", 1e-3, epochs) for epochs in (1, 3, 6)),
    *(Budget("suspiciousness", 1e-3, epochs) for epochs in (1, 3, 6)),
    Budget("suspiciousness", 3e-3, 12),
]
OPTIMUM = Budget("lrp optimum", 0.0, 0)


def settings(stage: StageRun, budget: Budget) -> TrainDgnParams:
    """The settings of the bank's row with this budget."""
    control = budget.loss == "control"
    loss = "suspiciousness" if control else budget.loss
    base = settings_of(stage, TrainDgnParams, "train_dgn", loss)
    changes = {"learning_rate": budget.learning_rate, "epochs": budget.epochs}
    options = {**base.options, "custom_loss_constant": 0.0} if control else base.options
    training = base.training.model_copy(update=changes)
    return base.model_copy(update={"training": training, "options": options})


def lrp_optimum(
    target_net: Classifier, x: Tensor, y: Tensor, pixels: Tensor, threat: ThreatModel
) -> float:
    """Target accuracy on the images that minimise the lrp loss exactly, projected."""
    shift = torch.full_like(x.flatten(1), threat.eps).scatter_(1, pixels[y], -threat.eps)
    return accuracy(target_net, threat.project(x + shift.view_as(x), x), y)


def curves(stage: StageRun) -> dict[Budget, list[float]]:
    """Budget → target accuracy on the projected validation images after each epoch."""
    spec, compute = load_dataset(stage), stage.compute()
    train, val = (labelled(load_split(stage, spec, name), compute) for name in ("train", "val"))
    target_net = load_classifier(stage, "target", compute)
    analyses = {
        name: load_analysis(stage, spec, name, compute) for name in ("relevance", "suspiciousness")
    }
    threat = ThreatModel.of(stage.subject.threat)
    found = {
        OPTIMUM: [
            lrp_optimum(target_net, val[0][:], val[1], analyses["relevance"]["pixels"], threat)
        ]
    }
    for budget in BUDGETS:
        _, history = train_bank(
            architecture(stage, stage.subject.generator),
            SUBJECT,
            contexts(target_net, threat, analyses, spec.num_classes),
            train,
            val,
            settings(stage, budget),
            Job(1, compute),
        )
        found[budget] = history["val_target_accuracy"]
        print(budget, [round(value, 4) for value in found[budget]], flush=True)
    return found


def draw(found: dict[Budget, list[float]]) -> Figure:
    """A panel per loss, a line per budget, and the control dashed in both."""
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, loss in zip(panels, ("lrp", "suspiciousness"), strict=True):
        if loss == "lrp":
            axes.axhline(100 * found[OPTIMUM][0], color="black", ls=":", label="exact optimum")
        for budget, curve in found.items():
            if budget.loss not in (loss, "control"):
                continue
            control = budget.loss == "control"
            label = f"{budget.epochs} at {budget.learning_rate:g}" + " (control)" * control
            values = [100 * value for value in curve]
            style = {"linestyle": "--", "color": "grey"} if control else {}
            axes.plot(range(1, len(curve) + 1), values, marker="o", ms=4, label=label, **style)
        axes.set(xlabel="epoch", ylim=(0, 100))
        axes.set_title(loss, fontsize=10)
        axes.legend(title="epochs, peak rate", fontsize=7.5, title_fontsize=8)
    panels[0].set_ylabel("target accuracy on val, %")
    return figure


def main() -> None:
    """Train, write the table and draw it."""
    with reading(SUBJECT) as stage:
        md5 = dvc_md5(stage.read(workspace.target(SUBJECT)))
        found = curves(stage)
    with (HERE / "dgn_budget.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            [
                *(field.name for field in fields(Budget)),
                "epoch",
                "val_target_accuracy",
                "target_md5",
            ]
        )
        for budget, curve in found.items():
            for epoch, value in enumerate(curve, min(1, budget.epochs)):
                table.writerow([*astuple(budget), epoch, f"{value:.6f}", md5])
    save_figure(draw(found), HERE / "dgn_budget.png")


if __name__ == "__main__":
    main()
