"""The study's networks by the names that the settings give them, for the tests."""

from __future__ import annotations

NETWORK = {
    "mnist": "deepcustom.training.nets.mnist:MnistClassifier",
    "cifar10": "deepcustom.training.nets.cifar10:Cifar10Classifier",
}
GENERATOR = {
    "mnist": "deepcustom.training.nets.mnist:MnistGenerator",
    "cifar10": "deepcustom.training.nets.cifar10:Cifar10Generator",
}
CONDITIONAL = {
    "mnist": "deepcustom.training.nets.mnist:MnistConditional",
    "cifar10": "deepcustom.training.nets.cifar10:Cifar10Conditional",
}
