"""Whether what was prepared is the official data set, byte for byte."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from deepcustom.base.errors import InputError
from deepcustom.data.arrays import Split
from deepcustom.data.datasets import DatasetSpec, load_spec
from deepcustom.pipeline import workspace
from deepcustom.pipeline.workspace import Workspace

PARTS = {"train": ("train", "val"), "test": ("test",)}


@dataclass(frozen=True)
class Comparison:
    """``same`` is None where there is nothing to compare; ``detail`` says why, or what was found."""

    same: bool | None
    detail: str


def official_splits(ws: Workspace, dataset: str) -> dict[str, Comparison]:
    """Put the official ``train`` and ``test`` together again, and hold them against their hashes."""
    try:
        known = load_spec(ws.root / workspace.dataset(dataset))
    except InputError as error:
        return {name: Comparison(None, str(error)) for name in PARTS}
    return {name: _compare(ws, dataset, known, name) for name in PARTS}


def _compare(ws: Workspace, dataset: str, known: DatasetSpec, name: str) -> Comparison:
    facts = known.splits[name]
    try:
        parts = [
            Split.load(ws.root / workspace.split(dataset, part), known) for part in PARTS[name]
        ]
    except InputError as error:
        return Comparison(None, str(error))
    index = np.concatenate([part.index for part in parts])
    if len(index) < facts.size:
        return Comparison(None, f"{len(index):,} of its {facts.size:,} images were taken")
    order = np.argsort(index, kind="stable")
    for key, expected in (("x", facts.x_sha256), ("y", facts.y_sha256)):
        whole = np.concatenate([getattr(part, key) for part in parts])[order]
        found = hashlib.sha256(np.ascontiguousarray(whole).data).hexdigest()
        if found != expected:
            return Comparison(False, f"{key} has sha256 {found}, expected {expected}")
    return Comparison(True, f"{facts.size:,} images, sha256 {facts.x_sha256}")
