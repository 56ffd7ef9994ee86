"""The first ``params.yaml`` of a project: one subject, with budgets for the number of its images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from deepcustom.base.errors import InputError
from deepcustom.library.starting import (
    COMPUTE,
    CONDITIONAL,
    GENERATOR,
    LOSS,
    NETS,
    SEED,
    Start,
    eps_text,
    flow,
    threat_of,
)
from deepcustom.pipeline import workspace
from deepcustom.pipeline.code_lock import LOCK
from deepcustom.pipeline.start.images import Images

TEMPLATE = Path(__file__).with_name("params.yaml")


@dataclass(frozen=True)
class Architectures:
    """Classes of a subject, each as ``package.module:Class``."""

    network: str
    generator: str
    conditional: str


ANY = (GENERATOR, CONDITIONAL)
"""Generators for images of any shape: one for each class, and one that is told the label."""
NETWORKS = {
    "small": Architectures(f"{NETS}.small:SmallClassifier", *ANY),
    "resnet": Architectures(f"{NETS}.resnet:ResNet", *ANY),
    "resnet18": Architectures(f"{NETS}.resnet18:ResNet18", *ANY),
    "mnist": Architectures(f"{NETS}.mnist:MnistClassifier", *ANY),
    "cifar10": Architectures(f"{NETS}.cifar10:Cifar10Classifier", *ANY),
}
"""What ``--network`` calls the networks that come with the package. The last two fit their data set alone."""
EPS = {
    "linf": {"mnist": "0.3", "cifar10": "8/255"},
    "l2": {"mnist": "2.0", "cifar10": "0.5"},
}
"""Norm → what is usual for the built-in data sets."""

TEST_SHARE, VAL_SHARE, LARGEST_VAL = 0.2, 0.1, 5000


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
    norm: str = "linf"


def params_text(answers: Answers, images: Images) -> str:
    """The whole ``params.yaml``, comments included.

    Raises:
        InputError: there are too few images.
    """
    counts = split_sizes(images)
    threat_of(answers.eps, answers.norm, "--")
    start = Start(
        images.shape,
        images.classes,
        answers.eps,
        counts["train"],
        counts["test"],
        answers.epochs,
        answers.norm,
    )
    return Template(TEMPLATE.read_text()).substitute(
        {
            "subject": answers.name,
            "dataset": answers.dataset,
            "network": answers.network.network,
            "generator": answers.network.generator,
            "conditional": answers.network.conditional,
            "prepare": flow(_prepare(answers, images, counts["val"])),
            "described": workspace.dataset(answers.dataset),
            "columns": min(10, images.classes),
            "norm": answers.norm,
            "eps": eps_text(answers.eps, answers.norm),
            "recipes": start.recipes_text(),
            "loss": LOSS,
            "seed": SEED,
            **COMPUTE,
            **start.training(),
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
