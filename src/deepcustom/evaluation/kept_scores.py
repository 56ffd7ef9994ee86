"""What an interrupted evaluation had finished, network by network, in a checkpoint."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import torch

from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.curves import Point
from deepcustom.evaluation.full import Evaluation
from deepcustom.evaluation.subject import Cost
from deepcustom.training.checkpoint import Checkpoint


def keep(place: Checkpoint, found: Evaluation) -> None:
    """Keep what was found of one network."""
    tensors = {
        f"{protocol}/{attack}": stands.to(torch.uint8)
        for protocol, attacks in found.stands.items()
        for attack, stands in attacks.items()
    }
    about: dict[str, Any] = {
        "order": list(tensors),
        "costs": [[*key, asdict(cost)] for key, cost in found.costs.items()],
        "checks": [_plain(check) for check in found.checks],
        "points": [_plain(point) for point in found.points],
    }
    place.save("scores", tensors, about)


def kept(place: Checkpoint) -> Evaluation | None:
    """What :func:`keep` kept; ``None`` where there is nothing to rely on."""
    there = place.load("scores")
    if there is None:
        return None
    tensors, about = there
    found = Evaluation()
    for key in about["order"]:
        protocol, attack = key.split("/", 1)
        found.stands.setdefault(protocol, {})[attack] = tensors[key].bool()
    found.costs = {(p, a): Cost(**cost) for p, a, cost in about["costs"]}
    found.checks = [Check(**_restored(check)) for check in about["checks"]]
    found.points = [Point(**_restored(point)) for point in about["points"]]
    return found


def _plain(record: Check | Point) -> dict[str, Any]:
    """As JSON holds it; null for nan, which equals nothing, so that a checkpoint would not know it again."""
    return {name: _null(value) for name, value in asdict(record).items()}


def _null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _null(one) for name, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _restored(plain: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _restored(value) if isinstance(value, dict) else math.nan if value is None else value
        for name, value in plain.items()
    }
