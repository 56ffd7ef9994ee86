"""What a network predicts for images, and how often it is right."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepcustom.training.rows import Images

BATCH = 200
"""Images that a network is shown at once: 200 fit in the processor's cache."""


@torch.no_grad()
def predict(net: nn.Module, x: Images, batch_size: int = BATCH) -> Tensor:
    """Logits (N, classes), float32, of ``x`` (N, C, H, W); ``net`` is put in eval mode.

    2,000 images per pass took twice as long on CIFAR-10's network.
    """
    net.eval()
    parts = [net(x[start : start + batch_size]) for start in range(0, len(x), batch_size)]
    return torch.cat(parts) if parts else net(x[:0])


def gets_right(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) bool: which of the answers ``logits`` (N, classes) are ``y`` (N,); nan is no answer, so wrong."""
    return (logits.argmax(1) == y) & ~logits.isnan().any(1)


def accuracy(net: nn.Module, x: Images, y: Tensor) -> float:
    """Share of ``x`` (N, C, H, W) that ``net`` classifies as ``y`` (N,), in 0..1; nan where N is 0."""
    return float(gets_right(predict(net, x), y).float().mean()) if len(x) else float("nan")
