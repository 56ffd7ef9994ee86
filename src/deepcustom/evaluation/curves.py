"""Accuracy against the radius of the ball, and against the number of steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.settings import AttackParams, CurveParams
from deepcustom.evaluation.points import Point
from deepcustom.evaluation.victim import Victim
from deepcustom.evaluation.whitebox import restarted
from deepcustom.training.prediction import predict

UNLIMITED = 0.75
"""A radius from which on a ball is no limit: from 0.5 on, the same grey image lies in every ball."""
FALLEN = 0.01
"""The accuracy that an attack without a limit may leave."""


def curves(victim: Victim, params: CurveParams, pgd: AttackParams) -> Iterator[Point]:
    """Attack the first images at each radius and each number of steps.

    Args:
        victim: the network and the images, of which the first ``params.n`` are used.
        params: radii, as multiples of the victim's eps, and numbers of steps.
        pgd: step size and number of steps at the victim's eps. The step size scales with the radius;
            with fewer steps it is larger, so that any number of steps can cross the ball.

    Yields:
        The points of both curves. If more than :data:`FALLEN` stand at the largest radius, and that is below
        :func:`unlimited`, one at the latter is added: only there must an attack win.
    """
    few = replace(victim, x=victim.x[: params.n], y=victim.y[: params.n])
    eps, steps = victim.threat.eps, int(pgd.max_iter or 1)
    widest_of_all = unlimited(victim, 1.0)
    wanted = [("eps", min(radius * eps, widest_of_all), steps) for radius in params.radii]
    wanted += [("steps", eps, count) for count in params.steps]
    made: dict[tuple[float, int], Point] = {}
    for curve, radius, count in wanted:  # the curves share a point: attack there once
        if (radius, count) not in made:
            made[radius, count] = _point(few, curve, radius, count, pgd)
        yield replace(made[radius, count], curve=curve)
    widest = max(made[radius, count].eps for curve, radius, count in wanted if curve == "eps")
    if made[widest, steps].accuracy > FALLEN and widest < unlimited(victim):
        yield _point(few, "eps", unlimited(victim), steps, pgd)


def unlimited(victim: Victim, change: float = UNLIMITED) -> float:
    """The radius of a ball in which every pixel can move by ``change``."""
    return victim.threat.ball.unlimited(change, math.prod(victim.x.shape[1:]))


def _point(few: Victim, curve: str, eps: float, steps: int, pgd: AttackParams) -> Point:
    before = _loss(few, few.x)
    if steps == 0:
        accuracy, after = float(few.right.cpu().double().mean()), before
    else:
        step = min(max(float(pgd.eps_step or 0) / few.threat.eps, 2 / steps), 1) * eps
        # In a ball of radius 0 no image can move, but ART still requires a positive step.
        change = {"eps_step": step or pgd.eps_step, "max_iter": steps, "num_random_init": 1}
        once = pgd.model_copy(update=change)
        threat = ThreatModel(eps, norm=few.threat.norm)
        outcome = restarted(replace(few, threat=threat), f"curve-{eps}-{steps}", once, few.right)
        accuracy, after = outcome.accuracy, _loss(few, outcome.x_adv)
    right, lost = few.right, after.isnan()  # where the network gives no answer, the attack has won
    mean = float(after[right & ~lost].mean())
    risen = float(((after > before) | lost)[right].cpu().double().mean())
    return Point(curve, eps, steps, accuracy, mean, risen)


def _loss(few: Victim, x: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each image, (n,)."""
    return F.cross_entropy(predict(few.net, x), few.y, reduction="none")
