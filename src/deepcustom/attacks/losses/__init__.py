"""Custom losses that a DGN can be trained on; importing this registers the built-in ones."""

from deepcustom.attacks.losses import lrp, nce, suspiciousness
from deepcustom.attacks.losses.base import (
    REGISTRY,
    CustomLoss,
    LossContext,
    build_loss,
    contexts,
    find_loss,
    register_loss,
)

__all__ = [
    "REGISTRY",
    "CustomLoss",
    "LossContext",
    "build_loss",
    "contexts",
    "find_loss",
    "lrp",
    "nce",
    "register_loss",
    "suspiciousness",
]
