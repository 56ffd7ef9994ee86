"""What training reads images from: a tensor, or images that are read when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch


class Images(Protocol):
    """Images (N, C, H, W), float32 in [0, 1], indexed by a slice, by rows (n,), or by a mask (N,)."""

    @property
    def shape(self) -> Sequence[int]:
        """(N, C, H, W)."""

    @property
    def device(self) -> torch.device:
        """Where images come when they are read."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: Any, /) -> Any:
        """A tensor of images; a mask may give images that are still unread."""


LabelledImages = tuple[Images, torch.Tensor]
"""Images (N, C, H, W), and (N,) the label of each, or the row that each was made from."""
