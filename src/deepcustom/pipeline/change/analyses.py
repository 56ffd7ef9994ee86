"""Rows of the analyses that losses require: added with the first bank or network that needs one, removed with
the last."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from deepcustom.attacks.losses.base import find_loss
from deepcustom.base.params import section
from deepcustom.base.rows import SUBJECTS, Row, row, rows
from deepcustom.data.datasets import load_spec
from deepcustom.library.starting import RELEVANT, SUSPICIOUS
from deepcustom.pipeline import workspace
from deepcustom.pipeline.change.draft import Draft, NewRow, Tree

ANALYSES = ("relevance", "suspiciousness")
READERS = ("train_dgn", "train_online")
"""The sections whose rows learn on a loss."""
UNPREPARED = (1, 28, 28)
"""The shape of images that nobody has prepared yet."""


def add_analyses(draft: Draft, subject: str, loss: str) -> None:
    """Draw up a row for each analysis that ``loss`` requires and ``subject`` lacks.

    It is like another subject's on the same images, or has the usual settings. All of them stand in the row.

    Raises:
        UnknownNameError, LossError: there is no such loss.
    """
    with contextlib.chdir(draft.root):
        required = find_loss(loss).requires
    dataset = section(draft.tree, SUBJECTS, subject)["dataset"]
    for stage in ANALYSES:
        known = list(rows(draft.tree, stage))
        if stage not in required or any(one.subject == subject for one in known):
            continue
        twin = next((one for one in known if one.dataset == dataset), None)
        own = (
            dict(twin.settings) if twin else _usual(stage, draft.root / workspace.dataset(dataset))
        )
        like = twin.name if twin else None
        draft.put(NewRow(stage, subject, {"dataset": dataset, **own}, like, twin is not None))


def _usual(stage: str, described: Path) -> dict[str, Any]:
    """The settings that an analysis begins with.

    Args:
        stage: its section.
        described: the description of the data set, which is there once the images are prepared.
    """
    if stage == "suspiciousness":
        return {"k": SUSPICIOUS, "activation_threshold": 0.0, "formula": "tarantula"}
    shape = load_spec(described).shape if described.is_file() else UNPREPARED
    k = max(1, round(RELEVANT * math.prod(shape)))
    return {"k": k, "epsilon": 1.0e-6, "method": "lrp"}


def only_for(tree: Tree, subject: str, gone: Collection[Row]) -> Iterator[Row]:
    """The rows of the analyses that ``gone``, rows of a subject, read, and no other row reads.

    Args:
        tree: the whole of the params, ``gone`` included.
        subject: whose.
        gone: the rows that are removed.
    """
    places = {one.place for one in gone}
    readers = [one for stage in READERS for one in rows(tree, stage, subject)]
    for stage in ANALYSES:
        if subject not in (section(tree, stage) or {}):
            continue
        made = PurePosixPath(workspace.analysis(subject, stage))
        reading = [one for one in readers if made.is_relative_to(one.about["reads"])]
        if reading and all(one.place in places for one in reading):
            yield row(tree, stage, subject)
