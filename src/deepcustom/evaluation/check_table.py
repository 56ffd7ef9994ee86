"""Every check of an evaluation in one table: its name, how it is made, and what its failure means.

A new check of a network is a function in :mod:`deepcustom.evaluation.checks` and a row of :data:`NETWORK`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from deepcustom.base.settings import AttackParams, EvaluateParams
from deepcustom.evaluation import autoattack, checks, curve_checks
from deepcustom.evaluation.checks import ROUNDING, Check
from deepcustom.evaluation.curves import unlimited
from deepcustom.evaluation.found import Evaluation
from deepcustom.evaluation.results import CLEAN
from deepcustom.evaluation.score_store import Pieces
from deepcustom.evaluation.victim import Attack, Outcome, Victim, attempt
from deepcustom.evaluation.whitebox import with_restarts
from deepcustom.training.compute import derive_seed
from deepcustom.training.prediction import BATCH, gets_right, predict

WEAKER = "white-box accuracy is too high, since a weaker attack does better."
WHITEBOX = "the white-box attacks"


@dataclass(frozen=True)
class Evidence:
    """What the checks of one network are made from.

    Attributes:
        victim: the network and the images.
        params: all settings.
        found: every attack on it, and the curves.
        pieces: the stored pieces, for checks that query the network.
    """

    victim: Victim
    params: EvaluateParams
    found: Evaluation
    pieces: Pieces

    @property
    def name(self) -> str:
        """The network's name."""
        return self.victim.name

    @property
    def pgd(self) -> AttackParams:
        """The settings of PGD."""
        return self.params.whitebox["pgd"]

    @property
    def right(self) -> Tensor:
        """(n,) bool: which images the network gets right without an attack."""
        return self.victim.right.cpu()

    @property
    def left(self) -> Tensor:
        """(n,) bool: which images stand against every white-box attack."""
        return self.found.left("whitebox")

    @property
    def sets(self) -> Mapping[str, Tensor]:
        """Adversarial set → (n,) bool: which images stand against it."""
        return self.found.stands.get("transfer", {})

    @cached_property
    def after_noise(self) -> Tensor:
        """(n,) bool: which images stand against noise."""
        return self.pieces.finding(noise(self.victim)).stands

    @cached_property
    def after_twice(self) -> Tensor:
        """(n,) bool: which images of ``left`` stand against PGD with twice the steps and restarts."""
        return self.pieces.finding(twice(self.victim, self.pgd, self.left)).stands


@dataclass(frozen=True)
class NetworkCheck:
    """A row of the table.

    Attributes:
        name: name of the check.
        failed: what its failure means for the numbers.
        make: makes the check.
        quiet: whether it is reported only if it is not ok.
        protocol: without which it is not made.
    """

    name: str
    failed: str
    make: Callable[[Evidence], Check]
    quiet: bool = False
    protocol: str | None = None


def noise(victim: Victim) -> Attack:
    """Noise from the corners of the ball, drawn ten times; a real attack has to find more than this."""

    def make(x: Tensor, y: Tensor) -> Tensor:
        generator = np.random.default_rng(derive_seed(victim.seed, "noise"))
        found = x.clone()
        for _ in range(10):
            signs = generator.integers(0, 2, tuple(x.shape)).astype(np.float32) * 2 - 1
            corner = victim.threat.ball.corner(torch.from_numpy(signs).to(x))
            noisy = victim.threat.project(x + victim.threat.eps * corner, x)
            falls = ~gets_right(predict(victim.net, noisy), y)
            found[falls] = noisy[falls]
        return found

    def run() -> Outcome:
        with torch.no_grad():
            return attempt(victim, "noise", "noise", victim.right, make)

    return Attack("noise", "noise", {}, run)


def twice(victim: Victim, pgd: AttackParams, left: Tensor) -> Attack:
    """PGD with twice the steps and restarts, on the images that are ``left``, (n,) bool."""
    more = {
        "max_iter": 2 * int(pgd.max_iter or 1),
        "num_random_init": 2 * max(int(pgd.num_random_init or 0), 1),
    }
    rows = left.to(victim.x.device)
    return with_restarts(victim, "doubled", pgd.model_copy(update=more), rows)


def _ball(e: Evidence) -> Check:
    """Merge the ball checks of all attacks: the first that is not ok, with the attack's name in its text."""
    for found in e.found.findings:
        one = found.ball
        if one.verdict != "ok":
            return replace(one, about=e.name, text=f"{one.about}: {one.text}")
    return replace(e.found.findings[0].ball, about=e.name)


def _deterministic(e: Evidence) -> Check:
    few = e.victim.x[:BATCH]
    return e.pieces.check("deterministic", lambda: checks.deterministic(e.name, e.victim.net, few))


def _same_with_gradient(e: Evidence) -> Check:
    few = e.victim.x[:BATCH]
    return e.pieces.check(
        "same-with-gradient", lambda: checks.same_with_gradient(e.name, e.victim.net, few)
    )


def _logits(e: Evidence) -> Check:
    few = e.victim.x[:BATCH]
    return e.pieces.check("logits", lambda: checks.logits(e.name, e.victim.net, few))


def _gradients(e: Evidence) -> Check:
    return e.pieces.check("gradients", lambda: checks.gradients(e.victim))


def _reach(e: Evidence) -> Check:
    return checks.reach(e.name, e.pgd, e.victim.threat, unlimited(e.victim, ROUNDING))


def _reproduced(e: Evidence) -> Check:
    findings = e.found.findings
    total = sum(int(found.tried.sum()) for found in findings)
    return checks.reproduced(e.name, sum(found.unlike for found in findings), total)


def _zero_radius(e: Evidence) -> Check:
    at_zero = next((p.accuracy for p in e.found.points if p.eps == 0), None)
    few = e.found.stands[CLEAN][CLEAN][: e.params.curves.n]
    return curve_checks.zero_radius(e.name, float(few.double().mean()), at_zero)


def _pgd_not_weaker(e: Evidence) -> Check:
    stands = e.found.stands["whitebox"]
    single = [name for name, attack in e.params.whitebox.items() if attack.method == "fgsm"]
    one_step = torch.stack([e.right, *(stands[name] for name in single)]).all(0)
    return checks.not_beaten("pgd-not-weaker", e.name, stands["pgd"], one_step, ("PGD", "FGSM"))


def _doubled(e: Evidence) -> Check:
    return checks.doubled(e.name, e.left, e.after_twice)


def _falls_with_eps(e: Evidence) -> Check:
    return curve_checks.falls_with_eps(e.name, e.found.points, unlimited(e.victim))


def _loss_rises(e: Evidence) -> Check:
    return curve_checks.loss_rises(e.name, e.found.points, unlimited(e.victim, ROUNDING))


def _square_not_stronger(e: Evidence) -> Check:
    square = e.found.stands["blackbox"]["square"]
    return checks.not_beaten("square-not-stronger", e.name, e.left, square, (WHITEBOX, "Square"))


def _whitebox_not_weaker(e: Evidence) -> Check:
    gentle = torch.stack([e.after_noise, *e.sets.values()]).all(0) | ~e.right
    words = (WHITEBOX, "noise or to a set made against another network")
    return checks.not_beaten("whitebox-not-weaker", e.name, e.left, gentle, words)


def _above_chance(e: Evidence) -> Check:
    return checks.above_chance(e.name, e.right, e.victim.y.cpu(), e.victim.num_classes)


def _no_label_leak(e: Evidence) -> Check:
    return checks.no_label_leak(e.name, e.right, e.sets)


def _autoattack_warns(e: Evidence) -> Check:
    return autoattack.warnings_of(
        e.victim, e.params.autoattack, e.found.stands[autoattack.PROTOCOL]
    )


def network_checks(evidence: Evidence) -> list[Check]:
    """The checks of one network, in the order of :data:`NETWORK`."""
    there = [row for row in NETWORK if row.protocol in {None, *evidence.found.stands}]
    made = [(row, row.make(evidence)) for row in there]
    return [check for row, check in made if not (row.quiet and check.verdict == "ok")]


NETWORK = (
    NetworkCheck(
        "ball", "an attack broke the rules, so the accuracy under it means nothing.", _ball
    ),
    NetworkCheck(
        "clean-above-chance",
        "it is scored as it should not be used, or has learned nothing, so no accuracy means anything.",
        _above_chance,
        quiet=True,
    ),
    NetworkCheck(
        "deterministic",
        "a network that answers at random looks more robust than it is.",
        _deterministic,
    ),
    NetworkCheck(
        "same-with-gradient",
        "white-box attacks attack another network, so the accuracy under them means nothing.",
        _same_with_gradient,
        quiet=True,
    ),
    NetworkCheck(
        "logits",
        "gradients vanish, so the accuracy under gradient-based attacks is too high.",
        _logits,
    ),
    NetworkCheck(
        "gradients",
        "gradient-based attacks are blind; only the black-box accuracy can be trusted.",
        _gradients,
    ),
    NetworkCheck(
        "pgd-reach",
        "PGD cannot cross the ball or gives up early, so the accuracy under it is too high.",
        _reach,
    ),
    NetworkCheck(
        "success-reproduced",
        "the accuracy under attack depends on how it is computed.",
        _reproduced,
    ),
    NetworkCheck(
        "eps-0",
        "the attack or the counting is wrong, so no accuracy under attack can be trusted.",
        _zero_radius,
    ),
    NetworkCheck(
        "pgd-not-weaker", "PGD is misled, so white-box accuracy is too high.", _pgd_not_weaker
    ),
    NetworkCheck(
        "doubling",
        "more steps and restarts still break more images, so white-box accuracy is too high.",
        _doubled,
    ),
    NetworkCheck(
        "eps-curve",
        "the attack fails even in a ball with no real limit, so white-box accuracy is too high.",
        _falls_with_eps,
    ),
    NetworkCheck(
        "loss-rises",
        "the attack does not raise the loss, so white-box accuracy is too high.",
        _loss_rises,
    ),
    NetworkCheck("square-not-stronger", WEAKER, _square_not_stronger),
    NetworkCheck("whitebox-not-weaker", WEAKER, _whitebox_not_weaker),
    NetworkCheck(
        "autoattack-warns",
        "AutoAttack's own accuracy may be too high.",
        _autoattack_warns,
        protocol=autoattack.PROTOCOL,
    ),
    NetworkCheck(
        "label-leak", "the accuracy on that set is not evidence of robustness.", _no_label_leak
    ),
)
"""The checks of one network, in the order in which they are reported."""

FAILED = {row.name: row.failed for row in NETWORK} | {
    "classes": "the accuracy is that on the other classes.",
    "label-in-perturbation": "accuracy on that set may be the label read off the perturbation.",
    "undefended-falls": "the attacks are too weak, so every accuracy under attack may be too high.",
    "test-unread": "training saw the test split, so every accuracy may be too high.",
}
"""Check of a network, of a set or of the whole, by name → what its failure means for the numbers."""
