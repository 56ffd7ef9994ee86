"""Custom losses that a DGN can be trained on; the built-in ones are found by the names of their files."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepcustom.attacks.losses.base import REGISTRY as REGISTRY
    from deepcustom.attacks.losses.base import CustomLoss as CustomLoss
    from deepcustom.attacks.losses.base import LossContext as LossContext
    from deepcustom.attacks.losses.base import build_loss as build_loss
    from deepcustom.attacks.losses.base import contexts as contexts
    from deepcustom.attacks.losses.base import find_loss as find_loss
    from deepcustom.attacks.losses.base import register_loss as register_loss
    from deepcustom.attacks.losses.base import registered as registered

HOMES = {
    "REGISTRY": "deepcustom.attacks.losses.base",
    "CustomLoss": "deepcustom.attacks.losses.base",
    "LossContext": "deepcustom.attacks.losses.base",
    "build_loss": "deepcustom.attacks.losses.base",
    "contexts": "deepcustom.attacks.losses.base",
    "find_loss": "deepcustom.attacks.losses.base",
    "register_loss": "deepcustom.attacks.losses.base",
    "registered": "deepcustom.attacks.losses.base",
}
"""What others may use, and the module that each is in; loaded when it is first asked for."""


def __getattr__(name: str) -> object:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
