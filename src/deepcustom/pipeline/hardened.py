"""Which attack each network was hardened with, as ``params.yaml`` says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepcustom.base.params import AdversarialTrainParams, hardening, read_params, validate
from deepcustom.evaluation.results import HardenedWith

SECTION = "adversarial_train"


def hardened_with(path: Path) -> dict[str, HardenedWith]:
    """Data set → network → the attack it was hardened with, by its name among the adversarial sets.

    A network that learned from a stored set did so from the set of its own name, one that ART trained from
    images of an attack, by its method. The others made images that no set holds.

    Args:
        path: of ``params.yaml``.

    Raises:
        ParamsError: the file is missing, or a network's section has a mistake.
    """
    sections = _items(read_params(path).get(SECTION))
    return {dataset: dict(_pairs(dataset, networks)) for dataset, networks in sections}


def _pairs(dataset: str, networks: Any) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, values in _items(networks):
        row = validate(hardening(values), values, f"{SECTION}.{dataset}.{name}")
        if isinstance(row, AdversarialTrainParams):
            if row.attack is not None:
                found.append((name, row.attack.method))
            elif row.inner is None:
                found.append((name, name))
    return found


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []
