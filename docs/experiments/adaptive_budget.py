"""How many images and which learning rate the adaptive DGNs of CIFAR-10 need, measured on ``val``.

The script adapts the DGNs to robust networks with several budgets, and measures the accuracy that they
leave these networks. Everything is as in ``params.yaml``, except the number of images a class and the
learning rate. Run it from the project's top folder after ``dvc repro``; it writes a CSV beside this file.
It does not touch the test split.
"""

from __future__ import annotations

import csv
from pathlib import Path

from project import load_bank, reading

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.settings import EvaluateParams
from deepcustom.evaluation.adaptive import adapt, by_any, by_label
from deepcustom.evaluation.victim import Victim
from deepcustom.pipeline.load import labelled, load_classifier, load_dataset, load_split
from deepcustom.pipeline.run import StageRun

OUT = Path(__file__).with_suffix(".csv")
SUBJECT = "cifar10"
NETWORKS = ("madry", "fgsm-art")
BUDGETS = ((4500, 1e-3), (2250, 1e-3), (2250, 2e-3), (1500, 1e-3), (1500, 2e-3))
ATTACKED = 1000


def measure(stage: StageRun) -> list[tuple[str, int, float, str, str]]:
    """Adapt the DGNs with each budget and attack with them; returns the rows of the table."""
    spec, compute = load_dataset(stage), stage.compute()
    params = stage.settings(EvaluateParams).adaptive
    threat = ThreatModel.of(stage.subject.threat)
    train, val = (labelled(load_split(stage, spec, name), compute) for name in ("train", "val"))
    bank = load_bank(stage, spec, params.bank, compute)
    x, y = (part[:ATTACKED] for part in val)
    rows = []
    for name in NETWORKS:
        net = load_classifier(stage, name, compute)
        victim = Victim(name, net, x, y, threat, spec.num_classes, 1, compute)
        for images, rate in BUDGETS:
            training = params.training.model_copy(update={"learning_rate": rate})
            update = {"images_per_class": images, "training": training}
            adapted = adapt(bank, victim, train, params.model_copy(update=update), compute=compute)
            for attack in (by_label, by_any):
                outcome = attack(victim, adapted, compute=compute)
                rows.append((name, images, rate, outcome.attack, f"{outcome.accuracy:.4f}"))
                print(*rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure, and write the table."""
    with reading(SUBJECT) as stage:
        rows = measure(stage)
    with OUT.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("network", "images_per_class", "learning_rate", "attack", "val_accuracy"))
        table.writerows(rows)


if __name__ == "__main__":
    main()
