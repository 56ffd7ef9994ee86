"""Training by the AdversarialTrainer of IBM's Adversarial Robustness Toolbox (ART)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from deepcustom.base.settings import AttackParams
from deepcustom.hardening.base import Way, WaySettings
from deepcustom.training.compute import derive_seed, seed_everything
from deepcustom.training.epochs import History, load_epoch, save_epoch
from deepcustom.training.job import Job
from deepcustom.training.nets.base import Classifier
from deepcustom.training.prediction import accuracy
from deepcustom.training.rows import LabelledImages


class ArtSettings(WaySettings):
    """``attack`` perturbs the share ``ratio`` of every batch."""

    type: Literal["art"]
    ratio: float = Field(gt=0, le=1)
    attack: AttackParams

    @model_validator(mode="after")
    def _at_a_constant_rate(self) -> ArtSettings:
        if self.training.schedule != "constant":
            raise ValueError("type art trains at a constant rate: schedule must be constant")
        return self

    @model_validator(mode="after")
    def _on_whole_plain_batches(self) -> ArtSettings:
        if self.training.augment is not None:
            raise ValueError("type art trains on the images as they are: leave augment out")
        if self.training.accumulate is not None:
            raise ValueError("type art trains on whole batches: leave accumulate out")
        return self


class Art(Way[ArtSettings]):
    """ART attacks the network as it learns."""

    Settings = ArtSettings
    together = False

    def train(
        self,
        net: Classifier,
        train: LabelledImages,
        val: LabelledImages,
        job: Job,
        made: LabelledImages | None = None,
    ) -> History:
        """As :meth:`Way.train`, except that ART holds all images in memory and computes in float32.

        Every epoch has its own seed.

        Returns:
            ``val_accuracy`` where ``val`` is not empty (ART reports no loss).
        """
        from art.defences.trainer import AdversarialTrainer

        from deepcustom.attacks.art import art_attack, art_classifier

        # Wrap the network, the attack and Adam for ART.
        budget, classes = self.settings.training, self.num_classes
        optimizer = torch.optim.Adam(
            net.parameters(),
            lr=budget.learning_rate,
            betas=(budget.momentum, 0.999),
            weight_decay=budget.weight_decay,
        )
        shape = tuple(train[0].shape[1:])
        estimator = art_classifier(net, shape, classes, job.compute.device, optimizer)
        attack = art_attack(estimator, self.settings.attack, self.threat)
        trainer = AdversarialTrainer(estimator, attack, ratio=self.settings.ratio)
        x, y = train[0][:].cpu().numpy(), np.eye(classes, dtype=np.float32)[train[1].cpu().numpy()]
        # Train one epoch at a time, so that the checkpoint can keep each.
        job.tell_resumed()
        done, history, _ = load_epoch(job.checkpoint, net, optimizer)
        for epoch in range(done + 1, budget.epochs + 1):
            seed_everything(derive_seed(job.seed, "epoch", str(epoch)))
            trainer.fit(x, y, batch_size=budget.batch_size, nb_epochs=1)
            seen = {"val_accuracy": accuracy(net, *val)} if len(val[0]) else {}
            for name, value in seen.items():
                history.setdefault(name, []).append(value)
            job.tell(seen)
            if epoch < budget.epochs:
                save_epoch(job.checkpoint, net, optimizer, epoch, history)
        net.eval()
        return history
