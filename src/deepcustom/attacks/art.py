"""Attacks in the form of IBM's Adversarial Robustness Toolbox (ART): its FGSM and PGD, and our DGNs."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from art.attacks.attack import EvasionAttack
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentPyTorch
from art.estimators.classification import PyTorchClassifier
from art.estimators.classification.classifier import ClassifierMixin
from art.estimators.estimator import BaseEstimator
from torch import Tensor, nn

from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.params import AttackParams
from deepcustom.base.progress import Advance, silent
from deepcustom.training.compute import FLOAT32, Compute, derive_seed, seed_everything
from deepcustom.training.nets.base import Classifier, MixedPrecision


def art_classifier(
    net: nn.Module,
    shape: tuple[int, ...],
    num_classes: int,
    device: torch.device,
    optimizer: torch.optim.Optimizer | None = None,
) -> PyTorchClassifier:
    """``net`` as ART sees it.

    Args:
        net: images (N, C, H, W) in [0, 1] to logits (N, num_classes).
        shape: (C, H, W).
        num_classes: how many logits.
        device: where to compute.
        optimizer: needed only where ART is to train.
    """
    return PyTorchClassifier(
        model=net,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        input_shape=shape,
        nb_classes=num_classes,
        clip_values=(0.0, 1.0),
        device_type="cpu" if device.type == "cpu" else "gpu",
    )


def sloped(net: Classifier, compute: Compute) -> Classifier:
    """``net`` in the run's precision, as far as its gradients bear that.

    Args:
        net: frozen classifier.
        compute: precision; attacks do not scale the loss, so in float16, where most of a gradient would
            be lost to zero, the network stays in float32.

    Returns:
        Images (N, C, H, W) in [0, 1] to float32 logits (N, classes), as ``net``.
    """
    return net if compute.precision is torch.float16 else MixedPrecision(net, compute)


def art_attack(
    estimator: PyTorchClassifier, params: AttackParams, threat: ThreatModel
) -> EvasionAttack:
    """ART's attack with these settings: FGSM (Goodfellow et al. 2015) or PGD (Madry et al. 2018)."""
    if params.method == "fgsm":
        return FastGradientMethod(
            estimator, norm=np.inf, eps=threat.eps, batch_size=params.batch_size
        )
    return ProjectedGradientDescentPyTorch(
        estimator,
        norm=np.inf,
        eps=threat.eps,
        eps_step=params.eps_step,
        max_iter=params.max_iter,
        num_random_init=params.num_random_init,
        batch_size=params.batch_size,
        verbose=False,
    )


def run_attack(
    estimator: PyTorchClassifier,
    params: AttackParams,
    threat: ThreatModel,
    x: Tensor,
    y: Tensor,
    *,
    seed: int = 0,
    offset: int = 0,
    advance: Advance = silent,
) -> np.ndarray:
    """Attack every image, untargeted.

    Args:
        estimator: the network to fool.
        params: which attack, and its settings.
        threat: ball and range.
        x: clean images (N, C, H, W), float32 in [0, 1].
        y: true labels (N,) int64.
        seed: of the random starts; every batch has its own from it, by the row it begins with.
        offset: the row of the first image, where ``x`` is part of something. Cut at multiples of
            ``params.batch_size``, the parts give the same images as the whole.
        advance: called after every batch with the number of images done.

    Returns:
        (N, C, H, W) float32, inside ``threat``.
    """
    attack = art_attack(estimator, params, threat)
    done = np.empty(tuple(x.shape), np.float32)
    for start in range(0, len(x), params.batch_size):
        rows = slice(start, start + params.batch_size)
        clean = x[rows].cpu()
        seed_everything(derive_seed(seed, str(offset + start)))
        x_adv = attack.generate(clean.numpy(), y=y[rows].cpu().numpy())
        done[rows] = threat.project(torch.from_numpy(x_adv), clean).numpy()
        advance(steps=len(clean))
    return done


class DGNAttack(EvasionAttack):  # type: ignore[misc]  # ART has no types
    """A bank of DGNs as an ART evasion attack, usable wherever ART takes one.

    The DGN of each image is picked by the label given to :meth:`generate`, or by the class that the
    estimator predicts where none is given.
    """

    attack_params: ClassVar[list[str]] = [
        *EvasionAttack.attack_params,
        "bank",
        "threat",
        "batch_size",
    ]
    _estimator_requirements = (BaseEstimator, ClassifierMixin)

    def __init__(
        self,
        estimator: Any,
        bank: DGNBank,
        threat: ThreatModel,
        *,
        batch_size: int = 500,
        compute: Compute = FLOAT32,
    ) -> None:
        """Wrap ``bank``.

        Args:
            estimator: an ART classifier; asked for predictions only where no labels are given.
            bank: one DGN per class.
            threat: what the images are projected to.
            batch_size: images per pass of a DGN.
            compute: device and precision; the bank must be on its device.

        Raises:
            ValueError: ``batch_size`` is not positive.
        """
        super().__init__(estimator=estimator)
        self.bank = bank
        self.threat = threat
        self.batch_size = batch_size
        self.compute = compute
        self._check_params()

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """Adversarial images.

        Args:
            x: clean images (N, C, H, W) in [0, 1]; left untouched.
            y: labels (N,), or one-hot (N, classes); ``None``: what the estimator predicts.
            kwargs: accepted for ART's interface, unused.

        Returns:
            (N, C, H, W) float32, inside the threat model.
        """
        labels = self.estimator.predict(x) if y is None else np.asarray(y)
        if labels.ndim > 1:
            labels = labels.argmax(axis=1)
        images = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
        x_adv = self.bank.generate(
            images,
            torch.from_numpy(labels.astype(np.int64)),
            self.threat,
            compute=self.compute,
            batch_size=self.batch_size,
        )
        return x_adv.numpy()

    def _check_params(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be positive, found {self.batch_size}")
