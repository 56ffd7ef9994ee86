"""Scoring the networks of a data set: every protocol, the checks, and how they compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING

from torch import Tensor

from deepcustom.attacks.bank import DGNBank
from deepcustom.base.progress import Advance, progress
from deepcustom.base.settings import EvaluateParams
from deepcustom.evaluation import checks
from deepcustom.evaluation.blackbox import surrogate_images
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.curves import Point
from deepcustom.evaluation.full import Arsenal, Evaluation, evaluate_all, evaluate_whitebox
from deepcustom.evaluation.kept_scores import keep, kept
from deepcustom.evaluation.results import ALL, PROTOCOLS, UNCLIPPED, Result
from deepcustom.evaluation.statistics import PairedTest, mcnemar
from deepcustom.evaluation.subject import Cost
from deepcustom.evaluation.transfer import Network, transfer
from deepcustom.evaluation.whitebox import MORE
from deepcustom.pipeline import workspace
from deepcustom.pipeline.ground import Ground, adversarial_sets, ground, load_networks
from deepcustom.pipeline.load import architectures, load_split, to_device
from deepcustom.pipeline.run import StageRun
from deepcustom.tracking.record import RunRecord

if TYPE_CHECKING:
    from deepcustom.data.datasets import DatasetSpec
    from deepcustom.training.checkpoint import Checkpoint

QUICK = ("transfer", "whitebox")
"""The protocols of the published tables that are made again within minutes."""

_TRAINING = ("train_target", "train_dgn", "adversarial_train", "train_online")


@dataclass
class Scores:
    """All that an evaluation of some networks found.

    Attributes:
        results: the rows of the table.
        checks: on the networks, the sets and the whole.
        points: of the curves, with the network's name.
        pairs: every two networks, on what stands against everything.
        seconds: network, protocol and attack → what the attack took.
    """

    results: list[Result] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    points: list[tuple[str, Point]] = field(default_factory=list)
    pairs: list[PairedTest] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def is_quick(result: Result) -> bool:
    """Whether a row is made by a quick scoring: of :data:`QUICK`, and in need of no other protocol."""
    return result.protocol in QUICK and result.attack != MORE


def score(
    stage: StageRun,
    spec: DatasetSpec,
    params: EvaluateParams,
    *,
    own: Network | None = None,
    quick: bool = False,
) -> Scores:
    """Score the networks of a data set.

    Args:
        stage: reads; what is finished of each network is kept in its checkpoint.
        spec: the data set.
        params: which networks and sets, and all settings of the attacks.
        own: score this network instead; those of the data set then only make images that may transfer.
        quick: the protocols of :data:`QUICK` alone, without checks and curves.
    """
    base = ground(stage, spec, params)
    known = load_networks(stage, spec, params.networks, base.compute)
    networks = known if own is None else [own]
    scores = Scores()
    stands, on_sets = _transfer(stage, base, networks, scores)
    arsenal = None if quick else _arsenal(stage, base)
    place = stage.checkpoint()

    each = len(params.whitebox) + 2 + (0 if quick else len(known) + 6)
    total = len(networks) * each + (0 if quick else len(known))
    worst: dict[str, Tensor] = {}
    with progress(f"evaluate@{spec.name}", total) as advance:
        surrogates = {} if quick else _surrogates(base, known, place, advance)
        for network in networks:
            part = place.part(network.name)
            found = kept(part)
            if found is None:
                found = _attacked(base, network, stands[network.name], surrogates, arsenal, advance)
                keep(part, found)
            else:
                note = f"{network.name} was finished before"
                advance(note, steps=each, resumed=True)
            _add(scores, base, network, found, quick)
            worst[network.name] = found.worst()
    if own is None and not quick:
        scores.checks[:0] = on_sets
        scores.checks += _overall(stage, spec, worst)
        scores.pairs = [mcnemar(a, b, worst[a], worst[b]) for a, b in combinations(worst, 2)]
    scores.results.sort(key=lambda result: list(PROTOCOLS).index(result.protocol))
    return scores


def _arsenal(stage: StageRun, base: Ground) -> Arsenal:
    spec = base.spec
    path = stage.read(workspace.bank(spec.name, base.params.adaptive.bank))
    bank = DGNBank.load(
        path, architectures(spec.name).generator, spec.name, spec.num_classes, base.compute.device
    )
    return Arsenal(bank, to_device(load_split(stage, spec, "train"), base.compute), base.compute)


def _attacked(
    base: Ground,
    network: Network,
    sets: Mapping[str, Tensor],
    surrogates: Mapping[str, Tensor],
    arsenal: Arsenal | None,
    advance: Advance,
) -> Evaluation:
    """One network under every attack; without an arsenal, under those that know it alone."""
    subject = base.subject(network, advance)
    if arsenal is None:
        found = Evaluation()
        evaluate_whitebox(subject, base.params, found)
        return found
    others = {name: x for name, x in surrogates.items() if name != network.name}
    arsenal = replace(arsenal, sets=sets, surrogates=others)
    return evaluate_all(subject, base.params, arsenal)


def _add(scores: Scores, base: Ground, network: Network, found: Evaluation, quick: bool) -> None:
    """Put what was found of one network to the rest."""
    scores.results += _rows(base, network, found, quick)
    scores.checks += found.checks
    scores.points += [(network.name, point) for point in found.points]
    scores.seconds |= {
        f"{network.name}/{protocol}/{attack}": cost.seconds
        for (protocol, attack), cost in found.costs.items()
    }


def _transfer(
    stage: StageRun, base: Ground, networks: Iterable[Network], scores: Scores
) -> tuple[dict[str, dict[str, Tensor]], list[Check]]:
    """Score all networks on all sets.

    Returns:
        Network → set → (n,) bool, which of the images that are attacked it gets right; and the checks on
        the sets. An image that a set lacks stands: the attack offers nothing against it. A set that
        leaves the ball is no attack within it, and is left out.
    """
    name = base.spec.name
    clean = {network.name: transfer(name, network, base.clean) for network in networks}
    rows = {network: [result] for network, (result, _) in clean.items()}
    stands: dict[str, dict[str, Tensor]] = {network: {} for network in rows}
    on_sets: list[Check] = []
    for images, at, found in adversarial_sets(stage, base):
        on_sets += found
        for network in networks:
            result, right = transfer(name, network, images)
            rows[network.name].append(result)
            if not images.attack.endswith(UNCLIPPED):
                every = clean[network.name][1].clone()
                every[at] = right
                stands[network.name][images.attack] = every[base.rows]
    scores.results += [result for own in rows.values() for result in own]
    return stands, on_sets


def _surrogates(
    base: Ground, networks: Iterable[Network], place: Checkpoint, advance: Advance
) -> dict[str, Tensor]:
    """The images made against each network, kept in the checkpoint."""
    made = {}
    for network in networks:
        part = place.part(f"surrogate-{network.name}")
        there = part.load("images")
        if there is None:
            subject = base.subject(network, advance)
            images = surrogate_images(subject, base.params.surrogate).cpu()
            part.save("images", {"x_adv": images.contiguous()}, {})
        else:
            images = there[0]["x_adv"]
        made[network.name] = images.to(base.clean.x)
        advance(f"{network.name}: images against it")
    return made


def _rows(base: Ground, network: Network, found: Evaluation, quick: bool) -> list[Result]:
    """The table's rows of one network, without those of the transfer protocol."""

    def row(protocol: str, attack: str, stands: Tensor, cost: Cost) -> Result:
        return Result.of(
            dataset=base.spec.name,
            network=network.name,
            protocol=protocol,
            attack=attack,
            correct=int(stands.sum()),
            n=len(stands),
            network_md5=network.md5,
            set_md5=base.clean.md5,
            gradients=cost.gradients,
            queries=cost.queries,
        )

    rows = [
        row(protocol, attack, found.stands[protocol][attack], cost)
        for (protocol, attack), cost in found.costs.items()
    ]
    if not quick:
        for protocol in found.stands:
            rows.append(row("worst", protocol, found.left(protocol), _sum(found, protocol)))
        total = sum((_sum(found, protocol) for protocol in found.stands), Cost())
        rows.append(row("worst", ALL, found.worst(), total))
    return rows


def _sum(found: Evaluation, protocol: str) -> Cost:
    return sum((cost for (name, _), cost in found.costs.items() if name == protocol), Cost())


def _overall(stage: StageRun, spec: DatasetSpec, worst: Mapping[str, Tensor]) -> list[Check]:
    """Checks on the data set's evaluation as a whole."""
    made = [checks.test_unread(spec.name, _reads(stage, spec))]
    if "target" in worst:
        made.append(checks.undefended_falls("target", worst["target"]))
    return made


def _reads(stage: StageRun, spec: DatasetSpec) -> dict[str, list[str]]:
    """What every run that trained has read, by its record.

    Raises:
        InputError: a record cannot be read.
    """
    reads = {}
    for name in _TRAINING:
        for file in sorted((stage.ws.runs / spec.name / name).rglob("run.json")):
            record = RunRecord.read(file.parent)
            reads[record.name] = list(record.inputs)
    return reads
