"""Attacks by someone who knows the weights: FGSM, PGD with restarts, and AutoAttack's APGD."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from deepcustom.attacks.art import art_classifier, run_attack
from deepcustom.base.settings import AttackParams, AutoAttackParams
from deepcustom.evaluation.subject import Make, Outcome, Subject, attempt, follow, in_batches
from deepcustom.training.compute import derive_seed

PROTOCOL = "whitebox"
MORE = "apgd-t-more"
"""What is spent where Square, of another protocol, breaks what the series left."""


def whitebox(
    subject: Subject, attacks: Mapping[str, AttackParams], apgd: AutoAttackParams
) -> Iterator[Outcome]:
    """Attack the network itself, ever harder.

    The ``attacks`` each meet every image that the network gets right. ``apgd-ce`` and ``apgd-t`` (on
    cross entropy, and targeted on the difference of logits ratio; Croce and Hein 2020,
    arXiv:2003.01690) then meet what all attacks before them left, so that theirs is the accuracy after
    the whole series.

    Args:
        subject: the network and the images.
        attacks: name → FGSM or PGD, from ART.
        apgd: iterations, restarts and targets of APGD, from the package of AutoAttack's authors.

    Yields:
        The outcomes, in that order.
    """
    standing = subject.right
    for name, params in attacks.items():
        outcome = restarted(subject, name, params, subject.right)
        yield outcome
        standing = standing & outcome.stands.to(standing.device)
    for name in ("apgd-ce", "apgd-t"):
        outcome = attempt(subject, PROTOCOL, name, standing, _apgd(subject, name, apgd))
        yield outcome
        standing = outcome.stands.to(standing.device)


def spend_more(subject: Subject, apgd: AutoAttackParams, left: Tensor) -> Outcome:
    """``apgd-t`` again, from five times as many starts, on what the series left, (n,) bool."""
    more = apgd.model_copy(update={"num_random_init": 5 * apgd.num_random_init})
    rows = left.to(subject.x.device)
    return attempt(subject, PROTOCOL, MORE, rows, _apgd(subject, "apgd-t", more))


def restarted(subject: Subject, name: str, params: AttackParams, rows: Tensor) -> Outcome:
    """FGSM, or PGD whose restarts meet only what the ones before them left.

    Args:
        subject: the network and the images.
        name: for the outcome, and for the seeds.
        params: the settings.
        rows: (n,) bool, which images to attack.
    """
    threat, shape = subject.threat, tuple(subject.x.shape[1:])
    estimator = art_classifier(subject.counted, shape, subject.num_classes, subject.compute.device)
    starts = params.num_random_init or 0
    once = params if starts < 2 else params.model_copy(update={"num_random_init": 1})

    def make(restart: int) -> Make:
        seed = derive_seed(subject.seed, name, str(restart))
        return lambda x, y: torch.from_numpy(run_attack(estimator, once, threat, x, y, seed=seed))

    outcome = attempt(subject, PROTOCOL, name, rows, make(0))
    for restart in range(1, starts):
        left = outcome.stands.to(rows.device)
        if not left.any():
            break
        outcome = follow(outcome, attempt(subject, PROTOCOL, name, left, make(restart)))
    return outcome


def _apgd(subject: Subject, name: str, params: AutoAttackParams) -> Make:
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    settings = {
        "n_iter": params.max_iter,
        "n_restarts": params.num_random_init,
        "norm": "Linf",
        "eps": subject.threat.eps,
        "seed": derive_seed(subject.seed, name),
        "device": subject.compute.device,
    }
    if name == "apgd-ce":
        attack = APGDAttack(subject.counted, loss="ce", **settings)
    else:
        targets = min(params.targets, subject.num_classes - 1)
        attack = APGDAttack_targeted(subject.counted, n_target_classes=targets, **settings)

    def perturb(x: Tensor, y: Tensor) -> Tensor:
        # It asks for gradients where it needs them; left on, every iteration would stay in memory.
        with torch.no_grad(), warnings.catch_warnings():
            # Of gradients that are zero: checks.gradients says it better.
            warnings.simplefilter("ignore")
            found: Tensor = attack.perturb(x, y)
        return found

    return lambda x, y: in_batches(perturb, x, y, params.batch_size)
