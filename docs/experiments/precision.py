"""How much accuracy mixed precision costs: target networks and DGNs trained with it and without, three seeds.

Everything is as in ``params.yaml``, except the precision, that no training takes more than four epochs,
and that only the DGNs of the first classes are trained. Run this script from the project's top folder
after ``dvc repro prepare``. It writes a CSV beside this file, a row at a time, and measures no row again
that is there already. It does not touch the test split.
"""

from __future__ import annotations

import csv
import itertools
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from project import reading, settings_of

from deepcustom.attacks.losses import contexts
from deepcustom.attacks.threat import ThreatModel
from deepcustom.attacks.train_bank import train_bank
from deepcustom.base.params import section, validate
from deepcustom.base.settings import ComputeParams, TrainDgnParams, TrainingParams
from deepcustom.pipeline.load import (
    architecture,
    labelled,
    load_dataset,
    load_split,
    new_classifier,
)
from deepcustom.pipeline.run import StageRun
from deepcustom.training.compute import Compute, derive_seed, seed_everything
from deepcustom.training.fit import train_classifier
from deepcustom.training.job import Job

OUT = Path(__file__).with_suffix(".csv")
SEEDS = (1, 2, 3)
BANK = "nce-ball"
CLASSES = {"mnist": 10, "cifar10": 2}
EPOCHS = 4


@dataclass(frozen=True)
class Row:
    """One trained network, and the accuracy that it reached on ``val``."""

    dataset: str
    what: str
    seed: int
    precision: str
    val_accuracy: float


def measure(stage: StageRun, seed: int, compute: Compute, precision: str) -> list[Row]:
    """Train a target network, and DGNs against it; both precisions start from the same weights."""
    spec, subject = load_dataset(stage), stage.row.subject
    train, val = (labelled(load_split(stage, spec, name), compute) for name in ("train", "val"))
    seed_everything(derive_seed(seed, "precision", subject))
    net = new_classifier(stage, compute)
    budget = short(settings_of(stage, TrainingParams, "train_target"))
    job = Job(seed, compute)
    history = train_classifier(net, train, val, budget, job)
    rows = [Row(subject, "target", seed, precision, history["val_accuracy"][-1])]

    net.eval().requires_grad_(False)
    first = [part[1] < CLASSES[subject] for part in (train, val)]
    (x, y), (x_val, y_val) = ((p[0][f], p[1][f]) for p, f in zip((train, val), first, strict=True))
    bank = settings_of(stage, TrainDgnParams, "train_dgn", BANK)
    _, history = train_bank(
        architecture(stage, stage.subject.generator),
        subject,
        contexts(net, ThreatModel.of(stage.subject.threat), {}, CLASSES[subject]),
        (x, y),
        (x_val, y_val),
        bank.model_copy(update={"training": short(bank.training)}),
        job,
    )
    return [*rows, Row(subject, BANK, seed, precision, history["val_target_accuracy"][-1])]


def with_precision(stage: StageRun, name: str) -> Compute:
    """The project's device and threads, in this precision."""
    usual = validate(ComputeParams, section(stage.tree, "compute"), "compute")
    return Compute.of(usual.model_copy(update={"precision": name}))


def short(budget: TrainingParams) -> TrainingParams:
    """The budget, cut to four epochs."""
    return budget.model_copy(update={"epochs": min(EPOCHS, budget.epochs)})


def main() -> None:
    """Train the networks that the table lacks."""
    if not OUT.is_file():
        OUT.write_text(",".join(field.name for field in fields(Row)) + "\n")
    with OUT.open(newline="") as file:
        done = {(r["dataset"], r["seed"], r["precision"]) for r in csv.DictReader(file)}
    for subject in CLASSES:
        with reading(subject) as stage:
            for seed, name in itertools.product(SEEDS, ("auto", "float32")):
                compute = with_precision(stage, name)
                precision = str(compute.precision).removeprefix("torch.")
                if (subject, str(seed), precision) in done:
                    continue
                done.add((subject, str(seed), precision))
                rows = measure(stage, seed, compute, precision)
                print(*rows, sep="\n", flush=True)
                with OUT.open("a", newline="") as file:
                    table = csv.writer(file, lineterminator="\n")
                    table.writerows([*astuple(r)[:-1], f"{r.val_accuracy:.6f}"] for r in rows)


if __name__ == "__main__":
    main()
