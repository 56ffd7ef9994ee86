"""Checks on the curves: without room an attack fails, without a limit it wins, and steps raise the loss."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

from deepcustom.evaluation.checks import MANY, ROUNDING, SEVERITY, Check, Verdict, grade
from deepcustom.evaluation.curves import FALLEN, UNLIMITED
from deepcustom.evaluation.points import Point


def zero_radius(about: str, clean: float, at_zero: float | None) -> Check:
    """Check that an attack within a ball of radius 0 leaves exactly the clean accuracy; None: not tried."""
    if at_zero is None:
        text = "No radius of the curves is 0, so it was not tried whether an attack without room fails."
        return Check("eps-0", about, "warn", {"clean": clean}, text)
    figures = {"clean": clean, "eps_0": at_zero}
    text = (
        f"{100 * clean:.2f} % on clean images, {100 * at_zero:.2f} % under an attack with eps = 0."
    )
    return Check("eps-0", about, "ok" if clean == at_zero else "fail", figures, text)


def falls_with_eps(about: str, points: Iterable[Point], unlimited: float = UNLIMITED) -> Check:
    """Check that accuracy falls with eps, and reaches about 0 when the ball is large.

    An attack must win where the ball is no limit, from the radius ``unlimited`` on. Below
    that a network may withstand; :func:`~deepcustom.evaluation.curves.curves` then adds that radius.
    """
    curve = sorted((p.eps, p.accuracy) for p in points if p.curve == "eps")
    values = [accuracy for _, accuracy in curve]
    rise = max((b - a for a, b in pairwise(values)), default=0.0)
    rise = max(rise, 0.0)
    last = values[-1]
    large = curve[-1][0] >= unlimited or not last > FALLEN
    end: Verdict = grade(last, FALLEN, 0.05) if large else "warn"
    verdict = max((grade(rise, 0.01, 0.02), end), key=SEVERITY.index)
    text = f"As eps grows, the accuracy falls to {100 * last:.1f} % at eps = {curve[-1][0]:.4g}"
    text += f"; it rises by at most {100 * rise:.1f} points on the way."
    if not large:
        text += (
            f" That ball is a limit still, so it says little: let a radius reach {unlimited:.4g}."
        )
    if end == "fail":
        text += " An attack without a limit must succeed, so this one was misled."
    elif verdict == "fail":
        text += " A larger ball holds the smaller one, so the attack was misled."
    return Check("eps-curve", about, verdict, {"last": last, "largest_rise": rise}, text)


def loss_rises(about: str, points: Iterable[Point], least: float = ROUNDING) -> Check:
    """Check that the attack raises the loss of every image.

    ``least``: radius of the smallest ball in which pixels can move.
    """
    last = max((p for p in points if p.curve == "steps"), key=lambda p: p.steps)
    if math.isnan(last.risen):
        return Check("loss-rises", about, "ok", {}, "The network gets no image right.")
    if last.eps < least:
        text = f"In a ball of eps = {last.eps:.3g} no pixel can move, so no loss can rise."
        return Check("loss-rises", about, "ok", {}, text)
    figures = {"not_risen": 1 - last.risen, "loss": last.loss}
    share = f"{100 * last.risen:.1f} % of images"
    text = f"After {last.steps} steps the loss is higher than before on {share}."
    return Check("loss-rises", about, grade(1 - last.risen, MANY, 0.05), figures, text)
