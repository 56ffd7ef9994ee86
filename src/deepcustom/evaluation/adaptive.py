"""DGNs that adapt: trained further against the very network under evaluation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from deepcustom.attacks.bank import DGNBank, propose, ready
from deepcustom.base.settings import AdaptiveParams
from deepcustom.evaluation.subject import Cost, Outcome, Subject, attempt
from deepcustom.training.compute import Compute, derive_seed
from deepcustom.training.fit import Terms, fit
from deepcustom.training.job import Job
from deepcustom.training.prediction import predict

PROTOCOL = "adaptive"
NOTHING = Cost()


def adapt(
    bank: DGNBank,
    subject: Subject,
    train: tuple[Tensor, Tensor],
    params: AdaptiveParams,
    *,
    compute: Compute,
) -> DGNBank:
    """Train each DGN of ``bank`` on, to raise the cross entropy of the subject's network.

    The DGN of a class without an image stays what it is.

    An evaluation without attacks that know the defence says little (Carlini et al. 2019,
    arXiv:1902.06705, section 3); these start from DGNs that fooled another network.

    Args:
        bank: of perturbations, one DGN per class; left as it is.
        subject: the network to fool.
        train: images (N, C, H, W) in [0, 1] and labels (N,) that are not the subject's.
        params: the budget for each class, and how many of its images are used.
        compute: device and precision of training.

    Returns:
        The new bank.
    """
    adapted = []
    for label, start in enumerate(bank.generators):
        subject.advance(f"{subject.name}: adapting the DGN of class {label}", steps=0)
        generator = copy.deepcopy(start).requires_grad_(True)

        def terms(x: Tensor, label: int = label, generator: nn.Module = generator) -> Terms:
            g = propose(generator, x, bank.output, subject.threat)
            logits = subject.counted(subject.threat.project(g, x)).float()
            y = torch.full((len(x),), label, device=x.device)
            return {"cross_entropy": -nn.functional.cross_entropy(logits, y, reduction="none")}

        images = train[0][train[1] == label][: params.images_per_class]
        seed = derive_seed(subject.seed, PROTOCOL, str(label))
        if len(images):
            fit(generator, terms, [images], params.training, Job(seed, compute))
        adapted.append(ready(generator, compute.device))
    return replace(bank, generators=adapted)


def adaptive(
    subject: Subject, bank: DGNBank, trained: Cost = NOTHING, *, compute: Compute
) -> Iterator[Outcome]:
    """Attack with adapted DGNs; every attack meets every image that the network gets right.

    Args:
        subject: the network and the images.
        bank: adapted to it.
        trained: what that took; counted once, with ``dgn``.
        compute: device and precision of the DGNs.

    Yields:
        ``dgn``, picked by the label, true or predicted: of an image that the network gets right they
        are the same; ``dgn-any``, an image stands only where all of them fail.
    """

    def by_label(x: Tensor, y: Tensor) -> Tensor:
        return bank.generate(x, y, subject.threat, compute=compute)

    def any_of_them(x: Tensor, y: Tensor) -> Tensor:
        found, left = x.clone(), torch.ones(len(x), dtype=torch.bool, device=x.device)
        for label in range(len(bank.generators)):
            labels = torch.full((len(x),), label, device=x.device)
            x_adv = bank.generate(x, labels, subject.threat, compute=compute)
            falls = left & (predict(subject.counted, x_adv).argmax(1) != y)
            found[falls] = x_adv[falls]
            left &= ~falls
        return found

    first = attempt(subject, PROTOCOL, "dgn", subject.right, by_label)
    yield replace(first, cost=trained + first.cost)
    yield attempt(subject, PROTOCOL, "dgn-any", subject.right, any_of_them)
