"""DGNs as an attack of IBM's Adversarial Robustness Toolbox (ART)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from art.attacks.attack import EvasionAttack
from art.estimators.classification.classifier import ClassifierMixin
from art.estimators.estimator import BaseEstimator

from deepcustom.attacks.dgn import DGN
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError
from deepcustom.training.compute import FLOAT32, Compute


class DGNAttack(EvasionAttack):  # type: ignore[misc]  # ART has no types
    """DGNs as an ART evasion attack, usable wherever ART takes one.

    The label that :meth:`generate` is given picks each image's DGN. Without labels, the class that the
    estimator predicts picks it.
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
        bank: DGN,
        threat: ThreatModel,
        *,
        batch_size: int = 500,
        compute: Compute = FLOAT32,
    ) -> None:
        """Wrap ``bank``.

        Args:
            estimator: an ART classifier; asked for predictions only where no labels are given.
            bank: one DGN per class, or one that is told the class.
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
            y: labels as ART takes them: (N,) or (N, 1) class indices, or (N, classes) one-hot or scores;
                ``None``: what the estimator predicts.
            kwargs: accepted for ART's interface, unused.

        Returns:
            (N, C, H, W) float32, inside the threat model.

        Raises:
            InputError: ``y`` has another shape, is not whole numbers, or names a class without a DGN; or
                ``x`` has another shape, or values outside [0, 1].
        """
        given = self.estimator.predict(x) if y is None else np.asarray(y)
        images = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
        x_adv = self.bank.generate(
            images,
            torch.from_numpy(_indices(given, self.bank.classes)),
            self.threat,
            compute=self.compute,
            batch_size=self.batch_size,
        )
        return x_adv.numpy()

    def _check_params(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be positive, found {self.batch_size}")


def _indices(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Class indices (N,) int64 of labels in one of ART's forms.

    ART's own ``check_and_transform_label_format`` takes the argmax over a second axis of any length, so
    labels for another number of classes would pass.
    """
    if labels.dtype.kind not in "biuf" or not np.isfinite(labels).all():
        raise InputError(f"labels must be finite numbers, found {labels.dtype}")
    if labels.ndim == 2 and labels.shape[1] == num_classes > 1:
        labels = labels.argmax(axis=1)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise InputError(
            f"labels must be (N,), (N, 1) or (N, {num_classes}), one column per DGN, found {labels.shape}"
        )
    indices: np.ndarray = labels.astype(np.int64)
    if not np.array_equal(indices, labels):
        raise InputError("labels (N,) or (N, 1) must be class indices: whole numbers")
    return indices
