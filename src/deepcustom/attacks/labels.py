"""Labels that pick a generator."""

from __future__ import annotations

from torch import Tensor

from deepcustom.base.errors import InputError


def check_labels(labels: Tensor, images: int, num_classes: int) -> None:
    """Whether they are (N,) for that many images, each in 0..num_classes - 1.

    Raises:
        InputError: they are not.
    """
    if labels.shape != (images,):
        raise InputError(f"{images} images need as many labels, found {tuple(labels.shape)}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        found = f"found {int(labels.min())}..{int(labels.max())}"
        raise InputError(f"labels must lie in 0..{num_classes - 1}, {found}")
