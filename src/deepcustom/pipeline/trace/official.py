"""Checks whether prepared splits are the official data set, or all of the user's images, byte for byte."""

from __future__ import annotations

import hashlib

import numpy as np

from deepcustom.base.errors import InputError
from deepcustom.data.arrays import Split
from deepcustom.data.datasets import DatasetSpec, load_spec
from deepcustom.pipeline import workspace
from deepcustom.pipeline.trace.lineage import ABSENT, BROKEN, OK, Link
from deepcustom.pipeline.workspace import Workspace

PARTS = {"train": ("train", "val"), "test": ("test",)}
OFFICIAL = {part: f"official {part} split" for part in PARTS}
OWN = {part: f"all own {part} images" for part in PARTS}
NAMES = (*OFFICIAL.values(), *OWN.values())
"""What the links are called."""


def official_links(ws: Workspace, dataset: str, *, own: bool = False) -> list[Link]:
    """Put ``train`` and ``test`` together again, and compare them with the hashes that are known.

    Args:
        ws: the project.
        dataset: name of the data set.
        own: whether it is the user's own: then the hashes are those of all images, as ``prepare`` read them.
    """
    names = OWN if own else OFFICIAL
    try:
        known = load_spec(ws.root / workspace.dataset(dataset))
    except InputError as error:
        return [Link(names[part], ABSENT, str(error)) for part in PARTS]
    return [_compare(ws, dataset, known, part, names[part]) for part in PARTS]


def _compare(ws: Workspace, dataset: str, known: DatasetSpec, name: str, said: str) -> Link:
    facts = known.splits[name]
    try:
        parts = [
            Split.load(ws.root / workspace.split(dataset, part), known) for part in PARTS[name]
        ]
    except InputError as error:
        return Link(said, ABSENT, str(error))
    index = np.concatenate([part.index for part in parts])
    if len(index) < facts.size:
        return Link(said, ABSENT, f"{len(index):,} of its {facts.size:,} images were taken")
    order = np.argsort(index, kind="stable")
    for key, expected in (("x", facts.x_sha256), ("y", facts.y_sha256)):
        whole = np.concatenate([getattr(part, key) for part in parts])[order]
        found = hashlib.sha256(np.ascontiguousarray(whole).data).hexdigest()
        if found != expected:
            return Link(said, BROKEN, f"{key} has sha256 {found}, expected {expected}")
    return Link(said, OK, f"{facts.size:,} images, sha256 {facts.x_sha256}")
