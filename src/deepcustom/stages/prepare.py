"""A source of images to verified splits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from deepcustom.base.files import partial_of, remove
from deepcustom.base.image_settings import BuiltInParams, prepare_model
from deepcustom.data import datasets, doubts, official, sources, whole
from deepcustom.pipeline import workspace
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace

SIDES = {"train": "train", "val": "train", "test": "test"}
"""Split → the side of the data set that it is drawn from."""


def run(ws: Workspace, dataset: str) -> None:
    """Read the images of ``dataset``, check them, draw the splits, and save these and a description."""
    with StageRun(ws, "prepare", dataset) as stage:
        params = stage.settings(prepare_model(stage.row.settings, stage.row.place))

        pixels = partial_of(ws.path(workspace.split(dataset, "pixels")))
        try:
            if isinstance(params, BuiltInParams):
                source = sources.find_source(dataset)
                named = os.environ.get("DEEPCUSTOM_DATA_DIR")
                data_dir = Path(named) if named else None
                raw = sources.fetch(source, ws.raw(dataset), data_dir=data_dir)
                data = official.built_in(raw, source.spec)
            else:
                if params.path is not None:
                    stage.read(params.path)
                place, seed = stage.row.place, stage.seed
                data = official.own(ws.root, dataset, params, pixels, place, seed)
            _write(stage, data, official.splits(data, params, stage.row.place, stage.seed))
        finally:
            remove(pixels)


def _write(stage: StageRun, data: official.Official, splits: dict[str, whole.Rows]) -> None:
    """Save the splits, the description, and the record of what is suspicious."""
    dataset, sides = stage.row.name, {"train": data.train, "test": data.test}
    surveys = {name: whole.survey(side) for name, side in sides.items()}
    spec = datasets.DatasetSpec(
        name=dataset,
        title=data.title,
        shape=tuple(data.train.x.shape[1:]),
        classes=data.classes,
        splits={name: one.facts for name, one in surveys.items()},
    )
    datasets.save_spec(spec, stage.write(workspace.dataset(dataset)))
    moments = {
        name: whole.write_split(
            stage.write(workspace.split(dataset, name)), sides[SIDES[name]], rows
        )
        for name, rows in splits.items()
    }

    digests = surveys["train"].digests, surveys["test"].digests
    found = doubts.find_doubts(data.train, data.test, digests, data.classes)
    record = _record(data, found)
    place = stage.write(workspace.data_record(dataset))
    place.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for one in found:
        if one.count:
            print(f"warning: {dataset}: {one.count:g} {one.text}: {'; '.join(one.examples)}")

    stage.log(
        {
            **{f"{name}_images": len(rows) for name, rows in splits.items()},
            "train_mean": moments["train"].mean,
            "train_std": moments["train"].std,
            **{f"warnings/{one.key}": one.count for one in found},
        }
    )


def _record(data: official.Official, found: list[doubts.Doubt]) -> dict[str, Any]:
    counts = [np.bincount(y, minlength=len(data.classes)) for y in (data.train.y, data.test.y)]
    pairs = zip(*(one.tolist() for one in counts), strict=True)
    return {
        "images": {"train": len(data.train.y), "test": len(data.test.y)},
        "images_by_class": {
            name: {"train": train, "test": test}
            for name, (train, test) in zip(data.classes, pairs, strict=True)
        },
        **data.about,
        "warnings": {one.key: {"count": one.count, "examples": one.examples} for one in found},
    }
