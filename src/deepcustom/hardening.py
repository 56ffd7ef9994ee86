"""Adversarial training: a fresh network that also sees adversarial images."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from deepcustom.checkpoint import NOWHERE, Checkpoint
from deepcustom.compute import Compute, derive_seed, seed_everything
from deepcustom.epochs import History, load_epoch, save_epoch, tell_resumed
from deepcustom.nets import Classifier
from deepcustom.params import AttackParams, TrainingParams
from deepcustom.prediction import accuracy
from deepcustom.progress import Advance, silent
from deepcustom.threat import ThreatModel
from deepcustom.training import Terms, fit, watch_accuracy


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
        checkpoint: as in :func:`deepcustom.training.fit`.

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


def train_with_art(
    net: Classifier,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    params: TrainingParams,
    *,
    attack: AttackParams,
    ratio: float,
    threat: ThreatModel,
    num_classes: int,
    seed: int,
    compute: Compute,
    advance: Advance = silent,
    checkpoint: Checkpoint = NOWHERE,
) -> History:
    """Train with ART's own AdversarialTrainer, which attacks the network as it learns.

    Args:
        net: a fresh network, trained in place.
        train: clean images (N, C, H, W) in [0, 1] and labels (N,).
        val: clean images and labels to watch; may be empty.
        params: the training budget; ART keeps the learning rate constant.
        attack: made on the network at every step.
        ratio: share of each batch that is replaced by adversarial images, in (0, 1].
        threat: ball and range of the attack.
        num_classes: how many classes.
        seed: of the batches and of what is attacked in them; every epoch has its own.
        compute: device; ART computes in float32.
        advance: called after every epoch with how it stands.
        checkpoint: as in :func:`deepcustom.training.fit`.

    Returns:
        The history: ``val_accuracy`` per epoch (ART reports no loss).
    """
    os.environ.setdefault("TQDM_DISABLE", "1")  # ART's two bars an epoch; ``advance`` tells more
    from art.defences.trainer import AdversarialTrainer

    from deepcustom.attacks import art_attack, art_classifier

    optimizer = torch.optim.Adam(
        net.parameters(),
        lr=params.learning_rate,
        betas=(params.momentum, 0.999),
        weight_decay=params.weight_decay,
    )
    shape = tuple(train[0].shape[1:])
    estimator = art_classifier(net, shape, num_classes, compute.device, optimizer)
    trainer = AdversarialTrainer(estimator, art_attack(estimator, attack, threat), ratio=ratio)
    x, y = train[0].cpu().numpy(), np.eye(num_classes, dtype=np.float32)[train[1].cpu().numpy()]
    tell_resumed(checkpoint, advance)
    done, history, _ = load_epoch(checkpoint, net, optimizer)
    for epoch in range(done + 1, params.epochs + 1):
        seed_everything(derive_seed(seed, "epoch", str(epoch)))
        trainer.fit(x, y, batch_size=params.batch_size, nb_epochs=1)
        note = ""
        if len(val[0]):
            history.setdefault("val_accuracy", []).append(accuracy(net, *val))
            note = f"val_accuracy {history['val_accuracy'][-1]:.4f}"
        advance(note)
        if epoch < params.epochs:
            save_epoch(checkpoint, net, optimizer, epoch, history)
    net.eval()
    return history
