"""Scoring the networks of a subject: every protocol, the checks, and how they compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.progress import Advance, progress, silent
from deepcustom.base.settings import EvaluateParams
from deepcustom.data import draws
from deepcustom.data.arrays import Split, labels
from deepcustom.data.mapped import MappedImages
from deepcustom.evaluation import checks
from deepcustom.evaluation.blackbox import surrogate_images
from deepcustom.evaluation.by_class import by_class, class_check, unequal
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.found import Evaluation
from deepcustom.evaluation.full import evaluate_all, evaluate_whitebox
from deepcustom.evaluation.material import Adaptable, Lazy, Material
from deepcustom.evaluation.points import Point
from deepcustom.evaluation.price import announce
from deepcustom.evaluation.results import ALL, AUTOATTACK, CLEAN, PROTOCOLS, Result
from deepcustom.evaluation.score_store import Pieces, ScoreStore
from deepcustom.evaluation.sets import StoredSet, checked
from deepcustom.evaluation.statistics import PairedTest, mcnemar
from deepcustom.evaluation.transfer import Network, TestSet, transfer
from deepcustom.evaluation.victim import Cost, Victim
from deepcustom.evaluation.whitebox import APGD, MORE
from deepcustom.training.compute import Compute, derive_seed
from deepcustom.training.engine import Engine

QUICK = ("transfer", "whitebox")
"""The protocols of a quick scoring, which makes their published numbers again within minutes."""


@dataclass(frozen=True)
class Testbed:
    """What all networks of a subject are scored on.

    Attributes:
        subject: name of the subject whose networks are scored.
        classes: names of the labels.
        params: all settings.
        threat: ball and range.
        compute: device and precision.
        seed: seeds everything random.
        split: the whole test split.
        clean: the same images, on the device.
        rows: (n,) which images of the split are attacked.
    """

    __test__ = False  # for pytest, as with TestSet

    subject: str
    classes: Sequence[str]
    params: EvaluateParams
    threat: ThreatModel
    compute: Compute
    seed: int
    split: Split
    clean: TestSet
    rows: Tensor

    @classmethod
    def of(
        cls,
        split: Split,
        md5: str,
        *,
        subject: str,
        classes: Sequence[str],
        params: EvaluateParams,
        threat: ThreatModel,
        compute: Compute,
        seed: int,
    ) -> Testbed:
        """Put the test split, whose files have the hash ``md5``, on the device; draw the images to attack.

        They come in the order of the split, but in one that is drawn if the split lists class after class, as
        folders do: curves and some checks take the first of them.
        """
        x = MappedImages.on(split.x, compute.device)
        y = labels(split.y).to(compute.device)
        size = params.n if params.n < len(split) else None
        chosen = draws.subset(split, size, seed, key="n").index
        rows = torch.from_numpy(np.searchsorted(split.index, np.sort(chosen)))
        if draws.in_runs(split.y[rows.numpy()]):
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
            rows = rows[order]
        clean = TestSet(CLEAN, md5, x, y)
        return cls(subject, classes, params, threat, compute, seed, split, clean, rows)

    @cached_property
    def attacked(self) -> tuple[Tensor, Tensor]:
        """The images (n, C, H, W) that are attacked, and their labels (n,); one copy for all networks."""
        return self.clean.x[self.rows], self.clean.y[self.rows]

    def victim(self, network: Network, advance: Advance) -> Victim:
        """A network and the images that it is attacked on."""
        return Victim(
            network.name,
            network.net,
            *self.attacked,
            self.threat,
            len(self.classes),
            derive_seed(self.seed, network.name),
            self.compute,
            advance,
        )


@dataclass(frozen=True)
class ScoringInputs:
    """Everything that a scoring reads.

    Attributes:
        bed: the images, and all settings.
        networks: the subject's networks, in the order of the table.
        sets: adversarial test sets, in the order of the table; read once, one after the other.
        dgns: the DGNs to adapt to each network; None: the adaptive protocol is left out.
        own: score this network instead of those of the subject. Those then only serve as surrogates.
        reads: stage and item of every run that trained → the paths it read.
        quick: whether to score only the protocols of :data:`QUICK`, without checks and curves.
        engine: scores the networks elsewhere, each as a task; None: they are scored here.
    """

    bed: Testbed
    networks: Sequence[Network]
    sets: Iterable[StoredSet]
    dgns: Lazy[Adaptable] | None = None
    own: Network | None = None
    reads: Mapping[str, Iterable[str]] = field(default_factory=dict)
    quick: bool = False
    engine: Engine | None = None


@dataclass
class Scores:
    """Everything that a scoring found.

    Attributes:
        results: the rows of the table.
        checks: the checks of the networks, the sets and the whole.
        points: the points of the curves, each with its network's name.
        pairs: a paired test of every two networks, on which images stand against everything.
        seconds: network, protocol and attack → the seconds the attack took when it was run.
        found: network → all that was found on it, image by image.
    """

    results: list[Result] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    points: list[tuple[str, Point]] = field(default_factory=list)
    pairs: list[PairedTest] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    found: dict[str, Evaluation] = field(default_factory=dict)


def quick_rows(results: Sequence[Result]) -> list[Result]:
    """The rows that a quick scoring makes: their protocol is in :data:`QUICK`, and they need no other.

    ``results``: all rows of a subject. Where AutoAttack was asked for, the white-box series takes over what
    its APGD did.
    """
    auto = any(row.protocol == AUTOATTACK for row in results)
    slow = {MORE, *(APGD if auto else ())}
    return [row for row in results if row.protocol in QUICK and row.attack not in slow]


def score(inputs: ScoringInputs, store: ScoreStore) -> Scores:
    """Score the networks of a subject.

    Args:
        inputs: the networks, and what they are scored on.
        store: holds the attacks that earlier runs made, and keeps those of this run.
    """
    bed, quick = inputs.bed, inputs.quick
    networks = inputs.networks if inputs.own is None else [inputs.own]
    scores = Scores()
    stands, on_sets = _transfer(bed, networks, inputs.sets, scores)
    with store, progress(f"evaluate@{bed.subject}", _steps(inputs, networks)) as advance:
        surrogates = {} if quick else _surrogates(bed, inputs.networks, store, advance)
        if inputs.engine is not None:
            _elsewhere(inputs, inputs.engine, stands, surrogates, store, advance)
            advance = silent  # what follows takes everything from the store
        for network in networks:
            victim = bed.victim(network, advance)
            pieces = Pieces(victim, network.md5 + network.source, store)
            if quick:
                found = evaluate_whitebox(victim, bed.params, pieces)
            else:
                others = {name: x for name, x in surrogates.items() if name != network.name}
                material = Material(inputs.dgns, stands[network.name], others)
                pieces.before_first = partial(announce, victim, bed.params, surrogates=len(others))
                found = evaluate_all(victim, bed.params, material, pieces, compute=bed.compute)
            pieces.resumed()
            _add(scores, bed, network, found, quick)
    if inputs.own is None and not quick:
        worst = {name: found.worst() for name, found in scores.found.items()}
        scores.checks[:0] = on_sets
        scores.checks += _overall(bed, networks, inputs.reads, worst)
        scores.pairs = [mcnemar(a, b, worst[a], worst[b]) for a, b in combinations(worst, 2)]
    scores.results.sort(key=lambda result: list(PROTOCOLS).index(result.protocol))
    return scores


def _elsewhere(
    inputs: ScoringInputs,
    engine: Engine,
    stands: Mapping[str, Mapping[str, Tensor]],
    surrogates: Mapping[str, Lazy[Tensor]],
    store: ScoreStore,
    advance: Advance,
) -> None:
    """Have all networks scored by ``engine``; the pieces go into the store."""
    from deepcustom.evaluation.elsewhere import Subject, score_elsewhere

    subjects = []
    for network in inputs.networks:
        victim = inputs.bed.victim(network, advance)
        pieces = Pieces(victim, network.md5 + network.source, store)
        subjects.append(Subject(victim, network, stands[network.name], pieces))
    given = inputs.bed.params, inputs.dgns, surrogates, store, advance
    score_elsewhere(engine, subjects, *given)


def _steps(inputs: ScoringInputs, networks: Sequence[Network]) -> int:
    """The number of steps of progress: for each network one per attack, one for curves, one for checks."""
    whitebox = len(inputs.bed.params.whitebox) + 2
    total = whitebox * len(networks)
    if not inputs.quick:
        known = {network.name for network in inputs.networks}
        adapted = 0 if inputs.dgns is None else 2
        total += sum(len(known - {network.name}) + 1 + adapted + 2 for network in networks)
    return total


def _add(scores: Scores, bed: Testbed, network: Network, found: Evaluation, quick: bool) -> None:
    """Add what was found on one network to the scores."""
    scores.found[network.name] = found
    scores.results += _rows(bed, network, found, quick)
    scores.checks += found.checks
    scores.points += [(network.name, point) for point in found.points]
    if not quick:
        labels, y, clean = bed.classes, bed.attacked[1], found.stands[CLEAN][CLEAN]
        rows = by_class(network.name, labels, y, clean, found.worst())
        if unequal(rows):
            scores.checks.append(class_check(network.name, rows))
    scores.seconds |= {
        f"{network.name}/{protocol}/{attack}": cost.seconds
        for (protocol, attack), cost in found.costs.items()
    }


def _transfer(
    bed: Testbed, networks: Iterable[Network], sets: Iterable[StoredSet], scores: Scores
) -> tuple[dict[str, dict[str, Tensor]], list[Check]]:
    """Score all networks on all sets.

    Returns:
        Network → set → (n,) bool, which of the attacked images the network gets right; and the checks
        on the sets. An image that a set lacks keeps its clean result, as the set has nothing against
        it. A set that leaves the ball is left out, as it breaks the threat model.
    """
    name = bed.subject
    clean = {network.name: transfer(name, network, bed.clean) for network in networks}
    rows = {network: [result] for network, (result, _) in clean.items()}
    stands: dict[str, dict[str, Tensor]] = {network: {} for network in rows}
    on_sets: list[Check] = []
    for stored in sets:
        images, at, found = checked(stored, bed.split, bed.threat, bed.compute.device, bed.seed)
        on_sets += found
        for network in networks:
            result, right = transfer(name, network, images)
            rows[network.name].append(result)
            if images.inside:
                every = clean[network.name][1].clone()
                every[at] = right
                stands[network.name][images.attack] = every[bed.rows]
    scores.results += [result for own in rows.values() for result in own]
    return stands, on_sets


def _surrogates(
    bed: Testbed, networks: Iterable[Network], store: ScoreStore, advance: Advance
) -> dict[str, Lazy[Tensor]]:
    """Network → the images made against it; they are made only when they are needed."""
    params = bed.params.surrogate

    def images_of(network: Network) -> Lazy[Tensor]:
        victim = bed.victim(network, advance)
        pieces = Pieces(victim, network.md5 + network.source, store)
        settings = params.model_dump()

        def make() -> Tensor:
            images = pieces.images(settings, lambda: surrogate_images(victim, params))
            pieces.say("images against it", steps=0)
            return images

        return Lazy(pieces.images_key(settings), make)

    return {network.name: images_of(network) for network in networks}


def _rows(bed: Testbed, network: Network, found: Evaluation, quick: bool) -> list[Result]:
    """The table's rows of one network, without those of the transfer protocol."""

    def row(protocol: str, attack: str, stands: Tensor, cost: Cost) -> Result:
        return Result.of(
            dataset=bed.subject,
            network=network.name,
            protocol=protocol,
            attack=attack,
            correct=int(stands.sum()),
            n=len(stands),
            network_md5=network.md5,
            set_md5=bed.clean.md5,
            gradients=cost.gradients,
            queries=cost.queries,
        )

    rows = [
        row(protocol, attack, found.stands[protocol][attack], cost)
        for (protocol, attack), cost in found.costs.items()
    ]
    if not quick:
        for protocol in found.stands:
            rows.append(row("worst", protocol, found.left(protocol), found.spent(protocol)))
        total = sum((found.spent(protocol) for protocol in found.stands), Cost())
        rows.append(row("worst", ALL, found.worst(), total))
    return rows


def _overall(
    bed: Testbed,
    networks: Sequence[Network],
    reads: Mapping[str, Iterable[str]],
    worst: Mapping[str, Tensor],
) -> list[Check]:
    """The checks on the subject's evaluation as a whole."""
    made = [checks.test_unread(bed.subject, reads)]
    for network in networks:
        if network.name == "target":
            made.append(checks.undefended_falls(bed.victim(network, silent), worst["target"]))
    return made
