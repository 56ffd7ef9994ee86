"""Experiments of DVC: in the copies that it makes of a project, and in the workspaces of profiles."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pipeline_fixtures import ROOT, call_main, environment
from test_loaded import PREPARE, cli, copy_sources
from tracking_fixtures import all_runs, client

from deepcustom.base.experiment import home
from deepcustom.base.files import replace_file
from deepcustom.cli.experiment import RUNS, SCORES, experiment, keep_records
from deepcustom.pipeline import check as checking
from deepcustom.pipeline import profile, provenance, repository
from deepcustom.pipeline.code import PREFIX
from deepcustom.pipeline.provenance import ORIGIN, git_state, note_origin
from deepcustom.pipeline.push import _inside
from deepcustom.pipeline.workspace import RAW, Workspace
from deepcustom.tracking.record import RunRecord
from deepcustom.tracking.store import tracking_uri

EXPS = ".dvc/tmp/exps"


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git does not know the user."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "home/none"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(tmp_path / "home/none"))
    for name in [name for name in os.environ if name.startswith(("GIT_AUTHOR", "GIT_COMMITTER"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("EMAIL", raising=False)


# The copy of a project


@pytest.mark.parametrize("copy", ["tmpx", "standalone/tmpx", "tmpx/part/of/a/repository"])
def test_a_copy_belongs_to_its_project(tmp_path: Path, copy: str) -> None:
    root = tmp_path / EXPS / copy
    root.mkdir(parents=True)
    assert home(root) == tmp_path
    assert tracking_uri(root) == tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize("folder", [".", "exps/tmpx", ".dvc/exps/tmpx", "tmp/exps/x"])
def test_any_other_folder_is_its_own(tmp_path: Path, folder: str) -> None:
    root = tmp_path / folder
    assert home(root) == root


def test_a_relative_address_means_the_projects_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / EXPS / "tmpx"
    root.mkdir(parents=True)
    monkeypatch.chdir(root)
    wanted = {
        "sqlite:///mine.db": f"sqlite:///{tmp_path}/mine.db",
        "sqlite:///mine.db?timeout=9": f"sqlite:///{tmp_path}/mine.db?timeout=9",
        "./runs": f"{tmp_path}/runs",
        "http://127.0.0.1:9": "http://127.0.0.1:9",
        "sqlite:////elsewhere/mine.db": "sqlite:////elsewhere/mine.db",
        "databricks": "databricks",
    }
    for named, expected in wanted.items():
        monkeypatch.setenv("MLFLOW_TRACKING_URI", named)
        assert tracking_uri(root) == expected
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mine.db")
    assert tracking_uri(tmp_path) == "sqlite:///mine.db"


def test_a_copy_has_the_downloads_and_the_scores_of_its_project(tmp_path: Path) -> None:
    root, piece = tmp_path / EXPS / "tmpx", f"{SCORES}/mnist/target/pgd/piece.safetensors"
    root.mkdir(parents=True)
    replace_file(tmp_path / piece, b"score")
    with experiment(root):
        replace_file(root / RAW / "mnist/download", b"images")
        assert (root / piece).read_bytes() == b"score"
        (root / piece).unlink()
    assert (tmp_path / RAW / "mnist/download").read_bytes() == b"images"
    assert (tmp_path / piece).read_bytes() == b"score", (
        "an experiment removes scores for itself only"
    )
    with experiment(root):  # the next stage of the experiment
        pass
    shutil.rmtree(root)
    assert (tmp_path / RAW / "mnist/download").exists()


def test_outside_an_experiment_nothing_is_added(tmp_path: Path) -> None:
    with experiment(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_records_are_put_where_dvcs_commit_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text("/reports/runs/**/*.png\n")
    for name in ("run.json", "curve.png"):
        replace_file(tmp_path / RUNS / "mnist/prepare" / name, b"{}")
    (tmp_path / "other").touch()

    def end(code: int) -> list[str]:
        with pytest.raises(SystemExit), experiment(tmp_path):
            raise SystemExit(code)
        return git(tmp_path, "diff", "--cached", "--name-only").split()

    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "first")
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    assert end(0) == []
    monkeypatch.setenv("DVC_EXP_NAME", "bold-tit")
    assert end(1) == []
    assert end(0) == [f"{RUNS}/mnist/prepare/run.json"]
    monkeypatch.setenv("PATH", str(tmp_path))
    keep_records(tmp_path)  # without git nothing is lost but this


def with_other_sources(root: Path) -> Path:
    """A copy of this project, whose stage says that it is this one's."""
    copy_sources(root)
    file = root / PREFIX / "stages/prepare.py"
    file.write_text(file.read_text() + "\nprint('own sources')\n")
    return root


def test_a_copy_runs_its_own_sources(tmp_path: Path) -> None:
    """DVC hashes the copy's sources, and Python finds the project's, which have changed since."""
    root = with_other_sources(tmp_path / EXPS / "tmpx")
    (root / "params.yaml").write_text("seed: 1\n")
    done = cli(root, *PREPARE, code=ROOT)
    assert done.stdout == "own sources\n"
    assert done.stderr.startswith("error: params.yaml: ")
    assert done.returncode == 2


def test_a_workspace_runs_its_own_sources_without_deepcustom_repro(tmp_path: Path) -> None:
    root = with_other_sources(tmp_path / "workspaces/smoke")
    done = cli(root, *PREPARE, code=ROOT)
    assert done.stdout == "", "any other folder is refused"
    assert "the code that runs is not" in done.stderr
    (root / "params.yaml").write_text("seed: 1\n")
    note_origin(root, tmp_path)
    assert cli(root, *PREPARE, code=ROOT).stdout == "own sources\n"


def test_a_program_that_calls_the_command_as_a_function_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = with_other_sources(tmp_path / EXPS / "tmpx")
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("this process would be gone"))
    assert call_main(root, *PREPARE) == 2


# Where a workspace's code comes from


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A small project in git, with a profile."""
    root = tmp_path / "project"
    (root / "src").mkdir(parents=True)
    (root / "src/code.py").write_text("code")
    (root / "profiles").mkdir()
    (root / "profiles/quick.yaml").write_text("seed: 2\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    shutil.copy(ROOT / "params.yaml", root)
    (root / ".gitignore").write_text("/workspaces/\n/data/raw/\n")
    (root / ".dvcignore").touch()
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "first")
    return Workspace(root)


@pytest.fixture
def quick(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(checking, "check", lambda root, tree: None)
    return profile.workspace(project, "quick")


def test_a_record_names_the_projects_commit(project: Workspace, quick: Workspace) -> None:
    commit = git(project.root, "rev-parse", "HEAD")
    assert git(quick.root, "rev-parse", "HEAD") != commit
    assert git_state(quick.root) == (commit, False)
    assert provenance.checkout(quick.root) == project.root
    # The project goes on, and the workspace still has the copy.
    git(project.root, "commit", "--quiet", "--allow-empty", "--message", "second")
    assert git_state(quick.root) == (commit, False)
    # An experiment, or the user, changes a setting of the copy.
    with (quick.root / "params.yaml").open("a") as file:
        file.write("new: 1\n")
    assert git_state(quick.root) == (commit, True)


def test_a_copy_of_uncommitted_code_is_called_so(project: Workspace, quick: Workspace) -> None:
    (project.root / "src/code.py").write_text("other")
    profile.workspace(project, "quick")
    assert git_state(quick.root) == (git(project.root, "rev-parse", "HEAD"), True)


def test_a_store_in_the_outer_repository_is_found_from_a_workspace(
    project: Workspace, quick: Workspace
) -> None:
    assert _inside(quick.root, str(project.root / "store")) == project.root / "store"
    assert _inside(quick.root, str(project.root.parent / "store")) is None


# The repository of a workspace


@pytest.mark.usefixtures("nobody")
def test_a_workspace_is_a_repository_for_whom_git_does_not_know(
    project: Workspace, quick: Workspace
) -> None:
    root = quick.root
    assert git(root, "rev-parse", "--show-toplevel") == str(root)
    assert git(root, "log", "--format=%s") == "The profile quick"
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "ls-files", RAW, "src", "params.yaml", ORIGIN).split() == sorted(
        [RAW, "src/code.py", "params.yaml", ORIGIN]
    )
    assert git(project.root, "status", "--porcelain") == ""
    profile.workspace(project, "quick")
    assert git(root, "rev-list", "--count", "HEAD") == "1", "nothing changed, so nothing to commit"
    (project.root / "profiles/quick.yaml").write_text("seed: 3\n")
    profile.workspace(project, "quick")
    assert git(root, "rev-list", "--count", "HEAD") == "2"
    assert "seed: 3" in git(root, "show", "HEAD:params.yaml")


def test_its_results_are_committed_but_no_images_and_no_models(
    project: Workspace, quick: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ("dvc.lock", "reports/runs/a/run.json", "reports/a.md", "data/adversarial/a/.gitignore")
    left = ("data/prepared/a/x.npy", "models/target/a.safetensors", "reports/runs/a/b.png")
    for name in (*kept, *left, "mlflow.db", ".checkpoints/a"):
        replace_file(quick.root / name, b"x")
    monkeypatch.setattr(profile, "run_dvc", lambda *words, **more: 1)
    assert profile.reproduce(quick, [], project) == 1
    assert git(quick.root, "log", "-1", "--format=%s") == "The profile quick"
    monkeypatch.setattr(profile, "run_dvc", lambda *words, **more: 0)
    assert profile.reproduce(quick, [], project) == 0
    assert git(quick.root, "log", "-1", "--format=%s") == "Results"
    assert set(git(quick.root, "show", "--format=", "--name-only", "HEAD").split()) == {*kept}


def test_a_hook_of_the_outer_repository_is_no_trap(
    project: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git tells its hooks by variables where they are; these must not reach the workspace's git."""
    monkeypatch.setattr(checking, "check", lambda root, tree: None)
    before = git(project.root, "rev-parse", "HEAD")
    with environment(GIT_DIR=str(project.root / ".git"), GIT_INDEX_FILE=str(project.root / "x")):
        root = profile.workspace(project, "quick").root
    assert git(root, "log", "--format=%s") == "The profile quick"
    assert git(project.root, "rev-parse", "HEAD") == before


def test_a_workspace_of_an_earlier_version_becomes_one(
    project: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "check", lambda root, tree: None)
    root = project.root / "workspaces/quick"
    replace_file(
        root / ".dvc/config", b"[core]\n    no_scm = True\n['remote \"a\"']\n    url = x\n"
    )
    replace_file(root / "models/kept", b"kept")
    profile.workspace(project, "quick")
    config = (root / ".dvc/config").read_text()
    assert "no_scm" not in config
    assert "url = x" in config
    assert git(root, "log", "--format=%s") == "The profile quick"
    assert (root / "models/kept").read_bytes() == b"kept"


def test_without_git_a_workspace_is_one_of_dvc_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(repository.shutil, "which", lambda name: None)
    monkeypatch.setattr(repository, "run_dvc", lambda root, words: asked.append(words))
    repository.begin(tmp_path)
    repository.commit(tmp_path, "nothing")
    assert asked == [["init", "--quiet", "--no-scm"]]
    assert list(tmp_path.iterdir()) == []


def test_a_repository_of_anothers_is_refused(project: Workspace, tmp_path: Path) -> None:
    for folder in (tmp_path / "other", tmp_path / "mine"):
        (folder / ".dvc").mkdir(parents=True)
        git(folder, "init", "--quiet")
    with pytest.raises(Exception, match="holds something else"):
        profile.workspace(project, "quick", tmp_path / "other")


# Whole experiments


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project on random images, committed, whose images DVC keeps; nothing has run in it."""
    folder = tmp_path_factory.mktemp("experiments")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (120, 8, 8), dtype=np.uint8)
    np.savez(folder / "noise.npz", x=x, y=np.arange(120) % 2)
    with environment(GIT_AUTHOR_NAME="t", GIT_AUTHOR_EMAIL="t@x", GIT_COMMITTER_NAME="t"):
        words = ("--images", "noise.npz", "--network", "small", "--eps", "0.1", "--name", "noise")
        assert call_main(folder, "init", "project", *words) == 0
    root = folder / "project"
    git(root, "config", "user.name", "t")
    git(root, "config", "user.email", "t@example.org")
    (root / "profiles").mkdir()
    (root / "profiles/quick.yaml").write_text(yaml.safe_dump({"seed": 2}))
    dvc(root, "add", "--quiet", "data/own/noise.npz")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "Images")
    return root


def dvc(root: Path, *words: str) -> str:
    """Run DVC as a user does, with this Python's deepcustom found first."""
    scripts = root.parent / "scripts"
    scripts.mkdir(exist_ok=True)
    script = scripts / "deepcustom"
    script.write_text(f"#!{sys.executable}\nfrom deepcustom.cli import main\nmain()\n")
    script.chmod(0o755)
    path = os.pathsep.join([str(scripts), os.environ["PATH"]])
    env = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "DVC_NO_ANALYTICS": "1"}
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        env.pop(name, None)
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.usefixtures("own_store")
def test_a_temporary_experiment_leaves_its_runs_and_its_record(images: Path) -> None:
    words = ("exp", "run", "--temp", "--name", "few", "--set-param", "prepare.noise.val_size=20")
    dvc(images, *words, "prepare@noise")
    assert not list((images / EXPS / "standalone").glob("tmp*")), "the copy is gone"
    baseline = git(images, "rev-parse", "HEAD")
    (ref,) = git(images, "for-each-ref", "--format=%(refname)", "refs/exps/*/*/few").split()
    there = git(images, "ls-tree", "-r", "--name-only", ref).split()
    assert f"{RUNS}/noise/prepare/run.json" in there
    text = git(images, "show", f"{ref}:{RUNS}/noise/prepare/run.json")
    record = RunRecord.model_validate_json(text)
    assert (record.dvc_exp, record.dvc_exp_baseline) == ("few", baseline)
    assert (record.git_commit, record.git_dirty) == (baseline, True)
    runs = {run.info.run_name: run for run in all_runs(images)}
    assert set(runs) == {"few", "prepare@noise few"}
    below = runs["prepare@noise few"]
    assert below.data.tags["mlflow.parentRunId"] == runs["few"].info.run_id
    for run in runs.values():
        assert run.data.tags["dvc.exp"] == "few"
        assert run.data.tags["dvc.exp.baseline"] == baseline
    artifacts = images / "mlartifacts" / below.info.run_id / "artifacts"
    assert (artifacts / "run.json").is_file()
    assert [entry.path for entry in client(images).list_artifacts(below.info.run_id)] == [
        "run.json"
    ]


@pytest.mark.usefixtures("own_store")
def test_experiments_run_in_the_workspace_of_a_profile(images: Path) -> None:
    with environment(PATH=f"{images.parent / 'scripts'}{os.pathsep}{os.environ['PATH']}"):
        assert call_main(images, "repro", "--profile", "quick", "prepare") == 0
    root = images / "workspaces/quick"
    assert git(root, "log", "--format=%s").splitlines() == ["Results", "The profile quick"]
    words = ("exp", "run", "--temp", "--name", "few", "--set-param", "prepare.noise.val_size=30")
    dvc(root, *words, "prepare@noise")
    assert "few" in dvc(root, "exp", "show", "--csv", "--only-changed")
    names = {run.info.run_name for run in all_runs(root)}
    assert {"few", "prepare@noise", "prepare@noise few"} <= names
    (few,) = [run for run in all_runs(root) if run.info.run_name == "prepare@noise few"]
    assert few.data.tags["git.commit"] == git(images, "rev-parse", "HEAD")
    assert few.data.tags["git.dirty"] == "true"
    assert git(images, "status", "--porcelain") == ""
