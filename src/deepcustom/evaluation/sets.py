"""Stored adversarial sets: preparing them for scoring, and the checks on them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deepcustom.attacks.threat import ThreatModel
from deepcustom.data import arrays
from deepcustom.data.arrays import AdversarialSet, Split
from deepcustom.data.mapped import MappedImages
from deepcustom.evaluation import checks
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.results import unclipped
from deepcustom.evaluation.transfer import TestSet

_LEAK_IMAGES = 4000  # the most images of a set that are searched for a label leak
_LEAK_VALUES = (
    2**25
)  # the most values in them, since the ridge regression holds them all, several times


@dataclass(frozen=True)
class StoredSet:
    """An adversarial set, with the name of the attack that made it and the hash of its files."""

    attack: str
    md5: str
    made: AdversarialSet


def checked(
    stored: StoredSet, split: Split, threat: ThreatModel, device: torch.device, seed: int
) -> tuple[TestSet, Tensor, list[Check]]:
    """Prepare an adversarial set for scoring, and check it.

    Args:
        stored: the set.
        split: the whole test split.
        threat: ball and range; a set that leaves the ball has ``-unclipped`` appended to its name.
        device: where to put the images.
        seed: seeds the check that fits a classifier.

    Returns:
        The set; for each of its images the row of the test split it comes from, (N,); and the checks.

    Raises:
        InputError: the set was made from another split.
    """
    attack, made = stored.attack, stored.made
    inside = checks.ball(f"{attack} (set)", made.x_adv, made.x, threat)
    clipped = inside.verdict == "ok"
    name = attack if clipped else unclipped(attack)
    if not clipped:
        print(f"warning: scored as {name}, since {inside.text}")
    found = [inside, *_label_leak(name, made, seed)]
    x_adv, y = MappedImages.on(made.x_adv, device), arrays.labels(made.y)
    images = TestSet(name, stored.md5, x_adv, y.to(device), clipped)
    rows = split.rows_of(made.index, f"the adversarial set {attack!r}", "test")
    return images, torch.from_numpy(rows), found


def _label_leak(name: str, made: AdversarialSet, seed: int) -> list[Check]:
    """Check whether the label can be read off a set's perturbations; no check if the set is too small."""
    values = math.prod(made.x.shape[1:])
    few = made.take(slice(0, min(_LEAK_IMAGES, _LEAK_VALUES // values)))
    counts = np.bincount(few.y) if len(few) else np.zeros(1, np.int64)
    if len(few) < 100 or counts[counts > 0].min() < 2:
        return []
    clean = few.x.astype(np.float32)
    if few.x.dtype == np.uint8:
        clean /= np.float32(255)
    return [checks.label_in_perturbation(f"{name} (set)", few.x_adv - clean, few.y, seed)]
