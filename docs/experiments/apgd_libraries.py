"""APGD (Croce and Hein 2020) of two libraries side by side: how much each leaves, and how long it takes.

ART's AutoProjectedGradientDescent and the APGD of AutoAttack's authors (pyautoattack) attack the same
network with the same number of iterations and restarts, on images of ``val`` that the network gets right.
Run this script from the project's top folder after ``dvc repro`` or ``make evaluate``; it writes a CSV
beside this file. ``ratio`` is the time divided by that of pyautoattack in the same run. The script does
not touch the test split.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from art.attacks.evasion import AutoProjectedGradientDescent
from project import reading
from pyautoattack.autopgd_base import APGDAttack
from torch import Tensor

from deepcustom.attacks.art import art_classifier
from deepcustom.attacks.threat import ThreatModel
from deepcustom.data import draws
from deepcustom.evaluation.victim import Counted
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import fresh_classifier, load_dataset, load_split
from deepcustom.pipeline.run import StageRun
from deepcustom.training.compute import FLOAT32, seed_everything
from deepcustom.training.prediction import predict
from deepcustom.training.weights import load_network

OUT = Path(__file__).with_suffix(".csv")
IMAGES, ITERATIONS, NETWORK = 500, 100, "madry"
LOSSES = {"ce": "cross_entropy", "dlr": "difference_logits_ratio"}


@dataclass(frozen=True)
class Row:
    """One attack by one library."""

    dataset: str
    network: str
    loss: str
    library: str
    images: int
    accuracy_left: float
    gradients: int
    ratio: float


def measure(stage: StageRun, loss: str) -> list[Row]:
    """Attack the same images with both libraries."""
    subject, spec = stage.row.subject, load_dataset(stage)
    threat = ThreatModel.of(stage.subject.threat)
    x, y = draws.subset(load_split(stage, spec, "val"), IMAGES, 0).tensors()
    net = fresh_classifier(stage)  # in torch's own layout, as a library gets it
    load_network(stage.read(workspace.network(subject, NETWORK)), net)
    right = predict(net, x).argmax(1) == y
    x, y = x[right], y[right]

    def with_art(counted: Counted) -> Tensor:
        attack = AutoProjectedGradientDescent(
            art_classifier(counted, spec.shape, spec.num_classes, FLOAT32.device),
            norm=np.inf,
            eps=threat.eps,
            eps_step=2 * threat.eps,
            max_iter=ITERATIONS,
            nb_random_init=1,
            loss_type=LOSSES[loss],
            batch_size=IMAGES,
            verbose=False,
        )
        return torch.from_numpy(attack.generate(x.numpy(), y=np.eye(10, dtype=np.float32)[y]))

    def with_authors(counted: Counted) -> Tensor:
        attack = APGDAttack(counted, n_iter=ITERATIONS, eps=threat.eps, loss=loss, seed=0)
        found: Tensor = attack.perturb(x, y)
        return found

    found = {}
    runs: dict[str, Callable[[Counted], Tensor]] = {
        "ART": with_art,
        "pyautoattack": with_authors,
    }
    for library, run in runs.items():
        counted = Counted(net)
        seed_everything(0)
        start = time.monotonic()
        x_adv = threat.project(run(counted), x)
        seconds = time.monotonic() - start
        left = int((predict(net, x_adv).argmax(1) == y).sum()) / len(right)
        found[library] = (left, counted.gradients, seconds)
    base = found["pyautoattack"][2]
    return [
        Row(
            subject,
            NETWORK,
            loss,
            library,
            len(right),
            round(left, 4),
            gradients,
            round(s / base, 2),
        )
        for library, (left, gradients, s) in found.items()
    ]


def main() -> None:
    """Measure everything and write the CSV."""
    rows = []
    for subject in ("mnist", "cifar10"):
        with reading(subject) as stage:
            for loss in LOSSES:
                rows += measure(stage, loss)
                for row in rows[-2:]:
                    print(row, flush=True)
    with OUT.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        writer.writerows(astuple(row) for row in rows)


if __name__ == "__main__":
    main()
