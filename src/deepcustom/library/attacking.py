"""Attacking images in memory: ART's FGSM and PGD, AutoAttack's APGD, or a bank of DGNs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.conditional import ConditionalDGN
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError, UnknownNameError
from deepcustom.base.params import validate
from deepcustom.base.rows import overlay
from deepcustom.base.settings import AttackParams, AutoAttackParams
from deepcustom.evaluation.victim import Outcome, Victim, follow
from deepcustom.evaluation.whitebox import whitebox, with_restarts
from deepcustom.library.given import (
    Gathered,
    Images,
    Labels,
    as_module,
    borrowed,
    classes_of,
    classifier,
    compute_on,
    dice_kept,
    gathered,
    plainly,
)
from deepcustom.library.starting import SEED, Start, radius
from deepcustom.training.compute import Compute, derive_seed
from deepcustom.training.prediction import predict

METHODS = ("fgsm", "pgd", "apgd")
DGNs = DGNBank | ConditionalDGN


class Attacked(NamedTuple):
    """Adversarial images, and what they did.

    Attributes:
        x_adv: (N, C, H, W) float32 in [0, 1], inside the ball, on the CPU.
        success: (N,) bool: images that the network got right and now gets wrong; None without a network.
    """

    x_adv: Tensor
    success: Tensor | None

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.x_adv.shape))
        if self.success is None:
            return f"adversarial images {shape}; no network was shown them"
        fooled, n = int(self.success.sum()), len(self.success)
        return f"adversarial images {shape}: {fooled} of {n} turn a right answer into a wrong one"


def attack(
    net: nn.Module | DGNs,
    x: Images,
    y: Labels | None = None,
    eps: float | str | None = None,
    method: Literal["fgsm", "pgd", "apgd"] | DGNs = "pgd",
    *,
    max_iter: int | None = None,
    restarts: int | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    settings: Mapping[str, Any] | None = None,
    seed: int = SEED,
    device: str = "auto",
) -> Attacked:
    """Make adversarial images.

    Args:
        net: the network to fool, images (N, C, H, W) to logits (N, classes); it is left as it was. Or DGNs:
            then ``method`` says nothing, and no network is asked.
        x: images, as :func:`deepcustom.evaluate` takes them.
        y: labels (N,); None with a DataLoader.
        eps: radius of the ball: a number, or text such as ``"8/255"``.
        method: ``fgsm``; ``pgd``; ``apgd``: on the cross entropy, and then targeted, on what still stands; or
            DGNs that :func:`deepcustom.train_bank` made. All but DGNs leave images as they are that
            ``net`` gets wrong anyway.
        max_iter: steps of ``pgd`` and ``apgd``; None: 50, and 100.
        restarts: random starts of ``pgd`` and ``apgd``; None: 5, and 1.
        mean: of each channel: images in [0, 1] are normalised by it in front of ``net``.
        std: likewise, what they are divided by.
        settings: what else is to differ, such as ``{"eps_step": 0.01}``, or ``{"targets": 3}`` for ``apgd``.
        seed: of everything random.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError, UnknownNameError: in one line: something that was handed over cannot be used.
    """
    data, compute, threat = gathered(x, y), compute_on(device), ThreatModel(radius(eps))
    change = _change(max_iter, restarts, settings)
    if isinstance(net, DGNs):
        return Attacked(_by_dgns(net, data, threat, compute), None)
    if not isinstance(method, DGNs) and method not in METHODS:
        raise UnknownNameError("method", str(method), [*METHODS, "or DGNs"])
    whole = classifier(as_module(net), data.shape, mean, std)
    with dice_kept(), borrowed(whole, compute), plainly():
        classes = classes_of(whole, data, compute)
        images, labels = data.on(compute)
        if isinstance(method, DGNs):
            x_adv = _by_dgns(method, data, threat, compute)
            right = predict(whole, images).argmax(1) == labels
            falls = predict(whole, x_adv.to(compute.device)).argmax(1) != labels
            return Attacked(x_adv, (right & falls).cpu())
        seed_of = derive_seed(seed, "attack", method)
        victim = Victim("net", whole, images[:], labels, threat, classes, seed_of, compute)
        start = Start(data.shape, classes, threat.eps, test=len(labels))
        outcome = _run(victim, method, start.recipes()["every-protocol"], change)
        return Attacked(outcome.x_adv.cpu(), victim.right.cpu() & ~outcome.stands)


def _change(
    max_iter: int | None, restarts: int | None, settings: Mapping[str, Any] | None
) -> dict[str, Any]:
    named = {"max_iter": max_iter, "num_random_init": restarts}
    return {key: value for key, value in named.items() if value is not None} | dict(settings or {})


def _run(
    victim: Victim, method: str, usual: Mapping[str, Any], change: Mapping[str, Any]
) -> Outcome:
    if method != "apgd":
        params = validate(AttackParams, overlay(usual["whitebox"][method], change), "settings")
        return with_restarts(victim, method, params, victim.right).run()
    apgd = validate(AutoAttackParams, overlay(usual["autoattack"], change), "settings")
    stands: dict[str, dict[str, Tensor]] = {"whitebox": {}}
    outcomes = []
    for one in whitebox(victim, {}, apgd, stands):
        outcomes.append(one.run())
        stands["whitebox"][one.name] = outcomes[-1].stands
    first, second = outcomes
    return follow(first, second)


def _by_dgns(dgns: DGNs, data: Gathered, threat: ThreatModel, compute: Compute) -> Tensor:
    if int(data.y.max()) >= dgns.classes:
        raise InputError(
            f"labels go up to {data.y.max()}, and the DGNs have {dgns.classes} classes"
        )
    x, y = data.on(compute)
    made = [
        dgns.generate(x[start : start + 1000], y[start : start + 1000], threat, compute=compute)
        for start in range(0, len(y), 1000)
    ]
    return torch.cat(made).cpu()
