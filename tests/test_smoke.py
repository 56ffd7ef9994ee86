"""The whole pipeline on a few hundred real images; every kind of stage once more: the same bytes."""

from __future__ import annotations

import csv
import os
import re
import shlex
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

from deepcustom.base import rows
from deepcustom.base.hashes import dvc_md5
from deepcustom.evaluation.results import AUTOATTACK, PROTOCOLS
from deepcustom.evaluation.whitebox import MORE
from deepcustom.pipeline.provenance import CODE, git_state
from deepcustom.stages import NAMES
from deepcustom.tracking.record import RUN_FILE, RunRecord

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SUBJECTS = tuple(yaml.safe_load((ROOT / "params.yaml").read_text())["subjects"])
PROGRAM = Path(sys.executable).parent / "deepcustom"
GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org")
# What is made once more of each subject; of a stage that is not named, all of it.
AGAIN = {
    "train_dgn": ("suspiciousness",),
    "generate": ("nce-ball-test",),
    "attack": ("pgd-test",),
    "adversarial_train": ("nce", "madry"),
    "train_online": ("online",),
}
# Of these stages, once more for one of the subjects only: they run the same code for both.
FOR_ONE = {
    "mnist": {"prepare", "relevance", "generate", "train_online", "gallery"},
    "cifar10": {"train_target", "suspiciousness", "train_dgn", "attack", "adversarial_train"},
}
# MNIST goes through all rows, CIFAR-10 through some of each kind.
LEFT_OUT = (
    *(
        f"remove network {name} --subject cifar10"
        for name in ("lrp", "nce-ball", "suspiciousness", "fgsm", "pgd")
    ),
    "remove bank lrp --subject cifar10",
)
FEWER = (
    *(
        f"remove network {name} --subject mnist"
        for name in ("lrp", "nce", "suspiciousness", "fgsm", "pgd", "fgsm-art")
    ),
    "remove bank lrp --subject mnist",
    "remove bank suspiciousness --subject mnist",
)
PROCESS = re.compile(r"-\d+(?=\.json$)")
MINUTE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC")
PAGE = "page@index"  # of all subjects together, and made apart
PICTURED = (
    "train_target",
    "train_dgn",
    "generate",
    "attack",
    "adversarial_train",
    "train_online",
    "evaluate",
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the code as it stands; downloads are shared with the real one."""
    root = tmp_path_factory.mktemp("smoke") / "project"
    root.mkdir()
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, root / name)
    (root / "data").mkdir()
    (ROOT / "data/raw").mkdir(parents=True, exist_ok=True)
    (root / "data/raw").symlink_to(ROOT / "data/raw", target_is_directory=True)
    (root / ".gitignore").write_text("/data\n/workspaces\n")
    for line in LEFT_OUT:
        changed = subprocess.run(
            [PROGRAM, *shlex.split(line)], cwd=root, capture_output=True, text=True
        )
        assert changed.returncode == 0, changed.stderr
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "code"]):
        subprocess.run([*GIT, *words], cwd=root, check=True)
    return root


def side_by_side(
    project: Path, commands: Mapping[str, Sequence[str]], **environ: str
) -> dict[str, str]:
    """Run all commands to their end, with one thread each, so that none waits; name → what was printed."""
    env = {
        key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")
    } | environ
    runs = {
        name: subprocess.Popen(
            words,
            cwd=project,
            env={**env, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
            stdout=(project.parent / f"{name}.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        for name, words in commands.items()
    }
    codes = [run.wait() for run in runs.values()]
    printed = {name: (project.parent / f"{name}.log").read_text() for name in runs}
    assert not any(codes), "\n".join(text[-5000:] for text in printed.values())
    return printed


def repro(subject: str) -> list[str]:
    """Everything of one subject, into a folder with a store and a cache of its own."""
    folder = f"workspaces/{subject}"
    command = [str(PROGRAM), "repro", "--profile", "smoke", "--folder", folder]
    return [*command, f"report@{subject}", f"gallery@{subject}"]


@pytest.fixture(scope="module")
def folders(project: Path) -> dict[str, Path]:
    """Subject → where it was made."""
    commands = {subject: repro(subject) for subject in SUBJECTS}
    printed = side_by_side(project, commands, DEEPCUSTOM_SEND_LATER="1")
    sync = [str(PROGRAM), "runs", "sync"]
    for subject in SUBJECTS:
        printed |= side_by_side(project / "workspaces" / subject, {f"sync-{subject}": sync})
    for text in printed.values():
        warnings = [line for line in text.splitlines() if line.startswith("warning:")]
        # A network that saw few images is hardly above chance.
        assert [one for one in warnings if not one.endswith("attacks on it tell nothing")] == []
    return {subject: project / "workspaces" / subject for subject in SUBJECTS}


@pytest.fixture(scope="module")
def again(project: Path, folders: dict[str, Path], instances: dict[str, Instance]) -> set[str]:
    """Names of what was made once more, in copies of the folders that lacked just that."""
    scripts, names = {}, set()
    for subject, folder in folders.items():
        copy = folder.with_name(f"again-{subject}")
        shutil.copytree(folder, copy, symlinks=True)
        words = [f"cd {copy}"]
        for name, one in instances.items():
            stage, _, item = name.partition("@")
            wanted = [f"{subject}-{part}" for part in AGAIN[stage]] if stage in AGAIN else [subject]
            elsewhere = set().union(*FOR_ONE.values()) - FOR_ONE[subject]
            if item not in wanted or stage in elsewhere:
                continue
            names.add(name)
            paths = " ".join(sorted(one.paths))
            words.append(f"rm -r {paths} && {PROGRAM.parent}/{' '.join(one.words)}")
        scripts[copy.name] = ["sh", "-ec", "\n".join(words)]
    side_by_side(project, scripts, DEEPCUSTOM_SEND_LATER="1")
    return names


@pytest.fixture(scope="module")
def instances(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Instance]:
    """The stages that dvc.yaml resolves to."""
    folder = tmp_path_factory.mktemp("dag")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(project / name, folder)
    return resolve(folder).instances


def lock(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / "dvc.lock").read_text())["stages"])


def test_a_run_makes_everything(folders: dict[str, Path], instances: dict[str, Instance]) -> None:
    stages = [set(lock(folder)) for folder in folders.values()]
    assert not set.intersection(*stages)
    assert set.union(*stages) == set(instances) - {PAGE}
    for folder in folders.values():
        for name, stage in lock(folder).items():
            assert {out["path"] for out in stage["outs"]} == instances[name].paths
    caches = [(folder / ".dvc/cache").resolve() for folder in folders.values()]
    assert len(set(caches)) == len(caches)
    assert all(any(cache.rglob("*")) for cache in caches)


def test_the_second_time_gives_the_same_bytes(folders: dict[str, Path], again: set[str]) -> None:
    stages = {name.partition("@")[0] for name in again}
    assert stages == set(NAMES) - {"page"}
    for subject, folder in folders.items():
        made = {name: entry for name, entry in lock(folder).items() if name in again}
        assert len(made) >= len(FOR_ONE[subject]) + len({"evaluate", "report"})
        md5s = {out["path"]: out["md5"] for entry in made.values() for out in entry["outs"]}
        assert f"reports/results/{subject}.csv" in md5s
        for path, md5 in md5s.items():
            second = folder.with_name(f"again-{subject}") / path
            assert dvc_md5(folder / path) == dvc_md5(second) == md5, path


def test_the_page_of_what_is_there_is_the_same_each_time_but_for_the_minute(
    project: Path, folders: dict[str, Path], instances: dict[str, Instance]
) -> None:
    """One of the two subjects was not evaluated here. The page says when its numbers were verified."""
    copy = folders["mnist"].with_name("page")
    # Not the store: a copy of it would put its runs' files where the first one lies.
    store = shutil.ignore_patterns("mlflow.db*", "mlartifacts")
    shutil.copytree(folders["mnist"], copy, symlinks=True, ignore=store)
    words, made = f"{PROGRAM.parent}/{' '.join(instances[PAGE].words)}", []
    for _ in range(2):
        side_by_side(project, {"page": ["sh", "-ec", f"cd {copy} && {words}"]})
        texts = {path: (copy / path).read_text() for path in instances[PAGE].paths}
        assert MINUTE.search(texts["reports/index.html"])
        made.append({path: MINUTE.sub("then", text) for path, text in texts.items()})
    assert made[0] == made[1]


def test_nothing_half_written_is_left(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        assert not [path for path in folder.rglob("*") if ".part" in path.name]


def test_a_second_repro_has_nothing_to_do(project: Path, folders: dict[str, Path]) -> None:
    files = [file for folder in folders.values() for file in folder.rglob(RUN_FILE)]
    before = {path: path.stat().st_mtime_ns for path in files}
    for text in side_by_side(project, {subject: repro(subject) for subject in SUBJECTS}).values():
        assert "Data and pipelines are up to date." in text
        assert "Running stage" not in text
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_the_table_holds_every_network_and_attack(folders: dict[str, Path]) -> None:
    for subject, folder in folders.items():
        tree = yaml.safe_load((folder / "params.yaml").read_text())
        asked, networks = rows.row(tree, "evaluate", subject).settings, rows.networks(tree, subject)
        sets = rows.adversarial_sets(tree, subject)
        table = csv.DictReader((folder / f"reports/results/{subject}.csv").open())
        cells = [(row["protocol"], row["network"], row["attack"]) for row in table]
        others = [(network, f"from-{other}") for network, other in permutations(networks, 2)]
        protocols = [name for name in PROTOCOLS if name not in {"worst", AUTOATTACK}]
        wanted = {
            *product(["transfer"], networks, ["clean", *sets]),
            *product(["whitebox"], networks, [*asked["whitebox"], "apgd-ce", "apgd-t"]),
            *(("blackbox", *pair) for pair in others),
            *product(["blackbox"], networks, ["square"]),
            *product(["adaptive"], networks, ["dgn", "dgn-any"]),
            *product(["worst"], networks, ["clean", *protocols, "all"]),
        }
        more = set(product(["whitebox"], networks, [MORE]))  # where Square was stronger
        assert set(cells) - more == wanted
        assert len(cells) == len(set(cells))


@pytest.mark.parametrize("subject", SUBJECTS)
def test_mlflow_shows_every_stage(project: Path, folders: dict[str, Path], subject: str) -> None:
    from mlflow import MlflowClient

    folder = folders[subject]
    stages = lock(folder)
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("deepcustom")
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    groups = {run.info.run_id for run in found if "deepcustom.repro" in run.data.tags}
    runs = [run for run in found if run.info.run_id not in groups]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == groups
    assert sorted(run.info.run_name for run in runs) == sorted(stages)
    records = [RunRecord.read(path.parent) for path in folder.rglob(RUN_FILE)]
    by_name = {record.name: record for record in records}
    assert set(by_name) == set(stages)
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


@pytest.mark.parametrize("subject", SUBJECTS)
def test_recorded_hashes_are_dvcs(folders: dict[str, Path], subject: str) -> None:
    stages = lock(folders[subject])
    for path in folders[subject].rglob(RUN_FILE):
        record = RunRecord.read(path.parent)
        outs = {out["path"]: out["md5"] for out in stages[record.name]["outs"]}
        assert record.outputs == outs, record.name
        deps = {dep["path"]: dep["md5"] for dep in stages[record.name].get("deps", [])}
        shared = set(deps) & set(record.inputs)
        assert {name: deps[name] for name in shared} == {n: record.inputs[n] for n in shared}
        assert shared or record.stage == "prepare", record.name


# Added and removed

ITEMS = (
    "add bank margin --subject mnist --loss examples.margin_loss:MarginLoss "
    "--set 'options={kappa: 0.0, margin_weight: 1.0, mse_weight: 1.0}'",
    "add network online2 --subject mnist --type online --set noise=0.0",
    "add attack pgd5 --subject mnist --method pgd --set max_iter=5",
    "add subject near --like mnist --eps 0.2 --only nce-ball --only madry",
)
GONE = (
    "remove bank margin --subject mnist",
    "remove network online2 --subject mnist",
    "remove attack pgd5 --subject mnist",
    "remove subject near",
)


def content(folder: Path) -> dict[str, str]:
    """Path → hash of what a workspace holds; pictures and records of runs are there, and may be newer.

    What the last stage said of itself is there too, under the number of its process.
    """
    apart = (".dvc/", ".git/", "mlflow.db", "mlartifacts/", "src/", "examples/")
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(apart):
            last = name.startswith(".checkpoints/running/")
            loose = last or path.suffix == ".png" or path.name == RUN_FILE
            found[PROCESS.sub("", name) if last else name] = "" if loose else dvc_md5(path)
        elif path.is_dir() and not f"{name}/".startswith(apart):
            found[f"{name}/"] = ""
    return found


def test_items_come_and_go_and_leave_nothing(project: Path, folders: dict[str, Path]) -> None:
    """Rows with comments between them; what was trained and scored before is not made again.

    Most networks and two banks go first, since they would be scored three times more.
    """
    folder = folders["mnist"].with_name("changed")
    shutil.copytree(folders["mnist"], folder, symlinks=True)
    params = folder / "params.yaml"
    text = params.read_text().replace("\ntrain_dgn:", "\n# Banks.\ntrain_dgn:")
    text = text.replace("\nreport:", "\n\n# The page.\nreport:  # of each subject")
    params.write_text(text)
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder / "src"), "DEEPCUSTOM_SEND_LATER": "1"}
    env["PATH"] = f"{PROGRAM.parent}{os.pathsep}{env['PATH']}"

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    for line in FEWER:
        run(str(PROGRAM), *shlex.split(line))
    text = params.read_text()
    run("dvc", "repro", "report@mnist")
    before = content(folder)
    for line in ITEMS:
        run(str(PROGRAM), *shlex.split(line))
    run("dvc", "repro", "report@mnist", "report@near")
    assert {"models/robust/near/madry.safetensors", "reports/near.md"} <= set(content(folder))
    for line in GONE:
        run(str(PROGRAM), *shlex.split(line))
    assert params.read_text() == text
    printed = run("dvc", "repro", "report@mnist")
    assert "deepcustom train" not in printed
    assert content(folder) == before
