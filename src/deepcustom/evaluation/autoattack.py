"""AutoAttack as its authors publish it: their attacks, settings, order and batches (Croce and Hein 2020).

The package of the authors does all of it (arXiv:2003.01690). It is run attack by attack, so that each attack
is a piece of its own in the score store.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from deepcustom.base.errors import InputError
from deepcustom.base.settings import DLR_CLASSES, AutoAttackParams
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.results import AUTOATTACK
from deepcustom.evaluation.square import make_room
from deepcustom.evaluation.victim import Attack, Outcome, Victim

PROTOCOL = AUTOATTACK
SEED = 0
"""Of every attack. The authors' package draws one from the clock if it is given none."""
TARGETS = 9
"""Target classes of ``apgd-t`` and ``fab-t``; fewer where there are not so many other classes."""


def autoattack(
    victim: Victim, params: AutoAttackParams, stands: Mapping[str, Mapping[str, Tensor]]
) -> Iterator[Attack]:
    """The attacks of the version that ``params`` names; each attacks what those before it left.

    Args:
        victim: the network and the images.
        params: ``version``, where None asks for nothing, and ``batch_size``, which decides the random
            numbers that an image meets, as in the authors' package.
        stands: protocol → attack → (n,) bool, which images each attack left standing; read again each
            time the next attack is asked for.

    Yields:
        The attacks, by the authors' names and in their order.

    Raises:
        InputError: the subject has too few classes for their loss.
    """
    if params.version is None:
        return
    if victim.num_classes < DLR_CLASSES:
        raise InputError(
            f"autoattack.version is {params.version}, but AutoAttack's loss needs {DLR_CLASSES} classes or "
            f"more, and there are {victim.num_classes}: set it to null"
        )
    done: list[str] = []
    for name in _package(victim, params.version).attacks_to_run:
        before = stands[PROTOCOL][done[-1]] if done else None
        settings = {"version": params.version, "batch_size": params.batch_size, "seed": SEED}
        run = partial(_run, victim, params, name, before)
        yield Attack(PROTOCOL, name, {**settings, "done": [*done], "rows": before}, run)
        done.append(name)


def _package(victim: Victim, version: str) -> Any:
    """The authors' AutoAttack on the victim's network."""
    from pyautoattack import AutoAttack

    made = AutoAttack(
        victim.counted,
        norm=victim.threat.ball.authors,
        eps=victim.threat.eps,
        seed=SEED,
        version=version,
        device=victim.compute.device,
    )
    make_room(made.square, *victim.x.shape[-2:])
    targets = min(TARGETS, victim.num_classes - 1)
    made.apgd_targeted.n_target_classes = made.fab.n_target_classes = targets
    return made


def _run(victim: Victim, params: AutoAttackParams, name: str, before: Tensor | None) -> Outcome:
    """One attack, on the images that those ``before`` left, (n,) bool; None: it is the first.

    The package can go on after an attack from a file, but its version 0.2.0 does not read what it wrote. So
    it is given the images that are left, which it puts into the same batches.
    """
    assert params.version is not None
    package = _package(victim, params.version)
    package.attacks_to_run = [name]
    victim.advance(f"{victim.name}: {PROTOCOL}: {name}", steps=0)
    spent = victim.spent()
    tried = torch.ones(len(victim.x), dtype=torch.bool) if before is None else before
    x_adv, stands = victim.x.clone(), tried.clone()
    if tried.any():
        rows = tried.to(victim.x.device)
        x, y = victim.x[rows], victim.y[rows]
        with told():
            found, answers = package.run_standard_evaluation(x, y, batch_size=params.batch_size)
        x_adv[rows] = victim.threat.project(found.to(x), x)
        stands[tried] = (answers == y).cpu()
    if before is None:  # it has looked at the clean images first
        tried = victim.right.cpu()
    return Outcome(PROTOCOL, name, tried, stands & tried, x_adv, victim.spent() - spent)


@contextmanager
def told() -> Iterator[list[str]]:
    """Collects what the authors' package warns of, in place of a line on stderr."""
    found: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING and record.getMessage() not in found:
                found.append(record.getMessage())

    logger, kept = logging.getLogger("auto-attack"), Kept()
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(kept)
    try:
        yield found
    finally:
        logger.removeHandler(kept)
        logger.propagate = propagates


def warnings_of(victim: Victim, params: AutoAttackParams, stands: Mapping[str, Tensor]) -> Check:
    """What AutoAttack itself warns of.

    Args:
        victim: the network and the images.
        params: as for :func:`autoattack`.
        stands: its attack → (n,) bool, which images it left, in the authors' order.
    """
    from pyautoattack import checks

    x, y = victim.x[: params.batch_size], victim.y[: params.batch_size]
    logger = logging.getLogger("auto-attack")
    left = {"clean": float(victim.right.double().mean())}
    left |= {name: float(flags.double().mean()) for name, flags in stands.items()}
    with told() as found, torch.no_grad():
        if params.version != "rand":
            checks.check_randomized(victim.net, x, y, bs=len(x), logger=logger)
        checks.check_range_output(victim.net, x, logger=logger)
        checks.check_dynamic(victim.net, x, False, logger=logger)
        checks.check_square_sr(left, logger=logger)
    text = " ".join(found) or "AutoAttack warns of nothing."
    figures = {"warnings": float(len(found))}
    return Check("autoattack-warns", victim.name, "warn" if found else "ok", figures, text)
