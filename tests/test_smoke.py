"""The whole pipeline on a few hundred real images, and much of it again from nothing: the same bytes."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest
import yaml
from pipeline_fixtures import ROOT, Instance, resolve

from deepcustom.evaluation.whitebox import MORE
from deepcustom.pipeline.provenance import CODE, dvc_md5, git_state
from deepcustom.record import RUN_FILE, RunRecord
from deepcustom.results import PROTOCOLS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PROGRAM = Path(sys.executable).parent / "deepcustom"
GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org")
# What is made twice: all of MNIST, and a training of each kind on CIFAR-10.
AGAIN = (
    "report@mnist",
    "train_dgn@cifar10-lrp",
    "train_dgn@cifar10-suspiciousness",
    "attack@cifar10-pgd-test",
    "adversarial_train@cifar10-nce",
    "adversarial_train@cifar10-madry",
)
PICTURED = ("train_target", "train_dgn", "generate", "attack", "adversarial_train", "evaluate")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the code as it stands; downloads are shared with the real one."""
    root = tmp_path_factory.mktemp("smoke") / "project"
    root.mkdir()
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root / name)
    (root / "data").mkdir()
    (ROOT / "data/raw").mkdir(parents=True, exist_ok=True)
    (root / "data/raw").symlink_to(ROOT / "data/raw", target_is_directory=True)
    (root / ".gitignore").write_text("/data\n/workspaces\n")
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "code"]):
        subprocess.run([*GIT, *words], cwd=root, check=True)
    return root


def start(project: Path, name: str, *targets: str) -> subprocess.Popen[bytes]:
    """``deepcustom repro --profile smoke`` into a folder with a store and a cache of its own.

    With one thread, so that two side by side do not wait for each other.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return subprocess.Popen(
        [PROGRAM, "repro", "--profile", "smoke", "--folder", f"workspaces/{name}", *targets],
        cwd=project,
        env={**env, "OMP_NUM_THREADS": "1"},
        stdout=(project.parent / f"{name}.log").open("w"),
        stderr=subprocess.STDOUT,
    )


def finish(project: Path, targets: Mapping[str, Sequence[str]]) -> list[str]:
    """Run to the end, side by side, each folder with its targets (none: all); what each printed."""
    runs = [start(project, name, *wanted) for name, wanted in targets.items()]
    codes = [run.wait() for run in runs]
    printed = [(project.parent / f"{name}.log").read_text() for name in targets]
    assert not any(codes), "\n".join(text[-5000:] for text in printed)
    return printed


@pytest.fixture(scope="module")
def folders(project: Path) -> tuple[Path, Path]:
    assert start(project, "a", "prepare").wait() == 0  # one download for both
    for printed in finish(project, {"a": (), "b": AGAIN}):
        assert "warning:" not in printed
    return project / "workspaces/a", project / "workspaces/b"


@pytest.fixture(scope="module")
def instances(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Instance]:
    """The stages that dvc.yaml resolves to."""
    folder = tmp_path_factory.mktemp("dag")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    return resolve(folder).instances


def lock(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / "dvc.lock").read_text())["stages"])


def test_a_run_makes_everything(folders: tuple[Path, Path], instances: dict[str, Instance]) -> None:
    stages = lock(folders[0])
    assert set(stages) == set(instances)
    for name, one in instances.items():
        assert {out["path"] for out in stages[name]["outs"]} == one.paths
    caches = [(folder / ".dvc/cache").resolve() for folder in folders]
    assert caches[0] != caches[1]
    assert all(any(cache.rglob("*")) for cache in caches)


def test_the_second_time_gives_the_same_bytes(folders: tuple[Path, Path]) -> None:
    a, b = folders
    first, again = lock(a), lock(b)
    assert set(AGAIN) < set(again)
    assert {name for name in first if "mnist" in name} < set(again)
    assert again == {name: first[name] for name in again}
    md5s = {out["path"]: out["md5"] for stage in again.values() for out in stage["outs"]}
    made = {"reports/results/mnist.csv", "reports/figures/mnist", "reports/mnist.md"}
    assert made < set(md5s)
    for path, md5 in md5s.items():
        assert dvc_md5(a / path) == dvc_md5(b / path) == md5, path


def test_nothing_half_written_is_left(folders: tuple[Path, Path]) -> None:
    for folder in folders:
        assert not [path for path in folder.rglob("*") if ".part" in path.name]


def test_a_second_repro_has_nothing_to_do(project: Path, folders: tuple[Path, Path]) -> None:
    before = {path: path.stat().st_mtime_ns for path in folders[0].rglob(RUN_FILE)}
    (printed,) = finish(project, {"a": ()})
    assert "Data and pipelines are up to date." in printed
    assert "Running stage" not in printed
    assert {path: path.stat().st_mtime_ns for path in folders[0].rglob(RUN_FILE)} == before


def test_the_table_holds_every_network_and_attack(folders: tuple[Path, Path]) -> None:
    params = yaml.safe_load((folders[0] / "params.yaml").read_text())
    for dataset, asked in params["evaluate"].items():
        rows = csv.DictReader((folders[0] / f"reports/results/{dataset}.csv").open())
        cells = [(row["protocol"], row["network"], row["attack"]) for row in rows]
        networks = asked["networks"]
        others = [(network, f"from-{other}") for network, other in permutations(networks, 2)]
        protocols = [protocol for protocol in PROTOCOLS if protocol != "worst"]
        wanted = {
            *product(["transfer"], networks, ["clean", *asked["attacks"]]),
            *product(["whitebox"], networks, [*asked["whitebox"], "apgd-ce", "apgd-t"]),
            *(("blackbox", *pair) for pair in others),
            *product(["blackbox"], networks, ["square"]),
            *product(["adaptive"], networks, ["dgn", "dgn-any"]),
            *product(["worst"], networks, ["clean", *protocols, "all"]),
        }
        more = set(product(["whitebox"], networks, [MORE]))  # where Square was stronger
        assert set(cells) - more == wanted
        assert len(cells) == len(set(cells))


def test_mlflow_shows_every_stage(
    project: Path, folders: tuple[Path, Path], instances: dict[str, Instance]
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folders[0]}/mlflow.db")
    experiment = client.get_experiment_by_name("deepcustom")
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    groups = {run.info.run_id for run in found if "deepcustom.repro" in run.data.tags}
    runs = [run for run in found if run.info.run_id not in groups]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == groups
    assert sorted(run.info.run_name for run in runs) == sorted(instances)
    records = [RunRecord.read(path.parent) for path in folders[0].rglob(RUN_FILE)]
    by_name = {record.name: record for record in records}
    assert set(by_name) == set(instances)
    commit, dirty = git_state(project)  # whose code the workspace runs a copy of
    assert commit
    for run in runs:
        name, tags = run.info.run_name, run.data.tags
        record = by_name[name]
        assert run.info.status == "FINISHED"
        assert tags["dvc.stage"] == name
        assert (tags["git.commit"], tags["git.dirty"]) == (commit, str(dirty).lower())
        hashes = {f"output.{path}": md5 for path, md5 in record.outputs.items()}
        hashes |= {f"input.{path}": md5 for path, md5 in record.inputs.items()}
        assert hashes.items() <= tags.items()
        assert run.data.params["seed"] == str(record.params["seed"])
        assert record.metrics.items() <= run.data.metrics.items()
        for metric, curve in record.history.items():
            points = client.get_metric_history(run.info.run_id, metric)
            by_step = {point.step: point.value for point in points}
            assert [by_step[step] for step in range(1, len(curve) + 1)] == curve
        pictures = [file.path for file in client.list_artifacts(run.info.run_id, "figures")]
        assert bool(pictures) == name.startswith(PICTURED), name
        assert sorted(pictures) == sorted(f"figures/{figure}" for figure in record.figures)


def test_recorded_hashes_are_dvcs(folders: tuple[Path, Path]) -> None:
    stages = lock(folders[0])
    for path in folders[0].rglob(RUN_FILE):
        record = RunRecord.read(path.parent)
        outs = {out["path"]: out["md5"] for out in stages[record.name]["outs"]}
        assert record.outputs == outs, record.name
        deps = {dep["path"]: dep["md5"] for dep in stages[record.name].get("deps", [])}
        shared = set(deps) & set(record.inputs)
        assert {name: deps[name] for name in shared} == {n: record.inputs[n] for n in shared}
        assert shared or record.stage == "prepare", record.name
