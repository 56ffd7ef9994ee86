"""What stages share, and every stage of dvc.yaml once on real digits at tiny budgets."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from networks import CONDITIONAL
from pipeline_fixtures import (
    DATASET,
    ROOT,
    SIZES,
    Instance,
    Pipeline,
    call_main,
    digits,
    environment,
    files,
    keep_rows,
    make_project,
    merged,
    resolve,
    run_instance,
    set_params,
    tiny_params,
    told_anew,
)

from deepcustom.attacks.conditional import ConditionalDGN
from deepcustom.attacks.threat import ThreatModel
from deepcustom.base import rows
from deepcustom.base.account import measured
from deepcustom.base.errors import (
    DeepCustomError,
    InputError,
    OutputError,
    ParamsError,
    UnknownNameError,
    UserError,
)
from deepcustom.base.files import partial_of
from deepcustom.base.hashes import dvc_md5
from deepcustom.base.settings import EvaluateParams, ReportParams, SuspiciousnessParams
from deepcustom.cli.door import run_words
from deepcustom.data.arrays import AdversarialSet
from deepcustom.data.sources import find_source
from deepcustom.evaluation import blackbox
from deepcustom.evaluation.check_table import NETWORK
from deepcustom.evaluation.files import read_checks, read_points
from deepcustom.evaluation.found import Finding
from deepcustom.evaluation.results import (
    ALL,
    AUTOATTACK,
    CLEAN,
    COLUMNS,
    PROTOCOLS,
    Result,
    read_csv,
)
from deepcustom.evaluation.score_store import ScoreStore
from deepcustom.evaluation.scoring import score
from deepcustom.evaluation.victim import Outcome, Victim
from deepcustom.pipeline import apart, profile, provenance, remake, workspace
from deepcustom.pipeline.adversarial_set import first_rows
from deepcustom.pipeline.code_lock import LOCK, write_lock
from deepcustom.pipeline.load import load_dataset
from deepcustom.pipeline.provenance import CODE, git_state
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.score_inputs import score_inputs
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.figures import page
from deepcustom.tracking import store as tracking
from deepcustom.tracking.record import RunRecord
from deepcustom.training.checkpoint import Checkpoint

ASKED = [name for name in PROTOCOLS if name not in {AUTOATTACK, "worst"}]
"""The protocols of an evaluation that does not ask for AutoAttack itself."""
SPEC = find_source(DATASET).spec
EPS = 0.3


@pytest.fixture(scope="module", autouse=True)
def _default_store() -> Iterator[None]:
    with environment(MLFLOW_TRACKING_URI=None, MLFLOW_EXPERIMENT_NAME=None, **tracking.PATIENCE):
        yield


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """A project with settings and nothing else."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "params.yaml").write_text(yaml.safe_dump(tiny_params()))
    write_lock(root)
    return Workspace(root)


@pytest.fixture
def unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepcustom.pipeline.run.send", lambda *args: "")


# Hashes


def tree(root: Path) -> Path:
    """A folder whose names sort differently as strings and as paths."""
    for name, text in {
        "a/b.txt": "1",
        "a-b.txt": "2",
        "a.txt": "",
        "a/c/d.bin": "\0\1",
        "Z": "5",
        "é.txt": "6",
    }.items():
        (root / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "folder" / name).write_text(text)
    return root / "folder"


def test_md5_is_dvcs_own(tmp_path: Path) -> None:
    from dvc.repo import Repo

    folder = tree(tmp_path)
    with Repo.init(str(tmp_path), no_scm=True), contextlib.chdir(tmp_path), Repo() as repo:
        repo.add(["folder"])
        shutil.copy(folder / "Z", tmp_path / "file")
        repo.add(["file"])
    for name in ("folder", "file"):
        (out,) = yaml.safe_load((tmp_path / f"{name}.dvc").read_text())["outs"]
        assert dvc_md5(tmp_path / name) == out["md5"]
    assert dvc_md5(folder).endswith(".dir")


def test_a_folder_behind_a_link_in_a_folder_is_refused_since_dvc_does_not_hash_it(
    tmp_path: Path,
) -> None:
    folder = tree(tmp_path)
    (tmp_path / "linked").symlink_to(folder)
    (folder / "linked.txt").symlink_to(folder / "Z")
    assert dvc_md5(tmp_path / "linked") == dvc_md5(folder)  # as caches and moved folders are
    (tmp_path / "elsewhere").mkdir()
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="folder/more is a link to a folder, and DVC would see no"):
        dvc_md5(folder)


def test_md5_sees_content_and_names(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    first = dvc_md5(folder)
    (folder / "Z").rename(folder / "Y")
    second = dvc_md5(folder)
    (folder / "Y").write_text("other")
    assert len({first, second, dvc_md5(folder)}) == 3


# Git


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    for name in ("src/code.py", "dvc.yaml", "params.yaml", "reports/page.md", "notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("before")
    git(root.parent, "init", "--quiet", str(root))
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "first")
    return root


@pytest.mark.parametrize("inside", [".", "src", "workspaces/smoke"])
def test_commit_is_recorded(repository: Path, inside: str) -> None:
    (repository / inside).mkdir(parents=True, exist_ok=True)
    assert git_state(repository / inside) == (git(repository, "rev-parse", "HEAD"), False)


@pytest.mark.parametrize(
    ("name", "dirty"),
    [
        ("src/code.py", True),
        ("src/new.py", True),
        ("params.yaml", True),
        ("dvc.yaml", True),
        ("reports/page.md", False),
        ("reports/new.json", False),
        ("dvc.lock", False),
        ("notes.txt", False),
    ],
)
def test_only_code_and_settings_make_a_run_dirty(repository: Path, name: str, dirty: bool) -> None:
    (repository / name).write_text("after")
    assert git_state(repository)[1] is dirty


def test_what_counts_as_code_is_there() -> None:
    """A project without sources has its own code and the lock in their place."""
    elsewhere = {"own", LOCK}
    assert {name for name in CODE if not (ROOT / name).exists()} <= elsewhere


def test_no_commit_outside_a_repository_or_without_git(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) == (None, None)
    assert provenance.trouble(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(repository) == (None, None)
    assert provenance.trouble(repository) == "git cannot be run: No such file or directory"
    assert provenance.trouble(tmp_path) is None


def test_git_that_fails_is_not_taken_for_a_folder_without_a_repository(
    tmp_path: Path, repository: Path
) -> None:
    assert provenance.trouble(repository) is None
    (repository / ".git/index").write_bytes(b"broken")
    commit, dirty = git_state(repository)
    assert commit is not None
    assert dirty is None  # not False: nobody looked
    assert "index" in str(provenance.trouble(repository))
    moved = tmp_path / "worktree"
    moved.mkdir()
    (moved / ".git").write_text("gitdir: /moved/away/.git/worktrees/one\n")
    assert "/moved/away/.git/worktrees/one" in str(provenance.trouble(moved))
    assert provenance.repository(moved) == moved


def test_a_folder_before_its_first_commit_is_no_trouble(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert git_state(tmp_path) == (None, None)
    assert provenance.trouble(tmp_path) is None


@pytest.mark.usefixtures("unsent")
def test_a_run_whose_commit_cannot_be_read_says_so(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = ws.root.parent / "bin/git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'fatal: detected dubious ownership' >&2\nexit 128\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with StageRun(ws, "prepare", DATASET):
        pass
    said = "the record of this run will not say its commit: detected dubious ownership"
    assert capsys.readouterr().err == f"warning: {said}\n"


# One run of a stage


@pytest.mark.usefixtures("unsent")
def test_outputs_appear_only_at_the_end(ws: Workspace) -> None:
    with StageRun(ws, "prepare", DATASET) as stage:
        stage.write("models/a.bin").write_text("one")
        folder = stage.write("data/b")
        folder.mkdir()
        (folder / "c").write_text("two")
        seen = {path for path in files(ws.root) if ".partial" not in path}
        assert seen == {"dvc.yaml", "params.yaml", LOCK}
    assert (ws.root / "models/a.bin").read_text() == "one"
    assert (ws.root / "data/b/c").read_text() == "two"
    record = RunRecord.read(ws.root / "reports/runs/mnist/prepare")
    assert record.outputs == {
        path: dvc_md5(ws.root / path)
        for path in ("models/a.bin", "data/b", "reports/metrics/mnist/prepare.json")
    }
    assert not [path for path in files(ws.root) if ".partial" in path]


@pytest.mark.usefixtures("unsent")
def test_outputs_replace_older_ones_and_a_failure_leaves_those(ws: Workspace) -> None:
    def run(text: str, *, fail: bool = False) -> None:
        with StageRun(ws, "prepare", DATASET) as stage:
            stage.write("models/a.bin").write_text(text)
            folder = stage.write("data/b")
            folder.mkdir()
            (folder / text).write_text(text)
            stage.log({"value": 1.0})
            if fail:
                raise InputError("something")

    run("one")
    run("two")
    assert (ws.root / "models/a.bin").read_text() == "two"
    assert [file.name for file in (ws.root / "data/b").iterdir()] == ["two"]
    before = files(ws.root)
    with pytest.raises(InputError, match="something"):
        run("three", fail=True)
    assert files(ws.root) == before


@pytest.mark.parametrize("inside", ["", "/x.npy"])
def test_an_input_that_is_a_link_to_nothing_says_so(ws: Workspace, inside: str) -> None:
    """The project was moved, and DVC had linked to its cache."""
    place = ws.root / f"data/a{inside}"
    place.parent.mkdir(parents=True)
    place.symlink_to("/moved/away/.dvc/cache/files/md5/ab/cd")
    said = rf"data/a{inside} is a link to /moved/away/\S+, which is not there: `dvc checkout` makes links"
    with (
        StageRun(ws, "prepare", DATASET, writes=False) as stage,
        pytest.raises(InputError, match=said),
    ):
        stage.read("data/a")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has it")
@pytest.mark.usefixtures("unsent")
def test_an_output_that_the_disk_has_no_room_for_is_named(ws: Workspace) -> None:
    def run() -> None:
        with StageRun(ws, "prepare", DATASET) as stage:
            stage.write("models/a.bin").write_text("one")
            place = stage.write("reports/b.csv")
            place.symlink_to("/dev/full")
            place.write_text("two")

    with pytest.raises(OutputError, match=r"^reports/b.csv cannot be written: No space left"):
        run()
    assert not [path for path in files(ws.root) if "a.bin" in path or "b.csv" in path]


@pytest.mark.usefixtures("unsent")
def test_what_a_killed_run_left_is_replaced(ws: Workspace) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = partial_of(ws.root / "data/b")
    left = left.with_name(left.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-"))
    left.mkdir()
    (left / "half").write_text("half")
    with StageRun(ws, "prepare", DATASET) as stage:
        folder = stage.write("data/b")
        folder.mkdir()
        (folder / "whole").write_text("whole")
    assert [file.name for file in (ws.root / "data").rglob("*")] == ["b", "whole"]


TWICE = """
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children
from pathlib import Path
import deepcustom.pipeline.run as module
from deepcustom.pipeline.workspace import Workspace
module.send = lambda *given: ""
for turn in range(15):
    with module.StageRun(Workspace(Path(sys.argv[1])), "prepare", "mnist") as stage:
        folder = stage.write("data/b")
        folder.mkdir()
        for name in ("x", "y"):
            (folder / name).write_text(name * 1000)
        stage.write("models/a.bin").write_text("a")
        stage.log({"value": 1.0})
"""


def test_the_same_stage_started_twice_ends_well_both_times(ws: Workspace) -> None:
    command = [sys.executable, "-c", TWICE, str(ws.root)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(run.communicate()[1], run.returncode) for run in both] == [("", 0), ("", 0)]
    assert {file.name for file in (ws.root / "data/b").iterdir()} == {"x", "y"}
    record = RunRecord.read(ws.root / "reports/runs/mnist/prepare")
    assert record.outputs["data/b"] == dvc_md5(ws.root / "data/b")
    assert not [path for path in ws.root.rglob(".*") if ".partial" in path.name]


@pytest.mark.usefixtures("unsent")
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_curve_that_is_not_finite_leaves_nothing_half_written(ws: Workspace, bad: float) -> None:
    before = files(ws.root)
    stage = StageRun(ws, "prepare", DATASET).__enter__()
    stage.write("models/a.bin").write_text("one")
    stage.log({}, {"loss": [0.5, bad]})
    with pytest.raises(ValueError, match="float"):
        stage.__exit__(None, None, None)
    left = set(files(ws.root)) - set(before)
    assert not [path for path in left if ".partial" in path]


@pytest.mark.usefixtures("unsent")
def test_metrics_are_the_same_bytes_and_the_record_holds_the_rest(ws: Workspace) -> None:
    metrics, record = (
        ws.root / workspace.metrics(DATASET, "prepare"),
        ws.root / workspace.record(DATASET, "prepare"),
    )

    def run() -> tuple[bytes, RunRecord]:
        with StageRun(ws, "prepare", DATASET) as stage:
            stage.log({"b": 1 / 3, "a": np.float32(0.5), "gone": math.nan}, {"c": [1, 0.25]})
        return metrics.read_bytes(), RunRecord.read(record)

    (first, one), (second, two) = run(), run()
    assert first == second
    assert json.loads(first) == [{"metrics": {"a": 0.5, "b": 1 / 3}, "outputs": {}}]
    assert (one.metrics, one.history) == ({"a": 0.5, "b": 1 / 3}, {"c": [1.0, 0.25]})
    assert one.run_key != two.run_key
    assert one.seconds > 0
    assert one.started < two.started
    assert {"torch", "deepcustom", "mlflow", "dvc"} <= set(one.packages)
    assert {"system", "architecture", "python"} <= set(one.machine)
    told = json.dumps(one.machine)
    assert not [name for name in (os.uname().nodename, str(Path.home())) if name in told]


@pytest.mark.usefixtures("unsent")
def test_inputs_and_settings_are_recorded(ws: Workspace) -> None:
    made = ws.root / "data/prepared/mnist/train"
    made.mkdir(parents=True)
    (made / "x").write_text("x")
    with StageRun(ws, "suspiciousness", DATASET) as stage:
        params = stage.settings(SuspiciousnessParams)
        assert ThreatModel.of(stage.subject.threat) == ThreatModel(EPS)
        stage.compute()
        assert stage.read("data/prepared/mnist/train") == made
    record = RunRecord.read(ws.root / "reports/runs/mnist/suspiciousness")
    assert record.inputs == {"data/prepared/mnist/train": dvc_md5(made)}
    assert list(record.params) == ["compute", "seed", "subjects.mnist", "suspiciousness.mnist"]
    row = {"dataset": "mnist", **params.model_dump(mode="json")}
    assert record.params["suspiciousness.mnist"] == row
    assert record.params["subjects.mnist"]["threat"] == {"norm": "linf", "eps": EPS}
    assert record.machine["precision"] == "float32"


def test_a_stages_seed_is_its_own_and_does_not_depend_on_the_others(ws: Workspace) -> None:
    def seed(stage: str, *parts: str) -> int:
        run = StageRun(ws, stage, DATASET, *parts)
        return run.__enter__().seed

    seeds = [
        seed("train_dgn", "lrp"),
        seed("train_dgn", "nce"),
        seed("generate", "lrp", "train"),
        seed("generate", "lrp", "test"),
    ]
    assert len(set(seeds)) == len(seeds)
    assert seed("train_dgn", "lrp") == seeds[0]
    set_params(ws.root, {"seed": 7})
    assert seed("train_dgn", "lrp") != seeds[0]


def test_the_seed_settles_what_torch_and_numpy_draw(ws: Workspace) -> None:
    import torch

    def draws() -> tuple[float, float]:
        StageRun(ws, "prepare", DATASET).__enter__()
        return float(torch.rand(1)), float(np.random.random())

    assert draws() == draws()


@pytest.mark.usefixtures("unsent")
def test_a_bad_setting_is_named_with_its_place(ws: Workspace) -> None:
    set_params(ws.root, {"report": {DATASET: {"grid_colums": 3}}})
    with (
        StageRun(ws, "report", DATASET) as stage,
        pytest.raises(ParamsError, match=r"report\.mnist\.grid_colums is not a known key"),
    ):
        stage.settings(ReportParams)
    with pytest.raises(ParamsError, match=r"prepare\.none is missing; prepare has: cifar10, mnist"):
        StageRun(ws, "prepare", "none")


# A server that does not answer


def test_a_run_that_could_not_be_sent_is_sent_later_once(
    ws: Workspace, empty_store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with environment(MLFLOW_TRACKING_URI="http://127.0.0.1:9"):
        with StageRun(ws, "prepare", DATASET) as stage:
            stage.write("models/a.bin").write_text("one")
            stage.log({"value": 0.25}, {"curve": [0.5, 0.25]})
        (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: MLflow at http://127.0.0.1:9: ")
    assert "'deepcustom runs sync' sends it later" in line
    assert (ws.root / "models/a.bin").read_text() == "one"
    record = RunRecord.read(ws.root / "reports/runs/mnist/prepare")

    shutil.copy(empty_store, ws.root / "mlflow.db")
    said = []
    for _ in range(2):
        assert call_main(ws.root, "runs", "sync") == 0
        said.append(capfd.readouterr().out.splitlines())
    (run,) = runs_in(ws.root)
    assert said == [
        [f"prepare@mnist  {run.info.run_id}  sent", "1 sent, 0 there already"],
        [f"prepare@mnist  {run.info.run_id}  there already", "0 sent, 1 there already"],
    ]
    assert run.data.tags["deepcustom.run_key"] == record.run_key
    assert run.data.metrics["value"] == 0.25


def runs_in(root: Path) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking.tracking_uri(root))
    return list(client.search_runs([tracking.experiment_id(root)], max_results=1000))


# Profiles


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The project's own settings and profiles, with a little code."""
    root = tmp_path_factory.mktemp("profiles") / "project"
    shutil.copytree(ROOT / "profiles", root / "profiles")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, root)
    (root / "src/package/__pycache__").mkdir(parents=True)
    (root / "src/package/code.py").write_text("code")
    (root / "src/package/__pycache__/code.pyc").write_text("compiled")
    (root / "data/raw").mkdir(parents=True)
    (root / "examples/clothes/data/own").mkdir(parents=True)
    (root / "examples/loss.py").write_text("code")
    (root / "examples/clothes/params.yaml").write_text("seed: 1")
    return Workspace(root)


def test_a_workspace_has_no_copy_of_a_project_among_the_examples(
    project: Workspace, tmp_path: Path
) -> None:
    """Its images may be many."""
    made = profile.workspace(project, "smoke", tmp_path / "apart")
    assert [path.name for path in (made.root / "examples").iterdir()] == ["loss.py"]


def test_overlay_merges_mappings_and_replaces_the_rest(ws: Workspace) -> None:
    base = {"a": {"b": 1, "c": {"d": 2, "e": [1, 2]}}, "f": 3, "g": {"h": 4}}
    over = {"a": {"c": {"e": [9]}, "new": None}, "f": {"i": 5}, "g": 6}
    (ws.root / "params.yaml").write_text(yaml.safe_dump(base))
    (ws.root / "profiles").mkdir()
    (ws.root / "profiles/mine.yaml").write_text(yaml.safe_dump(over))
    expected = {"a": {"b": 1, "c": {"d": 2, "e": [9]}, "new": None}, "f": {"i": 5}, "g": 6}
    assert profile.settings(ws, "mine") == expected
    assert profile.settings(ws, "default") == base
    with pytest.raises(UnknownNameError, match="unknown profile 'x': choose from default, mine"):
        profile.settings(ws, "x")


def test_profiles_change_only_settings_that_there_are(project: Workspace) -> None:
    """A key of a profile that params.yaml lacks would be new to every model, or a slip."""
    from deepcustom.base import settings

    models = [model for model in vars(settings).values() if hasattr(model, "model_fields")]
    allowed = set().union(*(model.model_fields for model in models))

    def strange(base: Any, over: Any) -> list[str]:
        if not isinstance(over, dict):
            return []
        found = [key for key in over if key not in (base or {}) and key not in allowed]
        for key in set(over) & set(base or {}):
            found += strange(base[key], over[key])
        return found

    base = profile.settings(project, "default")
    for file in (project.root / "profiles").glob("*.yaml"):
        assert strange(base, yaml.safe_load(file.read_text())) == [], file.name


def test_workspace_of_a_profile_is_a_folder_of_its_own(project: Workspace) -> None:
    before = files(project.root)
    made = profile.workspace(project, "smoke")
    root = made.root
    assert root == project.root / "workspaces/smoke"
    assert yaml.safe_load((root / "params.yaml").read_text()) == profile.settings(project, "smoke")
    assert (root / "dvc.yaml").read_bytes() == (project.root / "dvc.yaml").read_bytes()
    assert (root / ".dvc/config").is_file()
    assert not (project.root / ".dvc").exists()
    assert not (root / "profiles").exists()
    assert sorted((root / "src").rglob("*")) == [
        root / "src/package",
        root / "src/package/code.py",
    ]
    assert (root / "data/raw").resolve() == project.root / "data/raw"
    mine = {k: v for k, v in files(project.root).items() if not k.startswith("workspaces/")}
    assert mine == before

    (project.root / "src/package/code.py").write_text("newer code")
    (root / "src/package/stale.py").write_text("stale")
    (root / "models").mkdir()
    (root / "models/kept").write_text("kept")
    assert profile.workspace(project, "smoke") == made
    assert [file.name for file in (root / "src/package").iterdir()] == ["code.py"]
    assert (root / "src/package/code.py").read_text() == "newer code"
    assert (root / "models/kept").read_text() == "kept"


def test_a_workspace_of_a_project_that_was_moved_reads_what_lies_there_now(
    project: Workspace, tmp_path: Path
) -> None:
    made = profile.workspace(project, "smoke")
    for old in (tmp_path / "gone", tmp_path):  # moved, and copied
        (made.root / "data/raw").unlink()
        (made.root / "data/raw").symlink_to(old)
        profile.workspace(project, "smoke")
        assert (made.root / "data/raw").resolve() == project.root / "data/raw"


def test_where_profiles_run(project: Workspace, tmp_path: Path) -> None:
    assert profile.workspace(project, "default") == project
    assert profile.folder_of(project, "default") == project.root
    assert profile.folder_of(project, "paper") == project.root / "workspaces/paper"
    assert profile.folder_of(project, "default", tmp_path / "x") == tmp_path / "x"


def test_a_folder_with_other_things_is_refused(project: Workspace, tmp_path: Path) -> None:
    mine = tmp_path / "mine/src/thesis.py"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    for folder in (tmp_path / "mine", project.root, project.root.parent):
        with pytest.raises(InputError, match="holds something else"):
            profile.workspace(project, "smoke", folder)
    with pytest.raises(InputError, match="lies in the project's code"):
        profile.workspace(project, "smoke", project.root / "src/x")
    assert mine.read_text() == "years of work"


def test_repro_passes_targets_on_and_returns_dvcs_code(
    project: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[Path, list[str]]] = []

    def run(command: list[str], *, cwd: Path, env: dict[str, str]) -> Any:
        calls.append((cwd, command[2:]))
        return SimpleNamespace(returncode=7)

    monkeypatch.setattr(subprocess, "run", run)
    assert call_main(project.root, "repro", "train_dgn", "evaluate@mnist") == 7
    assert calls == [(project.root, ["dvc", "repro", "train_dgn", "evaluate@mnist"])]


# Every stage


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory, empty_store: Path
) -> Iterator[tuple[Workspace, Pipeline]]:
    """A project in which each stage of dvc.yaml but prepare has run, in DVC's order."""
    ws = make_project(tmp_path_factory.mktemp("stages") / "project")
    shutil.copy(empty_store, ws.root / "mlflow.db")
    pipeline = resolve(ws.root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "DPI", 40)  # most of the time goes into pictures
        for one in ran(pipeline):
            run_instance(ws, one)
        yield ws, pipeline


def ran(pipeline: Pipeline) -> list[Instance]:
    """What runs on digits; prepare takes the real MNIST alone."""
    all_of_it = pipeline.instances.values()
    return [one for one in all_of_it if one.options.get("subject") == DATASET]


def record_of(ws: Workspace, one: Instance) -> RunRecord:
    subject, *parts = one.options.values()
    return RunRecord.read(ws.root / workspace.record(subject, one.stage, *parts))


Done = tuple[Workspace, Pipeline]


def test_every_stage_makes_what_dvc_yaml_says(done: Done) -> None:
    ws, pipeline = done
    for one in ran(pipeline):
        record = record_of(ws, one)
        assert set(record.outputs) == one.paths, one.name
        for path, md5 in record.outputs.items():
            assert dvc_md5(ws.root / path) == md5, path
    assert not [path for path in files(ws.root) if ".part" in path]


def related(one: str, other: str) -> bool:
    """Whether one dotted key lies below the other, or is the same."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def test_every_stage_reads_what_dvc_yaml_says(done: Done) -> None:
    ws, pipeline = done
    for one in ran(pipeline):
        record = record_of(ws, one)
        recipe = record.params[f"{one.stage}.{record.item}"].get("recipe")
        asked = set(one.params) - {f"recipes.{recipe}", "recipes"}
        for used in record.params:
            assert [key for key in asked if related(key, used)], (one.name, used)
        # The report looks at which sets there are, and at no setting of generate.
        unused = {key for key in asked if not any(related(key, used) for used in record.params)}
        assert unused <= ({"generate"} if one.stage == "report" else set()), one.name
        data = {dep for dep in one.deps if not dep.startswith(("src/", "examples/"))}
        used = set()
        for path in record.inputs:
            if one.stage in workspace.READ_ALL:  # DVC watches the account of the run that made it
                told = [place for place in workspace.metrics_of(path) if place in record.inputs]
                path = told[0] if told else path
            around = [dep for dep in data if path == dep or Path(dep) in Path(path).parents]
            assert around, f"{one.name} reads {path}, which dvc.yaml does not say"
            used.update(around)
        assert used == data, f"{one.name} does not read {data - used}"
        for path, md5 in record.inputs.items():
            assert dvc_md5(ws.root / path) == md5, path


def test_a_set_outside_the_ball_is_scored_under_another_name(done: Done, tmp_path: Path) -> None:
    made, pipeline = done
    ws = Workspace(Path(shutil.copytree(made.root, tmp_path / "project")))
    set_params(ws.root, {"recipes": {"dgn-images": {"clipping": False}}})
    for name in ("generate@mnist-nce-test", "evaluate@mnist", "report@mnist"):
        run_instance(ws, pipeline.instances[name])
    attacks = {result.attack for result in read_csv(ws.root / workspace.results(DATASET))}
    assert "nce-unclipped" in attacks
    assert "nce" not in attacks
    assert "nce-unclipped" in (ws.root / workspace.page(DATASET)).read_text()


def run_snippet(heading: str, ws: Workspace) -> dict[str, Any]:
    """The Python below a heading of docs/models.md, run in a project; what it names."""
    text = (ROOT / "docs/models.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    with contextlib.chdir(ws.root):
        exec(code, names)
    return names


def test_the_six_lines_about_a_published_bank_run(done: Done) -> None:
    names = run_snippet("A published bank in six lines", done[0])
    x, x_adv = names["x"].numpy(), names["x_adv"].numpy()
    assert len(x) == SIZES["test"]
    ThreatModel(0.3).verify(x_adv, x)
    assert (x_adv != x).any()


def test_a_bank_hardens_with_arts_trainer_as_the_docs_say(done: Done) -> None:
    names = run_snippet("A bank as an ART attack", done[0])
    assert names["classifier"].optimizer.state, "nothing was trained"
    x, y = names["x"].numpy(), names["y"].numpy()
    ThreatModel(0.3).verify(names["attack"].generate(x, y), x)


def test_every_run_has_the_name_of_its_dvc_stage_and_is_in_mlflow(done: Done) -> None:
    ws, pipeline = done
    for one in ran(pipeline):
        record = record_of(ws, one)
        assert record.name == record.dvc_stage == one.name
    runs = runs_in(ws.root)
    assert sorted(run.info.run_name for run in runs) == sorted(o.name for o in ran(pipeline))
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_metrics_say_the_same_as_the_record(done: Done) -> None:
    ws, pipeline = done
    for one in ran(pipeline):
        (path,) = (path for path in one.paths if path.startswith("reports/metrics/"))
        (kept,) = json.loads((ws.root / path).read_text())
        record = record_of(ws, one)
        made = {p: md5 for p, md5 in record.outputs.items() if p.startswith(("data/", "models/"))}
        assert kept == {"metrics": record.metrics, "outputs": made}
        assert record.metrics, one.name
        trains = one.stage in ("train_target", "train_dgn", "adversarial_train", "train_online")
        assert bool(record.history) == trains
        pictured = one.stage not in ("relevance", "suspiciousness", "gallery", "report")
        assert bool(record.figures) == pictured
        folder = ws.root / workspace.record(DATASET, one.stage, *list(one.options.values())[1:])
        assert sorted(file.name for file in folder.iterdir()) == sorted(
            ["run.json", *record.figures]
        )


def load_set(ws: Workspace, split: str, attack: str) -> AdversarialSet:
    return AdversarialSet.load(ws.root / workspace.adversarial(DATASET, split, attack), SPEC)


def test_adversarial_sets_keep_to_the_threat_model(done: Done) -> None:
    ws, pipeline = done
    made = [one for one in ran(pipeline) if one.stage in ("generate", "attack")]
    assert len(made) >= 12
    for one in made:
        split = one.options["split"]
        attack = one.options.get("bank") or one.options["attack"]
        images = load_set(ws, split, attack)
        clean = digits()[split]
        assert len(images) == SIZES[split]
        ThreatModel(EPS).verify(images.x_adv, images.x)
        for name in ("x", "y", "index"):
            np.testing.assert_array_equal(getattr(images, name), getattr(clean, name))
        change = np.abs(images.x_adv - images.x / np.float32(255))
        assert change.max() > 0.05, one.name  # as far as tiny budgets go
        assert change.max() <= EPS
        metrics = record_of(ws, one).metrics
        assert metrics["images"] == SIZES[split]
        assert metrics["mean_linf"] == pytest.approx(change.reshape(len(change), -1).max(1).mean())


def test_the_table_of_results(done: Done) -> None:
    ws, pipeline = done
    text = (ws.root / workspace.results(DATASET)).read_text()
    columns = (
        "dataset,network,protocol,attack,n,accuracy,ci_low,ci_high,gradients,queries,"
        "network_md5,set_md5"
    )
    assert text.splitlines()[0] == columns == ",".join(COLUMNS)
    table = list(csv.DictReader(io.StringIO(text)))
    asked = rows.row(tiny_params(), "evaluate", DATASET).settings
    networks = rows.networks(tiny_params(), DATASET)
    sets = rows.adversarial_sets(tiny_params(), DATASET)
    pairs = [(row["protocol"], row["network"], row["attack"]) for row in table]
    assert sorted(pairs) == sorted(
        [("transfer", net, a) for net in networks for a in ("clean", *sets)]
        + [
            ("whitebox", net, attack)
            for net in networks
            for attack in (*asked["whitebox"], "apgd-ce", "apgd-t", "apgd-t-more")
            if attack != "apgd-t-more" or ("whitebox", net, attack) in pairs
        ]
        + [("blackbox", net, f"from-{a}") for net in networks for a in networks if a != net]
        + [("blackbox", net, "square") for net in networks]
        + [("adaptive", net, attack) for net in networks for attack in ("dgn", "dgn-any")]
        + [("worst", net, a) for net in networks for a in (CLEAN, *ASKED, ALL)]
    )
    attacked = asked["n"]
    metrics = record_of(ws, pipeline.instances["evaluate@mnist"]).metrics
    clean = dvc_md5(ws.root / workspace.split(DATASET, "test"))
    for row in table:
        n = SIZES["test"] if row["protocol"] == "transfer" else attacked
        assert (row["dataset"], row["n"]) == (DATASET, str(n))
        weights = ws.root / workspace.network(DATASET, row["network"])
        assert row["network_md5"] == dvc_md5(weights)
        transferred = row["protocol"] == "transfer" and row["attack"] != CLEAN
        images = ws.root / workspace.adversarial(DATASET, "test", row["attack"])
        assert row["set_md5"] == (dvc_md5(images) if transferred else clean)
        low, value, high = (float(row[name]) for name in ("ci_low", "accuracy", "ci_high"))
        assert 0 <= low <= value <= high <= 1
        logged = metrics[f"{row['protocol']}/{row['network']}/{row['attack']}"]
        assert logged == pytest.approx(value, abs=1e-6)


def test_the_worst_case_is_below_every_column(done: Done) -> None:
    ws, _ = done
    rows = read_csv(ws.root / workspace.results(DATASET))
    worst = {(row.network, row.attack): row for row in rows if row.protocol == "worst"}
    for row in rows:
        if row.protocol not in ("transfer", "worst"):  # transfer is over the whole test split
            assert worst[row.network, row.protocol].accuracy <= row.accuracy
        headline = worst[row.network, ALL]
        if row.protocol == "worst":
            assert headline.accuracy <= row.accuracy
            if row.attack not in (CLEAN, "transfer"):
                assert headline.queries >= row.queries > 0


def test_checks_curves_and_pairs_are_all_there(done: Done) -> None:
    ws, _ = done
    networks = rows.networks(tiny_params(), DATASET)
    checks = read_checks(ws.root / workspace.checks(DATASET))
    about = {network: [c.name for c in checks if c.about == network] for network in networks}
    for names in about.values():
        names.remove("classes")  # so few images are of very unequal number
    assert about["lrp"] == [
        one.name for one in NETWORK if not (one.quiet or one.protocol) or one.name in about["lrp"]
    ]
    assert [*about["lrp"], "undefended-falls"] == about["target"]
    for attack in rows.adversarial_sets(tiny_params(), DATASET):
        assert {c.name for c in checks if c.about == f"{attack} (set)"} >= {
            "ball",
            "label-in-perturbation",
        }
    (unread,) = (c for c in checks if c.name == "test-unread")
    assert unread.verdict == "ok"
    assert unread.figures["runs"] >= len(networks)
    points = read_points(ws.root / workspace.curves(DATASET))
    assert {name for name, _ in points} == set(networks)
    lines = (ws.root / workspace.pairs(DATASET)).read_text().splitlines()
    assert len(lines) == 1 + len(networks) * (len(networks) - 1) // 2


def test_accuracies_of_the_table_are_those_of_the_networks(done: Done) -> None:
    """Two cells counted anew, with the networks read from their files."""
    import torch
    from safetensors.torch import load_file

    from deepcustom.training.nets.mnist import MnistClassifier

    ws, _ = done
    rows = csv.DictReader((ws.root / workspace.results(DATASET)).read_text().splitlines())
    cells = {(row["network"], row["attack"]): row for row in rows if row["protocol"] == "transfer"}
    for name in ("target", "nce"):
        net = MnistClassifier()
        net.load_state_dict(load_file(ws.root / workspace.network(DATASET, name)))
        images = load_set(ws, "test", "fgsm")
        with torch.no_grad():
            hit = net(torch.from_numpy(np.array(images.x_adv))).argmax(1).numpy() == images.y
        assert float(cells[name, "fgsm"]["accuracy"]) == pytest.approx(hit.mean(), abs=1e-6)


def test_the_attacks_of_the_target_hurt_it(done: Done) -> None:
    ws, pipeline = done
    metrics = record_of(ws, pipeline.instances["evaluate@mnist"]).metrics
    clean = metrics["transfer/target/clean"]
    assert clean > 0.5
    assert metrics["transfer/nce/clean"] > 0.5
    assert metrics["transfer/nce/nce"] > metrics["transfer/target/nce"] + 0.2
    assert metrics["transfer/target/fgsm"] < clean - 0.2
    assert metrics["transfer/target/nce"] < clean - 0.2


def test_the_page_and_its_pictures(done: Done) -> None:
    import re

    from PIL import Image

    ws, _ = done
    text = (ws.root / workspace.page(DATASET)).read_text()
    links = re.findall(r"!\[.*?\]\((.*?)\)", text)
    there = {
        file.relative_to(ws.root / "reports").as_posix()
        for file in (ws.root / workspace.figures(DATASET)).iterdir()
    }
    assert set(links) == there
    for attack in rows.adversarial_sets(tiny_params(), DATASET):
        assert f"figures/mnist/images-{attack}.png" in there
    assert {f"figures/mnist/accuracy-{protocol}.png" for protocol in (*ASKED, "worst")} <= there
    for link in links:
        with Image.open(ws.root / "reports" / link) as picture:
            assert min(picture.size) > 100
    assert text.index("## Transfer protocol") < text.index("## White-box protocol")


def test_every_published_model_has_a_card(done: Done) -> None:
    ws, _ = done
    cards = {file.stem: file.read_text() for file in (ws.root / workspace.cards(DATASET)).iterdir()}
    models = {
        "target": [workspace.target(DATASET)],
        "robust": sorted((ws.root / "models/robust" / DATASET).glob("*.safetensors")),
        "dgn": sorted((ws.root / "models/dgn" / DATASET).glob("*.safetensors")),
    }
    files = {
        kind if kind == "target" else f"{kind}-{Path(path).stem}": Path(path)
        for kind, paths in models.items()
        for path in paths
    }
    assert set(cards) == set(files)
    for name, path in files.items():
        assert dvc_md5(ws.root / path) in cards[name]
        assert f"{SIZES['train']:,} images" in cards[name]


@pytest.fixture
def copied(done: Done, tmp_path: Path) -> Done:
    """What ``done`` made, to change at will; runs are kept from MLflow."""
    ws, pipeline = done
    root = shutil.copytree(ws.root, tmp_path / "copy", ignore=shutil.ignore_patterns("ml*", ".dvc"))
    return Workspace(root), pipeline


@pytest.mark.parametrize("name", ["evaluate@mnist", "report@mnist"])
def test_a_stage_by_itself_loads_no_code_that_dvc_does_not_hash(copied: Done, name: str) -> None:
    """In a process of its own, where no other stage has loaded it before."""
    ws, pipeline = copied
    one = pipeline.instances[name]
    program = Path(sys.executable).parent / one.words[0]
    with environment(OMP_NUM_THREADS="1", DVC_STAGE=one.name):
        done = subprocess.run(
            [program, *one.words[1:]], cwd=ws.root, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("unsent")
@pytest.mark.parametrize("name", ["train_dgn@mnist-nce", "train_dgn@mnist-suspiciousness"])
def test_same_seed_same_bytes_other_seed_other_bytes(copied: Done, name: str) -> None:
    ws, pipeline = copied
    one = pipeline.instances[name]
    before = {path: (ws.root / path).read_bytes() for path in one.paths}
    for path in one.paths:
        (ws.root / path).unlink()
    run_instance(ws, one)
    assert {path: (ws.root / path).read_bytes() for path in one.paths} == before
    set_params(ws.root, {"seed": 1})
    run_instance(ws, one)
    for path, old in before.items():
        assert (ws.root / path).read_bytes() != old


@pytest.mark.usefixtures("unsent")
@pytest.mark.parametrize(
    "name",
    [
        "train_target@mnist",
        "relevance@mnist",
        "suspiciousness@mnist",
        "generate@mnist-nce-test",
        "attack@mnist-pgd-test",
        "adversarial_train@mnist-nce",
        "adversarial_train@mnist-fgsm-art",
        "train_online@mnist-online",
        "evaluate@mnist",
    ],
)
def test_a_second_run_gives_the_same_bytes(copied: Done, name: str) -> None:
    ws, pipeline = copied
    one = pipeline.instances[name]
    before = {path: dvc_md5(ws.root / path) for path in one.paths}
    run_instance(ws, one)
    assert {path: dvc_md5(ws.root / path) for path in one.paths} == before


# Interrupts


CPUINFO = """processor	: {core}
model name	: AMD EPYC
cpu MHz		: {mhz}
flags		: fpu avx2 avx512f
"""


def place_of(ws: Workspace) -> Checkpoint:
    """What a stage with a row, a device and an input is given to keep its epochs in."""
    with StageRun(ws, "suspiciousness", DATASET) as stage:
        stage.settings(SuspiciousnessParams)
        stage.compute()
        stage.read("input")
        return stage.checkpoint()


@pytest.fixture
def with_input(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project with one input, and code that is a file of its own."""
    (ws.root / "input").write_text("one")
    (ws.root / "code").write_text("code")

    class Code:
        """In place of what holds the code that runs against the code that DVC hashes."""

        def __init__(self, root: Path, stage: str, more: Any = ()) -> None:
            self.digest = dvc_md5(root / "code") * 2

        def check(self) -> None:
            pass

    monkeypatch.setattr("deepcustom.pipeline.run.RunningCode", Code)
    return ws


def new_seed(ws: Workspace, patch: pytest.MonkeyPatch) -> None:
    set_params(ws.root, {"seed": 99})


def new_setting(ws: Workspace, patch: pytest.MonkeyPatch) -> None:
    set_params(ws.root, {"suspiciousness": {DATASET: {"k": 3}}})


def new_input(ws: Workspace, patch: pytest.MonkeyPatch) -> None:
    (ws.root / "input").write_text("two")


def new_precision(ws: Workspace, patch: pytest.MonkeyPatch) -> None:
    set_params(ws.root, {"compute": {"precision": "bfloat16"}})


def new_threads(ws: Workspace, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("torch.get_num_threads", lambda: 77)


def new_processor(ws: Workspace, patch: pytest.MonkeyPatch) -> None:
    (ws.root / "cpuinfo").write_text(CPUINFO.replace("avx512f", "avx512f amx_bf16"))


def new_version(ws: Workspace, patch: pytest.MonkeyPatch) -> None:
    versions = {**provenance.packages(), "torch": "9.9"}
    patch.setattr(provenance, "packages", lambda: versions)


def new_code(ws: Workspace, patch: pytest.MonkeyPatch) -> None:
    (ws.root / "code").write_text("other code")


@pytest.mark.usefixtures("unsent")
@pytest.mark.parametrize(
    "change",
    [
        new_seed,
        new_setting,
        new_input,
        new_precision,
        new_threads,
        new_processor,
        new_version,
        new_code,
    ],
)
def test_what_is_kept_serves_the_same_work_only(
    with_input: Workspace, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    ws = with_input
    (ws.root / "cpuinfo").write_text(CPUINFO)
    monkeypatch.setattr(provenance, "CPUINFO", ws.root / "cpuinfo")
    before = place_of(ws)
    assert before.folder == ws.root / ".checkpoints/suspiciousness/mnist"
    set_params(ws.root, {"train_target": {DATASET: {"epochs": 77}}})  # another stage's
    assert place_of(ws) == before
    change(ws, monkeypatch)
    after = place_of(ws)
    assert after.folder == before.folder
    assert after.fingerprint != before.fingerprint


def test_a_processor_is_its_model_and_its_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(provenance, "CPUINFO", file)

    def hashed(text: str) -> str:
        file.write_text(text)
        return provenance.processor()

    one = hashed(CPUINFO.format(core=0, mhz=2000))
    assert re.fullmatch("[0-9a-f]{64}", one)
    cores = [CPUINFO.format(core=core, mhz=2000 + core) for core in range(4)]
    assert hashed("\n".join(cores)) == one
    assert hashed(CPUINFO.replace("EPYC", "EPYC 9B14")) != one
    assert hashed(CPUINFO.replace("avx512f", "avx512f avx512_bf16")) != one
    arm = "CPU part	: 0xd40\nFeatures	: fp asimd bf16"
    assert hashed(arm) != hashed(arm.replace("0xd40", "0xd4f"))

    file.unlink()
    monkeypatch.setattr("platform.processor", lambda: "arm")
    elsewhere = provenance.processor()
    monkeypatch.setattr("platform.processor", lambda: "i386")
    assert len({one, elsewhere, provenance.processor()}) == 3


@pytest.mark.usefixtures("unsent")
def test_the_record_does_not_tell_the_processor(with_input: Workspace) -> None:
    place_of(with_input)
    (record,) = with_input.runs.rglob("run.json")
    assert provenance.processor() not in record.read_text()
    assert "processor" not in json.loads(record.read_text())["machine"]


@pytest.mark.usefixtures("unsent")
def test_the_checkpoint_stays_until_its_stage_ends_well(with_input: Workspace) -> None:
    def run(*, fail: bool = False) -> None:
        with StageRun(with_input, "train_dgn", DATASET, "nce") as stage:
            place = stage.checkpoint()
            assert (place.load("epoch") is None) is fail
            place.part("class_0").save("epoch", {}, {})
            place.save("epoch", {}, {})
            if fail:
                raise InputError("something")

    folder = with_input.root / ".checkpoints/train_dgn/mnist-nce"
    with pytest.raises(InputError, match="something"):
        run(fail=True)
    assert sorted(files(folder)) == ["class_0/epoch.safetensors", "epoch.safetensors"]
    run()
    assert not folder.exists()


TRAININGS = {
    "train_target@mnist": (5, "epoch 5"),
    "train_dgn@mnist-nce": (3 * 3 + 2, "class 3, epoch 2"),
    "adversarial_train@mnist-nce": (2, "epoch 2"),
    "adversarial_train@mnist-fgsm-art": (3, "epoch 3"),
    # the generator is kept first, and here newer than the network
    "train_online@mnist-online": (3, "epoch 1"),
}
LONGER = {"train_dgn": {"mnist-nce": {"training": {"epochs": 3}}}}


@pytest.mark.usefixtures("unsent")
@pytest.mark.parametrize("name", TRAININGS)
def test_an_interrupted_stage_ends_with_the_same_bytes(
    copied: Done, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ws, pipeline = copied
    one, (saves, after) = pipeline.instances[name], TRAININGS[name]
    set_params(ws.root, LONGER)
    run_instance(ws, one)
    whole = taken(ws, one)
    assert "resumed" not in "".join(capsys.readouterr())

    calls: list[str] = []
    save = Checkpoint.save

    def interrupt(self: Checkpoint, *args: Any) -> None:
        save(self, *args)
        calls.append(args[0])
        if len(calls) == saves:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", interrupt)
        assert call_main(ws.root, *one.words[1:]) == 130
    assert not [path for path in one.paths if (ws.root / path).exists()]
    folder = ws.checkpoint(one.stage, "-".join(list(one.options.values())))
    assert files(folder)
    capsys.readouterr()
    run_instance(ws, one)
    assert capsys.readouterr().err.splitlines()[0] == f"{name}: resumed after {after}"
    assert taken(ws, one) == whole
    assert not folder.exists()


def taken(ws: Workspace, one: Instance) -> dict[str, bytes]:
    """The bytes of what a stage made, which is removed, as DVC does before it runs it again."""
    made = {path: (ws.root / path).read_bytes() for path in one.paths}
    for path in one.paths:
        (ws.root / path).unlink()
    return made


@pytest.mark.usefixtures("unsent")
def test_after_a_change_an_interrupted_stage_starts_anew(
    copied: Done, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ws, pipeline = copied
    one = pipeline.instances["train_target@mnist"]
    folder = ws.checkpoint("train_target", DATASET)

    def interrupt(self: Workspace, *args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("deepcustom.stages.train_target.save_network", interrupt)
        assert call_main(ws.root, *one.words[1:]) == 130
    assert files(folder)
    set_params(ws.root, {"train_target": {DATASET: {"learning_rate": 2e-3}}})
    run_instance(ws, one)
    changed = taken(ws, one)
    assert "resumed" not in "".join(capsys.readouterr())
    assert not folder.exists()
    run_instance(ws, one)
    assert taken(ws, one) == changed


@pytest.mark.usefixtures("unsent")
def test_ctrl_c_in_a_process_of_its_own(copied: Done, capsys: pytest.CaptureFixture[str]) -> None:
    ws, pipeline = copied
    one = pipeline.instances["train_dgn@mnist-nce"]
    set_params(ws.root, {"train_dgn": {"mnist-nce": {"training": {"epochs": 5}}}})
    run_instance(ws, one)
    whole = taken(ws, one)
    program = Path(sys.executable).parent / one.words[0]
    folder = ws.checkpoint("train_dgn", "mnist-nce")
    with environment(OMP_NUM_THREADS="1", DVC_STAGE=one.name):
        process = subprocess.Popen(
            [program, *one.words[1:]],
            cwd=ws.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    try:
        while not (folder / "class_1.safetensors").exists() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "interrupted; nothing half-written is left" in err
    assert not [path for path in one.paths if (ws.root / path).exists()]
    capsys.readouterr()
    run_instance(ws, one)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "resumed" in line)
    assert re.fullmatch(r"train_dgn@mnist-nce: resumed after class \d(, epoch \d+)?", line)
    assert taken(ws, one) == whole
    assert not folder.exists()


# Settings that the default leaves alone


def again(done: Done, name: str, over: dict[str, Any]) -> tuple[Workspace, Instance]:
    ws, pipeline = done
    set_params(ws.root, over)
    run_instance(ws, pipeline.instances[name])
    return ws, pipeline.instances[name]


def predictions(ws: Workspace, x: np.ndarray) -> np.ndarray:
    import torch

    from deepcustom.training.nets.mnist import MnistClassifier
    from deepcustom.training.weights import load_network

    net = MnistClassifier()
    load_network(ws.root / workspace.target(DATASET), net)
    return net(torch.from_numpy(np.array(x))).argmax(1).numpy()


@pytest.mark.usefixtures("unsent")
@pytest.mark.parametrize(
    ("name", "over"),
    [
        (
            "generate@mnist-nce-train",
            {"generate": {"mnist-nce-train": {"mis_classification_check": True}}},
        ),
        (
            "attack@mnist-fgsm-train",
            {"attack": {"mnist-fgsm-train": {"mis_classification_check": True}}},
        ),
    ],
)
def test_mis_classification_check_keeps_changed_predictions_only(
    copied: Done, name: str, over: dict[str, Any]
) -> None:
    attack = name.split("-")[1]
    whole = load_set(copied[0], "train", attack)
    x, x_adv, y, index = (np.array(a) for a in (whole.x, whole.x_adv, whole.y, whole.index))
    ws, one = again(copied, name, over)
    changed = predictions(ws, x.astype(np.float32) / 255) != predictions(ws, x_adv)
    assert 0 < changed.sum() < len(x)
    kept = load_set(ws, "train", attack)
    np.testing.assert_array_equal(kept.index, index[changed])
    np.testing.assert_array_equal(kept.x_adv, x_adv[changed])
    np.testing.assert_array_equal(kept.x, x[changed])
    np.testing.assert_array_equal(kept.y, y[changed])
    metrics = record_of(ws, one).metrics
    assert metrics["images"] == changed.sum()
    assert metrics["predictions_changed"] == pytest.approx(changed.mean())
    # Hardening takes such a set as well.
    run_instance(ws, copied[1].instances[f"adversarial_train@mnist-{attack}"])


EVALUATE = ("evaluate", "--subject", DATASET)


@pytest.fixture
def attacked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Network and attack of everything that is attacked from now on, in its order."""
    found: list[tuple[str, str]] = []
    real = Finding.of

    def watched(victim: Victim, outcome: Outcome) -> Finding:
        found.append((victim.name, outcome.attack))
        return real(victim, outcome)

    monkeypatch.setattr(Finding, "of", watched)
    return found


def scored(ws: Workspace) -> dict[str, str]:
    """Hashes of what an evaluation leaves."""
    places = (workspace.results, workspace.checks, workspace.curves, workspace.pairs)
    files = [*(where(DATASET) for where in places), workspace.metrics(DATASET, "evaluate")]
    return {file: dvc_md5(ws.root / file) for file in files}


def compare_networks(ws: Workspace, *names: str) -> None:
    shutil.copy(ws.root / "whole.yaml", ws.root / "params.yaml")
    keep_rows(ws.root, names, ("lrp", "fgsm"))


@pytest.mark.usefixtures("unsent")
def test_an_interrupted_evaluation_goes_on_inside_a_network(
    copied: Done,
    attacked: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ws, _ = copied
    shutil.copy(ws.root / "params.yaml", ws.root / "whole.yaml")
    compare_networks(ws, "target", "lrp", "nce")
    shutil.rmtree(ws.scores(DATASET))
    assert call_main(ws.root, *EVALUATE) == 0
    whole, all_of_it = scored(ws), list(attacked)

    shutil.rmtree(ws.scores(DATASET))
    real = blackbox.square_attack

    def interrupted(victim: Victim, *args: Any) -> Any:
        if victim.name == "nce":
            raise KeyboardInterrupt
        return real(victim, *args)

    with monkeypatch.context() as patch:
        patch.setattr(blackbox, "square_attack", interrupted)
        assert call_main(ws.root, *EVALUATE) == 130
    attacked.clear()
    capsys.readouterr()
    assert call_main(ws.root, *EVALUATE) == 0
    assert attacked == all_of_it[all_of_it.index(("nce", "square")) :]
    said = capsys.readouterr().err
    assert "evaluate@mnist: target was finished before\n" in said
    assert re.search(r"evaluate@mnist: nce: 6 of \d+ parts were already done\n", said)
    assert scored(ws) == whole

    attacked.clear()
    assert call_main(ws.root, *EVALUATE) == 0
    assert attacked == []
    assert scored(ws) == whole


@pytest.mark.usefixtures("unsent")
def test_a_new_network_is_attacked_alone_and_a_new_set_costs_predictions(
    copied: Done, attacked: list[tuple[str, str]]
) -> None:
    ws, _ = copied
    shutil.copy(ws.root / "params.yaml", ws.root / "whole.yaml")
    compare_networks(ws, "target", "lrp")
    assert call_main(ws.root, *EVALUATE) == 0
    assert attacked == []  # the fixture's evaluation of all networks made these
    compare_networks(ws, "target", "lrp", "nce")
    assert call_main(ws.root, *EVALUATE) == 0
    assert [one for one in attacked if one[0] != "nce"] == [
        ("target", "from-nce"),
        ("lrp", "from-nce"),
    ]
    of_the_new = {attack for network, attack in attacked if network == "nce"}
    assert {"fgsm", "pgd", "from-lrp", "square", "dgn", "doubled"} <= of_the_new

    before = scored(ws)
    attacked.clear()
    load_set(ws, "test", "fgsm").save(ws.root / workspace.adversarial(DATASET, "test", "lrp"))
    told_anew(ws, workspace.adversarial(DATASET, "test", "lrp"))
    assert call_main(ws.root, *EVALUATE) == 0
    assert attacked == []
    assert scored(ws)[workspace.results(DATASET)] != before[workspace.results(DATASET)]


def test_a_set_of_another_test_split_is_refused(
    copied: Done, capsys: pytest.CaptureFixture[str]
) -> None:
    ws, _ = copied
    path = workspace.adversarial(DATASET, "test", "lrp")
    load_set(ws, "train", "lrp").save(ws.root / path)
    assert call_main(ws.root, "evaluate", "--subject", DATASET) == 2
    message = f"error: {path} is not what its run made: its hash is {dvc_md5(ws.root / path)}, and "
    assert message in capsys.readouterr().err
    told_anew(ws, path)
    assert call_main(ws.root, "evaluate", "--subject", DATASET) == 2
    message = "error: the adversarial set 'lrp' was made from another test split\n"
    assert capsys.readouterr().err.endswith(message)


def test_a_network_of_the_users_own_is_scored_apart(
    copied: Done,
    attacked: list[tuple[str, str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The example's, by every protocol; nothing of the pipeline's changes."""
    from safetensors.torch import save_file

    ws, _ = copied
    with monkeypatch.context() as patch:
        patch.syspath_prepend(ROOT)
        from examples.own_network import train

        save_file(train(ws.root, epochs=20).state_dict(), ws.root / "own.safetensors")
    # The user's file, as it lies in a project: nothing has loaded it when the stage begins.
    projects = [file.parent.name for file in (ROOT / "examples").glob("*/params.yaml")]
    shutil.copytree(ROOT / "examples", ws.root / "examples", ignore=lambda *_: projects)
    for name in [name for name in sys.modules if name.partition(".")[0] == "examples"]:
        monkeypatch.delitem(sys.modules, name)
    before = {path: dvc_md5(ws.root / path) for path in ("reports/results", "reports/runs")}
    alone = ["evaluate", "--subject", DATASET, "--network", "own.safetensors"]
    words = [*alone, "--with-siblings"]
    assert call_main(ws.root, *words, "--architecture", "examples.own_network:Linear") == 0
    out = capsys.readouterr().out
    assert "left out" not in out
    assert "saved in " in out
    assert re.search(r"^checks: \d+ ok, \d+ warn, \d+ fail$", out, re.MULTILINE)
    folder = ws.root / "reports/own/mnist/own"
    table = read_csv(folder / "results.csv")
    assert {row.network for row in table} == {"own"}
    assert {row.protocol for row in table} == {*ASKED, "worst"}
    there = {row.attack for row in table if row.protocol == "blackbox"}
    assert there == {"square", *(f"from-{name}" for name in rows.networks(tiny_params(), DATASET))}
    assert {row.network_md5 for row in table} == {dvc_md5(ws.root / "own.safetensors")}
    assert len(read_checks(folder / "checks.json")) >= 14
    assert {path: dvc_md5(ws.root / path) for path in before} == before
    assert {network for network, _ in attacked} == {"own"}
    attacked.clear()
    assert call_main(ws.root, *words, "--architecture", "examples.own_network:Linear") == 0
    assert attacked == []
    assert read_csv(folder / "results.csv") == table
    shifted = ("--architecture", "examples.own_network:Linear", "--mean", "0.1", "--std", "0.9")
    assert call_main(ws.root, *words, *shifted) == 0
    assert ("own", "square") in attacked


ODD = """
from torch import nn

class Blind(nn.Module):
    def __init__(self):
        super().__init__()
        self.scores = nn.Linear(784, 10)

    def forward(self, x):
        return {"logits": self.scores(x.flatten(1)), "images": x.numpy()}

class Mixing(Blind):
    def forward(self, x):
        return self.scores((x - x.mean(0)).flatten(1))
"""


def test_a_network_of_the_users_own_is_tried_before_it_is_attacked(
    copied: Done, attacked: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """What can be healed is healed and told; what cannot is one line, and nothing is attacked."""
    from safetensors.torch import save_file

    ws, _ = copied
    keep_rows(ws.root, ("target",), ("lrp",))
    (ws.root / "odd_own.py").write_text(ODD)
    torch.manual_seed(0)
    state = {"scores.weight": torch.randn(10, 784) / 28, "scores.bias": torch.zeros(10)}
    save_file(state, ws.root / "odd.safetensors")
    words = ["evaluate", "--subject", DATASET, "--network", "odd.safetensors", "--n", "20"]
    assert call_main(ws.root, *words, "--architecture", "odd_own:Mixing") == 2
    message = "error: odd: its answer to an image depends on the other images of the batch"
    assert message in capsys.readouterr().err
    assert not attacked
    assert call_main(ws.root, *words, "--architecture", "odd_own:Blind") == 0
    said = capsys.readouterr().err
    assert "note: odd: it gives more than logits; those are taken from 'logits'" in said
    assert (
        "note: odd: it fails where a gradient is asked for (RuntimeError: Can't call numpy()"
        in said
    )
    checks = {c.name: c.verdict for c in read_checks(ws.root / "reports/own/mnist/odd/checks.json")}
    assert checks["clean-above-chance"] == "fail"  # its weights are drawn


def test_a_network_alone_is_scored_on_the_test_split_and_nothing_else(
    copied: Done,
    attacked: list[tuple[str, str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No other network, set, DGN or train split is there; what is left out is said; nothing is made twice."""
    ws, _ = copied
    shutil.copy(ws.root / workspace.network(DATASET, "target"), ws.root / "mine.safetensors")
    shutil.copy(ws.root / workspace.network(DATASET, "lrp"), ws.root / "other.safetensors")
    for gone in ("models", "data/adversarial", workspace.split(DATASET, "train")):
        shutil.rmtree(ws.root / gone)
    words = ["evaluate", "--subject", DATASET, "--network"]
    (ws.root / "a_file").write_text("keep")
    for place in ("a_file", "a_file/below", "/proc/scores"):
        assert call_main(ws.root, *words, "mine.safetensors", "--out", place) == 2
        assert f"error: --out {place}: " in capsys.readouterr().err
    assert not attacked

    def full(path: Path, content: bytes) -> None:
        raise OutputError(f"{path} cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("deepcustom.stages.evaluate.replace_file", full)
        assert call_main(ws.root, *words, "mine.safetensors") == 1
    shown = capsys.readouterr()
    assert "worst case (headline)" in shown.out
    assert shown.err.endswith("results.csv cannot be written: No space left on device\n")
    attacked.clear()
    assert call_main(ws.root, *words, "mine.safetensors") == 0
    assert not attacked  # what was found is kept
    shown = capsys.readouterr()
    (line,) = re.findall(r"^left out: .*$", shown.out, re.MULTILINE)
    assert re.findall(r"(\w+) \(", line) == ["transfer", "blackbox", "adaptive"]
    assert "--with-siblings" in shown.err
    table = read_csv(ws.root / "reports/own/mnist/mine/results.csv")
    assert {
        (row.protocol, row.attack) for row in table if row.protocol in ("transfer", "blackbox")
    } == {
        ("transfer", "clean"),
        ("blackbox", "square"),
    }
    assert {row.attack for row in table if row.protocol == "worst"} == {
        *("clean", "whitebox", "blackbox", "all")
    }
    # Another network in between takes nothing away from the first.
    assert call_main(ws.root, *words, "other.safetensors") == 0
    attacked.clear()
    assert call_main(ws.root, *words, "mine.safetensors") == 0
    assert attacked == []


def test_more_images_are_scored_apart(copied: Done, tmp_path: Path) -> None:
    ws, _ = copied
    keep_rows(ws.root, ("target",), ("lrp",))
    out = tmp_path / "more"
    assert call_main(ws.root, "evaluate", "--subject", DATASET, "--n", "50", "--out", str(out)) == 0
    rows = read_csv(out / "results.csv")
    assert {row.n for row in rows if row.protocol != "transfer"} == {50}
    assert {row.network for row in rows} == {"target"}


@pytest.mark.usefixtures("unsent")
def test_a_set_from_which_nothing_is_left_is_told_apart(
    copied: Done, capsys: pytest.CaptureFixture[str]
) -> None:
    """No prediction changed, so no image was kept; and the page about it is the same each time."""
    ws, pipeline = copied
    empty = load_set(ws, "train", "lrp").take(np.arange(0))
    for split in ("train", "test"):
        empty.save(ws.root / workspace.adversarial(DATASET, split, "lrp"))
        told_anew(ws, workspace.adversarial(DATASET, split, "lrp"))
    code = call_main(ws.root, *pipeline.instances["adversarial_train@mnist-lrp"].words[1:])
    assert code == 2
    message = "error: the adversarial set 'lrp' is empty: there is nothing to train on\n"
    assert capsys.readouterr().err == message

    keep_rows(ws.root, ("target", "lrp"), ("lrp", "fgsm"))
    for stage in ("train_dgn", "adversarial_train"):
        for file in (ws.root / workspace.training_folder(DATASET) / stage).glob("[!l]*.csv"):
            file.unlink()
    evaluate, report = (pipeline.instances[f"{name}@mnist"] for name in ("evaluate", "report"))
    run_instance(ws, evaluate)
    rows = csv.DictReader((ws.root / workspace.results(DATASET)).read_text().splitlines())
    (row,) = (r for r in rows if (r["network"], r["attack"]) == ("target", "lrp"))
    assert (row["n"], row["accuracy"]) == ("0", "")
    assert "transfer/target/lrp" not in record_of(ws, evaluate).metrics
    pages = []
    for _ in range(2):
        run_instance(ws, report)
        pages.append({path: dvc_md5(ws.root / path) for path in report.paths})
    assert pages[0] == pages[1]
    assert "| empty |" in (ws.root / workspace.page(DATASET)).read_text()


STAGES = {"generate@mnist-lrp-test": "deepcustom generate --subject mnist --bank lrp --split test"}


@pytest.fixture
def two_processes(copied: Done, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A project with two networks and a set, where two processes of one thread share the work."""
    ws, _ = copied
    keep_rows(ws.root, ("target", "nce"), ("lrp",))
    shutil.rmtree(ws.scores(DATASET))
    monkeypatch.setattr(apart.Share, "of", lambda tree: apart.Share(2, 1))
    with contextlib.chdir(ws.root):
        yield ws


def remade(ws: Workspace, stages: dict[str, str]) -> dict[str, list[Result]]:
    return remake.remake(ws, stages, [DATASET], run_words)


def test_processes_of_their_own_find_what_one_process_finds(
    two_processes: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    ws = two_processes
    made = ws.root / workspace.adversarial(DATASET, "test", "lrp")
    before = dvc_md5(made)
    shutil.rmtree(made)
    found = remade(ws, STAGES)
    out = capsys.readouterr().out
    assert "making sets and attacking networks: 3/3" in out
    assert "showing the sets to the networks: 1/1" in out
    assert dvc_md5(made) == before
    with threads(1), StageRun(ws, "evaluate", DATASET, writes=False) as stage:
        params = stage.settings(EvaluateParams)
        inputs = score_inputs(stage, load_dataset(stage), params, quick=True)
        assert found == {DATASET: score(inputs, ScoreStore()).results}
    assert {r.network for r in found[DATASET]} == {"target", "nce"}


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_what_was_attacked_once_is_not_attacked_again(two_processes: Workspace) -> None:
    """Each network is attacked apart from the table, which takes the attacks from the store."""
    ws = two_processes
    first = remade(ws, {})
    before = {file: file.stat().st_mtime_ns for file in ws.scores(DATASET).rglob("*.safetensors")}
    assert len(before) == 2 * 4
    assert remade(ws, {}) == first
    assert before == {file: file.stat().st_mtime_ns for file in before}
    # A network's attacks are forgotten when its weights are others.
    target, nce = (ws.root / workspace.network(DATASET, name) for name in ("target", "nce"))
    shutil.copy(target, nce)
    with pytest.raises(UserError, match=r"nce.safetensors is not what its run made: its hash is"):
        remade(ws, {})
    told_anew(ws, workspace.network(DATASET, "nce"))
    remade(ws, {})
    after = set(ws.scores(DATASET).rglob("*.safetensors"))
    assert len(after) == len(before)
    assert {file.parts[-3] for file in after - before.keys()} == {"nce"}


def test_an_error_in_a_process_is_one_of_the_program(two_processes: Workspace) -> None:
    ws = two_processes
    (ws.root / workspace.network(DATASET, "nce")).unlink()
    with pytest.raises(UserError, match=r"models/robust/mnist/nce.safetensors is missing: `dvc p"):
        remade(ws, {})
    assert not active_children()


def test_an_interrupt_ends_the_processes_and_leaves_nothing_half_written(
    two_processes: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws, before = two_processes, files(two_processes.root)
    place = ws.root / workspace.adversarial(DATASET, "test", "lrp")

    def interrupt() -> None:
        while not any(place.parent.glob("*.partial*")):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        remade(ws, STAGES)
    thread.join()
    assert not active_children()
    left = {path for path in set(files(ws.root)) - set(before) if ".checkpoints" not in path}
    assert left == set()


def test_a_process_that_is_killed_is_said(two_processes: Workspace) -> None:
    def kill() -> None:
        while not active_children():
            time.sleep(0.01)
        for child in active_children():
            child.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(DeepCustomError, match="ended from outside, perhaps for lack of memory"):
        remade(two_processes, STAGES)
    thread.join()


def test_a_process_that_is_killed_before_all_work_is_handed_out_is_said() -> None:
    class Broken(ProcessPoolExecutor):
        def submit(self, *_: object, **__: object) -> Any:
            raise BrokenProcessPool

    with pytest.raises(DeepCustomError, match="ended from outside, perhaps for lack of memory"):
        apart.Processes(Broken(1)).do("work", [apart.Work("done", print)])


@pytest.mark.parametrize(
    ("cores", "threads", "share"),
    [
        (1, "auto", (1, 1)),
        (2, "auto", (2, 1)),
        (32, "auto", (8, 4)),
        (4, 2, (2, 2)),
        (2, 8, (1, 8)),
        (32, 1, (8, 1)),
    ],
)
def test_processes_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: object, share: tuple[int, int]
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    tree = {"compute": {"device": "cpu", "precision": "float32", "threads": threads}}
    assert apart.Share.of(tree) == apart.Share(*share)


@pytest.mark.usefixtures("unsent")
def test_how_long_work_took_is_taken_from_records(ws: Workspace) -> None:
    tree = tiny_params()
    with StageRun(ws, "evaluate", DATASET) as stage:
        stage.time({"target/whitebox/pgd": 2.0, "target/whitebox/fgsm": 1.0, "nce/worst/all": 9.0})
    took = remake._seconds(ws, tree, [DATASET])
    assert took.keys() == {"evaluate@mnist", "mnist/target"}
    assert took["mnist/target"] == 3
    (ws.root / workspace.record(DATASET, "evaluate") / "run.json").write_text("{}")
    assert remake._seconds(ws, tree, [DATASET]) == {}


@pytest.mark.parametrize(
    ("count", "most", "sizes"), [(1, 8, [1]), (10, 2, [5, 5]), (10, 8, [4, 4, 2]), (5, 2, [5])]
)
def test_networks_are_shown_the_sets_in_groups(count: int, most: int, sizes: list[int]) -> None:
    names = [str(number) for number in range(count)]
    groups = list(remake._groups(names, most))
    assert [len(group) for group in groups] == sizes
    assert [name for group in groups for name in group] == names


@pytest.mark.usefixtures("unsent")
def test_without_clipping_images_leave_the_ball_but_not_the_range(copied: Done) -> None:
    name = "generate@mnist-lrp-test"
    ws, _ = again(copied, name, {"recipes": {"dgn-images": {"clipping": False}}})
    images = load_set(ws, "test", "lrp")
    assert np.abs(images.x_adv - images.x / np.float32(255)).max() > EPS
    assert images.x_adv.min() >= 0
    assert images.x_adv.max() <= 1


@pytest.mark.usefixtures("unsent")
def test_predicted_labels_choose_the_dgn(copied: Done) -> None:
    """Where the target network is right both ways give the same image, elsewhere another."""
    before = np.array(load_set(copied[0], "train", "nce").x_adv)
    ws, _ = again(
        copied, "generate@mnist-nce-train", {"recipes": {"dgn-images": {"label": "predicted"}}}
    )
    images = load_set(ws, "train", "nce")
    right = predictions(ws, images.x.astype(np.float32) / 255) == images.y
    assert 0 < right.sum() < len(right)
    same = (images.x_adv == before).reshape(len(before), -1).all(1)
    np.testing.assert_array_equal(same, right)


@pytest.mark.usefixtures("unsent")
def test_a_bank_of_perturbations_stays_in_the_ball_by_itself(copied: Done) -> None:
    ws, pipeline = copied
    set_params(
        ws.root,
        {
            "train_dgn": {"mnist-nce": {"output": "perturbation"}},
            "recipes": {"dgn-images": {"clipping": False}},
        },
    )
    for name in ("train_dgn@mnist-nce", "generate@mnist-nce-test"):
        run_instance(ws, pipeline.instances[name])
    images = load_set(ws, "test", "nce")
    far = np.abs(images.x_adv - images.x / np.float32(255)).max()
    assert 0.02 < far <= EPS + 1e-6


@pytest.mark.usefixtures("unsent")
def test_a_bank_that_is_told_the_label_goes_all_the_way(copied: Done) -> None:
    """Trained, kept, making a set, adapted to every network, and on its card."""
    ws, pipeline = copied
    told = {"generator": "conditional", "output": "perturbation"}
    over = {
        "train_dgn": {"mnist-nce": told},
        "evaluate": {"mnist": {"adaptive": {"bank": "nce"}}},
    }
    set_params(ws.root, over)
    one = pipeline.instances["train_dgn@mnist-nce"]
    run_instance(ws, one)
    path = ws.root / workspace.bank(DATASET, "nce")
    dgn = ConditionalDGN.load(path, CONDITIONAL[DATASET], DATASET, 10, torch.device("cpu"))
    assert (dgn.loss, dgn.per_class) == ("nce", False)
    assert "val_target_accuracy" in measured(
        ws.root / workspace.metrics(DATASET, "train_dgn", "nce")
    )
    first = path.read_bytes()
    run_instance(ws, one)
    assert path.read_bytes() == first
    for name in ("generate@mnist-nce-test", "evaluate@mnist", "report@mnist"):
        run_instance(ws, pipeline.instances[name])
    images = load_set(ws, "test", "nce")
    far = np.abs(images.x_adv - images.x / np.float32(255)).max(axis=(1, 2, 3))
    assert 0.02 < far.min() <= far.max() <= EPS + 1e-6
    found = read_csv(ws.root / workspace.results(DATASET))
    assert {r.attack for r in found if r.protocol == "adaptive"} == {"dgn", "dgn-any"}
    card = (ws.root / workspace.cards(DATASET) / "dgn-nce.md").read_text()
    assert "nce, one DGN for all 10 classes" in card
    assert "generator conditional" in card


@pytest.mark.usefixtures("unsent")
def test_a_generator_that_learned_with_a_network_makes_images(copied: Done) -> None:
    ws, _ = copied
    row = {"subject": DATASET, "dataset": DATASET, "bank": "online", "split": "test"}
    set_params(ws.root, {"generate": {"mnist-online-test": {**row, "recipe": "dgn-images"}}})
    words = ("generate", "--subject", DATASET, "--bank", "online", "--split", "test")
    assert call_main(ws.root, *words) == 0
    images = load_set(ws, "test", "online")
    far = np.abs(images.x_adv - images.x / np.float32(255)).max(axis=(1, 2, 3))
    assert far.max() <= EPS + 1e-6
    assert far.min() > 0.02
    made = RunRecord.read(ws.root / workspace.record(DATASET, "generate", "online", "test"))
    assert workspace.bank(DATASET, "online") in made.inputs


@pytest.mark.usefixtures("unsent")
@pytest.mark.parametrize(("loss", "reads"), [("nce", []), ("suspiciousness", ["suspiciousness"])])
def test_a_generator_of_any_kind_learns_any_loss(copied: Done, loss: str, reads: list[str]) -> None:
    ws, pipeline = copied
    before = (ws.root / workspace.robust(DATASET, "online")).read_bytes()
    bank = tiny_params()["train_dgn"][f"mnist-{loss}"]
    own = {"generator": "per_class", "loss": loss, "options": bank["options"]}
    own["code"] = bank["code"]
    set_params(ws.root, {"train_online": {"mnist-online": own}})
    one = pipeline.instances["train_online@mnist-online"]
    run_instance(ws, one)
    path = workspace.bank(DATASET, "online")
    dgn = ConditionalDGN.load(
        ws.root / path, CONDITIONAL[DATASET], DATASET, 10, torch.device("cpu")
    )
    assert (dgn.loss, dgn.per_class) == (loss, True)
    assert (ws.root / workspace.robust(DATASET, "online")).read_bytes() != before
    analyses = [path for path in record_of(ws, one).inputs if path.startswith("data/analysis/")]
    assert analyses == [workspace.analysis(DATASET, what) for what in reads]
    run_instance(ws, pipeline.instances["report@mnist"])
    card = (ws.root / workspace.cards(DATASET) / "dgn-online.md").read_text()
    assert f"loss {loss}" in card


@pytest.mark.usefixtures("unsent")
def test_without_validation_images_stages_still_run(copied: Done) -> None:
    ws, pipeline = copied
    digits()["val"].take(np.arange(0)).save(ws.root / workspace.split(DATASET, "val"))
    for name in (
        "train_target@mnist",
        "train_dgn@mnist-nce",
        "adversarial_train@mnist-nce",
        "train_online@mnist-online",
    ):
        one = pipeline.instances[name]
        run_instance(ws, one)
        record = record_of(ws, one)
        assert record.metrics
        assert not [key for key in record.history if "val" in key]


def test_merged_is_the_overlay_that_profiles_use(ws: Workspace) -> None:
    """The fixtures' own merge and the program's agree, so that tests change what they mean to."""
    over = {"train_target": {DATASET: {"epochs": 9}}, "seed": 3}
    (ws.root / "profiles").mkdir()
    (ws.root / "profiles/mine.yaml").write_text(yaml.safe_dump(over))
    assert profile.settings(ws, "mine") == merged(tiny_params(), over)


def test_the_first_rows_show_every_class_first() -> None:
    y = np.array([7, 2, 2, 0, 7, 9, 0], np.uint8)
    assert first_rows(y, 10).tolist() == [3, 6, 1, 2, 0, 4, 5]
    assert first_rows(y, 5).tolist() == [3, 6, 1, 0, 5]
    assert first_rows(y, 2).tolist() == [3, 1]
    assert first_rows(y[:0], 3).tolist() == []
    listed = np.repeat(np.arange(4, dtype=np.uint8), 1000)  # as folders list them
    assert first_rows(listed, 4).tolist() == [0, 1000, 2000, 3000]
