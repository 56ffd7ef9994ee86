"""What mixed precision costs in accuracy: target networks and DGNs trained with it and without, three seeds.

Everything is as in ``params.yaml`` but the precision, and that no training takes more than four epochs and
only the DGNs of the first classes are trained. Run from the project's top folder after ``dvc repro
prepare``; it writes a CSV beside this file, a row at a time: what is there already is not measured again.
Nothing here touches the test split.
"""

from __future__ import annotations

import csv
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch

from deepcustom.attacks.losses import contexts
from deepcustom.attacks.threat import ThreatModel
from deepcustom.attacks.train_bank import train_bank
from deepcustom.base.params import load
from deepcustom.base.settings import ComputeParams, ThreatParams, TrainDgnParams, TrainingParams
from deepcustom.data import arrays
from deepcustom.data.sources import find_source
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import NETWORKS
from deepcustom.pipeline.workspace import Workspace
from deepcustom.training.compute import Compute, derive_seed, seed_everything
from deepcustom.training.fit import train_classifier
from deepcustom.training.job import Job
from deepcustom.training.nets.base import build_classifier

OUT = Path(__file__).with_suffix(".csv")
SEEDS = (1, 2, 3)
BANK = "nce-ball"
CLASSES = {"mnist": 10, "cifar10": 2}
EPOCHS = 4


@dataclass(frozen=True)
class Row:
    """One network trained, and what it reached on ``val``."""

    dataset: str
    what: str
    seed: int
    precision: str
    val_accuracy: float


def images(ws: Workspace, dataset: str, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A prepared split."""
    folder = ws.root / workspace.split(dataset, split)
    return arrays.Split.load(folder, find_source(dataset).spec).tensors()


def measure(ws: Workspace, dataset: str, seed: int, compute: Compute, precision: str) -> list[Row]:
    """Train a target network, and DGNs against it; each pair of precisions starts from equal weights."""
    train, val = images(ws, dataset, "train"), images(ws, dataset, "val")
    seed_everything(derive_seed(seed, "precision", dataset))
    net = compute.place(build_classifier(NETWORKS[dataset].network))
    budget = short(load(ws.params, TrainingParams, "train_target", dataset))
    job = Job(seed, compute)
    history = train_classifier(net, train, val, budget, job)
    rows = [Row(dataset, "target", seed, precision, history["val_accuracy"][-1])]

    net.eval().requires_grad_(False)
    first = [part[1] < CLASSES[dataset] for part in (train, val)]
    (x, y), (x_val, y_val) = ((p[0][f], p[1][f]) for p, f in zip((train, val), first, strict=True))
    bank = load(ws.params, TrainDgnParams, "train_dgn", dataset, BANK)
    threat = ThreatModel(load(ws.params, ThreatParams, "threat", dataset).eps)
    _, history = train_bank(
        NETWORKS[dataset].generator,
        dataset,
        contexts(net, threat, {}, CLASSES[dataset]),
        (x, y),
        (x_val, y_val),
        bank.model_copy(update={"training": short(bank.training)}),
        job,
    )
    return [*rows, Row(dataset, BANK, seed, precision, history["val_target_accuracy"][-1])]


def short(budget: TrainingParams) -> TrainingParams:
    """The budget, cut to four epochs."""
    return budget.model_copy(update={"epochs": min(EPOCHS, budget.epochs)})


def main() -> None:
    """Train what the table lacks."""
    ws = Workspace.here()
    if not OUT.is_file():
        OUT.write_text(",".join(field.name for field in fields(Row)) + "\n")
    with OUT.open(newline="") as file:
        done = {(r["dataset"], r["seed"], r["precision"]) for r in csv.DictReader(file)}
    for dataset in CLASSES:
        for seed in SEEDS:
            for name in ("auto", "float32"):
                compute = Compute.of(ComputeParams(precision=name))
                precision = str(compute.precision).removeprefix("torch.")
                if (dataset, str(seed), precision) in done:
                    continue
                done.add((dataset, str(seed), precision))
                rows = measure(ws, dataset, seed, compute, precision)
                print(*rows, sep="\n", flush=True)
                with OUT.open("a", newline="") as file:
                    table = csv.writer(file, lineterminator="\n")
                    table.writerows([*astuple(r)[:-1], f"{r.val_accuracy:.6f}"] for r in rows)


if __name__ == "__main__":
    main()
