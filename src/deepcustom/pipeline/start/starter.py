"""The first ``params.yaml`` of a project: one subject, with budgets for the number of its images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import yaml

from deepcustom.base.errors import InputError
from deepcustom.base.params import fraction
from deepcustom.pipeline import workspace
from deepcustom.pipeline.code_lock import LOCK
from deepcustom.pipeline.start.images import Images

TEMPLATE = Path(__file__).with_name("params.yaml")
NETS = "deepcustom.training.nets"


@dataclass(frozen=True)
class Architectures:
    """Classes of a subject, each as ``package.module:Class``."""

    network: str
    generator: str
    conditional: str


ANY = (f"{NETS}.anyshape:AnyGenerator", f"{NETS}.anyshape:AnyConditional")
"""Generators for images of any shape: one for each class, and one that is told the label."""
NETWORKS = {
    "small": Architectures(f"{NETS}.small:SmallClassifier", *ANY),
    "resnet": Architectures(f"{NETS}.resnet:ResNet", *ANY),
    "mnist": Architectures(
        f"{NETS}.mnist:MnistClassifier",
        f"{NETS}.mnist:MnistGenerator",
        f"{NETS}.mnist:MnistConditional",
    ),
    "cifar10": Architectures(
        f"{NETS}.cifar10:Cifar10Classifier",
        f"{NETS}.cifar10:Cifar10Generator",
        f"{NETS}.cifar10:Cifar10Conditional",
    ),
}
"""What ``--network`` calls the networks that come with the package. The last two fit their data set alone."""
EPS = {"mnist": "0.3", "cifar10": "8/255"}
"""What is usual for the built-in data sets."""

MANY_CLASSES = 20
"""With more classes, one DGN that is told the label takes the place of one for each class."""
TEST_SHARE, VAL_SHARE, LARGEST_VAL = 0.2, 0.1, 5000
ATTACKED, DRAWN = 500, 100
"""Test images that are attacked, and those among them that the curves are drawn of."""
STEPS, BANK_STEPS = 2000, 300
"""Optimiser steps of a network's training, and of one DGN's, where the data set is small."""
RADII = (0, 0.25, 0.5, 1, 1.5, 2, 4, 8)
VALUES_AT_ONCE = 400_000
"""Values of images that are attacked at once."""


@dataclass(frozen=True)
class Answers:
    """What the user said about a new project.

    Attributes:
        name: of the subject.
        dataset: name of the data set.
        path: the images, relative to the project; None for a built-in data set.
        network: the classes of its networks.
        eps: radius of the ball, as text: ``0.1`` or ``8/255``.
        epochs: of training a network; None chooses by the number of images.
        size: (H, W) for images of one's own; None keeps the size that all of them have.
    """

    name: str
    dataset: str
    path: str | None
    network: Architectures
    eps: str
    epochs: int | None = None
    size: tuple[int, int] | None = None


def radius(text: str) -> float:
    """The number behind ``0.1`` or ``8/255``.

    Raises:
        InputError: the text is neither, or the number is not above 0 and at most 1.
    """
    try:
        value = fraction(text) if "/" in text else float(text)
    except ValueError:
        value = None
    if value is None or not 0 < value <= 1:
        raise InputError(
            f"--eps {text!r}: want a number above 0, at most 1, such as 0.1 or 8/255: the largest change of "
            "a pixel, in units of the range [0, 1]"
        )
    return value


def params_text(answers: Answers, images: Images) -> str:
    """The whole ``params.yaml``, comments included.

    Raises:
        InputError: there are too few images.
    """
    counts = split_sizes(images)
    return Template(TEMPLATE.read_text()).substitute(
        {
            "subject": answers.name,
            "dataset": answers.dataset,
            "network": answers.network.network,
            "generator": answers.network.generator,
            "conditional": answers.network.conditional,
            "prepare": _flow(_prepare(answers, images, counts["val"])),
            "described": workspace.dataset(answers.dataset),
            "columns": min(10, images.classes),
            **_threat(answers.eps),
            **_budgets(images, counts["train"], answers.epochs),
            **_attacks(images, counts["test"]),
            "radii": ", ".join(f"{r:g}" for r in RADII if r * radius(answers.eps) <= 1),
        }
    )


def split_sizes(images: Images) -> dict[str, int]:
    """How many images train, val and test will have.

    Raises:
        InputError: there are too few for an image of each class in each split.
    """
    drawn = 0 if images.test is not None else max(images.classes, round(images.train * TEST_SHARE))
    left = images.train - drawn
    val = min(LARGEST_VAL, max(images.classes, round(left * VAL_SHARE)))
    test = drawn if images.test is None else images.test
    if left - val < images.classes or not test:
        raise InputError(
            f"{images.train} images of {images.classes} classes are too few: train, val and test need one of "
            "each class"
        )
    return {"train": left - val, "val": val, "test": test}


def _threat(eps: str) -> dict[str, str]:
    value = radius(eps)
    return {"eps": eps if "/" in eps else _number(value), "step": _number(value / 4)}


def _budgets(images: Images, train: int, epochs: int | None) -> dict[str, Any]:
    """Epochs and batches: small data sets are seen more often, so that every training has enough steps."""
    batch = 128 if train >= 5000 else 32
    conditional = images.classes > MANY_CLASSES
    seen = train if conditional else train // images.classes
    bank_batch = 128 if seen >= 2000 else 32
    enough = BANK_STEPS * (4 if conditional else 1)
    bank_epochs = min(60, max(4, math.ceil(enough * bank_batch / max(1, seen))))
    kind = "conditional" if conditional else "per_class"
    return {
        "batch": batch,
        "epochs": epochs or min(50, max(10, math.ceil(STEPS * batch / train))),
        "bank_batch": bank_batch,
        "bank_epochs": bank_epochs,
        "adapted_epochs": max(1, bank_epochs // 4),
        "bank_generator": kind,
    }


def _attacks(images: Images, test: int) -> dict[str, Any]:
    fits = VALUES_AT_ONCE // math.prod(images.shape)
    return {
        "n": min(ATTACKED, test),
        "curves_n": min(DRAWN, test),
        "targets": min(9, images.classes - 1),
        "attack_batch": min(500, max(10, fits)),
    }


def _prepare(answers: Answers, images: Images, val: int) -> dict[str, Any]:
    """The row of ``prepare``: for a data set of one's own also where its images lie, and their form."""
    sizes: dict[str, Any] = {"val_size": val, "train_size": None, "test_size": None}
    if answers.path is None:
        return {"source": images.source, **sizes, "reads": LOCK}
    own = {
        "source": images.source,
        "path": answers.path,
        "size": list(answers.size) if answers.size else None,
        "channels": images.channels,
        "test_share": TEST_SHARE if images.test is None else None,
    }
    return {**own, **sizes, "reads": answers.path}


def _flow(row: dict[str, Any]) -> str:
    """A mapping as YAML has it between braces."""
    text = yaml.safe_dump(row, default_flow_style=True, sort_keys=False, width=math.inf)
    return text.strip()[1:-1]


def _number(value: float) -> str:
    """A float that YAML 1.1 and 1.2 read alike, with seven digits."""
    text = f"{value:.7g}"
    return text if "e" not in text else f"{value:.12f}".rstrip("0")
