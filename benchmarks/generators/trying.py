"""Trains a generator against a classifier, and measures what it leaves and what it costs.

The validation split chooses. The test split is measured beside it, and decides nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import machine, plain
from benchmarks.generators.variants import OWN, Place, Variant
from benchmarks.inputs import DGN_BATCH
from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.conditional import ConditionalDGN, conditional
from deepcustom.attacks.losses import contexts
from deepcustom.attacks.threat import ThreatModel
from deepcustom.attacks.train_bank import train_bank
from deepcustom.attacks.train_conditional import train_conditional
from deepcustom.base.hashes import dvc_md5
from deepcustom.base.params import read_params, section, validate
from deepcustom.base.progress import progress
from deepcustom.base.rows import SUBJECTS
from deepcustom.base.settings import ComputeParams, SubjectParams, TrainDgnParams
from deepcustom.data.arrays import Split
from deepcustom.data.datasets import load_spec
from deepcustom.pipeline import workspace
from deepcustom.training.checkpoint import Checkpoint
from deepcustom.training.compute import Compute
from deepcustom.training.job import Job
from deepcustom.training.nets.base import (
    Architecture,
    Classifier,
    MixedPrecision,
    build_classifier,
    parameter_count,
)
from deepcustom.training.prediction import accuracy
from deepcustom.training.rows import LabelledImages
from deepcustom.training.weights import load_network

SEED = 1
ROWS = 1000
STEPS, STEP = 20, 0.25  # of PGD; a step's length, in radii
PGD_IMAGES = 1000
QUICK = 200  # images of each split


Made = Callable[[Tensor, Tensor], Tensor]
"""Images (N, C, H, W) and labels (N,) to perturbed images."""


@dataclass(frozen=True)
class Bench:
    """A classifier and the images of its subject, loaded as the stages load them.

    Attributes:
        title: of the classifier.
        net: frozen, in eval mode.
        md5: of its file.
        splits: images (N, C, H, W) in [0, 1] and labels (N,) of train, val and test.
        classes: how many labels there are.
        threat: the ball.
        compute: device and precision.
    """

    title: str
    net: Classifier
    md5: str
    splits: Mapping[str, LabelledImages]
    classes: int
    threat: ThreatModel
    compute: Compute

    @classmethod
    def of(cls, root: Path, place: Place, *, quick: bool) -> Bench:
        """That of a project's subject.

        Raises:
            InputError: something is not there.
        """
        ws = root / place.folder
        tree = read_params(ws / "params.yaml")
        subject = validate(
            SubjectParams, section(tree, SUBJECTS, place.subject), f"{SUBJECTS}.{place.subject}"
        )
        spec = load_spec(ws / workspace.dataset(subject.dataset))
        compute = Compute.of(ComputeParams(device="auto", precision="auto", threads="auto"))
        splits = {}
        for name in ("train", "val", "test"):
            split = Split.load(ws / workspace.split(subject.dataset, name), spec)
            splits[name] = split.take(slice(0, QUICK if quick else len(split))).tensors()
        facts = {"shape": spec.shape, "classes": spec.num_classes}
        file, described = ws / workspace.target(place.subject), subject.network
        net = build_classifier(Architecture(described.name, described.options, facts))
        load_network(file, net)
        net = compute.place(net).eval().requires_grad_(False)
        threat = ThreatModel.of(subject.threat)
        md5 = dvc_md5(file)
        return cls(place.title, net, md5, splits, spec.num_classes, threat, compute)

    def left(self, split: str, made: Made, most: int = -1) -> float:
        """The share of the first ``most`` images of a split (-1: of all) that is right once perturbed."""
        x, y = self.splits[split]
        count = len(y) if most < 0 else min(most, len(y))
        hits = 0.0
        for start in range(0, count, ROWS):
            some, labels = x[start : min(start + ROWS, count)], y[start : min(start + ROWS, count)]
            hits += len(labels) * accuracy(self.net, made(some, labels), labels)
        return round(hits / count, 6)


class Mean(Classifier):
    """Several classifiers as one, whose logits are the mean of theirs."""

    def __init__(self, nets: list[Classifier]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([net(x) for net in self.nets]).mean(0)


def reference(bench: Bench) -> dict[str, Any]:
    """What FGSM and PGD leave of a classifier, and what they cost."""
    mixed, eps = MixedPrecision(bench.net, bench.compute), bench.threat.eps

    def net(x: Tensor) -> Tensor:
        logits: Tensor = mixed(
            x * 1.0
        )  # the counter of operations takes no leaf that wants a gradient
        return logits

    def fgsm(x: Tensor, y: Tensor) -> Tensor:
        return plain.fgsm(net, x, y, eps)

    def pgd(x: Tensor, y: Tensor) -> Tensor:
        return plain.pgd(net, x, y, eps, STEP * eps, STEPS)

    def nothing(x: Tensor, y: Tensor) -> Tensor:
        return x

    found = {}
    for name, made, most in (
        ("clean", nothing, -1),
        ("fgsm", fgsm, -1),
        (f"pgd-{STEPS}", pgd, PGD_IMAGES),
    ):
        found[name] = {
            "mflop": _mflop(made, bench),
            "val": bench.left("val", made, most),
            "test": bench.left("test", made, most),
            "images": most if most > 0 else None,
        }
    return {**_facts(bench), "attacks": found}


def tried(
    variant: Variant, own: Bench, others: Mapping[str, Bench], kept: Path | None
) -> dict[str, Any]:
    """What a variant leaves and costs.

    Args:
        variant: is trained here.
        own: the classifier that it is tried on.
        others: all classifiers by name, for ``against`` and for what the images do to the others.
        kept: a folder for finished epochs. It stays: an interrupt may come before the results are written.
    """
    nets = [own.net if name == OWN else others[name].net for name in variant.against]
    net = nets[0] if len(nets) == 1 else own.compute.place(Mean(nets)).eval()
    begin = time.monotonic()
    dgn, history = _trained(variant, own, net, kept)
    seconds = time.monotonic() - begin

    def made(x: Tensor, y: Tensor) -> Tensor:
        return passes(dgn, x, y, own, variant.passes)

    return {
        **_facts(own),
        **variant.model_dump(mode="json"),
        "parameters": _parameters(dgn),
        "mflop": _mflop(made, own),
        "seconds": round(seconds, 1),
        "epochs_val": history["val_target_accuracy"],
        "val": own.left("val", made),
        "test": own.left("test", made),
        "shown_to": {
            name: other.left("test", made) for name, other in others.items() if other.md5 != own.md5
        },
    }


def passes(dgn: DGNBank | ConditionalDGN, x: Tensor, y: Tensor, bench: Bench, count: int) -> Tensor:
    """``count`` passes of a generator, each on the output of the one before, all in the ball around ``x``."""
    x_adv = x
    for _ in range(count):
        moved = dgn.generate(x_adv, y, bench.threat, compute=bench.compute)
        x_adv = bench.threat.project(moved, x)
    return x_adv


def _trained(
    variant: Variant, bench: Bench, net: Classifier, kept: Path | None
) -> tuple[DGNBank | ConditionalDGN, dict[str, list[float]]]:
    params = TrainDgnParams(
        loss=variant.loss,
        generator="per_class" if variant.each else "conditional",
        output="perturbation",
        training=variant.training,
        options=variant.loss_options,
    )
    known = contexts(net, bench.threat, {}, bench.classes)
    train, val = bench.splits["train"], bench.splits["val"]
    shape = tuple(train[0].shape[1:])
    facts = {"shape": shape, "classes": bench.classes}
    architecture = Architecture(variant.network, variant.options, facts)
    told = {**variant.model_dump(mode="json", exclude={"varies", "about", "passes"})}
    fingerprint = hashlib.sha256(json.dumps([told, bench.md5], sort_keys=True).encode())
    torch.manual_seed(SEED)
    epochs = params.training.epochs * (bench.classes if variant.each else 1)
    with progress(f"{variant.about}, against {bench.title}", epochs) as say:
        place = Checkpoint(kept, fingerprint.hexdigest())
        job = Job(SEED, bench.compute, say, place)
        found: tuple[DGNBank | ConditionalDGN, dict[str, list[float]]]
        if variant.each:
            found = train_bank(architecture, bench.title, known, train, val, params, job)
        else:
            fresh = bench.compute.place(conditional(architecture, bench.classes))
            found = train_conditional(fresh, bench.title, known, train, val, params, job)
    return found


def _facts(bench: Bench) -> dict[str, Any]:
    return {"classifier": bench.title, "classifier_md5": bench.md5, "eps": bench.threat.eps}


def _parameters(dgn: DGNBank | ConditionalDGN) -> int:
    if isinstance(dgn, ConditionalDGN):
        return parameter_count(dgn.generator)
    return sum(parameter_count(net) for net in dgn.generators)


def _mflop(made: Made, bench: Bench) -> float:
    """Millions of operations for an image, convolutions and products alone; as many at once as usual."""
    x, y = (part[:DGN_BATCH] for part in bench.splits["test"])
    with FlopCounterMode(display=False) as counter:
        made(x, y)
    operations: int = counter.get_total_flops()
    return round(operations / 1e6 / len(y), 2)


def on(root: Path, places: Mapping[str, Place], *, quick: bool) -> Iterator[tuple[str, Bench]]:
    """The classifiers that are there, by name."""
    for name, place in places.items():
        if (root / place.folder / workspace.target(place.subject)).is_file():
            yield name, Bench.of(root, place, quick=quick)


def surroundings() -> dict[str, Any]:
    """The machine, and what else it was doing."""
    return {**machine.facts(), "load": machine.load(), "threads": torch.get_num_threads()}
