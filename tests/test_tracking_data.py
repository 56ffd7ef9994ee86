"""Data sets in MLflow: schema, profile, and a source that resolves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline_fixtures import ROOT
from tracking_fixtures import all_runs, client, written

from deepcustom.base.errors import InputError
from deepcustom.base.hashes import dvc_md5
from deepcustom.data.arrays import AdversarialSet, Split
from deepcustom.data.datasets import save_spec
from deepcustom.data.sources import find_source
from deepcustom.pipeline import workspace
from deepcustom.tracking import data_sets
from deepcustom.tracking.dvc_source import DvcDatasetSource
from deepcustom.tracking.store import send, sync

pytestmark = pytest.mark.usefixtures("own_store")

TRAIN = workspace.split("mnist", "train")
VAL = workspace.split("mnist", "val")
SET = workspace.adversarial("mnist", "train", "pgd")
COUNTS = [3, 0, 1, 0, 0, 0, 0, 0, 0, 1]


@pytest.fixture(autouse=True)
def _forget() -> None:
    data_sets._labels.cache_clear()
    data_sets._origin.cache_clear()


def images(root: Path) -> dict[str, str]:
    """Two splits and a set on disk; path → md5."""
    y = np.array([0, 0, 2, 9, 0], dtype=np.uint8)
    x = np.zeros((5, 1, 28, 28), dtype=np.uint8)
    Split.whole(x, y).save(root / TRAIN)
    Split.whole(x[:1], y[:1]).save(root / VAL)
    AdversarialSet(x, x.astype(np.float32), y, np.arange(5)).save(root / SET)
    save_spec(find_source("mnist").spec, root / workspace.dataset("mnist"))
    return {path: dvc_md5(root / path) for path in (TRAIN, VAL, SET)}


def training(root: Path, inputs: dict[str, str], **changes: Any) -> Path:
    return written(root, stage="adversarial_train", item="mnist-pgd", inputs=inputs, **changes)


def sets(root: Path, run_id: str) -> dict[str, Any]:
    """Name → the set, and what the run used it for."""
    found = client(root).get_run(run_id).inputs.dataset_inputs
    return {one.dataset.name: (one.dataset, one.tags[0].value) for one in found}


def test_what_a_training_read_has_schema_and_profile(root):
    run_id = send(training(root, images(root)), root)
    found = sets(root, run_id)
    assert {name: context for name, (_, context) in found.items()} == {
        "mnist/train/clean": "training",
        "mnist/val/clean": "validation",
        "mnist/train/pgd": "training",
    }
    clean, pgd = found["mnist/train/clean"][0], found["mnist/train/pgd"][0]
    assert clean.digest == dvc_md5(root / TRAIN)
    from mlflow.data.schema import TensorDatasetSchema

    for one, pixels in ((clean, "uint8"), (pgd, "float32")):
        schema = TensorDatasetSchema.from_dict(json.loads(one.schema))
        (x,), (y,) = schema.features.inputs, schema.targets.inputs
        assert (x.type, x.shape) == (np.dtype(pixels), (-1, 1, 28, 28))
        assert (y.type, y.shape) == (np.dtype("uint8"), (-1,))
    profile = json.loads(clean.profile)
    assert profile["num_rows"] == 5
    assert profile["features_shape"] == [5, 1, 28, 28]
    assert profile["features_nbytes"] == 5 * 28 * 28
    assert list(profile["class_counts"].values()) == COUNTS
    assert profile["num_classes"] == 10
    assert json.loads(pgd.profile)["features_nbytes"] == 4 * 5 * 28 * 28


def test_counts_are_of_the_recorded_bytes_alone(root):
    md5s = images(root)
    wrong = dict.fromkeys(md5s, "e" * 32 + ".dir")
    found = sets(root, send(training(root, wrong), root))
    assert {one.profile for one, _ in found.values()} == {None}
    assert all(one.schema for one, _ in found.values())


def test_dvcs_cache_tells_what_large_sets_hold(root, monkeypatch):
    md5s = images(root)
    monkeypatch.setattr(data_sets, "SMALL", 0)
    assert data_sets._labels(root, TRAIN, md5s[TRAIN]) is None
    data_sets._labels.cache_clear()
    entries = [
        {"md5": dvc_md5(root / TRAIN / f"{name}.npy"), "relpath": f"{name}.npy"}
        for name in ("index", "x", "y")
    ]
    listing = root / ".dvc/cache/files/md5" / md5s[TRAIN][:2] / md5s[TRAIN][2:]
    listing.parent.mkdir(parents=True)
    listing.write_text(json.dumps(entries, sort_keys=True))
    assert data_sets._labels(root, TRAIN, md5s[TRAIN]).tolist() == [0, 0, 2, 9, 0]


def test_without_the_images_a_built_in_set_has_its_schema(root):
    found = sets(root, send(training(root, {TRAIN: "a" * 32 + ".dir"}), root))
    one, _ = found["mnist/train/clean"]
    assert "28" in one.schema
    assert one.profile is None


def test_sent_twice_a_run_has_each_set_once(root):
    images(root)
    folder = training(root, images(root))
    run_id = send(folder, root)
    sync(root / "runs", root)
    assert len(client(root).get_run(run_id).inputs.dataset_inputs) == 3
    assert len(all_runs(root)) == 1


# Where they come from


def git(folder: Path, *words: str) -> str:
    told = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "protocol.file.allow=always"]
    command = ["git", "-C", str(folder), *told, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def dvc(folder: Path, *words: str) -> None:
    env = os.environ | {"DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *words]
    subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)


def test_the_source_loads_what_the_run_read_from_the_project_around(root, monkeypatch):
    import mlflow

    run_id = send(training(root, images(root)), root)
    source = mlflow.data.get_source(registered(sets(root, run_id)["mnist/train/clean"][0]))
    assert isinstance(source, DvcDatasetSource)
    assert (source.path, source.md5, source.rev) == (TRAIN, dvc_md5(root / TRAIN), "c" * 40)
    assert source.stage == "prepare@mnist"
    for folder in (root, root / "data"):
        monkeypatch.chdir(folder)
        assert source.load() == str(root / TRAIN)
    assert np.load(Path(source.load()) / "y.npy").tolist() == [0, 0, 2, 9, 0]


def registered(dataset: Any) -> Any:
    """``dataset``, and MLflow knows the class, as the entry point of an installed package tells it."""
    from mlflow.data.dataset_source_registry import register_dataset_source

    register_dataset_source(DvcDatasetSource)
    return dataset


def test_plain_mlflow_resolves_the_source_where_the_package_is_installed(tmp_path):
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    about = tmp_path / "deepcustom_again-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: deepcustom-again\nVersion: 1.0\n")
    lines = [f"{name} = {place}" for name, place in points["mlflow.dataset_source"].items()]
    (about / "entry_points.txt").write_text("[mlflow.dataset_source]\n" + "\n".join(lines) + "\n")
    code = (
        "import mlflow; from mlflow.entities import Dataset;"
        'one = Dataset("a", "b", "dvc", \'{"path": "data/x", "md5": "b"}\');'
        "print(mlflow.data.get_source(one).path)"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "data/x\n", done.stderr


def test_the_source_fetches_from_the_repository_it_was_cloned_from(root, tmp_path, monkeypatch):
    above = tmp_path / "above"
    project = above / "inner"
    project.mkdir(parents=True)
    git(above, "init", "-q")
    dvc(project, "init", "-q", "--subdir")
    md5s = images(project)
    dvc(project, "add", "-q", TRAIN)
    git(above, "add", "-A")
    git(above, "commit", "-qm", "one")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(above), str(clone))
    record = training(root, {TRAIN: md5s[TRAIN]}, git_commit=git(above, "rev-parse", "HEAD"))
    one = data_sets.data_set(
        "a", md5s[TRAIN], TRAIN, data_sets.RunRecord.read(record), clone / "inner"
    )
    source = DvcDatasetSource.from_json(one.source)
    assert (source.repo, source.within) == (str(above), "inner/")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    place = source.load(str(tmp_path / "elsewhere"))
    assert dvc_md5(Path(place)) == md5s[TRAIN]


def test_where_the_data_are_not_there_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = DvcDatasetSource(TRAIN, "a" * 32 + ".dir", "prepare@mnist", None, "c" * 40)
    with pytest.raises(InputError) as caught:
        source.load()
    line = str(caught.value)
    assert "\n" not in line
    for part in (TRAIN, "a" * 32, "c" * 40, f"`dvc pull {TRAIN}`", "`dvc repro prepare@mnist`"):
        assert part in line
    with pytest.raises(InputError, match=r"\(dvc get: ERROR: "):
        DvcDatasetSource(TRAIN, "a" * 32, repo=str(tmp_path / "gone")).load()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:secret@example.org/a.git", "https://example.org/a.git"),
        ("git@example.org:a.git", "git@example.org:a.git"),
    ],
)
def test_no_password_goes_into_the_source(tmp_path, address, shown):
    git(tmp_path, "init", "-q")
    git(tmp_path, "remote", "add", "origin", address)
    assert data_sets._origin(tmp_path) == (shown, "")


@pytest.mark.parametrize("path", [TRAIN, SET, workspace.adversarial("mnist", "test", "nce")])
def test_the_stage_that_makes_a_set_is_the_pipelines(path):
    assert data_sets.maker(path) == workspace.producer(path)
