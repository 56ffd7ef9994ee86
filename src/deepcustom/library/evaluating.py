"""Scoring a network in memory: every protocol that there is something for, the checks, and the curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.conditional import ConditionalDGN
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError
from deepcustom.base.params import validate
from deepcustom.base.rows import overlay
from deepcustom.base.settings import EvaluateParams
from deepcustom.data.arrays import AdversarialSet
from deepcustom.evaluation.material import Adaptable, DGNs, Lazy
from deepcustom.evaluation.scoring import ScoringInputs, Testbed, score
from deepcustom.evaluation.sets import StoredSet
from deepcustom.evaluation.transfer import Network
from deepcustom.evaluation.trial import batch_sizes, tried_on
from deepcustom.library import kept
from deepcustom.library.attacking import by_dgns
from deepcustom.library.given import (
    Gathered,
    Images,
    Labels,
    Pair,
    as_module,
    borrowed,
    classifier,
    compute_on,
    dice_kept,
    fitting,
    gathered,
    pair,
    plainly,
)
from deepcustom.library.result import RobustAccuracy
from deepcustom.library.starting import SEED, Start, threat_of
from deepcustom.library.trying import at_least, classes_of, usable
from deepcustom.training.compute import Compute, derive_seed, seed_everything
from deepcustom.training.nets.base import Classifier

NO_TRAIN = "no images left to adapt the DGNs on: hand over train="


def evaluate(
    net: nn.Module,
    x: Images,
    y: Labels | None = None,
    eps: float | str | None = None,
    *,
    n: int | None = None,
    bank: DGNs | None = None,
    train: Pair | None = None,
    against: Mapping[str, nn.Module] | Sequence[nn.Module] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    name: str = "network",
    settings: Mapping[str, Any] | None = None,
    keep: str | Path | None = None,
    norm: str = "linf",
    seed: int = SEED,
    device: str = "auto",
) -> RobustAccuracy:
    """Attack a network in every way, and check that the figures can be believed.

    Args:
        net: images (N, C, H, W) to logits (N, classes). It is used in eval mode, and left as it was.
        x: test images (N, C, H, W), uint8 or floating point in [0, 1]; or a DataLoader or data set of
            (images, labels). They are held in memory once, 1 byte a value if uint8, else 4.
        y: labels (N,); None with a DataLoader.
        eps: radius of the ball, in units of the pixel range: a number, or text such as ``"8/255"``.
        n: how many of the images are attacked, drawn by class; None: 500, or all if there are fewer.
        bank: DGNs trained against another network. Their images are shown to ``net``, and they are trained
            further against it.
        train: images and labels to train ``bank`` on, none of them in ``x``; None: the images of ``x`` that
            are not attacked.
        against: other networks, which images are made against that ``net`` is then shown.
        mean: of each channel: images in [0, 1] are normalised by it in front of every network.
        std: likewise, what they are divided by.
        name: what tables call ``net``.
        settings: what is to differ from the settings that a new project begins with, such as
            ``{"autoattack": {"queries": 1000}}``.
        keep: a folder for finished attacks, so that an interrupted call goes on when it is made again.
        norm: ``linf``: eps bounds the change of each pixel; ``l2``: the Euclidean length of the change.
        seed: of everything random.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: in one line: the network, images, labels, ``eps`` or a setting cannot be used.
    """
    kept.check_keep(keep)
    data, compute = gathered(x, y), compute_on(device)
    others = _named(against, name)
    with ExitStack() as stack:
        stack.enter_context(dice_kept())

        def lent(one: nn.Module, called: str) -> Classifier:
            whole = classifier(as_module(one, called), data.shape, mean, std)
            stack.enter_context(borrowed(whole, compute))
            return whole

        ours = lent(net, "net")
        siblings = {called: lent(one, called) for called, one in others.items()}
        classes = classes_of(ours, data, compute) or at_least(data)
        labels = tuple(map(str, range(classes)))
        attackers = Attackers(bank, pair(train, "train"))
        question = Question(data, labels, threat_of(eps, norm), attackers, n, settings or {}, seed)
        inputs, own = _tried(question, name, ours, siblings, compute)
        scores = score(inputs, kept.store(keep, own, compute))
    found = RobustAccuracy.of(scores, name, inputs.bed.threat, inputs.bed.rows)
    if bank is not None and inputs.dgns is None:
        return replace(found, left_out={**found.left_out, "adaptive": NO_TRAIN})
    return found


def _named(
    against: Mapping[str, nn.Module] | Sequence[nn.Module], name: str
) -> Mapping[str, nn.Module]:
    """Other networks by their names, of which none is ``name``.

    Raises:
        InputError: it is neither a list nor a dictionary, or a name is taken.
    """
    if not isinstance(against, Mapping | list | tuple):
        raise InputError("against: want networks in a list, or in a dictionary by their names")
    if not isinstance(against, Mapping):
        against = {f"other-{number}": net for number, net in enumerate(against, 1)}
    if name in against:
        raise InputError(f"against: one of them is called {name!r}, as the network itself")
    return against


def _tried(
    question: Question,
    name: str,
    ours: Classifier,
    siblings: Mapping[str, Classifier],
    compute: Compute,
) -> tuple[ScoringInputs, Network]:
    """What a scoring reads, after every network was tried on the images; and the one that is scored.

    Raises:
        InputError: a network cannot be used, or has other classes.
    """
    data, classes = question.data, len(question.classes)
    for called, sibling in siblings.items():
        if classes_of(sibling, data, compute, called) not in (None, classes):
            raise InputError(f"against: {called} has other classes than net: want {classes}")
    untried = Network(name, kept.weights_md5(ours), ours)
    inputs = question.inputs(untried, compute)
    own = kept.known(name, tried_on(inputs.bed, untried).net, data, compute)
    sizes = batch_sizes(inputs.bed.params, len(inputs.bed.rows))
    networks = []
    for called, sibling in siblings.items():
        learner = "making images against it"
        lends = usable(sibling, data, classes, compute, called, sizes=sizes, learner=learner)
        networks.append(kept.known(called, lends, data, compute))
    return replace(inputs, networks=networks, own=own), own


@dataclass(frozen=True)
class Attackers:
    """What the attackers have.

    Attributes:
        bank: DGNs.
        train: images to adapt the DGNs on; None: those that are not attacked.
    """

    bank: DGNs | None = None
    train: Gathered | None = None


@dataclass(frozen=True)
class Question:
    """What is asked of a network.

    Attributes:
        data: test images.
        classes: names of the labels.
        threat: the ball.
        attackers: what they have.
        n: how many images are attacked; None: 500, or all if there are fewer.
        settings: what differs from the starting settings of an evaluation.
        seed: of everything random.
        dataset: what tables call the images.
    """

    data: Gathered
    classes: tuple[str, ...]
    threat: ThreatModel
    attackers: Attackers
    n: int | None
    settings: Mapping[str, Any]
    seed: int
    dataset: str = "images"

    def inputs(self, network: Network, compute: Compute) -> ScoringInputs:
        """All that a scoring reads.

        Raises:
            InputError: a setting or the bank cannot be used.
        """
        seed = derive_seed(self.seed, "evaluate", self.dataset)
        seed_everything(seed)
        with plainly():
            params = self._params()
            bed = Testbed.of(
                self.data.split(len(self.classes)),
                kept.data_md5(self.data),
                subject=self.dataset,
                classes=self.classes,
                params=params,
                threat=self.threat,
                compute=compute,
                seed=seed,
            )
        bank = self.attackers.bank
        if bank is None:
            return ScoringInputs(bed, [], [], own=network)
        if not isinstance(bank, DGNBank | ConditionalDGN) or bank.classes != len(self.classes):
            raise InputError(
                f"bank: want DGNs of {len(self.classes)} classes, as train_bank makes them"
            )
        sets = [self._shown(bank, bed)]
        dgns = self._adaptable(bank, bed)
        return ScoringInputs(bed, [], sets, dgns, own=network)

    def _params(self) -> EvaluateParams:
        count = len(self.data.y)
        train = self.attackers.train or self.data
        shape, threat = self.data.shape, self.threat
        start = Start(shape, len(self.classes), threat.eps, len(train.y), count, norm=threat.norm)
        tree = overlay(start.recipes()["every-protocol"], self.settings)
        n = tree["n"] if self.n is None else self.n
        # A draw by class needs an image of each class on both sides; without a draw all are attacked.
        if isinstance(n, int) and n > count - len(np.unique(self.data.y)):
            n = count
        return validate(EvaluateParams, {**tree, "n": n}, "settings")

    def _shown(self, bank: DGNs, bed: Testbed) -> StoredSet:
        """The images that the DGNs make of those that are attacked, each for its label."""
        rows = bed.rows.cpu().numpy()
        made = by_dgns(bank, *bed.attacked, bed.threat, bed.compute).cpu().numpy()
        part = bed.split.take(rows)
        return StoredSet(
            "bank", kept.bank_md5(bank), AdversarialSet(part.x, made, part.y, part.index)
        )

    def _adaptable(self, bank: DGNs, bed: Testbed) -> Lazy[Adaptable] | None:
        """The DGNs, and the images to train them further on; None if there are none."""
        train = self.attackers.train
        if train is None:
            rest = np.ones(len(self.data.y), dtype=bool)
            rest[bed.rows.cpu().numpy()] = False
            train = Gathered(self.data.x[rest], self.data.y[rest])
        train = fitting(train, self.data, len(self.classes), "train")
        if not len(train.y):
            return None
        key = {"bank": kept.bank_md5(bank), "train": kept.data_md5(train)}
        images = train.on(bed.compute)
        return Lazy(key, lambda: (bank, images))
