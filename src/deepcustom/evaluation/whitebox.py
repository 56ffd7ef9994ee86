"""Attacks by someone who knows the weights: FGSM, PGD with restarts, and AutoAttack's APGD."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from deepcustom.attacks.art import art_classifier, run_attack
from deepcustom.base.settings import DLR_CLASSES, AttackParams, AutoAttackParams
from deepcustom.evaluation.victim import (
    Attack,
    Make,
    Outcome,
    Victim,
    attempt,
    follow,
    in_batches,
)
from deepcustom.training.compute import derive_seed

PROTOCOL = "whitebox"
APGD = ("apgd-ce", "apgd-t")
MORE = "apgd-t-more"
"""An extra attack, made if Square (black-box) breaks too many images that stood against the others."""


def whitebox(
    victim: Victim,
    attacks: Mapping[str, AttackParams],
    apgd: AutoAttackParams,
    stands: Mapping[str, Mapping[str, Tensor]],
) -> Iterator[Attack]:
    """Attack the network itself, ever harder.

    Each of ``attacks`` attacks every image that the network gets right. ``apgd-ce`` and ``apgd-t`` (on
    cross entropy, and targeted on the difference of logits ratio; Croce and Hein 2020,
    arXiv:2003.01690) then attack only the images that all earlier attacks left standing. So their
    accuracy is that after the whole series. With two or three classes, ``apgd-t`` follows
    :func:`target_margin`.

    Args:
        victim: the network and the images.
        attacks: name → FGSM or PGD, from ART.
        apgd: iterations, restarts and targets of APGD, from the package of AutoAttack's authors.
        stands: protocol → attack → (n,) bool, which images each attack left standing; read again each
            time the next attack is asked for.

    Yields:
        The attacks, in that order.
    """
    for name, params in attacks.items():
        yield with_restarts(victim, name, params, victim.right)
    for name in APGD:
        before = stands.get(PROTOCOL, {}).values()
        left = torch.stack([victim.right.cpu(), *before]).all(0)
        yield _apgd_on(victim, name, name, apgd, left)


def spend_more(victim: Victim, apgd: AutoAttackParams, left: Tensor) -> Attack:
    """``apgd-t`` again, from five times as many starts, on the images that are ``left``, (n,) bool."""
    more = apgd.model_copy(update={"num_random_init": 5 * apgd.num_random_init})
    return _apgd_on(victim, MORE, "apgd-t", more, left)


def with_restarts(victim: Victim, name: str, params: AttackParams, rows: Tensor) -> Attack:
    """:func:`restarted` as an attack that has yet to run."""
    settings = {**params.model_dump(), "rows": rows}
    return Attack(PROTOCOL, name, settings, partial(restarted, victim, name, params, rows))


def _apgd_on(
    victim: Victim, name: str, kind: str, params: AutoAttackParams, left: Tensor
) -> Attack:
    """APGD of the given ``kind``, called ``name``, on the images that are ``left``, (n,) bool."""
    used = {"max_iter", "num_random_init", "batch_size"} | (
        {"targets"} if kind == "apgd-t" else set()
    )
    margin = kind == "apgd-t" and victim.num_classes < DLR_CLASSES
    rows = left.to(victim.x.device)

    def run() -> Outcome:
        return attempt(victim, PROTOCOL, name, rows, _apgd(victim, kind, params))

    settings = {**params.model_dump(include=used), "rows": rows}
    return Attack(PROTOCOL, name, settings | ({"loss": "margin"} if margin else {}), run)


def target_margin(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """How far each image's target class lies above its true class: what ``apgd-t`` raises with few classes.

    The targeted difference of logits ratio (Croce and Hein 2020, arXiv:2003.01690, section 4) divides this
    margin by logit 1 - (logit 3 + logit 4) / 2, sorted from the largest, so it needs four classes. Their
    untargeted ratio divides by logit 1 - logit 3; with three classes, a push towards the third would then
    have the constant value -1, and no gradient. The margin needs no third logit. APGD follows signs of
    gradients and compares losses of one image, so the margin is as indifferent to the scale of the logits
    as the ratio is. Cross entropy is not: its gradient vanishes where the network is sure.

    Args:
        logits: (n, classes).
        y: true labels (n,).
        target: other labels (n,).

    Returns:
        (n,) logit of ``target`` - logit of ``y``; above 0 the image has fallen.
    """
    rows = torch.arange(len(y), device=logits.device)
    return logits[rows, target] - logits[rows, y]


def restarted(victim: Victim, name: str, params: AttackParams, rows: Tensor) -> Outcome:
    """Run FGSM, or PGD in which each restart attacks only the images that still stand.

    Args:
        victim: the network and the images.
        name: name of the attack in the outcome; the seeds depend on it too.
        params: the settings.
        rows: (n,) bool, which images to attack.
    """
    threat, shape = victim.threat, tuple(victim.x.shape[1:])
    estimator = art_classifier(victim.counted, shape, victim.num_classes, victim.compute.device)
    starts = params.num_random_init or 0
    once = params if starts < 2 else params.model_copy(update={"num_random_init": 1})

    def make(restart: int) -> Make:
        seed = derive_seed(victim.seed, name, str(restart))
        return lambda x, y: torch.from_numpy(run_attack(estimator, once, threat, x, y, seed=seed))

    outcome = attempt(victim, PROTOCOL, name, rows, make(0))
    for restart in range(1, starts):
        left = outcome.stands.to(rows.device)
        if not left.any():
            break
        outcome = follow(outcome, attempt(victim, PROTOCOL, name, left, make(restart)))
    return outcome


def _apgd(victim: Victim, name: str, params: AutoAttackParams) -> Make:
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    settings = {
        "n_iter": params.max_iter,
        "n_restarts": params.num_random_init,
        "norm": victim.threat.ball.authors,
        "eps": victim.threat.eps,
        "seed": derive_seed(victim.seed, name),
        "device": victim.compute.device,
    }
    if name == "apgd-ce":
        attack = APGDAttack(victim.counted, loss="ce", **settings)
    else:
        targets = min(params.targets, victim.num_classes - 1)
        attack = APGDAttack_targeted(victim.counted, n_target_classes=targets, **settings)
        if victim.num_classes < DLR_CLASSES:
            attack.dlr_loss_targeted = lambda logits, y: target_margin(logits, y, attack.y_target)

    def perturb(x: Tensor, y: Tensor) -> Tensor:
        # APGD turns gradients on where it needs them. If they were on throughout, every iteration's
        # graph would stay in memory.
        with torch.no_grad(), warnings.catch_warnings():
            # APGD warns of zero gradients; checks.gradients reports them better.
            warnings.simplefilter("ignore")
            found: Tensor = attack.perturb(x, y)
        return found

    return lambda x, y: in_batches(perturb, x, y, params.batch_size)
