"""Training on clean and pre-made adversarial images at once."""

from __future__ import annotations

import torch
from torch import Tensor

from deepcustom.base.params import TrainingParams
from deepcustom.base.progress import Advance, silent
from deepcustom.training.checkpoint import NOWHERE, Checkpoint
from deepcustom.training.compute import Compute
from deepcustom.training.epochs import History, tell_resumed
from deepcustom.training.fit import Terms, fit, watch_accuracy
from deepcustom.training.nets.base import Classifier


def train_gf(
    net: Classifier,
    train: tuple[Tensor, Tensor],
    adversarial: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    params: TrainingParams,
    *,
    clean_weight: float,
    seed: int,
    compute: Compute,
    advance: Advance = silent,
    checkpoint: Checkpoint = NOWHERE,
) -> History:
    """Train on clean and adversarial images at once (Goodfellow et al. 2015, section 6).

    The loss is r * CE(clean) + (1 - r) * CE(adversarial), with r = ``clean_weight``.

    Args:
        net: a fresh network, trained in place.
        train: clean images (N, C, H, W) in [0, 1] and labels (N,).
        adversarial: images (N, C, H, W) and, for each, its row in ``train``; it may hold fewer than
            ``train``, which are then used in turn.
        val: clean images and labels to watch; may be empty.
        params: the training params.
        clean_weight: r, in [0, 1].
        seed: of the order of the images.
        compute: device and precision.
        advance: called after every epoch with how it stands.
        checkpoint: as in :func:`deepcustom.training.fit.fit`.

    Returns:
        The history: ``loss``, ``clean`` and ``adversarial`` (weighted), ``val_accuracy``.
    """
    (x, y), (x_adv, row) = train, adversarial
    partner = _partners(row, len(x))

    def terms(clean: Tensor, labels: Tensor, at: Tensor) -> Terms:
        cross_entropy = torch.nn.functional.cross_entropy
        on_clean = cross_entropy(net(clean), labels, reduction="none")
        on_adv = cross_entropy(net(x_adv[at]), y[row[at]], reduction="none")
        return {"clean": clean_weight * on_clean, "adversarial": (1 - clean_weight) * on_adv}

    data = [x, y, partner]
    tell_resumed(checkpoint, advance)
    return fit(
        net,
        terms,
        data,
        params,
        seed=seed,
        compute=compute,
        after_epoch=watch_accuracy(net, val, advance),
        checkpoint=checkpoint,
    )


def _partners(row: Tensor, count: int) -> Tensor:
    """Which adversarial image goes with each clean one: its own where there is one, else in turn."""
    partner = torch.arange(count, device=row.device) % max(len(row), 1)
    partner[row] = torch.arange(len(row), device=row.device)
    return partner
