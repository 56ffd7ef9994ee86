"""A network and test images, both from files, scored without a project."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from torch import nn

from deepcustom.base.errors import InputError
from deepcustom.base.hashes import dvc_md5
from deepcustom.base.names import load_object
from deepcustom.data.to_score import read_test_images
from deepcustom.evaluation.own_network import OwnFile, own_source, read_own
from deepcustom.evaluation.scoring import Scores, score
from deepcustom.evaluation.transfer import Network
from deepcustom.evaluation.trial import tried_first
from deepcustom.library import kept
from deepcustom.library.evaluating import Attackers, Question
from deepcustom.library.given import (
    Gathered,
    as_module,
    classifier,
    compute_on,
    dice_kept,
)
from deepcustom.library.result import write
from deepcustom.library.starting import SEED, radius
from deepcustom.library.trying import at_least, classes_of
from deepcustom.training.compute import Compute

KEPT = "attacks"
"""The folder, beside the tables, of finished attacks."""


def score_alone(
    brought: OwnFile, images: Path, eps: str, *, folder: Path, size: int | None, n: int | None
) -> tuple[Scores, str]:
    """Score a network on test images by every protocol that needs nothing else, and write what is found.

    Args:
        brought: the network.
        images: a folder, ``.npz`` or parquet; if it has a test part, that part counts.
        eps: radius of the ball, as text.
        folder: where tables, checks and curves go, and where finished attacks are kept meanwhile.
        size: pixels a side that images are brought to; None: they have one size already.
        n: how many images are attacked; None: 500, or all if there are fewer.

    Returns:
        What was found, and what tables call the images.

    Raises:
        InputError: in one line: the network, the images or ``eps`` cannot be used.
    """
    value = radius(eps, "--eps")
    if not brought.path.is_file():
        raise InputError(f"{brought.path} is missing")
    if brought.architecture is None and brought.path.suffix == ".safetensors":
        _nothing(brought)  # before all images are read, and so is the next
    if brought.architecture is not None:
        load_object(brought.architecture, "network", InputError)
    compute = compute_on("auto")
    with TemporaryDirectory() as place:
        read = read_test_images(images, (size, size) if size else None, Path(place))
        data, names = Gathered(read.x, read.y), read.classes
        net, classes = _loaded(brought, data, names, compute)
        if names is not None and len(names) != classes:
            raise InputError(
                f"{images} has {len(names)} classes, and {brought.path} gives {classes} logits"
            )
        labels = names or tuple(map(str, range(classes)))
        dataset = re.sub(r"[^\w.-]+", "_", images.resolve().stem)
        question = Question(data, labels, value, Attackers(), n, {}, SEED, dataset)
        source = own_source(brought.architecture, brought.mean, brought.std)
        network = Network(brought.path.stem, dvc_md5(brought.path), net, source)
        with dice_kept():
            inputs = tried_first(question.inputs(network, compute))
            found = score(inputs, kept.store(folder / KEPT, inputs.own or network, compute))
    write(found, folder)
    return found, dataset


def _loaded(
    brought: OwnFile, data: Gathered, names: tuple[str, ...] | None, compute: Compute
) -> tuple[nn.Module, int]:
    """The network, frozen and on the device, and how many logits it gives, or should give."""
    classes = len(names) if names else at_least(data)
    facts = {"shape": data.shape, "classes": classes, "num_classes": classes}
    read = as_module(
        read_own(brought.path, lambda: _nothing(brought), brought.architecture, **facts)
    )
    net = classifier(read, data.shape, brought.mean, brought.std)
    net = compute.place(net).eval().requires_grad_(False)
    return net, classes_of(net, data, compute, str(brought.path)) or classes


def _nothing(brought: OwnFile) -> NoReturn:
    raise InputError(f"--architecture is missing: package.module:Class of {brought.path}")
