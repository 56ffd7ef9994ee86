"""Why hardening from a generator's proposal works, or does not: variants of it, on ``val``.

Each variant differs from the pipeline's ``online`` in what its name says. ``pgd-7`` is ``madry``. The
variants without a generator are PGD with as many gradients an image as ``online``, in steps of the same
length unless their name says otherwise. All variants train for the epochs and with the schedule of
``madry``, and in its growing ball unless their name says otherwise. The worst case is over the
evaluation's white-box attacks and Square, on 1,000 images of ``val``. Run this script from the project's
top folder after ``dvc repro``. It writes a CSV beside this file, a row at a time, and measures no row
again that is there already. It does not touch the test split.

    python docs/experiments/online_ablation.py [mnist|cifar10]
"""

from __future__ import annotations

import csv
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import mean
from typing import Any

from project import reading, settings_of, with_generator

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.settings import EvaluateParams, TrainDgnParams
from deepcustom.evaluation.blackbox import square_attack
from deepcustom.evaluation.full import evaluate_whitebox
from deepcustom.evaluation.victim import Victim, attempt
from deepcustom.hardening.madry import Madry, MadrySettings
from deepcustom.hardening.online import Online, OnlineSettings
from deepcustom.pipeline.load import labelled, load_dataset, load_split, new_classifier
from deepcustom.pipeline.run import StageRun
from deepcustom.training.compute import derive_seed, seed_everything
from deepcustom.training.job import Job
from deepcustom.training.nets.base import Classifier

OUT = Path(__file__).with_suffix(".csv")
ATTACKED = 1000
STEPPED: dict[str, dict[str, dict[str, Any]]] = {  # changes of madry's attack
    "mnist": {
        "pgd-7": {},
        "pgd-7, steps of 0.15": {"eps_step": 0.15},
        "pgd-7, steps of 0.3": {"eps_step": 0.3},
    },
    "cifar10": {"pgd-7": {}},
}
MNIST: dict[str, dict[str, Any]] = {
    "online": {},
    "no generator": {"generator": "none"},
    "no noise": {"noise": 0.0},
    "random generator": {"begin": 0.0, "end": 0.0},
    "generator learns in the second half": {"begin": 0.5, "end": 1.0},
    "generator learns to the end": {"end": 1.0},
    "a generator for each class": {"generator": "per_class"},
    "no generator, steps of 0.3": {"generator": "none", "eps_step": 0.3},
    "one further step": {"max_iter": 1},
    "no reused step": {"reuse": False},
    "no step at all": {"reuse": False, "max_iter": 0},
    "three further steps": {"max_iter": 3},
    "steps of 0.1": {"eps_step": 0.1},
    "steps of 0.2": {"eps_step": 0.2},
    "noise of a whole radius": {"noise": 1.0},
    "loss nce": {"loss": "nce"},
    "loss suspiciousness": {"loss": "suspiciousness"},
    "loss lrp": {"loss": "lrp"},
    "two updates": {"updates": 2},
    "rate 0.003": {"learning_rate": 3e-3},
    "rate 0.0003": {"learning_rate": 3e-4},
    "half clean": {"clean_weight": 0.5},
    "full ball from the start": {"growth": 0.0},
}
CIFAR10: dict[str, dict[str, Any]] = {
    "online": {},
    "no generator": {"generator": "none"},
    "one further step": {"max_iter": 1},
    "noise of half a radius": {"noise": 0.5},
}
VARIANTS = {"mnist": MNIST, "cifar10": CIFAR10}
SEEDS = dict.fromkeys((("mnist", "online"), ("mnist", "no noise")), (1, 2, 3, 4))


@dataclass(frozen=True)
class Row:
    """One network: shares of ``val`` that stand, and the training's gradients an image and seconds."""

    dataset: str
    variant: str
    seed: int
    clean: float
    pgd: float
    whitebox: float
    worst: float
    gradients: int
    seconds: float


class Bench:
    """Data and settings of one subject, read once."""

    def __init__(self, stage: StageRun) -> None:
        self.stage, self.spec, self.compute = stage, load_dataset(stage), stage.compute()
        self.threat = ThreatModel.of(stage.subject.threat)
        self.evaluate = stage.settings(EvaluateParams)
        self.madry = settings_of(stage, MadrySettings, "adversarial_train", "madry")
        self.online = settings_of(stage, OnlineSettings, "train_online", "online")
        self.train, self.val = (
            labelled(load_split(stage, self.spec, name), self.compute) for name in ("train", "val")
        )

    def measure(self, variant: str, seed: int) -> Row:
        """Train and attack."""
        seed_everything(derive_seed(seed, "online"))
        net = new_classifier(self.stage, self.compute)
        began = time.monotonic()
        gradients = self._harden(net, variant, seed)
        seconds = time.monotonic() - began
        net.eval().requires_grad_(False)
        x, y = (part[:ATTACKED] for part in self.val)
        # The attacks draw the same random numbers for every network.
        victim = Victim(variant, net, x, y, self.threat, self.spec.num_classes, 1, self.compute)
        found = evaluate_whitebox(victim, self.evaluate)
        left = found.left("whitebox")
        square = attempt(
            victim, "blackbox", "square", left, square_attack(victim, self.evaluate.autoattack)
        )
        stands = (victim.right, found.stands["whitebox"]["pgd"], left, square.stands)
        return Row(
            self.stage.row.subject,
            variant,
            seed,
            *(float(part.double().mean()) for part in stands),
            gradients,
            seconds,
        )

    def _harden(self, net: Classifier, variant: str, seed: int) -> int:
        """Train in place; returns the gradients an image in each step, the network's own included."""
        classes, subject, job = (
            self.spec.num_classes,
            self.stage.row.subject,
            Job(seed, self.compute),
        )
        if variant in STEPPED[subject]:
            inner = self.madry.inner.model_copy(update=STEPPED[subject][variant])
            steps = Madry(self.madry.model_copy(update={"inner": inner}), self.threat, classes)
            steps.train(net, self.train, self.val, job)
            return inner.max_iter + 1
        # Unchecked: with the generator "none", and options of another section.
        changes = {"training": self.madry.training, **VARIANTS[subject][variant]}
        online = self.online.model_copy(update=changes)
        if online.loss is not None:
            options = settings_of(self.stage, TrainDgnParams, "train_dgn", online.loss).options
            online = online.model_copy(update={"options": options})
        way = (
            Online(online, self.threat, classes)
            if changes.get("generator") == "none"
            else with_generator(self.stage, self.spec, online, net, self.compute)
        )
        way.train(net, self.train, self.val, job)
        learns = online.updates if way.generator is not None and online.end > 0 else 0
        return max(learns, int(online.reuse)) + online.max_iter + 1


def wanted() -> list[tuple[str, str, int]]:
    """(data set, variant, seed) of every row, in the order of measuring: one round for each seed."""
    return [
        (dataset, name, seed)
        for dataset in VARIANTS
        for seed in (1, 2, 3, 4)
        for name in (*STEPPED[dataset], *VARIANTS[dataset])
        if seed in SEEDS.get((dataset, name), (1,))
    ]


def measured() -> list[dict[str, str]]:
    """The rows of the file."""
    with OUT.open(newline="") as file:
        return list(csv.DictReader(file))


def table(dataset: str) -> str:
    """Means over the seeds as Markdown, in %."""
    rows = measured()
    lines = [
        "| training | gradients | seeds | clean | PGD | white-box | with Square |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in (*STEPPED[dataset], *VARIANTS[dataset]):
        own = [row for row in rows if (row["dataset"], row["variant"]) == (dataset, name)]
        if own:
            shares = (
                f"{100 * mean(float(row[what]) for row in own):.1f}"
                for what in ("clean", "pgd", "whitebox", "worst")
            )
            first = f"| {name} | {own[0]['gradients']} | {len(own)} |"
            lines.append(f"{first} {' | '.join(shares)} |")
    return "\n".join(lines)


def main(chosen: list[str]) -> None:
    """Measure the missing rows, seed by seed, so that all variants meet the machine in the same state."""
    if not OUT.is_file():
        OUT.write_text(",".join(field.name for field in fields(Row)) + "\n")
    done = {(row["dataset"], row["variant"], int(row["seed"])) for row in measured()}
    for dataset in chosen or VARIANTS:
        with reading(dataset) as stage:
            bench = Bench(stage)
            for one in wanted():
                if one[0] != dataset or one in done:
                    continue
                row = bench.measure(*one[1:])
                print(row, flush=True)
                shares = (f"{v:.4f}" for v in (row.clean, row.pgd, row.whitebox, row.worst))
                values = [*one, *shares, row.gradients, f"{row.seconds:.0f}"]
                with OUT.open("a", newline="") as file:
                    csv.writer(file, lineterminator="\n").writerow(values)
        print(table(dataset))


if __name__ == "__main__":
    main(sys.argv[1:])
