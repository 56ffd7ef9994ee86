"""Whether an evaluation can be believed: checks with figures and a verdict, each able to fail.

They follow Carlini et al. 2019 (arXiv:1902.06705), Athalye, Carlini and Wagner 2018 (arXiv:1802.00420)
and the indicators of attack failure of Pintor et al. 2022 (arXiv:2106.09947).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import ThreatModelError
from deepcustom.base.settings import AttackParams
from deepcustom.evaluation.foretold import foretold
from deepcustom.evaluation.victim import Linked, Victim
from deepcustom.training.chance import HINT, Guessing
from deepcustom.training.prediction import BATCH, predict

Verdict = Literal["ok", "warn", "fail"]

SEVERITY: tuple[Verdict, ...] = ("ok", "warn", "fail")
FEW = 0.002  # share of the images on which a weaker attack may beat a stronger one by chance
MANY = 0.01
ALIKE = 0.01  # of its largest logit, by which an answer may differ where only kernels do
ROUNDING = 2.0**-20
"""A change of a pixel that the threat model's margin and float32's steps near 1 leave little of."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: what was checked.
        about: the network, the set or the subject.
        verdict: ``ok``; ``warn``: look at it; ``fail``: do not believe numbers that rest on it.
        figures: the numbers that the verdict follows from.
        text: in one sentence, what was found and what it means.
    """

    name: str
    about: str
    verdict: Verdict
    figures: Mapping[str, float]
    text: str


def grade(value: float, ok: float, warn: float) -> Verdict:
    """``ok`` up to the first bound, ``warn`` up to the second, ``fail`` above it and for nan."""
    return "ok" if value <= ok else "warn" if value <= warn else "fail"


def ball(about: str, x_adv: np.ndarray, x: np.ndarray, threat: ThreatModel) -> Check:
    """Check that every image lies in the ball and in [0, 1]; arrays (n, C, H, W)."""
    figures = {"images": float(len(x))}
    try:
        threat.verify(x_adv, x)
    except ThreatModelError as error:
        return Check(
            "ball",
            about,
            "fail",
            figures,
            f"{error}, so the accuracy under this attack means nothing.",
        )
    return Check("ball", about, "ok", figures, "Every image lies in the ball and in [0, 1].")


def deterministic(about: str, net: nn.Module, x: Tensor) -> Check:
    """Check that the network is in eval mode and gives the same logits twice, bit for bit.

    Call it before anything else sets eval mode.
    """
    training = any(module.training for module in net.modules())
    with torch.no_grad():
        first, second = net(x), net(x)
        same = (first == second) | (first.isnan() & second.isnan())
        difference = float((first - second).abs()[~same].max()) if not same.all() else 0.0
    figures = {"largest_difference": difference, "training_mode": float(training)}
    bad = training or difference != 0
    text = (
        "The network gives different answers to the same image, or is in training mode. Its gradients are "
        "noisy, so an attack has to average over them."
        if bad
        else "The network is in eval mode and gives the same answer to the same image every time."
    )
    return Check("deterministic", about, "fail" if bad else "ok", figures, text)


def same_with_gradient(about: str, net: nn.Module, x: Tensor) -> Check:
    """Check that the network answers alike whether or not its input, (n, C, H, W), requires a gradient.

    Other kernels may then do the same work, so the last bits may differ.
    """
    with torch.no_grad():
        plain = net(x).float()
    with torch.enable_grad():
        asked = net(x.detach().clone().requires_grad_()).detach().float()
    size = plain.abs().amax(1, keepdim=True).clamp(min=1e-12)
    off = ((asked - plain).abs() / size).nan_to_num(0.0, posinf=0.0).amax(1)
    share = float((off > ALIKE).double().mean()) if len(x) else 0.0
    text = (
        f"For {100 * share:.1f} % of images it answers otherwise as soon as a gradient is asked for, so "
        "attacks that follow gradients attack another network."
        if share
        else "The network answers alike whether or not a gradient is asked for."
    )
    return Check("same-with-gradient", about, "fail" if share else "ok", {"differ": share}, text)


def logits(about: str, net: nn.Module, x: Tensor) -> Check:
    """Check that outputs are logits; a loss that expects logits flattens the gradients of probabilities."""
    out = predict(net, x)
    sums = float((out.sum(1) - 1).abs().max()) if len(out) else math.inf
    low = float(out.min()) if len(out) else 0.0
    finite = bool(out.isfinite().all())
    probabilities = low >= 0 and sums < 1e-3
    figures = {"lowest": low, "sum_minus_one": sums}
    if not finite:
        odd = int((~out.isfinite()).any(1).sum())
        text = f"Outputs of {odd} of {len(out)} images are not finite; images that give nan count as wrong."
        return Check("logits", about, "fail", {}, text)
    if probabilities:
        text = "Outputs are probabilities. Return the input of the softmax instead, or gradients vanish."
        return Check("logits", about, "fail", figures, text)
    return Check("logits", about, "ok", figures, "Outputs are logits.")


def gradients(victim: Victim) -> Check:
    """Check that no gradient is zero or infinite, on the images that the network gets right."""
    x, y, net = victim.x[victim.right], victim.y[victim.right], Linked(victim.net)
    zero = broken = 0
    for some, labels in zip(torch.split(x, BATCH), torch.split(y, BATCH), strict=True):
        given = some.detach().clone().requires_grad_()
        loss = F.cross_entropy(net(given), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, given)
        own = gradient.flatten(1)
        broken += int((~own.isfinite()).any(1).sum())
        zero += int((own == 0).all(1).sum())
    n = max(len(x), 1)
    figures = {"zero": zero / n, "not_finite": broken / n}
    verdict = grade((zero + broken) / n, 0.0, MANY)
    text = (
        f"{zero} of {len(x)} images have a zero gradient, {broken} a gradient that is not finite."
    )
    if verdict == "fail":
        text += " Gradients are masked, so gradient-based attacks are blind."
    return Check("gradients", victim.name, verdict, figures, text)


def reach(about: str, params: AttackParams, threat: ThreatModel, least: float = ROUNDING) -> Check:
    """Check that PGD can cross the ball, and has enough steps and restarts.

    ``least``: radius of the smallest ball in which pixels can move.
    """
    length = float(params.eps_step or 0) * int(params.max_iter or 0) / threat.eps
    starts = int(params.num_random_init or 0)
    figures = {"reach": length, "steps": float(params.max_iter or 0), "restarts": float(starts)}
    if threat.eps < least:
        text = f"eps = {threat.eps:.3g} is less than float32 can move a pixel by, so nothing was attacked."
        return Check("pgd-reach", about, "fail", figures, text)
    weak = starts < 5 or int(params.max_iter or 0) < 50
    coarse = float(params.eps_step or 0) > threat.eps
    verdict: Verdict = "fail" if length < 2 else "warn" if weak or coarse else "ok"
    text = f"PGD can move {length:.1f} eps (2 eps cross the ball) from {starts} starts"
    text += "; fewer than 5 starts or 50 steps cannot be relied on" if weak else ""
    text += "; a step is longer than eps, so it only jumps from border to border" if coarse else ""
    text += "."
    return Check("pgd-reach", about, verdict, figures, text)


def reproduced(about: str, unlike: int, total: int) -> Check:
    """Check that the same images fall, and the same stand, when predicted in batches of another size.

    Args:
        about: the network.
        unlike: how many predictions under attack differ when made again.
        total: how many predictions there are.
    """
    figures = {"unlike": float(unlike), "predictions": float(total)}
    text = f"{unlike} of {total} predictions under attack changed when they were made again."
    verdict = grade(unlike / max(total, 1), 0.0, 0.0005)
    return Check("success-reproduced", about, verdict, figures, text)


def beaten(strong: Tensor, weak: Tensor) -> float:
    """Share of the images, 0 to 1, that stand against the stronger attack but not the weaker one."""
    return int((strong & ~weak).sum()) / max(len(strong), 1)


def not_beaten(
    name: str, about: str, strong: Tensor, weak: Tensor, words: tuple[str, str]
) -> Check:
    """Check, image by image, that what stands against the stronger attack stands against the weaker.

    Args:
        name: name of the check.
        about: the network.
        strong: (n,) bool, which images stand against the attack that should be the stronger.
        weak: likewise, against the weaker.
        words: names of the two attacks, the stronger first.
    """
    share = beaten(strong, weak)
    count = f"{round(share * len(strong))} of {len(strong)} images"
    text = f"{count} fall to {words[1]}, but stand against {words[0]}"
    verdict = grade(share, FEW, MANY)
    if verdict == "ok":
        text += "."
    else:
        text += ": the stronger attack stopped too early or was misled. The worst case counts them as fallen."
    return Check(name, about, verdict, {"beaten": share, "n": float(len(strong))}, text)


def doubled(about: str, left: Tensor, after: Tensor) -> Check:
    """Check that twice the steps and restarts change the accuracy by half a point at most.

    Args:
        about: the network.
        left: (n,) bool, which images stood against all white-box attacks.
        after: (n,) bool, which of them stand against PGD with twice the steps and restarts.
    """
    n = max(len(left), 1)
    gain = int((left & ~after).sum()) / n
    text = f"Twice the steps and restarts of PGD lower the accuracy by {100 * gain:.2f} points."
    verdict = grade(gain, 0.005, MANY)
    return Check("doubling", about, verdict, {"change": gain, "n": float(n)}, text)


def above_chance(about: str, right: Tensor, y: Tensor, classes: int) -> Check:
    """Check that a network does better on clean images than one that answers with the commonest class.

    Args:
        about: the network.
        right: (n,) bool, which clean images it gets right.
        y: true labels (n,).
        classes: how many classes there are.
    """
    found = Guessing.of(right, y, classes)
    figures = {"clean": found.accuracy, "guessing": found.guess, "p": found.p}
    text = f"It {found}"
    if not found.tellable:
        text += f"; {found.n} images are too few to tell them apart."
        return Check("clean-above-chance", about, "warn", figures, text)
    verdict: Verdict = "fail" if found.at_chance else "warn" if found.near_chance else "ok"
    text += "." if verdict == "ok" else f": {HINT}"
    return Check("clean-above-chance", about, verdict, figures, text)


def no_label_leak(about: str, clean: Tensor, sets: Mapping[str, Tensor]) -> Check:
    """Check that no adversarial set gives more than a point above the accuracy on clean images.

    Args:
        about: the network.
        clean: (n,) bool, which clean images it gets right.
        sets: name → (n,) bool, likewise on an adversarial set.
    """
    gains = {name: float(s.double().mean() - clean.double().mean()) for name, s in sets.items()}
    worst = max(gains, key=lambda name: gains[name], default="")
    gain = gains.get(worst, 0.0)
    if gain <= 0.01:
        text = "On no adversarial set is it better than on clean images."
        return Check("label-leak", about, "ok", {"gain": gain}, text)
    text = (
        f"It is {100 * gain:.1f} points better on {worst} than on clean images: the true label chose the "
        "perturbation, and the network reads it off. That accuracy is not evidence of robustness."
    )
    return Check("label-leak", about, "fail", {"gain": gain}, text)


def label_in_perturbation(attack: str, change: np.ndarray, y: np.ndarray, seed: int) -> Check:
    """Check whether a linear classifier can read the label off the perturbation alone.

    It fails 60 points above chance, and warns 25 above. Where chance is high, as with two classes, less is
    left above it: then 70 and 30 % of what is left.

    Args:
        attack: name of the set.
        change: x_adv - x, (n, C, H, W).
        y: true labels (n,).
        seed: seeds the split into two halves: one to fit on, one to test on.
    """
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import train_test_split

    flat = change.reshape(len(change), -1)
    counts = np.unique(y, return_counts=True)[1]
    alike = y if counts.min() > 1 and len(y) // 2 >= len(counts) else None
    fit, rest, y_fit, y_rest = train_test_split(
        flat, y, test_size=0.5, random_state=seed, stratify=alike
    )
    share = float(RidgeClassifier(alpha=1.0).fit(fit, y_fit).score(rest, y_rest))
    chance = float(np.bincount(y_rest).max() / len(y_rest))
    left = 1 - chance
    verdict = grade(share - chance, min(0.25, 0.3 * left), min(0.6, 0.7 * left))
    text = f"A linear classifier reads {100 * share:.1f} % of the labels off the perturbation alone"
    text += "." if verdict == "ok" else ": a network trained on such images can learn that instead."
    figures = {"read": share, "chance": chance}
    return Check("label-in-perturbation", attack, verdict, figures, text)


def undefended_falls(victim: Victim, worst: Tensor) -> Check:
    """Check that an undefended network keeps about nothing, or, in a small ball, no more than foretold.

    Args:
        victim: the undefended network.
        worst: (n,) bool, which images stand against everything.
    """
    left = float(worst.double().mean())
    figures, excess = {"left": left}, left
    text = f"The undefended network keeps {100 * left:.2f} %"
    if left > MANY:
        figures["foretold"] = float(foretold(victim).double().mean())
        excess -= 1.1 * figures["foretold"]  # networks are nearly linear, not quite
        text += f"; its gradients foretell {100 * figures['foretold']:.2f} %"
    verdict = grade(excess, MANY, 0.05)
    if verdict != "ok":
        text += ": the attacks are too weak to tell defences apart."
    else:
        text += " in so small a ball." if "foretold" in figures else "."
    return Check("undefended-falls", victim.name, verdict, figures, text)


def test_unread(dataset: str, reads: Mapping[str, Iterable[str]]) -> Check:
    """Check that no run that trained read the test split.

    Args:
        dataset: name of the subject.
        reads: stage and item of every run that trained → the paths it read.
    """
    guilty = sorted(
        run for run, paths in reads.items() if any("test" in path.split("/") for path in paths)
    )
    figures = {"runs": float(len(reads)), "that_read_test": float(len(guilty))}
    if guilty:
        text = (
            f"{', '.join(guilty)} read the test split, so none of these results is a test result."
        )
        return Check("test-unread", dataset, "fail", figures, text)
    if not reads:
        text = "No record says what training read, so this cannot be checked."
        return Check("test-unread", dataset, "warn", figures, text)
    text = f"None of the {len(reads)} runs that trained read the test split."
    return Check("test-unread", dataset, "ok", figures, text)
