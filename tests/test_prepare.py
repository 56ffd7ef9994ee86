"""The stage that prepares a data set, and how later stages learn what it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from pipeline_fixtures import DATASET, environment, make_project, set_params
from test_formats import Mnist, write

from deepcustom.base.errors import InputError, ParamsError
from deepcustom.base.hashes import dvc_md5
from deepcustom.base.params import read_params
from deepcustom.data import mnist
from deepcustom.data.arrays import Split
from deepcustom.data.datasets import load_spec, save_spec
from deepcustom.pipeline import workspace
from deepcustom.pipeline.check import check
from deepcustom.pipeline.load import load_dataset, load_split
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.stages import prepare
from deepcustom.tracking.record import RunRecord

FILE = workspace.dataset(DATASET)


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return make_project(tmp_path / "project")


def test_prepare_writes_the_splits_and_what_the_data_set_is(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "SOURCE", dataclasses.replace(mnist.SOURCE, spec=Mnist.spec))
    monkeypatch.setattr("deepcustom.pipeline.run.send", lambda *args: "")
    set_params(ws.root, {"prepare": {DATASET: {"val_size": 0}}})
    folder = write(tmp_path / "files", Mnist.files)
    with environment(DEEPCUSTOM_DATA_DIR=str(folder)):
        prepare.run(ws, DATASET)
    assert load_spec(ws.root / FILE) == Mnist.spec
    train = Split.load(ws.root / workspace.split(DATASET, "train"), Mnist.spec)
    np.testing.assert_array_equal(train.x, Mnist.arrays["train"][0])
    made = RunRecord.read(ws.root / workspace.record(DATASET, "prepare")).outputs
    assert made[FILE] == dvc_md5(ws.root / FILE)
    assert len(made) == 6  # three splits, this file, what is suspicious, and the metrics


def test_a_later_stage_reads_what_was_prepared_and_not_the_code(ws: Workspace) -> None:
    other = dataclasses.replace(mnist.SOURCE.spec, title="Digits", classes=tuple("abcdefghijk"))
    save_spec(other, ws.root / FILE)
    with StageRun(ws, "relevance", DATASET, writes=False) as stage:
        spec = load_dataset(stage)
        assert spec == other
        assert len(load_split(stage, spec, "val")) == 100


def test_what_describes_another_data_set_is_refused(ws: Workspace) -> None:
    save_spec(dataclasses.replace(mnist.SOURCE.spec, name="cifar10"), ws.root / FILE)
    problem = r"prepared/mnist/dataset\.json describes 'cifar10', expected 'mnist'$"
    with (
        StageRun(ws, "relevance", DATASET, writes=False) as stage,
        pytest.raises(InputError, match=problem),
    ):
        load_dataset(stage)


@pytest.mark.parametrize(("side", "most"), [(None, 784), (2, 4)])
def test_settings_are_held_against_the_prepared_shape_else_the_built_in(
    ws: Workspace, side: int | None, most: int
) -> None:
    (ws.root / FILE).unlink()
    if side:
        save_spec(dataclasses.replace(mnist.SOURCE.spec, shape=(1, side, side)), ws.root / FILE)
    set_params(ws.root, {"relevance": {DATASET: {"k": 785}}})
    with pytest.raises(ParamsError, match=f"relevance.mnist.k must be at most {most}, found 785"):
        check(ws.root, read_params(ws.params))
