"""How long to train on fixed adversarial sets (``goodfellow``): accuracies on ``val`` for two budgets.

Everything is as in ``params.yaml`` but the number of epochs, the same for all networks. Run from the
project's top folder after ``dvc repro``, or ``dvc pull`` and ``dvc repro generate``; it writes a CSV
beside this file. The attack is the one that the network was hardened with, on images it never saw.
Nothing here touches the test split.
"""

from __future__ import annotations

import csv
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch

from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.params import load
from deepcustom.base.settings import ComputeParams, ThreatParams
from deepcustom.data import arrays
from deepcustom.data.sources import find_source
from deepcustom.hardening.goodfellow import Goodfellow, GoodfellowSettings
from deepcustom.pipeline import workspace
from deepcustom.pipeline.workspace import Workspace
from deepcustom.training.compute import Compute
from deepcustom.training.job import Job
from deepcustom.training.nets.cifar10 import Cifar10Classifier
from deepcustom.training.prediction import accuracy

OUT = Path(__file__).with_suffix(".csv")
DATASET = "cifar10"
GENERATOR = "deepcustom.training.nets.cifar10:Cifar10Generator"
NETWORKS = ("suspiciousness", "nce")
EPOCHS = (8, 12)


@dataclass(frozen=True)
class Row:
    """One network trained, and what share of ``val`` it gets right, clean and attacked."""

    network: str
    epochs: int
    val_accuracy: float
    val_own_attack_accuracy: float


def measure(ws: Workspace, name: str, epochs: int) -> Row:
    """Harden a network with the adversarial train set ``name``, and attack it with the same DGNs."""
    spec = find_source(DATASET).spec
    compute = Compute.of(load(ws.params, ComputeParams, "compute"))
    threat = ThreatModel(load(ws.params, ThreatParams, "threat", DATASET).eps)
    train, val = (
        arrays.Split.load(ws.root / workspace.split(DATASET, split), spec)
        for split in ("train", "val")
    )
    made = arrays.AdversarialSet.load(ws.root / workspace.adversarial(DATASET, "train", name), spec)
    row = torch.from_numpy((train.index.searchsorted(made.index)).astype("int64"))
    params = load(ws.params, GoodfellowSettings, "adversarial_train", DATASET, name)
    budget = params.training.model_copy(update={"epochs": epochs})
    way = Goodfellow(params.model_copy(update={"training": budget}), threat, spec.num_classes)
    torch.manual_seed(1)
    net = compute.place(Cifar10Classifier())
    adversarial = arrays.images(made.x_adv), row
    history = way.train(net, train.tensors(), val.tensors(), Job(1, compute), adversarial)
    bank = DGNBank.load(
        ws.root / workspace.bank(DATASET, name),
        GENERATOR,
        DATASET,
        spec.num_classes,
        compute.device,
    )
    x, y = val.tensors()
    x_adv = bank.generate(x, y, threat, compute=compute)
    return Row(name, epochs, history["val_accuracy"][-1], accuracy(net, x_adv, y))


def main() -> None:
    """Train all and write the table."""
    ws = Workspace.here()
    rows = []
    for name in NETWORKS:
        for epochs in EPOCHS:
            rows.append(measure(ws, name, epochs))
            print(rows[-1], flush=True)
    with OUT.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(field.name for field in fields(Row))
        table.writerows(
            [row.network, row.epochs, *(f"{v:.6f}" for v in astuple(row)[2:])] for row in rows
        )


if __name__ == "__main__":
    main()
