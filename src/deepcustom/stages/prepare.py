"""Raw data to verified splits."""

from __future__ import annotations

import os
from pathlib import Path

from deepcustom.base.settings import PrepareParams
from deepcustom.data import arrays, datasets, draws, sources
from deepcustom.pipeline import workspace
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace


def run(ws: Workspace, dataset: str) -> None:
    """Fetch ``dataset``, verify it, carve ``val`` from train, and save the three splits and a description."""
    source = sources.find_source(dataset)
    with StageRun(ws, "prepare", dataset) as stage:
        params = stage.settings(PrepareParams)

        named = os.environ.get("DEEPCUSTOM_DATA_DIR")
        raw = sources.fetch(source, ws.raw(dataset), data_dir=Path(named) if named else None)

        official = {name: arrays.Split.whole(*xy) for name, xy in raw.items()}
        kept = draws.subset(official["train"], params.train_size, stage.seed)
        train, val = draws.carve(kept, params.val_size, stage.seed)
        test = draws.subset(official["test"], params.test_size, stage.seed)

        for name, split in {"train": train, "val": val, "test": test}.items():
            split.save(stage.write(workspace.split(dataset, name)))
        datasets.save_spec(source.spec, stage.write(workspace.dataset(dataset)))

        stage.log(
            {
                "train_images": len(train.y),
                "val_images": len(val.y),
                "test_images": len(test.y),
                "train_mean": float(train.x.mean() / 255),
                "train_std": float(train.x.std() / 255),
            }
        )
