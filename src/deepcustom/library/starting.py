"""The settings that a new project and the library begin with, fitted to the number and size of the images.

They stand in ``recipes.yaml`` beside this file. A new project has them in its ``params.yaml``; the library
reads them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import yaml

from deepcustom.attacks.norms import NORMS
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError
from deepcustom.base.params import fraction

TEMPLATE = Path(__file__).with_name("recipes.yaml")
NETS = "deepcustom.training.nets"
GENERATOR, CONDITIONAL = f"{NETS}.unet:UNetGenerator", f"{NETS}.unet:UNetConditional"
"""Generators for images of any shape: of one class, and one that is told the label."""

SEED = 1
COMPUTE = {"device": "auto", "precision": "auto", "threads": "auto"}
LOSS = "soft_margin"
"""What a bank is trained on, where nothing else is asked for."""
OPTIONS = {"nce": {"mse_weight": 1.0, "cross_entropy_weight": 1.0}}
"""The options that a bank begins with, by its loss; the other losses want theirs, or have none."""
RELEVANT, SUSPICIOUS = 0.026, 20
"""Share of the pixels that count as relevant, and suspicious units of each class, as in the study."""
MANY_CLASSES = 20
"""With more classes, a bank whose recipe does not say otherwise is one DGN that is told the label."""
ATTACKED, DRAWN = 500, 100
"""Test images that are attacked, and those among them that the curves are drawn of."""
STEPS, BANK_STEPS = 2000, 1200
"""Optimiser steps of a network's training, and of a DGN's, where the data set is small."""
BANK_EPOCHS = 8
"""The fewest epochs of a DGN."""
RADII = (0, 0.25, 0.5, 1, 1.5, 2, 4, 8)
VALUES_AT_ONCE = 400_000
"""Values of images that are attacked at once."""


@dataclass(frozen=True)
class Start:
    """What the first settings depend on.

    Attributes:
        shape: (C, H, W) of an image.
        classes: how many labels there are.
        eps: radius of the ball: a number, or text such as ``0.1`` or ``8/255``.
        train: number of images to train on.
        test: number of images to attack networks on.
        epochs: of training a network; None chooses by the number of images.
        norm: of the perturbations.
    """

    shape: tuple[int, int, int]
    classes: int
    eps: float | str
    train: int = 0
    test: int = 0
    epochs: int | None = None
    norm: str = "linf"

    def recipes_text(self) -> str:
        """The section ``recipes`` of ``params.yaml``, comments included.

        Raises:
            InputError: ``eps`` is no radius.
        """
        facts = {**self._threat(), **self._budgets(), **self._attacks()}
        return Template(TEMPLATE.read_text()).substitute(facts)

    def recipes(self) -> dict[str, Any]:
        """The same, as a tree: name of a recipe → its settings."""
        found: dict[str, Any] = yaml.safe_load(self.recipes_text())["recipes"]
        return found

    def _threat(self) -> dict[str, str]:
        value = radius(self.eps, norm=self.norm)
        return {"eps": eps_text(self.eps, self.norm), "step": _number(value / 4)}

    def _budgets(self) -> dict[str, Any]:
        """Epochs and batches: few images are seen more often, so that every training has enough steps."""
        train = max(1, self.train)
        batch = 128 if train >= 5000 else 32
        bank_batch = 128 if train >= 5000 else 32
        bank_epochs = min(60, max(BANK_EPOCHS, math.ceil(BANK_STEPS * bank_batch / train)))
        return {
            "batch": batch,
            "epochs": self.epochs or min(50, max(10, math.ceil(STEPS * batch / train))),
            "bank_batch": bank_batch,
            "bank_epochs": bank_epochs,
            "adapted_epochs": max(1, bank_epochs // 4),
        }

    def _attacks(self) -> dict[str, Any]:
        pixels = math.prod(self.shape)
        fits = VALUES_AT_ONCE // pixels
        value, most = radius(self.eps, norm=self.norm), NORMS[self.norm].unlimited(1.0, pixels)
        if value > most:
            raise InputError(
                f"eps is {self.eps}, and no two images of {pixels:,} values in [0, 1] are farther apart than "
                f"{most:.4g} in {NORMS[self.norm].title}: the attacker could make any image of any other"
            )
        return {
            "n": min(ATTACKED, max(1, self.test)),
            "curves_n": min(DRAWN, max(1, self.test)),
            "targets": min(9, self.classes - 1),
            "attack_batch": min(500, max(10, fits)),
            "radii": ", ".join(f"{r:g}" for r in RADII if r * value <= most),
        }

    def training(self) -> dict[str, Any]:
        """The epochs and the batch size of training a network."""
        found = self._budgets()
        return {"epochs": found["epochs"], "batch": found["batch"]}


def radius(eps: Any, name: str = "eps", norm: str = "linf") -> float:
    """The number behind a radius such as ``0.1`` or ``8/255``.

    Args:
        eps: a number, or text.
        name: what messages call it.
        norm: of the perturbations.

    Raises:
        InputError: it is neither, or not above 0; or, in L-infinity, above 1.
    """
    try:
        text = isinstance(eps, str) and "/" in eps
        value = fraction(eps) if text else None if isinstance(eps, bool) else float(eps)
    except (TypeError, ValueError):
        value = None
    if norm != "linf":
        if value is None or not 0 < value < math.inf:
            raise InputError(
                f"{name} {eps!r}: want a number above 0, such as 0.5 or 128/255: the length of a change"
            )
        return value
    if value is None or not 0 < value <= 1:
        raise InputError(
            f"{name} {eps!r}: want a number above 0, at most 1, such as 0.1 or 8/255: the largest change of "
            "a pixel, in units of the range [0, 1]"
        )
    return value


def flow(row: Mapping[str, Any]) -> str:
    """A mapping as YAML has it between braces."""
    text = yaml.safe_dump(dict(row), default_flow_style=True, sort_keys=False, width=math.inf)
    return text.strip()[1:-1]


def threat_of(eps: Any, norm: str, prefix: str = "") -> ThreatModel:
    """The threat model with this radius and norm; ``prefix`` goes before the names in messages.

    Raises:
        InputError: there is no such norm or radius.
    """
    if norm not in NORMS:
        raise InputError(f"{prefix}norm {norm!r}: choose from {', '.join(NORMS)}")
    return ThreatModel(radius(eps, f"{prefix}eps", norm), norm=norm)


def eps_text(eps: float | str, norm: str = "linf") -> str:
    """A radius as ``params.yaml`` has it: fractions stay as they are written."""
    return eps if isinstance(eps, str) and "/" in eps else _number(radius(eps, norm=norm))


def _number(value: float) -> str:
    """A float that YAML 1.1 and 1.2 read alike, with seven digits."""
    text = f"{value:.7g}"
    return text if "e" not in text else f"{value:.12f}".rstrip("0")
