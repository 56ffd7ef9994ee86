"""Attacks by someone who cannot see inside: images made against other networks, and Square."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from deepcustom.base.settings import AttackParams, AutoAttackParams
from deepcustom.evaluation.subject import Make, Outcome, Subject, attempt, in_batches
from deepcustom.evaluation.whitebox import restarted
from deepcustom.training.compute import derive_seed

PROTOCOL = "blackbox"


def surrogate_images(surrogate: Subject, params: AttackParams) -> Tensor:
    """What an attack from at most one random start makes of every image against another network,
    (n, C, H, W): what transfers is not what barely succeeded.
    """
    every = torch.ones(len(surrogate.x), dtype=torch.bool, device=surrogate.x.device)
    return restarted(surrogate, "surrogate", params, every).x_adv


def blackbox(
    subject: Subject, surrogates: Mapping[str, Tensor], square: AutoAttackParams
) -> Iterator[Outcome]:
    """Attack the network from outside; every attack meets every image that it gets right.

    Args:
        subject: the network and the images.
        surrogates: another network's name → the images made against it (:func:`surrogate_images`).
        square: how many queries Square may ask of each image.

    Yields:
        ``from-NAME`` for each surrogate, and ``square`` (Andriushchenko et al. 2020, arXiv:1912.00049;
        from the package of AutoAttack's authors).
    """
    for name, images in surrogates.items():
        shown = images[subject.right]
        yield attempt(subject, PROTOCOL, f"from-{name}", subject.right, _shown(shown))
    yield attempt(subject, PROTOCOL, "square", subject.right, square_attack(subject, square))


def square_attack(subject: Subject, params: AutoAttackParams) -> Make:
    """Square with ``params.queries`` for each image."""
    from pyautoattack.square import SquareAttack

    attack = SquareAttack(
        subject.counted,
        norm="Linf",
        eps=subject.threat.eps,
        n_queries=params.queries,
        n_restarts=1,
        seed=derive_seed(subject.seed, "square"),
        device=subject.compute.device,
        resc_schedule=False,
    )
    return lambda x, y: in_batches(attack.perturb, x, y, params.batch_size)


def _shown(images: Tensor) -> Make:
    return lambda x, y: images
