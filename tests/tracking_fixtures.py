"""What the tests of MLflow's view share: records on disk, and what a store has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from test_record import record

from deepcustom.tracking import store as tracking


def written(root: Path, name: str = "a", **changes: Any) -> Path:
    """A record on disk; returns its folder."""
    folder = root / "runs" / name
    record(**changes).write(folder)
    return folder


def client(root: Path) -> Any:
    """Of the store of ``root``."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking.tracking_uri(root))


def all_runs(root: Path) -> list[Any]:
    """Every run of the store."""
    return list(client(root).search_runs([tracking.experiment_id(root)]))


def all_models(root: Path) -> dict[str, Any]:
    """Every logged model by its name; two of one name are a mistake."""
    found = client(root).search_logged_models([tracking.experiment_id(root)])
    names = [model.name for model in found]
    assert len(names) == len(set(names)), names
    return dict(zip(names, found, strict=True))
