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
    Images,
    Labels,
    as_module,
    borrowed,
    classifier,
    compute_on,
    dice_kept,
    gathered,
    plainly,
    reason,
)
from deepcustom.library.starting import SEED, Start, threat_of
from deepcustom.library.trying import at_least, classes_of, usable
from deepcustom.training.compute import Compute, derive_seed
from deepcustom.training.prediction import BATCH, gets_right, predict
from deepcustom.training.rows import Images as Rows

AT_ONCE = 1000  # images that DGNs are given
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
    norm: str = "linf",
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
        norm: ``linf``: eps bounds the change of each pixel; ``l2``: the Euclidean length of the change.
        seed: of everything random.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError, UnknownNameError: in one line: something that was handed over cannot be used.
    """
    data, compute, threat = gathered(x, y), compute_on(device), threat_of(eps, norm)
    change = _change(max_iter, restarts, settings)
    if isinstance(net, DGNs):
        return Attacked(by_dgns(net, *data.on(compute), threat, compute).cpu(), None)
    if not isinstance(method, DGNs) and method not in METHODS:
        raise UnknownNameError("method", str(method), [*METHODS, "or DGNs"])
    whole = classifier(as_module(net), data.shape, mean, std)
    with dice_kept(), borrowed(whole, compute), plainly():
        classes = classes_of(whole, data, compute) or at_least(data)
        images, labels = data.on(compute)
        shown = min(BATCH, len(labels))
        if isinstance(method, DGNs):
            if method.classes != classes:
                raise InputError(f"the DGNs have {method.classes} classes, and net gives {classes}")
            whole = usable(whole, data, classes, compute, sizes=[shown])
            x_adv = by_dgns(method, images, labels, threat, compute)
            right, still = (gets_right(predict(whole, one), labels) for one in (images, x_adv))
            return Attacked(x_adv.cpu(), (right & ~still).cpu())
        start = Start(data.shape, classes, threat.eps, test=len(labels), norm=norm)
        params = _params(method, start.recipes()["every-protocol"], change)
        sizes = [shown, min(params.batch_size, len(labels))]
        whole = usable(whole, data, classes, compute, sizes=sizes, learner=f"method {method}")
        seed_of = derive_seed(seed, "attack", method)
        victim = Victim("net", whole, images[:], labels, threat, classes, seed_of, compute)
        outcome = _run(victim, method, params)
        return Attacked(outcome.x_adv.cpu(), victim.right.cpu() & ~outcome.stands)


def _change(
    max_iter: int | None, restarts: int | None, settings: Mapping[str, Any] | None
) -> dict[str, Any]:
    named = {"max_iter": max_iter, "num_random_init": restarts}
    return {key: value for key, value in named.items() if value is not None} | dict(settings or {})


def _params(
    method: str, usual: Mapping[str, Any], change: Mapping[str, Any]
) -> AttackParams | AutoAttackParams:
    if method != "apgd":
        return validate(AttackParams, overlay(usual["whitebox"][method], change), "settings")
    return validate(AutoAttackParams, overlay(usual["autoattack"], change), "settings")


def _run(victim: Victim, method: str, params: AttackParams | AutoAttackParams) -> Outcome:
    if isinstance(params, AttackParams):
        return with_restarts(victim, method, params, victim.right).run()
    stands: dict[str, dict[str, Tensor]] = {"whitebox": {}}
    outcomes = []
    for one in whitebox(victim, {}, params, stands):
        outcomes.append(one.run())
        stands["whitebox"][one.name] = outcomes[-1].stands
    first, second = outcomes
    return follow(first, second)


def by_dgns(dgns: DGNs, x: Rows, y: Tensor, threat: ThreatModel, compute: Compute) -> Tensor:
    """What DGNs make of images (N, C, H, W), each for its label (N,).

    Raises:
        InputError: the DGNs have too few classes, or were trained on images of another shape.
    """
    if int(y.max()) >= dgns.classes:
        raise InputError(
            f"labels go up to {int(y.max())}, and the DGNs have {dgns.classes} classes"
        )
    made = []
    for start in range(0, len(y), AT_ONCE):
        some, truth = x[start : start + AT_ONCE], y[start : start + AT_ONCE]
        try:
            made.append(dgns.generate(some, truth, threat, compute=compute))
        except (RuntimeError, ValueError) as error:
            shape = tuple(some.shape[1:])
            raise InputError(
                f"the bank's DGNs refuse images of shape {shape}: {reason(error)}; were they trained on "
                "images of another shape?"
            ) from error
    return torch.cat(made)
