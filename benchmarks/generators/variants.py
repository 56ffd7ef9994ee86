"""What is compared, as ``variants.yaml`` beside this file has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from deepcustom.base.params import Params, read_params, validate
from deepcustom.base.rows import overlay
from deepcustom.base.settings import TrainingParams

FILE = Path(__file__).with_name("variants.yaml")
OWN = "own"
"""What stands for the classifier that a variant is tried on."""


class Place(Params):
    """A classifier: a project's folder, from the repository's top, and the subject in it."""

    title: str
    folder: str
    subject: str


class Variant(Params):
    """A generator, what it is trained on, and how."""

    varies: str
    about: str
    network: str
    options: dict[str, Any]
    each: bool
    loss: str
    loss_options: dict[str, float]
    against: list[str] = Field(min_length=1)
    passes: int = Field(ge=1)
    training: TrainingParams


def read(file: Path = FILE) -> tuple[dict[str, Place], dict[str, Variant]]:
    """The classifiers and the variants by their names.

    Raises:
        ParamsError: in one line: what of the file cannot be used.
    """
    tree = read_params(file)
    places = {
        name: validate(Place, one, f"classifiers.{name}")
        for name, one in tree["classifiers"].items()
    }
    variants = {
        name: validate(Variant, overlay(tree["base"], one), f"variants.{name}")
        for name, one in tree["variants"].items()
    }
    return places, variants
