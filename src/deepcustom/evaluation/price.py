"""What the evaluation of a network will cost, said before the long wait.

The counts are bounds: those of a network that withstands every attack. An image that falls is attacked no
further, so an undefended network costs much less.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from deepcustom.base.settings import AttackParams, EvaluateParams
from deepcustom.evaluation.autoattack import TARGETS
from deepcustom.evaluation.victim import Victim
from deepcustom.evaluation.whitebox import MORE
from deepcustom.training.prediction import BATCH

TRIALS = 3


def announce(victim: Victim, params: EvaluateParams, *, surrogates: int = 0) -> None:
    """Say what the evaluation of the victim, and each part, will cost at most, by the speed of a batch."""
    right = int(victim.right.sum())
    each = parts(params, right, victim.num_classes, surrogates=surrogates)
    most = sum(each.values(), Bound())
    gradient, query = rates(victim)

    def minutes(part: Bound) -> float:
        return (part.gradients * gradient + part.queries * query) / 60

    shares = ", ".join(f"{name} {minutes(part):.1f}" for name, part in each.items())
    victim.advance(
        f"{victim.name}: {right} of {len(victim.x)} images are right; at most {most.gradients:,.0f} "
        f"gradients and {most.queries:,.0f} queries, about {minutes(most):.0f} min ({shares}), without "
        f"{MORE}; less if images fall",
        steps=0,
        resumed=True,  # so that the line stays
    )


@dataclass(frozen=True)
class Bound:
    """The most that a part of an evaluation can cost, for each image that is attacked.

    Attributes:
        gradients: gradients of the network's loss.
        queries: further images shown to it.
    """

    gradients: float = 0.0
    queries: float = 0.0

    def __add__(self, other: Bound) -> Bound:
        return Bound(self.gradients + other.gradients, self.queries + other.queries)

    def times(self, count: float) -> Bound:
        """The same for ``count`` images."""
        return Bound(self.gradients * count, self.queries * count)


def bound(params: EvaluateParams, right: int, classes: int, *, surrogates: int = 0) -> Bound:
    """The most that all :func:`parts` together can take."""
    return sum(parts(params, right, classes, surrogates=surrogates).values(), Bound())


def parts(
    params: EvaluateParams, right: int, classes: int, *, surrogates: int = 0
) -> dict[str, Bound]:
    """The most gradients and queries that each part of the evaluation of one network can take.

    Left out is what makes other material (images against other networks, and training DGNs further), and
    ``apgd-t-more``, which is run only if Square breaks too many images.

    Args:
        params: all settings.
        right: how many images the network gets right; only these are attacked.
        classes: number of classes.
        surrogates: how many other networks lend their images.

    Returns:
        Protocols, ``curves`` and ``checks``.
    """
    auto, pgd = params.autoattack, params.whitebox["pgd"]
    whitebox = sum((_art(attack) for attack in params.whitebox.values()), Bound())
    found = {}
    if auto.version is None:
        targets = min(auto.targets, classes - 1)
        run = auto.num_random_init * (auto.max_iter + 1)
        whitebox += Bound(run * (1 + targets), 2 * (1 + targets))  # APGD
    else:
        found["autoattack"] = published(auto.version, classes)  # its APGD is not run again
    found["whitebox"] = whitebox
    found["blackbox"] = Bound(0, surrogates + auto.queries + 2)  # images of others, Square
    # Twice the steps and starts; gradients, and noise.
    found["checks"] = _art(pgd).times(4) + Bound(1, 12)
    found = {name: part.times(right) for name, part in found.items()}
    curves = params.curves
    radii = len(curves.radii) + 1  # one more where no ball was without a limit
    steps = int(pgd.max_iter or 1) * radii + sum(curves.steps)
    points = radii + len(curves.steps)
    found["curves"] = Bound(steps, 4 * points).times(min(curves.n, right))
    return found


def published(version: str, classes: int) -> Bound:
    """Of AutoAttack as its authors publish it, for one image that withstands all of it."""
    targets = min(TARGETS, classes - 1)
    # Of its queries, some ten are the package's own checks, which it makes before each attack.
    apgd, fab, square = Bound(101, 12), Bound(100, 107), Bound(0, 5012)
    if version == "standard":
        return apgd + apgd.times(targets) + fab.times(targets) + square
    if version == "plus":
        return apgd.times(10) + fab.times(5) + square + apgd.times(targets) + fab.times(targets)
    return Bound(20 * 101, 12).times(2)


def _art(attack: AttackParams) -> Bound:
    """Of FGSM or PGD, for one image."""
    starts = max(attack.num_random_init or 0, 1)
    return Bound(starts * (attack.max_iter or 1), 3 * starts)


def rates(victim: Victim) -> tuple[float, float]:
    """Seconds that a gradient and a query of the victim's network take for one image, from a first batch.

    The trial is not counted as part of any attack.
    """
    x, y = victim.x[:BATCH], victim.y[:BATCH]
    if not len(x):
        return 0.0, 0.0

    def gradient() -> None:
        at = x.detach().clone().requires_grad_()
        logits = victim.net(at)
        if logits.requires_grad:
            torch.autograd.grad(F.cross_entropy(logits.float(), y, reduction="sum"), at)

    def query() -> None:
        with torch.no_grad():
            victim.net(x)

    return _seconds(gradient, victim) / len(x), _seconds(query, victim) / len(x)


def _seconds(once: Callable[[], None], victim: Victim) -> float:
    """The median time of a few runs, after one that warms up."""
    once()
    times = []
    for _ in range(TRIALS):
        begun = time.monotonic()
        once()
        if victim.x.is_cuda:
            torch.cuda.synchronize()
        times.append(time.monotonic() - begun)
    return statistics.median(times)
