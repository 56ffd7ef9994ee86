"""What is set up and what is missing; each thing is broken, and the command that mends it is there."""

from __future__ import annotations

import contextlib
import json
import platform
import shlex
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pipeline_fixtures import ROOT, call_main, make_project, set_params
from typer.main import get_command

from deepcustom.base.hashes import dvc_md5
from deepcustom.cli import app
from deepcustom.pipeline import dvc, provenance
from deepcustom.pipeline.doctor import machine, project
from deepcustom.pipeline.doctor.examine import examine
from deepcustom.pipeline.doctor.finding import Finding
from deepcustom.pipeline.doctor.locked import absent, stale
from deepcustom.pipeline.template import render

pytestmark = pytest.mark.usefixtures("own_store")


def exists(command: str) -> bool:
    """Whether a program has the command that a line names."""
    words = shlex.split(command)
    match words:
        case ["deepcustom", name, *_]:
            return name in get_command(app).commands  # type: ignore[attr-defined]
        case ["dvc", *rest]:
            named = [word for word in rest[:2] if word.isalpha()][:2]
            names = named if named[0] == "remote" else named[:1]
            return _ends_well([sys.executable, "-m", "dvc", *names, "--help"])
        case ["git", name, *_]:
            return _ends_well(["git", name, "-h"], 129)
        case ["make", *variables]:
            text = (ROOT / "Makefile").read_text()
            return all(f"\n{one.partition('=')[0]} ?=" in f"\n{text}" for one in variables)
        case ["python", "-m", "pip", name, *_]:
            return _ends_well([sys.executable, "-m", "pip", name, "--help"])
        case ["mlflow", "db", "upgrade", _] | ["unset", _]:
            return True
    return False


def _ends_well(words: list[str], code: int = 0) -> bool:
    return subprocess.run(words, capture_output=True).returncode == code


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project with DVC and git, whose digits are prepared."""
    root = make_project(tmp_path_factory.mktemp("doctor") / "p").root
    only = yaml.safe_load((root / "params.yaml").read_text())
    for stage, below in only.items():
        if isinstance(below, dict) and stage not in ("compute", "recipes"):
            only[stage] = {
                name: row
                for name, row in below.items()
                if name == "mnist" or (isinstance(row, dict) and row.get("subject") == "mnist")
            }
    (root / "params.yaml").write_text(yaml.safe_dump(only, sort_keys=False))
    (root / "dvc.yaml").write_text(render(root))
    for words in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(words, cwd=root, check=True)
    return root


@pytest.fixture
def whole(made: Path, tmp_path: Path) -> Path:
    """The same for one test."""
    return Path(shutil.copytree(made, tmp_path / "p"))


def of(findings: list[Finding], name: str) -> Finding:
    (found,) = [one for one in findings if one.name == name]
    return found


def check(found: Finding, verdict: str, says: str, *, hinders: bool, mend: str | None) -> None:
    """Hold a line against what it should be; what it tells one to type is there."""
    assert (found.verdict, found.hinders) == (verdict, hinders), found
    assert says in found.says
    assert "\n" not in found.line()
    assert (mend or "") in found.mend
    assert bool(found.mend) == (mend is not None), found
    assert not found.mend or exists(found.mend), found.mend


# The command


def test_outside_a_project_it_says_so_and_what_the_machine_can(tmp_path: Path, capfd: Any) -> None:
    assert call_main(tmp_path, "doctor") == 0
    lines = capfd.readouterr().out.splitlines()
    names = [line.split()[1] for line in lines[:-1]]
    assert names == ["python", "packages", "memory", "cores", "bfloat16", "gpu", "disk", "project"]
    assert lines[-2] == "missing  project    no project in this folder: `deepcustom init DIR`"
    assert lines[-1] == "nothing hinders"


def test_json_has_every_line(tmp_path: Path, capfd: Any) -> None:
    assert call_main(tmp_path, "doctor", "--json") == 0
    told = json.loads(capfd.readouterr().out)
    assert told["hindrances"] == []
    assert set(told["findings"][0]) == {"name", "verdict", "says", "mend", "hinders"}


def test_a_project_that_only_has_to_run_is_hindered_by_nothing(whole: Path, capfd: Any) -> None:
    assert call_main(whole, "doctor") == 0
    text = capfd.readouterr().out
    for line in (
        "ok       git        ",
        "ok       dvc        set up",
        "ok       params     ",
        "ok       images     mnist: prepared",
        "ok       dvc.yaml   ",
        "missing  remote     none",
        "missing  models     none is trained yet: `dvc repro`",
        "ok       mlflow     no store yet",
    ):
        assert f"\n{line}" in text
    assert " stages of " in text
    assert not (whole / "mlflow.db").exists()


def test_what_hinders_ends_with_1(whole: Path, capfd: Any) -> None:
    set_params(whole, {"compute": {"precision": "double"}})
    assert call_main(whole, "doctor") == 1
    text = capfd.readouterr().out
    assert "cannot   params     params.yaml: compute.precision" in text
    assert text.splitlines()[-1] == "hinders: params"


# The machine


def test_an_old_python(monkeypatch: Any) -> None:
    assert machine.python().verdict == "ok"
    monkeypatch.setattr(platform, "python_version", lambda: "3.10.9")
    check(machine.python(), "cannot", "3.10.9, want 3.11", hinders=True, mend="make PYTHON=")


@pytest.mark.parametrize("locked", [True, False])
def test_a_package_out_of_its_range(monkeypatch: Any, tmp_path: Path, locked: bool) -> None:
    if locked:
        (tmp_path / "requirements.lock").write_text("rich==1.0.0\n# a comment\n")
        assert "rich " in machine.packages(tmp_path).says
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda n: "1.0" if n == "dvc" else real(n))
    mend = "--requirement requirements.lock" if locked else "'dvc<4,>=3.67'"
    check(machine.packages(tmp_path), "cannot", "dvc 1.0, want", hinders=True, mend=mend)


def test_a_package_that_is_gone(monkeypatch: Any, tmp_path: Path) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "captum":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    found = machine.packages(tmp_path)
    check(found, "missing", "captum is missing", hinders=True, mend="'captum<1,>=0.9'")
    assert [one.name for one in examine(tmp_path)][1] == "packages"


def test_memory_that_is_taken(monkeypatch: Any) -> None:
    assert machine.memory().verdict == "ok"
    monkeypatch.setattr(machine, "free_and_whole", lambda: (10**8, 10**10))
    check(machine.memory(), "cannot", "100 MB of 10.0 GB free", hinders=True, mend=None)


def test_a_torch_that_cannot_be_loaded(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (found,) = machine.compute()
    check(found, "cannot", "cannot be loaded", hinders=True, mend="pip install")


def test_precision_and_gpu(monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check(of(machine.compute(), "bfloat16"), "cannot", "float32", hinders=False, mend=None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda one: "a GPU")
    assert of(machine.compute(), "gpu") == Finding("gpu", "ok", "a GPU")


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    assert machine.disk(tmp_path, 0).verdict == "ok"
    found = machine.disk(tmp_path, 10**18)
    check(found, "cannot", "GB are not here", hinders=True, mend="dvc gc --workspace")


# The project


def test_no_git(whole: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    check(project.git(whole), "missing", "no program git", hinders=True, mend=None)


def test_no_repository(whole: Path) -> None:
    shutil.rmtree(whole / ".git")
    check(project.git(whole), "missing", "no repository", hinders=False, mend="git init")
    subprocess.run(shlex.split(project.git(whole).mend), cwd=whole, check=True)
    assert project.git(whole).verdict == "ok"


def test_a_repository_of_another_user(whole: Path, monkeypatch: Any) -> None:
    why = "detected dubious ownership in repository at 'x' To add an exception for this directory, "
    monkeypatch.setattr(provenance, "trouble", lambda root: f"{why}call: git ... safe.directory x")
    mend = f"git config --global --add safe.directory {whole}"
    check(project.git(whole), "cannot", "dubious ownership", hinders=True, mend=mend)


@pytest.mark.parametrize("around", ["its own", "none", "a larger one"])
def test_no_dvc(whole: Path, around: str) -> None:
    shutil.rmtree(whole / ".dvc")
    if around != "its own":
        shutil.rmtree(whole / ".git")
    if around == "a larger one":
        subprocess.run(["git", "init", "--quiet"], cwd=whole.parent, check=True)
    found = project.dvc_folder(whole)
    check(found, "missing", "no folder .dvc", hinders=True, mend="dvc init")
    subprocess.run([sys.executable, "-m", *shlex.split(found.mend)], cwd=whole, check=True)
    assert project.dvc_folder(whole).verdict == "ok"


def test_code_that_dvc_yaml_does_not_know(whole: Path) -> None:
    assert project.pipeline(whole).verdict == "ok"
    for name, says in (("dvc.yaml", "other code"), ("deepcustom.lock", "other code")):
        text = (whole / name).read_text()
        changed = text.replace("evaluate: ", "evaluate: 0") if "lock" in name else f"{text}# more\n"
        (whole / name).write_text(changed)
        check(project.pipeline(whole), "cannot", says, hinders=True, mend="deepcustom upgrade")
        assert call_main(whole, "upgrade") == 0
        assert project.pipeline(whole).verdict == "ok"


def test_remotes(whole: Path, tmp_path: Path) -> None:
    check(project.remote(whole), "missing", "none", hinders=False, mend="dvc remote add --default")
    (tmp_path / "store").mkdir()
    url = str(tmp_path / "store")
    command = shlex.split(project.remote(whole).mend.replace("NAME URL", f"shelf {url}"))
    subprocess.run([sys.executable, "-m", *command], cwd=whole, check=True)
    assert project.remote(whole).verdict == "ok"
    (tmp_path / "store").rename(tmp_path / "moved")
    found = project.remote(whole)
    check(found, "cannot", "no such folder", hinders=False, mend="dvc remote modify shelf url")
    command = shlex.split(found.mend.replace("URL", str(tmp_path / "moved")))
    subprocess.run([sys.executable, "-m", *command], cwd=whole, check=True)
    assert project.remote(whole).verdict == "ok"


def test_a_remote_that_does_not_answer(whole: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(project, "PATIENCE", 0.05)
    monkeypatch.setattr(dvc, "remote", lambda root: ("far", "s3://me:secret@far/away"))
    monkeypatch.setattr(project, "_trouble_of_remote", lambda *given: time.sleep(1))
    found = project.remote(whole)
    check(
        found, "cannot", "no answer in 0 seconds", hinders=False, mend="dvc remote modify far url"
    )
    assert "secret" not in found.line()


def lock_of(root: Path) -> dict[str, Any]:
    """A lock as after a run of train_target: its settings, its code, and what it made."""
    tree = yaml.safe_load((root / "params.yaml").read_text())
    params = {"seed": tree["seed"], "train_target.mnist": tree["train_target"]["mnist"]}
    out = {"path": "models/target/mnist.safetensors", "md5": "a" * 32, "size": 1000}
    deps = [{"path": "own/nets/mine.py", "md5": dvc_md5(root / "own/nets/mine.py")}]
    train = {"params": {"params.yaml": params}, "deps": deps, "outs": [out]}
    reads = {"path": out["path"], "md5": out["md5"]}
    return {"train_target@mnist": train, "relevance@mnist": {"deps": [reads]}}


@pytest.fixture
def ran(whole: Path) -> Path:
    (whole / "own/nets").mkdir(parents=True)
    (whole / "own/nets/mine.py").write_text("x = 1\n")
    return whole


@pytest.mark.parametrize("remote", [True, False])
def test_models_that_are_not_pulled(ran: Path, remote: bool, monkeypatch: Any) -> None:
    if remote:
        monkeypatch.setattr(dvc, "remote", lambda root: ("shelf", "/shelf"))
    lock = lock_of(ran)
    mend = "deepcustom pull" if remote else "dvc repro"
    check(project.models(ran, lock), "missing", "1 of 1 are not here", hinders=False, mend=mend)
    assert absent(ran, lock) == {"models/target/mnist.safetensors": 1000}
    (ran / "models/target").mkdir(parents=True)
    (ran / "models/target/mnist.safetensors").write_text("")
    assert project.models(ran, lock).verdict == "ok"


@pytest.mark.parametrize("changed", ["setting", "code", "what it reads", "nothing"])
def test_stages_that_will_run(ran: Path, changed: str) -> None:
    lock, names = lock_of(ran), ["train_target@mnist", "relevance@mnist"]
    expected = {"setting": names[:1], "code": names[:1], "what it reads": names[1:]}.get(
        changed, []
    )
    if changed == "setting":
        set_params(ran, {"train_target": {"mnist": {"epochs": 3}}})
    elif changed == "code":
        (ran / "own/nets/mine.py").write_text("x = 2\n")
    elif changed == "what it reads":
        lock["relevance@mnist"]["deps"][0]["md5"] = "b" * 32
    assert stale(ran, lock, names) == expected


def test_stages_that_never_ran(whole: Path) -> None:
    check(
        project.stages(whole, {}), "missing", "will run: prepare@", hinders=False, mend="dvc repro"
    )


def test_stages_of_this_repository_need_nothing() -> None:
    lock = dvc.read_lock(ROOT)
    assert set(stale(ROOT, lock, list(lock))) <= set(dvc.status(ROOT))


def test_a_pipeline_that_cannot_be_read(whole: Path) -> None:
    (whole / "dvc.yaml").write_text("stages: [")
    check(project.stages(whole, {}), "cannot", "dvc.yaml", hinders=True, mend="deepcustom upgrade")


@pytest.mark.parametrize("name", ["dvc.lock", "params.yaml"])
def test_files_that_cannot_be_read(whole: Path, name: str) -> None:
    (whole / name).write_text("[")
    found = of(list(examine(whole)), "project")
    mend = "git checkout dvc.lock" if name == "dvc.lock" else None
    check(found, "cannot", name, hinders=True, mend=mend)


def test_settings_that_are_gone(whole: Path) -> None:
    (whole / "params.yaml").unlink()
    found = of(list(examine(whole)), "project")
    check(found, "missing", "params.yaml", hinders=True, mend="git checkout params.yaml")


def test_images_of_a_built_in_data_set(whole: Path) -> None:
    shutil.rmtree(whole / "data/prepared")
    tree = {"prepare": {"mnist": {"source": "built_in", "reads": "deepcustom.lock"}}}
    (found,) = project.raw(whole, tree)
    check(found, "missing", "not fetched yet", hinders=False, mend="dvc repro prepare@mnist")
    (whole / "data/raw/mnist").mkdir(parents=True)
    (whole / "data/raw/mnist/file").write_text("")
    assert project.raw(whole, tree)[0].verdict == "ok"


def test_images_of_ones_own(whole: Path) -> None:
    row = {"source": "folder", "path": "data/own/mine", "reads": "data/own/mine"}
    tree = {"prepare": {"mine": row}}
    (found,) = project.raw(whole, tree)
    check(found, "missing", "copy them to data/own/mine", hinders=True, mend=None)
    (whole / "data/own").mkdir(parents=True)
    (whole / "data/own/mine.dvc").write_text("outs: []")
    (found,) = project.raw(whole, tree)
    check(found, "missing", "data/own/mine", hinders=True, mend="dvc pull data/own/mine.dvc")
    (whole / "data/own/mine").mkdir()
    assert project.raw(whole, tree)[0].verdict == "ok"


# The store


def test_a_store_that_works(root: Path) -> None:
    assert project.store(root) == Finding("mlflow", "ok", "the store answers")


def test_a_store_of_another_version(root: Path) -> None:
    import sqlite3

    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as base, base:
        base.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    check(project.store(root), "cannot", "an older MLflow", hinders=True, mend="mlflow db upgrade")


def test_a_server_that_is_away(root: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    mend = "unset MLFLOW_TRACKING_URI"
    check(project.store(root), "cannot", "127.0.0.1:9", hinders=True, mend=mend)
