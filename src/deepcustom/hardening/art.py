"""Training by ART's own AdversarialTrainer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.params import AttackParams, TrainingParams
from deepcustom.base.progress import Advance, silent
from deepcustom.training.checkpoint import NOWHERE, Checkpoint
from deepcustom.training.compute import Compute, derive_seed, seed_everything
from deepcustom.training.epochs import History, load_epoch, save_epoch, tell_resumed
from deepcustom.training.nets.base import Classifier
from deepcustom.training.prediction import accuracy


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
        checkpoint: as in :func:`deepcustom.training.fit.fit`.

    Returns:
        The history: ``val_accuracy`` per epoch (ART reports no loss).
    """
    from art.defences.trainer import AdversarialTrainer

    from deepcustom.attacks.art import art_attack, art_classifier

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
