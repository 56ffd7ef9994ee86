"""The wheel in an environment of its own, outside the checkout: from an empty folder to a table."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml
from pipeline_fixtures import ROOT, merged, shrunk

from deepcustom.base.rows import adversarial_sets, networks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


NAME = "mnist"
WORDS = ["--dataset", "mnist"]
OVER = {
    "prepare": {"mnist": {"train_size": 1100, "val_size": 100, "test_size": 120}},
    # Enough to be above chance: below it, training warns that attacks tell nothing.
    "train_target": {"mnist": {"epochs": 6}},
}
IDENTITY = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org"}
IDENTITY |= {key.replace("AUTHOR", "COMMITTER"): value for key, value in IDENTITY.items()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignored)
    words = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *words], cwd=folder, check=True)
    (found,) = (folder / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment with the wheel; what it depends on is that of this environment."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    found = folder / "bin/python"
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([found, *words], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # A folder named in a .pth file is searched, but its own .pth files, such as the checkout's, are not run.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return found


def test_the_wheel_has_all_that_the_package_needs(wheel: Path) -> None:
    package = ROOT / "src/deepcustom"
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("deepcustom/")}
    there = {
        f"deepcustom/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == there
    assert {f"deepcustom/{name}" for name in ("py.typed", "pipeline/dvc_template.yaml")} <= held


def run(python: Path, folder: Path, *words: str) -> str:
    """Run a command as a user of that environment does."""
    left_out = ("PYTHONPATH", "VIRTUAL_ENV", "DEEPCUSTOM_DATA_DIR")
    env = {k: v for k, v in os.environ.items() if k not in left_out and not k.startswith("MLFLOW_")}
    env |= {**IDENTITY, "OMP_NUM_THREADS": "1", "PATH": f"{python.parent}:/usr/bin:/bin"}
    env["DEEPCUSTOM_SEND_LATER"] = "1"  # one process sends all runs
    program = [python, "-m", "dvc"] if words[0] == "dvc" else [python.parent / words[0]]
    done = subprocess.run(
        [*program, *words[1:]], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout + done.stderr


@pytest.mark.network
def test_a_project_outside_the_checkout(python: Path, tmp_path: Path) -> None:
    """One test for all of it, so that the project runs once."""
    project = lay_down(python, tmp_path)
    mlflow_gets_every_run(project, python)
    a_table_came_out(project, python)
    nothing_is_left_to_do(project, python)
    a_number_is_traced_and_every_hash_verified(project, python)
    a_bank_comes_and_goes(project, python)


def lay_down(python: Path, home: Path) -> Path:
    """Make a project with tiny budgets, and run it."""
    run(python, home, "deepcustom", "init", NAME, *WORDS)
    root = home / NAME
    tree = merged(shrunk(yaml.safe_load((root / "params.yaml").read_text())), OVER)
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    if (ROOT / "data/raw/mnist").is_dir():
        shutil.copytree(ROOT / "data/raw/mnist", root / "data/raw/mnist")
    printed = run(python, root, "dvc", "repro")
    assert "warning:" not in printed
    return root


def mlflow_gets_every_run(project: Path, python: Path) -> None:
    records = list((project / "reports/runs").rglob("run.json"))
    assert not (project / "mlflow.db").exists()
    said = run(python, project, "deepcustom", "runs", "sync")
    assert f"{len(records)} sent, 0 there already" in said
    assert (project / "mlflow.db").exists()


def a_table_came_out(project: Path, python: Path) -> None:
    subject = project.name
    tree = yaml.safe_load((project / "params.yaml").read_text())
    table = list(csv.DictReader((project / f"reports/results/{subject}.csv").open()))
    assert {row["network"] for row in table} == set(networks(tree, subject))
    sets = {row["attack"] for row in table if row["protocol"] == "transfer"}
    assert sets == {"clean", *adversarial_sets(tree, subject)}
    assert (project / f"reports/{subject}.md").is_file()
    assert "madry" in run(python, project, "deepcustom", "results")


def nothing_is_left_to_do(project: Path, python: Path) -> None:
    assert "up to date" in run(python, project, "dvc", "repro")
    said = run(python, project, "deepcustom", "upgrade")
    assert "other code than before: no stage\nwill run again: nothing" in said


def a_number_is_traced_and_every_hash_verified(project: Path, python: Path) -> None:
    said = run(python, project, "deepcustom", "trace", f"{project.name}/madry/worst/all")
    assert f"prepare@{project.name}" in said


def a_bank_comes_and_goes(project: Path, python: Path) -> None:
    before = (project / "params.yaml").read_text()
    words = ("--subject", project.name)
    run(python, project, "deepcustom", "add", "bank", "again", *words, "--loss", "nce")
    printed = run(python, project, "dvc", "repro")
    assert f"train_dgn@{project.name}-again" in printed
    assert f"Running stage 'train_dgn@{project.name}-margin'" not in printed
    run(python, project, "deepcustom", "remove", "bank", "again", *words)
    assert (project / "params.yaml").read_text() == before
