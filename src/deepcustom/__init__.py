"""DeepCustom: adversarial images from trained generators, and what they are worth.

What a notebook needs is here, loaded when it is first asked for; the rest lies in the rooms.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from deepcustom.attacks.art import art_classifier as art_classifier
    from deepcustom.attacks.bank import DGNBank as DGNBank
    from deepcustom.attacks.dgn_attack import DGNAttack as DGNAttack
    from deepcustom.attacks.losses.base import CustomLoss as CustomLoss
    from deepcustom.attacks.losses.base import LossContext as LossContext
    from deepcustom.attacks.losses.base import register_loss as register_loss
    from deepcustom.attacks.threat import ThreatModel as ThreatModel
    from deepcustom.data.arrays import AdversarialSet as AdversarialSet
    from deepcustom.data.arrays import Split as Split
    from deepcustom.data.datasets import load_spec as load_spec
    from deepcustom.library.attacking import attack as attack
    from deepcustom.library.bank import load_bank as load_bank
    from deepcustom.library.bank import train_bank as train_bank
    from deepcustom.library.evaluating import evaluate as evaluate
    from deepcustom.library.hardening import harden as harden
    from deepcustom.training.compute import FLOAT32 as FLOAT32
    from deepcustom.training.compute import Compute as Compute
    from deepcustom.training.nets.base import Classifier as Classifier
    from deepcustom.training.weights import load_network as load_network

HOMES = {
    "AdversarialSet": "deepcustom.data.arrays",
    "Classifier": "deepcustom.training.nets.base",
    "Compute": "deepcustom.training.compute",
    "CustomLoss": "deepcustom.attacks.losses.base",
    "FLOAT32": "deepcustom.training.compute",
    "DGNAttack": "deepcustom.attacks.dgn_attack",
    "DGNBank": "deepcustom.attacks.bank",
    "LossContext": "deepcustom.attacks.losses.base",
    "Split": "deepcustom.data.arrays",
    "ThreatModel": "deepcustom.attacks.threat",
    "attack": "deepcustom.library.attacking",
    "art_classifier": "deepcustom.attacks.art",
    "evaluate": "deepcustom.library.evaluating",
    "harden": "deepcustom.library.hardening",
    "load_bank": "deepcustom.library.bank",
    "load_network": "deepcustom.training.weights",
    "load_spec": "deepcustom.data.datasets",
    "register_loss": "deepcustom.attacks.losses.base",
    "train_bank": "deepcustom.library.bank",
}
"""What others may use, and the module that each is in; loaded when it is first asked for."""


def __getattr__(name: str) -> object:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
