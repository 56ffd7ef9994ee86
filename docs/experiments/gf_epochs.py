"""How long to train on fixed adversarial sets (``goodfellow``): accuracies on ``val`` for two budgets.

Everything is as in ``params.yaml``, except the number of epochs, which is the same for all networks. The
attack is the one that the network was hardened with, on images that the network never saw. Run this
script from the project's top folder after ``dvc repro``, or after ``dvc pull`` and
``dvc repro generate``; it writes a CSV beside this file. It does not touch the test split.
"""

from __future__ import annotations

import csv
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch
from project import load_bank, load_train_set, reading, settings_of

from deepcustom.attacks.threat import ThreatModel
from deepcustom.hardening.goodfellow import Goodfellow, GoodfellowSettings
from deepcustom.pipeline.load import labelled, load_dataset, load_split, new_classifier
from deepcustom.pipeline.run import StageRun
from deepcustom.training.job import Job
from deepcustom.training.prediction import accuracy

OUT = Path(__file__).with_suffix(".csv")
SUBJECT = "cifar10"
NETWORKS = ("suspiciousness", "nce")
EPOCHS = (8, 12)


@dataclass(frozen=True)
class Row:
    """One trained network, and the shares of ``val`` that it gets right, clean and attacked."""

    network: str
    epochs: int
    val_accuracy: float
    val_own_attack_accuracy: float


def measure(stage: StageRun, name: str, epochs: int) -> Row:
    """Harden a network with the adversarial train set ``name``, and attack it with the same DGNs."""
    spec, compute = load_dataset(stage), stage.compute()
    threat = ThreatModel.of(stage.subject.threat)
    train, val = (labelled(load_split(stage, spec, split), compute) for split in ("train", "val"))
    made = load_train_set(stage, spec, name, compute)
    params = settings_of(stage, GoodfellowSettings, "adversarial_train", name)
    budget = params.training.model_copy(update={"epochs": epochs})
    way = Goodfellow(params.model_copy(update={"training": budget}), threat, spec.num_classes)
    torch.manual_seed(1)
    net = new_classifier(stage, compute)
    history = way.train(net, train, val, Job(1, compute), made)
    x, y = val[0][:], val[1]
    x_adv = load_bank(stage, spec, name, compute).generate(x, y, threat, compute=compute)
    return Row(name, epochs, history["val_accuracy"][-1], accuracy(net, x_adv, y))


def main() -> None:
    """Train all and write the table."""
    rows = []
    with reading(SUBJECT) as stage:
        for name in NETWORKS:
            for epochs in EPOCHS:
                rows.append(measure(stage, name, epochs))
                print(rows[-1], flush=True)
    with OUT.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(field.name for field in fields(Row))
        table.writerows(
            [row.network, row.epochs, *(f"{v:.6f}" for v in astuple(row)[2:])] for row in rows
        )


if __name__ == "__main__":
    main()
