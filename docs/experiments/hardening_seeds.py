"""How much the seed of a training matters: robust networks trained with other seeds, and their worst case.

Everything is as in ``params.yaml``, except the seed of hardening: splits, target network, DGNs,
adversarial sets and the attackers' own seeds stay. The worst case is that of the pipeline
(docs/evaluation.md), except that every attack after the white-box ones meets only the images that are
left. Run this script from the project's top folder after ``dvc repro``. It writes a CSV beside this file,
a row at a time, and measures no row again that is there already. The rows of the pipeline's own seed are
in reports/results.

Only the rows of ``pgd-3`` are not, because no stage trains it. It is ``madry`` with as many gradients an
image as ``online``, in steps as long as the radius: on MNIST's ``val`` such steps leave more than steps
as long as those of ``online`` do (online_ablation.csv).
"""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from project import load_bank, load_train_set, reading, settings_of, with_generator
from torch import Tensor

from deepcustom.attacks.bank import DGNBank
from deepcustom.base.params import seed as base_seed
from deepcustom.base.progress import silent
from deepcustom.base.rows import HARDENING, adversarial_sets, networks, rows
from deepcustom.base.settings import EvaluateParams
from deepcustom.evaluation import checks
from deepcustom.evaluation.adaptive import adaptive
from deepcustom.evaluation.blackbox import blackbox, surrogate_images
from deepcustom.evaluation.found import Evaluation
from deepcustom.evaluation.full import evaluate_whitebox
from deepcustom.evaluation.material import as_it_is
from deepcustom.evaluation.results import ALL, CLEAN, read_csv
from deepcustom.evaluation.scoring import Testbed
from deepcustom.evaluation.sets import checked
from deepcustom.evaluation.transfer import Network
from deepcustom.evaluation.victim import Victim
from deepcustom.evaluation.whitebox import spend_more
from deepcustom.hardening.base import Way, WaySettings
from deepcustom.hardening.madry import MadrySettings
from deepcustom.hardening.online import OnlineSettings
from deepcustom.hardening.ways import way, way_of
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import labelled, load_dataset, load_split, new_classifier
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.score_inputs import load_networks, stored_sets, testbed
from deepcustom.pipeline.workspace import Workspace
from deepcustom.training.compute import derive_seed, seed_everything
from deepcustom.training.job import Job
from deepcustom.training.nets.base import Classifier
from deepcustom.training.prediction import predict

SUBJECTS = ("mnist", "cifar10")
OUT = Path(__file__).with_suffix(".csv")
MORE_SEEDS = 2  # next to the pipeline's own
FEWER = "pgd-3"
COMPARED = ("madry", FEWER, "online")
SECONDS = OUT.with_name("hardening_seconds.csv")


@dataclass(frozen=True)
class Row:
    """One trained network: shares of the attacked images that stand, and seconds of training."""

    dataset: str
    network: str
    seed: int
    n: int
    clean: float
    whitebox: float
    worst: float
    seconds: int


@dataclass(frozen=True)
class Attackers:
    """Everything that attacks a network of a subject, made once for all networks.

    Attributes:
        bed: the images, and all settings.
        sets: name of a set → its adversarial versions of the images, (n, C, H, W).
        surrogates: name of a network → images made against it.
        bank: DGNs to adapt.
        train: images and labels to train on.
        val: images and labels to watch.
    """

    bed: Testbed
    sets: Mapping[str, Tensor]
    surrogates: Mapping[str, Tensor]
    bank: DGNBank
    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]


def read_attackers(stage: StageRun, *, meets: bool = True) -> Attackers:
    """Read and make the attackers; with ``meets=False``, without sets and surrogates."""
    spec, subject = load_dataset(stage), stage.row.subject
    bed = testbed(stage, spec, stage.settings(EvaluateParams))
    sets = {}
    for stored in stored_sets(stage, spec, adversarial_sets(stage.tree, subject) if meets else ()):
        images, at, _ = checked(stored, bed.split, bed.threat, bed.compute.device, bed.seed)
        if images.inside:
            x = bed.clean.x[:]  # where a set lacks an image, it offers nothing
            x[at] = images.x[:]
            sets[images.attack] = x[bed.rows]
    known = load_networks(stage, networks(stage.tree, subject) if meets else (), bed.compute)
    surrogates = {
        network.name: surrogate_images(bed.victim(network, silent), bed.params.surrogate)
        for network in known
    }
    bank = load_bank(stage, spec, bed.params.adaptive.bank, bed.compute)
    train, val = (
        labelled(load_split(stage, spec, split), bed.compute) for split in ("train", "val")
    )
    return Attackers(bed, sets, surrogates, bank, train, val)


def settings(stage: StageRun, name: str) -> WaySettings:
    """The settings with which a network is hardened."""
    if name != FEWER:
        robust = (r for section in HARDENING for r in rows(stage.tree, section, stage.row.subject))
        (one,) = (row for row in robust if row.about["network"] == name)
        return stage.settings_of(one, way_of(one.settings, one.place, one.stage).Settings)
    madry = settings_of(stage, MadrySettings, "adversarial_train", "madry")
    steps = {
        "max_iter": gradients(settings(stage, "online")) - 1,
        "eps_step": stage.subject.threat.eps,
    }
    return madry.model_copy(update={"inner": madry.inner.model_copy(update=steps)})


def gradients(params: WaySettings) -> int:
    """How many gradients a training step computes for each image, including the network's own.

    Raises:
        ValueError: the attack of this way does not take steps.
    """
    if isinstance(params, OnlineSettings):
        return max(params.updates, int(params.reuse)) + params.max_iter + 1
    if not isinstance(params, MadrySettings):
        raise ValueError(f"type {params.type} takes no steps of its own")
    return params.inner.max_iter + 1


def harden(
    stage: StageRun, known: Attackers, name: str, seed: int, epochs: int | None = None
) -> Classifier:
    """Train a robust network as the pipeline would with another ``seed`` in ``params.yaml``.

    ``epochs``: replaces the network's own number of epochs.
    """
    spec, compute = load_dataset(stage), known.bed.compute
    params = settings(stage, name)
    budget = params.training.model_copy(update={"epochs": epochs or params.training.epochs})
    params = params.model_copy(update={"training": budget})
    chosen = way(params.type)
    job = Job(derive_seed(seed, chosen.stage, f"{stage.row.subject}-{name}"), compute)
    seed_everything(job.seed)
    net = new_classifier(stage, compute)
    ready: Way[Any] = (
        with_generator(stage, spec, params, net, compute)
        if isinstance(params, OnlineSettings)
        else chosen(params, known.bed.threat, spec.num_classes)
    )
    made = load_train_set(stage, spec, name, compute) if chosen.reads_set else None
    ready.train(net, known.train, known.val, job, made)
    return net.eval().requires_grad_(False)


def worst_case(known: Attackers, name: str, net: Classifier) -> tuple[Evaluation, Tensor]:
    """The evaluation of a network, and (n,) bool: which images stand against every attack."""
    params, compute = known.bed.params, known.bed.compute
    victim = known.bed.victim(Network(name, "", net), silent)
    found = evaluate_whitebox(victim, params)
    found.stands["clean"] = {"clean": victim.right.cpu()}
    found.stands["transfer"] = {
        attack: predict(net, x).argmax(1).eq(victim.y).cpu() for attack, x in known.sets.items()
    }
    left = found.worst()
    if not left.any():
        return found, left
    rest = of(victim, left)
    others = {other: as_it_is(x[left]) for other, x in known.surrogates.items() if other != name}
    fell = torch.zeros(len(rest.x), dtype=torch.bool)
    for attack in blackbox(rest, others, params.autoattack):
        outcome = attack.run()
        fell |= ~outcome.stands
        if attack.name == "square" and (~outcome.stands).sum() > checks.FEW * len(victim.x):
            every = torch.ones(len(rest.x), dtype=torch.bool)
            fell |= ~spend_more(rest, params.autoattack, every).run().stands
    dgns = as_it_is((known.bank, known.train))
    for attack in adaptive(rest, dgns, params.adaptive, compute=compute):
        fell |= ~attack.run().stands
    left[left.clone()] = ~fell
    return found, left


def of(victim: Victim, rows: Tensor) -> Victim:
    """The victim, with only the images of ``rows``."""
    return replace(victim, x=victim.x[rows], y=victim.y[rows])


@dataclass(frozen=True)
class Seeds:
    """All trainings of one network: each seed's accuracy on clean images and worst case, in %."""

    clean: list[float]
    worst: list[float]

    @property
    def each(self) -> str:
        return ", ".join(f"{value:.1f}" for value in self.worst)


def trainings() -> dict[tuple[str, str], Seeds]:
    """(data set, network) → its trainings, the pipeline's own (from reports/results) first."""
    with OUT.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for dataset in SUBJECTS:
        results = read_csv(Workspace.here().root / workspace.results(dataset))
        own = {(r.network, r.attack): r.accuracy for r in results if r.protocol == "worst"}
        for name in dict.fromkeys([*(r.network for r in results), FEWER]):
            more = [row for row in rows if (row["dataset"], row["network"]) == (dataset, name)]
            if not more:
                continue
            first = [own[name, what] for what in (CLEAN, ALL)] if name != FEWER else []
            clean = [*first[:1], *(float(row["clean"]) for row in more)]
            worst = [*first[1:], *(float(row["worst"]) for row in more)]
            found[dataset, name] = Seeds([100 * v for v in clean], [100 * v for v in worst])
    return found


def table() -> str:
    """Mean and spread over all seeds as Markdown."""
    lines = [
        "| data set | network | clean | worst case | spread | each seed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (dataset, name), found in trainings().items():
        figures = f"{mean(found.clean):.1f} | {mean(found.worst):.1f} | {stdev(found.worst):.1f}"
        lines.append(f"| {dataset} | {name} | {figures} | {found.each} |")
    return "\n".join(lines)


def times() -> dict[tuple[str, str], list[float]]:
    """(data set, network) → for each round, its seconds divided by those of ``madry``."""
    with SECONDS.open(newline="") as file:
        took = {
            (r["dataset"], r["network"], r["round"]): float(r["seconds"])
            for r in csv.DictReader(file)
        }
    found: dict[tuple[str, str], list[float]] = {}
    for (dataset, name, number), value in took.items():
        found.setdefault((dataset, name), []).append(value / took[dataset, "madry", number])
    return found


def counts(dataset: str) -> dict[str, int]:
    """Network → how many gradients a training step computes for each image."""
    with reading(dataset) as stage:
        return {name: gradients(settings(stage, name)) for name in COMPARED}


def comparison() -> str:
    """The costs and the accuracies of the compared networks, as Markdown."""
    known, ratios = trainings(), times()
    lines = [
        "| data set | network | gradients | time | clean | spread | worst case | spread |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for dataset in SUBJECTS:
        taken = counts(dataset)
        for name in (name for name in COMPARED if (dataset, name) in known):
            found = known[dataset, name]
            parts = [
                f"{mean(found.clean):.1f} | {stdev(found.clean):.1f}",
                f"{mean(found.worst):.1f} | {stdev(found.worst):.1f}",
            ]
            cost = f"{taken[name]} | {median(ratios[dataset, name]):.2f}"
            lines.append(f"| {dataset} | {name} | {cost} | {' | '.join(parts)} |")
    return "\n".join(lines)


def headline() -> str:
    """What one gains by a generator that learns with the network, in one sentence."""
    known, ratios = trainings(), times()
    said = []
    for dataset in ("mnist", "cifar10"):
        online, madry = known[dataset, "online"], known[dataset, "madry"]
        said.append(
            f"{mean(online.worst):.1f} against {mean(madry.worst):.1f} % withstand everything that was "
            f"tried, with {mean(online.clean):.1f} against {mean(madry.clean):.1f} % right without an "
            f"attack, in {median(ratios[dataset, 'online']):.2f} of the time"
        )
    few, many = ({counts(dataset)[name] for dataset in SUBJECTS} for name in ("online", "madry"))
    return (
        "With a generator that learns together with the network (`online`) hardening takes "
        f"{_either(few)} gradients an image where seven-step PGD (`madry`) takes {_either(many)}: on MNIST "
        f"{said[0]}; on CIFAR-10 {said[1]} (means of three trainings)."
    )


def _either(numbers: set[int]) -> str:
    return " or ".join(str(number) for number in sorted(numbers))


def main() -> None:
    """Train and score the networks that the table lacks, and print the table."""
    if not OUT.is_file():
        OUT.write_text(",".join(field.name for field in fields(Row)) + "\n")
    with OUT.open(newline="") as file:
        done = {(r["dataset"], r["network"], int(r["seed"])) for r in csv.DictReader(file)}
    for dataset in SUBJECTS:
        with reading(dataset) as stage:
            first = base_seed(stage.tree)
            todo = [
                (name, seed)
                for seed in range(first, first + 1 + MORE_SEEDS)
                for name in (*reversed(networks(stage.tree, dataset)), FEWER)
                if name != "target" and (name == FEWER or seed != first)
                if (dataset, name, seed) not in done
            ]
            todo.sort(key=lambda one: one[0] == FEWER)
            if not todo:
                continue
            known = read_attackers(stage)
            for name, seed in todo:
                began = time.monotonic()
                net = harden(stage, known, name, seed)
                seconds = time.monotonic() - began
                found, left = worst_case(known, name, net)
                parts = (found.left("clean"), found.left("whitebox"), left)
                shares = (float(part.double().mean()) for part in parts)
                row = Row(dataset, name, seed, len(left), *shares, round(seconds))
                print(row, flush=True)
                with OUT.open("a", newline="") as file:
                    figures = (f"{v:.4f}" for v in (row.clean, row.whitebox, row.worst))
                    values = [*astuple(row)[:4], *figures, row.seconds]
                    csv.writer(file, lineterminator="\n").writerow(values)
    print(table())
    if SECONDS.is_file():
        print(comparison(), headline(), sep="\n\n")


if __name__ == "__main__":
    main()
