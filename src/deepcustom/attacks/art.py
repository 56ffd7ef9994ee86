"""FGSM and PGD, made by IBM's Adversarial Robustness Toolbox (ART)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from art.attacks.attack import EvasionAttack
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.progress import Advance, silent
from deepcustom.base.settings import AttackParams
from deepcustom.training.compute import Compute, derive_seed, seed_everything
from deepcustom.training.nets.base import Classifier, MixedPrecision


def art_classifier(
    net: nn.Module,
    shape: tuple[int, ...],
    num_classes: int,
    device: torch.device,
    optimizer: torch.optim.Optimizer | None = None,
) -> PyTorchClassifier:
    """``net`` as an ART classifier.

    Args:
        net: images (N, C, H, W) in [0, 1] to logits (N, num_classes).
        shape: (C, H, W).
        num_classes: how many logits.
        device: where to compute.
        optimizer: needed only if ART trains ``net``.
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


def for_gradients(net: Classifier, compute: Compute) -> Classifier:
    """``net`` in the run's precision if an attack can use its gradients there, else in float32.

    Args:
        net: frozen classifier.
        compute: the run's precision. Attacks do not scale the loss, and in float16 most of an unscaled
            gradient rounds to zero, so there the network stays in float32.

    Returns:
        A classifier from images (N, C, H, W) in [0, 1] to float32 logits (N, classes), like ``net``.
    """
    return net if compute.precision is torch.float16 else MixedPrecision(net, compute)


def art_attack(
    estimator: PyTorchClassifier, params: AttackParams, threat: ThreatModel
) -> EvasionAttack:
    """ART's attack with these settings: FGSM (Goodfellow et al. 2015) or PGD (Madry et al. 2018)."""
    if params.method == "fgsm":
        return FastGradientMethod(
            estimator, norm=threat.ball.art, eps=threat.eps, batch_size=params.batch_size
        )
    return ProjectedGradientDescentPyTorch(
        estimator,
        norm=threat.ball.art,
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
        seed: of the random starts; every batch derives its own seed from it and from its first row.
        offset: the row of the first image, if ``x`` is a part of a larger array. Parts that are cut at
            multiples of ``params.batch_size`` give the same images as the whole.
        advance: called after every batch with the number of its images.

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


@dataclass(frozen=True)
class ByArt:
    """Makes adversarial images chunk by chunk, with FGSM or PGD.

    Attributes:
        target_net: the network to fool.
        params: which attack, and its settings.
        threat: ball and range.
        num_classes: number of logits.
        seed: of the random starts.
    """

    target_net: Classifier
    params: AttackParams
    threat: ThreatModel
    num_classes: int
    seed: int

    def __call__(
        self, x: Tensor, y: Tensor, start: int, *, compute: Compute, advance: Advance = silent
    ) -> Tensor:
        """See :class:`~deepcustom.attacks.chunks.Maker`."""
        net = for_gradients(self.target_net, compute)
        estimator = art_classifier(net, tuple(x.shape[1:]), self.num_classes, compute.device)
        given = (estimator, self.params, self.threat, x, y)
        return torch.from_numpy(run_attack(*given, seed=self.seed, offset=start, advance=advance))

    def networks(self) -> list[nn.Module]:
        """See :class:`~deepcustom.attacks.chunks.Maker`."""
        return [self.target_net]
