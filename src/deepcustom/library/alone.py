"""A network and test images, both from files, scored without a project."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from torch import nn

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError
from deepcustom.base.files import check_writable, named
from deepcustom.base.hashes import dvc_md5
from deepcustom.base.names import load_object
from deepcustom.data.to_score import read_test_images
from deepcustom.evaluation.own_network import OwnFile, own_source, read_own
from deepcustom.evaluation.scored_files import free_folder
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
from deepcustom.library.starting import SEED, threat_of
from deepcustom.library.trying import at_least, classes_of
from deepcustom.training.compute import Compute

SCORES = Path("scores")
"""Where scores go by default, in a folder for each network."""


@dataclass(frozen=True)
class Alone:
    """What :func:`score_alone` found.

    Attributes:
        scores: the scores.
        threat: the ball that they hold for.
        dataset: what tables call the images.
        folder: where they are to be written.
    """

    scores: Scores
    threat: ThreatModel
    dataset: str
    folder: Path

    def save(self) -> None:
        """Write tables, checks and curves."""
        write(self.scores, self.threat, self.folder)


def score_alone(
    brought: OwnFile,
    images: Path,
    eps: str,
    norm: str = "linf",
    *,
    out: Path | None,
    size: int | None,
    n: int | None,
) -> Alone:
    """Score a network on test images by every protocol that needs nothing else.

    Args:
        brought: the network.
        images: a folder, ``.npz`` or parquet; if it has a test part, that part counts.
        eps: radius of the ball, as text.
        norm: of the perturbations, ``linf`` or ``l2``.
        out: where tables, checks and curves are to go, and where finished attacks are kept meanwhile; None:
            a folder below ``scores`` that is called as the network and holds no other scores.
        size: pixels a side that images are brought to; None: they have one size already.
        n: how many images are attacked; None: 500, or all if there are fewer.

    Raises:
        InputError: in one line: the network, the images, ``eps`` or ``out`` cannot be used.
    """
    threat = threat_of(eps, norm, "--")
    if not brought.path.is_file():
        raise InputError(f"{brought.path} is missing")
    dataset = re.sub(r"[^\w.-]+", "_", named(images).stem)
    md5 = dvc_md5(brought.path)
    folder = out or free_folder(SCORES / brought.path.stem, dataset, md5, threat)
    check_writable(folder, "--out" if out else "the folder")
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
        question = Question(data, labels, threat, Attackers(), n, {}, SEED, dataset)
        source = own_source(brought.architecture, brought.mean, brought.std)
        network = Network(brought.path.stem, md5, net, source)
        with dice_kept():
            inputs = tried_first(question.inputs(network, compute))
            found = score(inputs, kept.store(folder, inputs.own or network, compute))
    return Alone(found, threat, dataset, folder)


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
