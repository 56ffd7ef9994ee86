"""Adaptive attacks: DGNs trained further against the very network under evaluation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from deepcustom.attacks.bank import DGNBank, propose, ready
from deepcustom.attacks.conditional import ConditionalDGN, perturbed
from deepcustom.base.settings import AdaptiveParams
from deepcustom.evaluation.material import Adaptable, DGNs, Lazy
from deepcustom.evaluation.victim import Attack, Cost, Outcome, Victim, attempt
from deepcustom.training.compute import Compute, derive_seed
from deepcustom.training.fit import Terms, fit
from deepcustom.training.job import Job
from deepcustom.training.rows import LabelledImages

PROTOCOL = "adaptive"


def adapt(
    bank: DGNs,
    victim: Victim,
    train: LabelledImages,
    params: AdaptiveParams,
    *,
    compute: Compute,
) -> DGNs:
    """Train DGNs further, to raise the cross entropy of the victim's network.

    An evaluation says little unless its attacks know the defence (Carlini et al. 2019,
    arXiv:1902.06705, section 3). These attacks start from DGNs that fooled another network.

    Args:
        bank: one DGN per class, each of which sees its own class alone, or one that is told the label and
            sees all classes; not modified. A DGN without an image stays as it is.
        victim: the network to fool.
        train: images (N, C, H, W) in [0, 1] and labels (N,), none of them the victim's.
        params: the budget of each DGN, and how many images of each class are used.
        compute: device and precision of training.

    Returns:
        The new ones.
    """
    if isinstance(bank, ConditionalDGN):
        return _adapt_conditional(bank, victim, train, params, compute)
    return _adapt_bank(bank, victim, train, params, compute)


def _adapt_bank(
    bank: DGNBank,
    victim: Victim,
    train: LabelledImages,
    params: AdaptiveParams,
    compute: Compute,
) -> DGNBank:
    adapted = []
    for label, start in enumerate(bank.generators):
        victim.advance(f"{victim.name}: adapting the DGN of class {label}", steps=0)
        generator = copy.deepcopy(start).requires_grad_(True)

        def terms(x: Tensor, label: int = label, generator: nn.Module = generator) -> Terms:
            g = propose(generator, x, bank.output, victim.threat)
            y = torch.full((len(x),), label, device=x.device)
            return _fooling(victim, g, x, y)

        images = train[0][train[1] == label]
        if params.images_per_class is not None:
            images = images[: params.images_per_class]
        seed = derive_seed(victim.seed, PROTOCOL, str(label))
        if len(images):
            fit(generator, terms, [images], params.training, Job(seed, compute))
        adapted.append(ready(generator, compute.device))
    return replace(bank, generators=adapted)


def _adapt_conditional(
    dgn: ConditionalDGN,
    victim: Victim,
    train: LabelledImages,
    params: AdaptiveParams,
    compute: Compute,
) -> ConditionalDGN:
    victim.advance(f"{victim.name}: adapting the DGN of all classes", steps=0)
    generator = copy.deepcopy(dgn.generator).requires_grad_(True)

    def terms(x: Tensor, y: Tensor) -> Terms:
        return _fooling(victim, perturbed(generator, x, y, victim.threat), x, y)

    job = Job(derive_seed(victim.seed, PROTOCOL), compute)
    chosen = torch.zeros(len(train[1]), dtype=torch.bool, device=train[1].device)
    chosen[_first_of_each(train[1], dgn.classes, params.images_per_class)] = True
    if chosen.any():
        fit(generator, terms, [train[0][chosen], train[1][chosen]], params.training, job)
    return replace(dgn, generator=compute.place(generator).eval().requires_grad_(False))


def _fooling(victim: Victim, g: Tensor, x: Tensor, y: Tensor) -> Terms:
    """Minus the cross entropy of the network on ``g`` (n, C, H, W), projected into the ball around ``x``."""
    logits = victim.counted(victim.threat.project(g, x)).float()
    return {"cross_entropy": -nn.functional.cross_entropy(logits, y, reduction="none")}


def _first_of_each(y: Tensor, classes: int, most: int | None) -> Tensor:
    """The rows (m,), rising, of the first ``most`` labels of each class in ``y`` (N,); None: of all."""
    rows = [torch.nonzero(y == label).flatten()[:most] for label in range(classes)]
    return torch.cat(rows).sort().values


def adaptive(
    victim: Victim, dgns: Lazy[Adaptable], params: AdaptiveParams, *, compute: Compute
) -> Iterator[Attack]:
    """Adapt DGNs, and attack with them every image that the network gets right.

    Args:
        victim: the network and the images.
        dgns: the DGNs to adapt, and the images to adapt them on.
        params: see :func:`adapt`.
        compute: device and precision of the DGNs, in training too.

    Yields:
        ``dgn`` (see :func:`by_label`), whose cost includes adapting, and ``dgn-any`` (see
        :func:`by_any`).
    """

    def make() -> tuple[DGNs, Cost]:
        before = victim.spent()
        bank, train = dgns.value
        adapted = adapt(bank, victim, train, params, compute=compute)
        return adapted, victim.spent() - before

    def dgn() -> Outcome:
        bank, trained = made.value
        found = by_label(victim, bank, compute=compute)
        return replace(found, cost=trained + found.cost)

    def dgn_any() -> Outcome:
        return by_any(victim, made.value[0], compute=compute)

    settings = {"dgns": dgns.key, **params.model_dump(exclude={"bank"})}
    made = Lazy(settings, make)
    yield Attack(PROTOCOL, "dgn", settings, dgn)
    yield Attack(PROTOCOL, "dgn-any", settings, dgn_any)


def by_label(victim: Victim, bank: DGNs, *, compute: Compute) -> Outcome:
    """Attack each image with the DGN of its label.

    The true and the predicted label agree, since only images that the network gets right are attacked.
    """

    def make(x: Tensor, y: Tensor) -> Tensor:
        return bank.generate(x, y, victim.threat, compute=compute)

    return attempt(victim, PROTOCOL, "dgn", victim.right, make)


def by_any(victim: Victim, bank: DGNs, *, compute: Compute) -> Outcome:
    """Attack each image with the DGNs of all classes, or told every label; it stands only if all fail.

    Of a bank, every DGN meets every image. A DGN that is told the label meets those that are left: there may
    be a thousand labels.
    """
    all_of_them = isinstance(bank, DGNBank)

    def make(x: Tensor, y: Tensor) -> Tensor:
        found, left = x.clone(), torch.ones(len(x), dtype=torch.bool, device=x.device)
        for label in range(bank.classes):
            rows = torch.nonzero(left | all_of_them).flatten()
            if not len(rows):
                break
            labels = torch.full((len(rows),), label, device=x.device)
            x_adv = bank.generate(x[rows], labels, victim.threat, compute=compute)
            falls = left[rows] & ~victim.withstands(x_adv, y[rows])
            found[rows[falls]] = x_adv[falls]
            left[rows[falls]] = False
        return found

    return attempt(victim, PROTOCOL, "dgn-any", victim.right, make)
