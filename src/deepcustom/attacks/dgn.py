"""What all data generator networks (DGNs) share: each image comes with the label it is made for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError
from deepcustom.training.compute import Compute
from deepcustom.training.weights import load_tensors


class DGN(ABC):
    """Makes adversarial images by label: a bank of generators, or one that is told the label."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """How many labels there are."""

    @abstractmethod
    def networks(self) -> list[nn.Module]:
        """The generators in it."""

    @torch.no_grad()
    def generate(
        self,
        x: Tensor,
        labels: Tensor,
        threat: ThreatModel,
        *,
        compute: Compute,
        batch_size: int = 200,
    ) -> Tensor:
        """Adversarial images, one forward pass each.

        Args:
            x: clean images (N, C, H, W), float32 in [0, 1].
            labels: (N,) int64, the class that each image is made for.
            threat: what the result is projected to.
            compute: device and precision.
            batch_size: images per pass at most.

        Returns:
            (N, C, H, W) float32 on ``x``'s device, inside the threat model.

        Raises:
            InputError: the images have another form or range; a label is not a class, or there are not as
                many labels as images.
        """
        _check_images(x)
        if labels.is_floating_point() or labels.is_complex():
            raise InputError(f"labels are {labels.dtype}, want whole numbers (N,)")
        if labels.shape != (len(x),):
            raise InputError(f"{len(x)} images need as many labels, found {tuple(labels.shape)}")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            found = f"found {int(labels.min())}..{int(labels.max())}"
            raise InputError(f"labels must lie in 0..{self.classes - 1}, {found}")
        return self._generate(x, labels, threat, compute, batch_size)

    @abstractmethod
    def _generate(
        self, x: Tensor, labels: Tensor, threat: ThreatModel, compute: Compute, batch_size: int
    ) -> Tensor:
        """As :meth:`generate`, for labels that were checked."""


def _check_images(x: Tensor) -> None:
    if x.dim() != 4 or not x.is_floating_point():
        raise InputError(
            f"images are {x.dtype} of shape {tuple(x.shape)}, want floating point (N, C, H, W) in [0, 1]"
        )
    if x.numel():
        low, high = (float(value) for value in x.aminmax())
        if not (low >= 0 and high <= 1):  # so that nan fails as well
            raise InputError(f"images have values from {low:.3g} to {high:.3g}, want [0, 1]")


def read_dgn(path: Path, kind: str, dataset: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and metadata of a file of DGNs.

    Args:
        path: a safetensors file.
        kind: what its metadata must call it.
        dataset: the subject it must be for.

    Raises:
        InputError: no such file, or it holds something else.
    """
    tensors, about = load_tensors(path)
    if about.get("kind") != kind or about.get("dataset") != dataset:
        found = f"{about.get('kind')} for {about.get('dataset')}"
        raise InputError(f"{path} holds a {found}, expected a {kind} for {dataset}")
    return tensors, about


def stored(tensor: Tensor) -> Tensor:
    """``tensor`` as it goes to disk: weights in half precision, biases and batch norm unchanged."""
    return tensor.half() if tensor.dim() > 1 else tensor
