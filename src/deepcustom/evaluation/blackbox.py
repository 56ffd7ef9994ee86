"""Attacks by someone who cannot see inside: images made against other networks, and Square."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from deepcustom.base.settings import AttackParams, AutoAttackParams
from deepcustom.evaluation.material import Lazy
from deepcustom.evaluation.square import make_room
from deepcustom.evaluation.victim import Attack, Make, Outcome, Victim, attempt, in_batches
from deepcustom.evaluation.whitebox import restarted
from deepcustom.training.compute import derive_seed

PROTOCOL = "blackbox"


def surrogate_images(surrogate: Victim, params: AttackParams) -> Tensor:
    """Attack every image against a surrogate, from at most one random start; returns (n, C, H, W).

    Images that only just fool the surrogate would not transfer.
    """
    every = torch.ones(len(surrogate.x), dtype=torch.bool, device=surrogate.x.device)
    return restarted(surrogate, "surrogate", params, every).x_adv


def blackbox(
    victim: Victim, surrogates: Mapping[str, Lazy[Tensor]], square: AutoAttackParams
) -> Iterator[Attack]:
    """Attack the network from outside, on every image that it gets right.

    Args:
        victim: the network and the images.
        surrogates: another network's name → the images made against it (:func:`surrogate_images`).
        square: how many queries Square may ask of each image.

    Yields:
        ``from-NAME`` for each surrogate, and ``square`` (Andriushchenko et al. 2020, arXiv:1912.00049;
        from the package of AutoAttack's authors).
    """
    for name, images in surrogates.items():
        run = partial(_show, victim, f"from-{name}", images)
        yield Attack(PROTOCOL, f"from-{name}", {"images": images.key}, run)

    def run_square() -> Outcome:
        make = square_attack(victim, square)
        return attempt(victim, PROTOCOL, "square", victim.right, make)

    used = square.model_dump(include={"queries", "batch_size"})
    yield Attack(PROTOCOL, "square", used, run_square)


def square_attack(victim: Victim, params: AutoAttackParams) -> Make:
    """Square, with ``params.queries`` queries for each image."""
    from pyautoattack.square import SquareAttack

    attack = SquareAttack(
        victim.counted,
        norm=victim.threat.ball.authors,
        eps=victim.threat.eps,
        n_queries=params.queries,
        n_restarts=1,
        seed=derive_seed(victim.seed, "square"),
        device=victim.compute.device,
        resc_schedule=False,
    )
    make_room(attack, *victim.x.shape[-2:])
    return lambda x, y: in_batches(attack.perturb, x, y, params.batch_size)


def _show(victim: Victim, name: str, images: Lazy[Tensor]) -> Outcome:
    """Show the network the surrogate's ``images``, (n, C, H, W), one for each image of the victim."""
    shown = images.value[victim.right]
    return attempt(victim, PROTOCOL, name, victim.right, lambda x, y: shown)
