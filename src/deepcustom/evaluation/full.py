"""The whole evaluation of one network: every protocol, the checks, and the curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from deepcustom.attacks.bank import DGNBank
from deepcustom.base.settings import EvaluateParams
from deepcustom.evaluation import checks
from deepcustom.evaluation.adaptive import adapt, adaptive
from deepcustom.evaluation.blackbox import blackbox
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.curves import Point, curves
from deepcustom.evaluation.results import CLEAN
from deepcustom.evaluation.subject import Cost, Outcome, Subject, attempt
from deepcustom.evaluation.whitebox import restarted, spend_more, whitebox
from deepcustom.training.compute import Compute, derive_seed


@dataclass
class Evaluation:
    """What is known of one network.

    Attributes:
        stands: protocol → attack → (n,) bool, on the CPU: which images it still gets right.
        costs: (protocol, attack) → what the attack took.
        checks: in the order they were made.
        points: of the curves.
    """

    stands: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    costs: dict[tuple[str, str], Cost] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Keep what an attack left."""
        self.stands.setdefault(outcome.protocol, {})[outcome.attack] = outcome.stands
        self.costs[outcome.protocol, outcome.attack] = outcome.cost

    def left(self, protocol: str) -> Tensor:
        """(n,) bool: what stands against every attack of one protocol."""
        return torch.stack(list(self.stands[protocol].values())).all(0)

    def worst(self) -> Tensor:
        """(n,) bool: what stands against everything that was tried, and is right without an attack."""
        return torch.stack([self.left(protocol) for protocol in self.stands]).all(0)


def evaluate_whitebox(subject: Subject, params: EvaluateParams, found: Evaluation) -> list[Outcome]:
    """Attack with known weights; returns the outcomes, with their images."""
    outcomes = []
    for outcome in whitebox(subject, params.whitebox, params.autoattack):
        found.add(outcome)
        outcomes.append(outcome)
        subject.advance(f"{subject.name}: {outcome.attack} leaves {100 * outcome.accuracy:.1f} %")
    return outcomes


@dataclass(frozen=True)
class Arsenal:
    """What attackers bring along, next to the network itself.

    Attributes:
        bank: DGNs to adapt.
        train: images and labels to adapt them on.
        compute: device and precision of that training.
        sets: name of an adversarial set → (n,) bool, which of its images the network gets right.
        surrogates: name of another network → images made against it, (n, C, H, W).
    """

    bank: DGNBank
    train: tuple[Tensor, Tensor]
    compute: Compute
    sets: Mapping[str, Tensor] = field(default_factory=dict)
    surrogates: Mapping[str, Tensor] = field(default_factory=dict)


def evaluate_all(subject: Subject, params: EvaluateParams, arsenal: Arsenal) -> Evaluation:
    """Attack a network in every way, and check that the figures can be believed.

    Args:
        subject: the network and the images.
        params: all settings.
        arsenal: what else is at hand.

    Returns:
        All protocols, the curves and the checks.
    """
    found = Evaluation()
    outcomes = attack_all(subject, params, arsenal, found)
    found.points += curves(subject, params.curves, params.whitebox["pgd"])
    subject.advance(f"{subject.name}: curves")
    found.checks += _checks(subject, params, found, outcomes)
    subject.advance(f"{subject.name}: checks")
    return found


def attack_all(
    subject: Subject, params: EvaluateParams, arsenal: Arsenal, found: Evaluation
) -> list[Outcome]:
    """Attack a network in every way; returns the outcomes, with their images.

    Args:
        subject: the network and the images.
        params: all settings.
        arsenal: what else is at hand.
        found: gets all protocols; ``stands["clean"]`` is without an attack.
    """
    found.stands[CLEAN] = {CLEAN: subject.right.cpu()}
    if arsenal.sets:
        found.stands["transfer"] = dict(arsenal.sets)
    outcomes = evaluate_whitebox(subject, params, found)
    for outcome in blackbox(subject, arsenal.surrogates, params.autoattack):
        found.add(outcome)
        outcomes.append(outcome)
        subject.advance(f"{subject.name}: {outcome.attack} leaves {100 * outcome.accuracy:.1f} %")
    square = found.stands["blackbox"]["square"]
    if checks.beaten(found.left("whitebox"), square) > checks.FEW:
        # Known weights should do better than none: spend more before believing that they cannot.
        outcomes.append(spend_more(subject, params.autoattack, found.left("whitebox")))
        found.add(outcomes[-1])
    before = subject.spent()
    compute = arsenal.compute
    adapted = adapt(arsenal.bank, subject, arsenal.train, params.adaptive, compute=compute)
    trained = subject.spent() - before
    for outcome in adaptive(subject, adapted, trained, compute=compute):
        found.add(outcome)
        outcomes.append(outcome)
        subject.advance(f"{subject.name}: {outcome.attack} leaves {100 * outcome.accuracy:.1f} %")
    return outcomes


def _checks(
    subject: Subject, params: EvaluateParams, found: Evaluation, outcomes: Iterable[Outcome]
) -> list[Check]:
    """Every check of one network."""
    name, pgd = subject.name, params.whitebox["pgd"]
    outcomes = list(outcomes)
    clean = subject.x.cpu().numpy()
    made = [checks.ball(o.attack, o.x_adv.cpu().numpy(), clean, subject.threat) for o in outcomes]
    left, right = found.left("whitebox"), subject.right.cpu()
    zero = next((p.accuracy for p in found.points if p.eps == 0), float("nan"))
    few = found.stands[CLEAN][CLEAN][: params.curves.n]
    noise, sets = _noise(subject), found.stands.get("transfer", {})
    gentle = torch.stack([noise.stands, *sets.values()]).all(0)
    return [
        _of_network(name, made),
        checks.deterministic(name, subject.net, subject.x[:200]),
        checks.logits(name, subject.net, subject.x[:200]),
        checks.gradients(subject),
        checks.reach(name, pgd, subject.threat),
        checks.reproduced(subject, outcomes),
        checks.zero_radius(name, float(few.double().mean()), zero),
        checks.not_beaten(
            "pgd-not-weaker",
            name,
            found.stands["whitebox"]["pgd"],
            _one_step(found, params, right),
            ("PGD", "FGSM"),
        ),
        checks.doubled(name, left, _twice(subject, params, left)),
        checks.falls_with_eps(name, found.points),
        checks.loss_rises(name, found.points),
        checks.not_beaten(
            "square-not-stronger",
            name,
            left,
            found.stands["blackbox"]["square"],
            ("the white-box attacks", "Square"),
        ),
        checks.not_beaten(
            "whitebox-not-weaker",
            name,
            left,
            gentle | ~right,
            ("the white-box attacks", "noise or to a set made against another network"),
        ),
        checks.no_label_leak(name, right, sets),
    ]


def _of_network(name: str, made: list[Check]) -> Check:
    """The same check on each attack's images as one: the first that is not ok, with the attack's name."""
    for one in made:
        if one.verdict != "ok":
            return replace(one, about=name, text=f"{one.about}: {one.text}")
    return replace(made[0], about=name)


def _one_step(found: Evaluation, params: EvaluateParams, right: Tensor) -> Tensor:
    """What stands against every one-step attack."""
    single = [n for n, attack in params.whitebox.items() if attack.method == "fgsm"]
    return torch.stack([right, *(found.stands["whitebox"][name] for name in single)]).all(0)


def _twice(subject: Subject, params: EvaluateParams, left: Tensor) -> Tensor:
    """What of ``left`` stands against PGD with twice the steps and restarts."""
    pgd = params.whitebox["pgd"]
    twice = {
        "max_iter": 2 * int(pgd.max_iter or 1),
        "num_random_init": 2 * max(int(pgd.num_random_init or 0), 1),
    }
    rows = left.to(subject.x.device)
    return restarted(subject, "doubled", pgd.model_copy(update=twice), rows).stands


def _noise(subject: Subject) -> Outcome:
    """Ten times noise from the corners of the ball; a network that it fools was hardly attacked."""
    generator = np.random.default_rng(derive_seed(subject.seed, "noise"))

    def make(x: Tensor, y: Tensor) -> Tensor:
        found = x.clone()
        for _ in range(10):
            signs = generator.integers(0, 2, tuple(x.shape)).astype(np.float32) * 2 - 1
            noisy = subject.threat.project(
                x + subject.threat.eps * torch.from_numpy(signs).to(x), x
            )
            falls = subject.net(noisy).argmax(1) != y
            found[falls] = noisy[falls]
        return found

    with torch.no_grad():
        return attempt(subject, "noise", "noise", subject.right, make)
