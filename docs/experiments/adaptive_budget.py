"""How long to train the adaptive DGNs of CIFAR-10: what they leave of robust networks, on ``val``.

Everything is as in ``params.yaml`` but the number of images a class, and the learning rate. Run from the
project's top folder after ``dvc repro``; it writes a CSV beside this file. Nothing here touches the test
split.
"""

from __future__ import annotations

import csv
from pathlib import Path

from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.params import load
from deepcustom.base.settings import ComputeParams, EvaluateParams, ThreatParams
from deepcustom.data import arrays
from deepcustom.data.sources import find_source
from deepcustom.evaluation.adaptive import adapt, by_any, by_label
from deepcustom.evaluation.victim import Victim
from deepcustom.pipeline import workspace
from deepcustom.pipeline.workspace import Workspace
from deepcustom.training.compute import Compute
from deepcustom.training.nets.cifar10 import Cifar10Classifier
from deepcustom.training.weights import load_network

OUT = Path(__file__).with_suffix(".csv")
DATASET = "cifar10"
GENERATOR = "deepcustom.training.nets.cifar10:Cifar10Generator"
NETWORKS = ("madry", "fgsm-art")
BUDGETS = ((4500, 1e-3), (2250, 1e-3), (2250, 2e-3), (1500, 1e-3), (1500, 2e-3))
ATTACKED = 1000


def main() -> None:
    """Adapt with each budget, attack, and write the table."""
    ws, spec = Workspace.here(), find_source(DATASET).spec
    compute = Compute.of(load(ws.params, ComputeParams, "compute"))
    params = load(ws.params, EvaluateParams, "evaluate", DATASET).adaptive
    threat = ThreatModel(load(ws.params, ThreatParams, "threat", DATASET).eps)
    train, val = (
        arrays.Split.load(ws.root / workspace.split(DATASET, split), spec).tensors()
        for split in ("train", "val")
    )
    path = ws.root / workspace.bank(DATASET, params.bank)
    bank = DGNBank.load(path, GENERATOR, DATASET, spec.num_classes, compute.device)
    x, y = (part[:ATTACKED] for part in val)
    rows = []
    for name in NETWORKS:
        net = compute.place(Cifar10Classifier())
        load_network(ws.root / workspace.network(DATASET, name), net)
        net.eval().requires_grad_(False)
        victim = Victim(name, net, x, y, threat, spec.num_classes, 1, compute)
        for images, rate in BUDGETS:
            training = params.training.model_copy(update={"learning_rate": rate})
            update = {"images_per_class": images, "training": training}
            adapted = adapt(bank, victim, train, params.model_copy(update=update), compute=compute)
            for attack in (by_label, by_any):
                outcome = attack(victim, adapted, compute=compute)
                rows.append((name, images, rate, outcome.attack, f"{outcome.accuracy:.4f}"))
                print(*rows[-1], flush=True)
    with OUT.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("network", "images_per_class", "learning_rate", "attack", "val_accuracy"))
        table.writerows(rows)


if __name__ == "__main__":
    main()
