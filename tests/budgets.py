"""Settings for the tests, each whole: what a test does not care about is filled in here."""

from __future__ import annotations

from typing import Any

from deepcustom.base.settings import (
    AdaptiveParams,
    AttackParams,
    AutoAttackParams,
    ComputeParams,
    TrainDgnParams,
    TrainingParams,
)

OPTIONS: dict[str, dict[str, Any]] = {
    "lrp": {"custom_loss_constant": 0.5},
    "nce": {"mse_weight": 1.0, "cross_entropy_weight": 1.0},
    "suspiciousness": {
        "custom_loss_constant": 0.8,
        "theta": 0.5,
        "gamma": 0.5,
        "alpha": 0.5,
        "beta": 0.01,
    },
    "examples.margin_loss:MarginLoss": {"kappa": 0.0, "margin_weight": 1.0, "mse_weight": 1.0},
}
"""What the built-in losses and the example are weighted with."""


def training(**changes: Any) -> TrainingParams:
    """A budget of plain Adam at a constant rate."""
    constant = {"schedule": "constant", "momentum": 0.9, "weight_decay": 0.0}
    if changes.get("schedule") == "staircase":
        constant |= {"decay_rate": 0.9, "decay_steps": 1000}
    return TrainingParams.model_validate({**constant, **changes})


def attack(**changes: Any) -> AttackParams:
    """FGSM or PGD, in batches of 1,000."""
    return AttackParams.model_validate({"batch_size": 1000, **changes})


def autoattack(**changes: Any) -> AutoAttackParams:
    """AutoAttack's parts, from one start."""
    usual = {"max_iter": 100, "num_random_init": 1, "targets": 9, "queries": 5000}
    return AutoAttackParams.model_validate({**usual, "batch_size": 500, **changes})


def adaptive(**changes: Any) -> AdaptiveParams:
    """A bank that is trained on, on all images of a class."""
    return AdaptiveParams.model_validate({"images_per_class": None, **changes})


def computing(**changes: Any) -> ComputeParams:
    """The best that there is."""
    best = {"device": "auto", "precision": "auto", "threads": "auto"}
    return ComputeParams.model_validate({**best, **changes})


def options(loss: str, **changes: Any) -> dict[str, Any]:
    """All options of a loss."""
    return OPTIONS.get(loss, {}) | changes


def bank(values: dict[str, Any]) -> TrainDgnParams:
    """A bank of DGNs; what its budget and its loss lack is filled in."""
    budget = training(**values["training"]).model_dump(exclude_none=True)
    weights = options(values["loss"], **values.get("options", {}))
    usual = {"generator": "per_class", "output": "image"}
    whole = {**usual, **values, "training": budget, "options": weights}
    return TrainDgnParams.model_validate(whole)
