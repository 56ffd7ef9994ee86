"""Data sets in MLflow: what a run read, with schema, profile and source."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepcustom.base.errors import DeepCustomError
from deepcustom.base.hashes import dvc_md5, file_md5
from deepcustom.data.arrays import label_dtype
from deepcustom.data.datasets import DatasetSpec, load_spec
from deepcustom.data.sources import find_source, source_names
from deepcustom.tracking.record import RunRecord

if TYPE_CHECKING:
    from mlflow.entities import Dataset, DatasetInput

CONTEXT_TAG = "mlflow.data.context"
CONTEXTS = {"train": "training", "val": "validation", "test": "test"}
"""Split → MLflow's word for what it is for."""
SMALL = 256 * 2**20
"""Bytes of a folder that is read whole to see whether it is the recorded one, if the cache does not tell."""
_PREPARED = re.compile(r"data/prepared/(?P<dataset>[^/]+)/(?P<split>train|val|test)")
_ADVERSARIAL = re.compile(
    r"data/adversarial/(?P<subject>[^/]+)/(?P<split>train|val|test)/(?P<attack>[^/]+)"
)


@dataclass(frozen=True)
class _Place:
    """What the path of a set of images says; ``attack`` is empty for clean images."""

    dataset: str
    split: str
    attack: str


def read_sets(record: RunRecord, root: Path) -> list[DatasetInput]:
    """The sets of images that a run read, each with what it was for."""
    from mlflow.entities import DatasetInput, InputTag

    found = []
    for path, md5 in sorted(record.inputs.items()):
        place = _place(path, record)
        if place:
            name = f"{record.dataset}/{place.split}/{place.attack or 'clean'}"
            context = InputTag(CONTEXT_TAG, CONTEXTS[place.split])
            found.append(DatasetInput(data_set(name, md5, path, record, root), [context]))
    return found


def reads_sets(record: RunRecord) -> bool:
    """Whether a run read sets of images."""
    return any(_place(path, record) for path in record.inputs)


def data_set(name: str, md5: str, path: str, record: RunRecord, root: Path) -> Dataset:
    """A set of images as MLflow has it.

    Args:
        name: in MLflow.
        md5: as DVC computes it.
        path: where the run read it, relative to the project; empty where that is not known.
        record: of the run.
        root: the project's folder.
    """
    import mlflow.data  # noqa: F401  looks for our class by its entry point, and would find half of it later
    from mlflow.entities import Dataset

    from deepcustom.tracking.dvc_source import DvcDatasetSource

    origin = _origin(root)
    source = DvcDatasetSource(path, md5, maker(path), origin[0], record.git_commit, origin[1])
    schema, profile = _described(md5, path, record, root)
    return Dataset(
        name,
        md5,
        source_type=source._get_source_type(),
        source=source.to_json(),
        schema=json.dumps(schema) if schema else None,
        profile=json.dumps(profile) if profile else None,
    )


def maker(path: str) -> str:
    """The stage that makes a set of images, as ``dvc repro`` takes it; empty for other paths."""
    if found := _PREPARED.fullmatch(path):
        return f"prepare@{found['dataset']}"
    if found := _ADVERSARIAL.fullmatch(path):
        return f"--glob '*@{found['subject']}-{found['attack']}-{found['split']}'"
    return ""


def described(dataset: str, root: Path) -> DatasetSpec:
    """A data set's description: as ``prepare`` wrote it, or as the package knows it.

    Raises:
        InputError: it is not prepared here, and not built in.
    """
    place = root / f"data/prepared/{dataset}/dataset.json"
    if not place.is_file() and dataset in source_names():
        return find_source(dataset).spec
    return load_spec(place)


def _place(path: str, record: RunRecord) -> _Place | None:
    if found := _PREPARED.fullmatch(path):
        return _Place(found["dataset"], found["split"], "")
    if found := _ADVERSARIAL.fullmatch(path):
        subject = record.params.get(f"subjects.{found['subject']}", {})
        dataset = subject.get("dataset", found["subject"])
        return _Place(dataset, found["split"], found["attack"])
    return None


def _described(
    md5: str, path: str, record: RunRecord, root: Path
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Schema and profile, as far as the project has what they are made from."""
    place = _place(path, record)
    try:
        spec = described(place.dataset, root) if place else None
    except DeepCustomError:
        spec = None
    if place is None or spec is None:
        return None, None
    pixels = "float32" if place.attack else "uint8"
    schema = _schema(pixels, spec)
    labels = _labels(root, path, md5)
    if labels is None:
        return schema, None
    import numpy as np

    counts = np.bincount(labels, minlength=spec.num_classes).tolist()
    values = len(labels) * int(np.prod(spec.shape))
    return schema, {
        "num_rows": len(labels),
        "features_shape": [len(labels), *spec.shape],
        "features_dtype": pixels,
        "features_nbytes": values * np.dtype(pixels).itemsize,
        "targets_shape": [len(labels)],
        "num_classes": spec.num_classes,
        "class_counts": dict(zip(spec.classes, counts, strict=True)),
    }


def _schema(pixels: str, spec: DatasetSpec) -> dict[str, Any]:
    """Images (N, C, H, W) and labels (N,), as their files have them."""
    import numpy as np
    from mlflow.data.schema import TensorDatasetSchema
    from mlflow.types import Schema, TensorSpec

    features = TensorSpec(np.dtype(pixels), (-1, *spec.shape))
    targets = TensorSpec(label_dtype(spec.num_classes), (-1,))
    found: dict[str, Any] = TensorDatasetSchema(Schema([features]), Schema([targets])).to_dict()
    return found


@cache  # a sync meets each set many times
def _labels(root: Path, path: str, md5: str) -> Any:
    """The labels (N,) of a set, if the project has it as the run read it; else None."""
    folder = root / path
    file = folder / "y.npy"
    if not file.is_file():
        return None
    try:
        listing = root / f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}"
        if listing.is_file() and file_md5(listing) == md5.removesuffix(".dir"):
            wanted = {one["relpath"]: one["md5"] for one in json.loads(listing.read_text())}
            right = wanted.get(file.name) == file_md5(file)
        else:
            size = sum(one.stat().st_size for one in folder.rglob("*"))
            right = size <= SMALL and dvc_md5(folder) == md5
        if not right:
            return None
        import numpy as np

        return np.load(file, allow_pickle=False)
    except (OSError, ValueError):
        return None


@cache
def _origin(root: Path) -> tuple[str | None, str]:
    """Where git cloned the project from, and the project's folder in the repository."""
    address = _git(root, "remote", "get-url", "origin")
    within = _git(root, "rev-parse", "--show-prefix") or ""
    return (re.sub(r"://[^/]*@", "://", address) if address else None), within


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
