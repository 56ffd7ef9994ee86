"""Scoring the networks of a data set: what an evaluation reads, and everything that it finds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deepcustom import arrays, draws
from deepcustom.compute import derive_seed
from deepcustom.dgn import DGNBank
from deepcustom.errors import InputError
from deepcustom.evaluation import checks
from deepcustom.evaluation.blackbox import surrogate_images
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.curves import Point
from deepcustom.evaluation.full import Evaluation, evaluate_all, evaluate_whitebox
from deepcustom.evaluation.statistics import PairedTest, mcnemar
from deepcustom.evaluation.subject import Cost, Subject
from deepcustom.evaluation.transfer import Network, TestSet, transfer
from deepcustom.params import EvaluateParams
from deepcustom.pipeline import workspace
from deepcustom.pipeline.load import load_classifier, load_split, to_device
from deepcustom.pipeline.provenance import dvc_md5
from deepcustom.pipeline.run import StageRun
from deepcustom.progress import Advance, progress
from deepcustom.record import RunRecord
from deepcustom.results import ALL, CLEAN, PROTOCOLS, UNCLIPPED, Result

if TYPE_CHECKING:
    from deepcustom.checkpoint import Checkpoint
    from deepcustom.compute import Compute
    from deepcustom.datasets import DatasetSpec
    from deepcustom.threat import ThreatModel

QUICK = ("transfer", "whitebox")
"""The protocols of the published tables that are made again within minutes."""

_TRAINING = ("train_target", "train_dgn", "adversarial_train")
_LEAK_IMAGES = 4000  # of a set, from which a label may be read


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


@dataclass(frozen=True)
class Ground:
    """What all networks of a data set are scored on.

    Attributes:
        spec: the data set.
        params: all settings.
        threat: ball and range.
        compute: device and precision.
        seed: of everything random.
        clean: the whole test split.
        index: (N,) official index of each of its images.
        rows: (n,) which of its images are attacked.
    """

    spec: DatasetSpec
    params: EvaluateParams
    threat: ThreatModel
    compute: Compute
    seed: int
    clean: TestSet
    index: np.ndarray
    rows: Tensor

    def subject(self, network: Network, advance: Advance) -> Subject:
        """A network and the images that it is attacked on."""
        return Subject(
            network.name,
            network.net,
            self.clean.x[self.rows],
            self.clean.y[self.rows],
            self.threat,
            self.spec.num_classes,
            derive_seed(self.seed, network.name),
            self.compute,
            advance,
        )


def ground(stage: StageRun, spec: DatasetSpec, params: EvaluateParams) -> Ground:
    """Read the test split, and draw the images that are attacked."""
    threat, compute = stage.threat(), stage.compute()
    split = load_split(stage, spec, "test")
    md5 = dvc_md5(stage.ws.root / workspace.split(spec.name, "test"))
    x, y = to_device(split, compute)
    size = params.n if params.n < len(split) else None
    chosen = draws.subset(split, size, stage.seed).index
    rows = torch.from_numpy(np.searchsorted(split.index, np.sort(chosen)))
    clean = TestSet(CLEAN, md5, x, y)
    return Ground(spec, params, threat, compute, stage.seed, clean, split.index, rows)


def adversarial_sets(
    stage: StageRun, base: Ground
) -> Iterator[tuple[TestSet, Tensor, list[Check]]]:
    """Each adversarial test set in its turn, the row of the test split that each of its images comes
    from, and checks on it; one that leaves the ball is named so.
    """
    for attack in base.params.attacks:
        folder = stage.read(workspace.adversarial(base.spec.name, "test", attack))
        made = arrays.AdversarialSet.load(folder, base.spec)
        inside = checks.ball(f"{attack} (set)", made.x_adv, made.x, base.threat)
        name = attack if inside.verdict == "ok" else attack + UNCLIPPED
        if name != attack:
            print(f"warning: scored as {name}, since {inside.text}")
        found = [inside, *_label_leak(name, made, base.seed)]
        x_adv, y = arrays.images(made.x_adv), arrays.labels(made.y)
        device = base.compute.device
        images = TestSet(name, dvc_md5(folder), x_adv.to(device), y.to(device))
        yield images, torch.from_numpy(np.searchsorted(base.index, made.index)), found


def _label_leak(name: str, made: arrays.AdversarialSet, seed: int) -> list[Check]:
    """Whether the label can be read off a set's perturbations, where it holds enough images."""
    few = made.take(slice(0, _LEAK_IMAGES))
    counts = np.bincount(few.y) if len(few) else np.zeros(1, np.int64)
    if len(few) < 100 or counts[counts > 0].min() < 2:
        return []
    clean = few.x.astype(np.float32) / np.float32(255)
    return [checks.label_in_perturbation(f"{name} (set)", few.x_adv - clean, few.y, seed)]


def load_networks(
    stage: StageRun, spec: DatasetSpec, names: Iterable[str], compute: Compute
) -> list[Network]:
    """Networks by their names in the tables."""
    found = []
    for name in names:
        net = load_classifier(stage, spec, name, compute)
        found.append(
            Network(name, dvc_md5(stage.ws.root / workspace.network(spec.name, name)), net)
        )
    return found


def score(
    stage: StageRun,
    spec: DatasetSpec,
    params: EvaluateParams,
    *,
    own: Network | None = None,
    protocols: Collection[str] = tuple(PROTOCOLS),
) -> Scores:
    """Score the networks of a data set.

    Args:
        stage: reads; what is finished of each network is kept in its checkpoint.
        spec: the data set.
        params: which networks and sets, and all settings of the attacks.
        own: score this network instead; those of the data set then only make images that may transfer.
        protocols: all, or :data:`QUICK`.
    """
    base = ground(stage, spec, params)
    known = load_networks(stage, spec, params.networks, base.compute)
    networks = known if own is None else [own]
    whole = set(protocols) == set(PROTOCOLS)
    bank = train = None
    if whole:
        path = stage.read(workspace.bank(spec.name, params.adaptive.bank))
        bank = DGNBank.load(path, spec.name, spec.num_classes, base.compute.device)
        train = to_device(load_split(stage, spec, "train"), base.compute)
    place = stage.checkpoint()

    scores = Scores()
    stands = _transfer(stage, base, networks, scores)
    if not whole:
        scores.checks.clear()
    steps = len(params.whitebox) + 2 + (len(known) + 6 if whole else 0)
    total = len(networks) * steps + (len(known) if whole else 0)
    worst: dict[str, Tensor] = {}
    with progress(f"evaluate@{spec.name}", total) as advance:
        surrogates = _surrogates(base, known, place, advance) if whole else {}
        for network in networks:
            subject = base.subject(network, advance)
            found = _kept(place.part(network.name), steps, advance)
            if found is None and bank is not None and train is not None:
                found = evaluate_all(
                    subject,
                    params,
                    sets=stands[network.name],
                    surrogates={n: x for n, x in surrogates.items() if n != network.name},
                    bank=bank,
                    train=train,
                    compute=base.compute,
                )
            elif found is None:
                found = Evaluation()
                evaluate_whitebox(subject, params, found)
            _keep(place.part(network.name), found)
            scores.results += _rows(base, network, found, whole)
            scores.checks += found.checks
            scores.points += [(network.name, point) for point in found.points]
            scores.seconds |= {
                f"{network.name}/{protocol}/{attack}": cost.seconds
                for (protocol, attack), cost in found.costs.items()
            }
            if whole:
                worst[network.name] = found.worst()
    if whole and own is None:
        scores.checks += _overall(stage, spec, worst)
        scores.pairs = [mcnemar(a, b, worst[a], worst[b]) for a, b in combinations(worst, 2)]
    scores.results.sort(key=lambda result: list(PROTOCOLS).index(result.protocol))
    return scores


def _transfer(
    stage: StageRun, base: Ground, networks: Iterable[Network], scores: Scores
) -> dict[str, dict[str, Tensor]]:
    """Score all networks on all sets.

    Returns:
        Network → set → (n,) bool, which of the images that are attacked it gets right. One that a set
        lacks stands: the attack offers nothing against it. A set that leaves the ball is no attack
        within it, and is left out.
    """
    name = base.spec.name
    clean = {network.name: transfer(name, network, base.clean) for network in networks}
    rows = {network: [result] for network, (result, _) in clean.items()}
    stands: dict[str, dict[str, Tensor]] = {network: {} for network in rows}
    for images, at, found in adversarial_sets(stage, base):
        scores.checks += found
        for network in networks:
            result, right = transfer(name, network, images)
            rows[network.name].append(result)
            if not images.attack.endswith(UNCLIPPED):
                every = clean[network.name][1].clone()
                every[at] = right
                stands[network.name][images.attack] = every[base.rows]
    scores.results += [result for own in rows.values() for result in own]
    return stands


def _surrogates(
    base: Ground, networks: Iterable[Network], place: Checkpoint, advance: Advance
) -> dict[str, Tensor]:
    """What PGD makes against each network, kept in the checkpoint."""
    made = {}
    for network in networks:
        part = place.part(f"surrogate-{network.name}")
        kept = part.load("images")
        if kept is None:
            images = surrogate_images(
                base.subject(network, advance), base.params.whitebox["pgd"]
            ).cpu()
            part.save("images", {"x_adv": images.contiguous()}, {})
        else:
            images = kept[0]["x_adv"]
        made[network.name] = images.to(base.clean.x)
        advance(f"{network.name}: images against it")
    return made


def _rows(base: Ground, network: Network, found: Evaluation, whole: bool) -> list[Result]:
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
    if whole:
        nothing = Cost()
        for protocol in found.stands:
            rows.append(row("worst", protocol, found.left(protocol), _sum(found, protocol)))
        total = sum((_sum(found, protocol) for protocol in found.stands), nothing)
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
    """What every run that trained has read, by its record."""
    reads = {}
    for name in _TRAINING:
        for file in sorted((stage.ws.runs / spec.name / name).rglob("run.json")):
            try:
                record = RunRecord.read(file.parent)
            except InputError:
                continue
            reads[record.name] = list(record.inputs)
    return reads


def _keep(place: Checkpoint, found: Evaluation) -> None:
    tensors = {
        f"{protocol}/{attack}": stands.to(torch.uint8)
        for protocol, attacks in found.stands.items()
        for attack, stands in attacks.items()
    }
    about: dict[str, Any] = {
        "order": list(tensors),
        "costs": [[*key, asdict(cost)] for key, cost in found.costs.items()],
        "checks": [asdict(check) for check in found.checks],
        "points": [asdict(point) for point in found.points],
    }
    place.save("scores", tensors, about)


def _kept(place: Checkpoint, steps: int, advance: Advance) -> Evaluation | None:
    kept = place.load("scores")
    if kept is None:
        return None
    tensors, about = kept
    found = Evaluation()
    for key in about["order"]:
        protocol, attack = key.split("/", 1)
        found.stands.setdefault(protocol, {})[attack] = tensors[key].bool()
    found.costs = {(p, a): Cost(**cost) for p, a, cost in about["costs"]}
    found.checks = [Check(**check) for check in about["checks"]]
    found.points = [Point(**point) for point in about["points"]]
    advance("resumed after a network that was finished", steps=steps, resumed=True)
    return found
