"""Adaptive attacks: DGNs trained further against the very network under evaluation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from deepcustom.attacks.bank import DGNBank, propose, ready
from deepcustom.base.settings import AdaptiveParams
from deepcustom.evaluation.material import Adaptable, Lazy
from deepcustom.evaluation.victim import Attack, Cost, Outcome, Victim, attempt
from deepcustom.training.compute import Compute, derive_seed
from deepcustom.training.fit import Terms, fit
from deepcustom.training.job import Job
from deepcustom.training.prediction import predict
from deepcustom.training.rows import LabelledImages

PROTOCOL = "adaptive"


def adapt(
    bank: DGNBank,
    victim: Victim,
    train: LabelledImages,
    params: AdaptiveParams,
    *,
    compute: Compute,
) -> DGNBank:
    """Train each DGN of ``bank`` further, to raise the cross entropy of the victim's network.

    A class without an image keeps its DGN unchanged.

    An evaluation says little unless its attacks know the defence (Carlini et al. 2019,
    arXiv:1902.06705, section 3). These attacks start from DGNs that fooled another network.

    Args:
        bank: one DGN per class; not modified.
        victim: the network to fool.
        train: images (N, C, H, W) in [0, 1] and labels (N,), none of them the victim's.
        params: the budget for each class, and how many of its images are used.
        compute: device and precision of training.

    Returns:
        The new bank.
    """
    adapted = []
    for label, start in enumerate(bank.generators):
        victim.advance(f"{victim.name}: adapting the DGN of class {label}", steps=0)
        generator = copy.deepcopy(start).requires_grad_(True)

        def terms(x: Tensor, label: int = label, generator: nn.Module = generator) -> Terms:
            g = propose(generator, x, bank.output, victim.threat)
            logits = victim.counted(victim.threat.project(g, x)).float()
            y = torch.full((len(x),), label, device=x.device)
            return {"cross_entropy": -nn.functional.cross_entropy(logits, y, reduction="none")}

        images = train[0][train[1] == label]
        if params.images_per_class is not None:
            images = images[: params.images_per_class]
        seed = derive_seed(victim.seed, PROTOCOL, str(label))
        if len(images):
            fit(generator, terms, [images], params.training, Job(seed, compute))
        adapted.append(ready(generator, compute.device))
    return replace(bank, generators=adapted)


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

    def make() -> tuple[DGNBank, Cost]:
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


def by_label(victim: Victim, bank: DGNBank, *, compute: Compute) -> Outcome:
    """Attack each image with the DGN of its label.

    The true and the predicted label agree, since only images that the network gets right are attacked.
    """

    def make(x: Tensor, y: Tensor) -> Tensor:
        return bank.generate(x, y, victim.threat, compute=compute)

    return attempt(victim, PROTOCOL, "dgn", victim.right, make)


def by_any(victim: Victim, bank: DGNBank, *, compute: Compute) -> Outcome:
    """Attack each image with the DGNs of all classes; it stands only if all of them fail."""

    def make(x: Tensor, y: Tensor) -> Tensor:
        found, left = x.clone(), torch.ones(len(x), dtype=torch.bool, device=x.device)
        for label in range(len(bank.generators)):
            labels = torch.full((len(x),), label, device=x.device)
            x_adv = bank.generate(x, labels, victim.threat, compute=compute)
            falls = left & (predict(victim.counted, x_adv).argmax(1) != y)
            found[falls] = x_adv[falls]
            left &= ~falls
        return found

    return attempt(victim, PROTOCOL, "dgn-any", victim.right, make)
