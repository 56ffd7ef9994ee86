"""From a number or a file back to the raw data: a small project made by hand, and each link broken once."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pipeline_fixtures import ROOT, call_main
from rich.console import Console

from deepcustom.base.errors import InputError, UnknownNameError
from deepcustom.base.hashes import dvc_md5
from deepcustom.data.arrays import Split
from deepcustom.data.datasets import DatasetSpec, SplitFacts, load_spec, save_spec
from deepcustom.data.sources import source_names
from deepcustom.evaluation.results import Result, write_csv
from deepcustom.pipeline import provenance, workspace
from deepcustom.pipeline.code import code_digest
from deepcustom.pipeline.code_lock import LOCK
from deepcustom.pipeline.trace import view as lineage_view
from deepcustom.pipeline.trace.lineage import TAKEN
from deepcustom.pipeline.trace.official import official_links
from deepcustom.pipeline.trace.walk import trace
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking.record import RunRecord
from deepcustom.tracking.store import sync

SPLITS = [workspace.split("mnist", name) for name in ("train", "val", "test")]
TARGET = workspace.target("mnist")
SET = workspace.adversarial("mnist", "test", "pgd")
TABLE = workspace.results("mnist")
NUMBER = "mnist/target/transfer/pgd"
CODE = "src/code.py"


class Project:
    """Four stages: prepare, train_target, attack, evaluate; their records, lock and commit agree."""

    def __init__(self, root: Path, repository: Path) -> None:
        self.ws = Workspace(root)
        self.lock: dict[str, Any] = {}
        self.write(CODE, "code = 1\n")
        for name in ("params.yaml", "dvc.yaml"):
            self.write(name, "seed: 1\n")
        git(repository, "init", "-q")
        git(root, "add", "-A")
        git(root, "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-qm", "code")
        self.commit = git(root, "rev-parse", "HEAD")
        for path in SPLITS:
            self.write(f"{path}/x.npy", path)
        self.ran("prepare", "mnist", [], SPLITS)
        self.write(TARGET, "weights")
        self.ran("train_target", "mnist", SPLITS[:2], [TARGET])
        self.write(f"{SET}/x.npy", "images")
        self.ran("attack", "mnist-pgd-test", [SPLITS[2], TARGET], [SET])
        row = Result.of(
            dataset="mnist",
            network="target",
            protocol="transfer",
            attack="pgd",
            correct=3,
            n=10,
            network_md5=dvc_md5(root / TARGET),
            set_md5=dvc_md5(root / SET),
        )
        write_csv([row], root / TABLE)
        self.ran("evaluate", "mnist", [SPLITS[2], TARGET, SET], [TABLE])

    def write(self, path: str, text: str) -> None:
        full = self.ws.root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_text(text)

    def ran(self, stage: str, item: str, inputs: list[str], outputs: list[str]) -> None:
        """The record of a run, and its part of dvc.lock."""
        read, made = ({p: dvc_md5(self.ws.root / p) for p in ps} for ps in (inputs, outputs))
        dataset, *parts = item.split("-", 1)
        code = {CODE: dvc_md5(self.ws.root / CODE)}
        record = RunRecord(
            schema_version=1,
            run_key=f"{len(self.lock):032x}",
            stage=stage,
            item=item,
            dataset=dataset,
            dvc_stage=f"{stage}@{item}",
            dvc_exp=None,
            params={"seed": 1, f"{stage}.mnist": {"given": 2, "default": 3}},
            metrics={},
            history={},
            inputs=read,
            outputs=made,
            git_commit=self.commit,
            git_dirty=False,
            code=code_digest(code),
            started=datetime(2026, 1, 2, tzinfo=UTC),
            seconds=4.0,
            machine={},
            packages={},
            figures=[],
        )
        record.write(self.ws.root / workspace.record(dataset, stage, *parts))
        self.lock[f"{stage}@{item}"] = {
            "deps": [{"path": path, "md5": md5} for path, md5 in {**read, **code}.items()],
            "params": {"params.yaml": {"seed": 1, f"{stage}.mnist": {"given": 2}}},
            "outs": [{"path": path, "md5": md5} for path, md5 in made.items()],
        }
        self.save_lock()

    def save_lock(self) -> None:
        self.write("dvc.lock", yaml.safe_dump({"schema": "2.0", "stages": self.lock}))

    def keep(self) -> None:
        """Commit records and lock, as one does after a run."""
        git(self.ws.root, "add", "reports/runs", "dvc.lock")
        git(
            self.ws.root,
            "-c",
            "user.name=A",
            "-c",
            "user.email=a@example.org",
            "commit",
            "-qm",
            "run",
        )

    def broken(self, what: str = NUMBER) -> list[tuple[str, str]]:
        found = trace(self.ws, what, self.ws.root).broken()
        return [(where, link.name) for where, link in found]


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(params=[".", "projects/one"])
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    """A git repository, or a folder in one."""
    return Project(tmp_path / request.param, tmp_path)


def shown(project: Project, what: str) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(lineage_view.tree(trace(project.ws, what, project.ws.root), {"0" * 32: "run-id"}))
    return console.export_text()


def test_a_number_leads_back_to_the_splits(project: Project) -> None:
    text = shown(project, NUMBER)
    assert "mnist/target/transfer/pgd: accuracy 30.00 % (95 % interval" in text
    steps = [TABLE, "evaluate@mnist", SET, "attack@mnist-pgd-test", SPLITS[2], "prepare@mnist"]
    places = [text.index(word) for word in steps]
    assert places == sorted(places)
    assert TARGET in text
    assert "train_target@mnist" in text
    assert "evaluate.mnist.given=2" in text
    assert f"commit {project.commit[:12]}" in text
    assert "MLflow run run-id" in text
    assert "and 1 more inputs, which this does not depend on" in text, "evaluate's own clean split"
    assert project.broken() == []


def test_a_run_is_shown_once(project: Project) -> None:
    text = shown(project, NUMBER)
    assert text.count("made by prepare@mnist") == 1
    assert text.count("prepare@mnist, shown above") == 2


@pytest.mark.parametrize("what", [TARGET, SET, f"{SET}/x.npy", TABLE])
def test_a_file_leads_back_too(project: Project, what: str) -> None:
    found = trace(project.ws, what, project.ws.root)
    assert what.startswith(found.file.path)
    assert found.broken() == []
    assert "prepare@mnist" in {where for where, _ in found.all_links()}


def changed_file(project: Project) -> None:
    project.write(f"{SET}/x.npy", "other images")


def changed_weights(project: Project) -> None:
    project.write(TARGET, "other weights")


def another_record(project: Project) -> None:
    """As after training anew without scoring anew."""
    project.write(TARGET, "other weights")
    project.ran("train_target", "mnist", SPLITS[:2], [TARGET])


def no_record(project: Project) -> None:
    (project.ws.root / workspace.record("mnist", "train_target") / "run.json").unlink()


def other_row(project: Project) -> None:
    table = project.ws.root / TABLE
    text = table.read_text()
    table.write_text(text.replace(dvc_md5(project.ws.root / TARGET), "f" * 32))


def other_accuracy(project: Project) -> None:
    table = project.ws.root / TABLE
    table.write_text(table.read_text().replace("0.300000", "0.310000"))


def other_lock(project: Project) -> None:
    project.lock["attack@mnist-pgd-test"]["outs"][0]["md5"] = "f" * 32
    project.save_lock()


def other_input_in_lock(project: Project) -> None:
    project.lock["train_target@mnist"]["deps"][0]["md5"] = "f" * 32
    project.save_lock()


def other_params(project: Project) -> None:
    project.lock["attack@mnist-pgd-test"]["params"]["params.yaml"]["attack.mnist"]["given"] = 9
    project.save_lock()


def other_code(project: Project) -> None:
    project.lock["train_target@mnist"]["deps"][-1]["md5"] = "f" * 32
    project.save_lock()


def other_digest(project: Project) -> None:
    folder = project.ws.root / workspace.record("mnist", "train_target")
    RunRecord.read(folder).model_copy(update={"code": "0" * 64}).write(folder)


@pytest.mark.parametrize(
    ("spoil", "link"),
    [
        (changed_file, (SET, "file")),
        (changed_weights, (TARGET, "file")),
        (another_record, (TARGET, "made as")),
        (no_record, (TARGET, "made as")),
        (other_row, (NUMBER, "weights of the row")),
        (other_accuracy, (TABLE, "file")),
        (other_lock, (SET, "dvc.lock")),
        (other_input_in_lock, ("train_target@mnist", f"read {SPLITS[0]}")),
        (other_params, ("attack@mnist-pgd-test", "params")),
        (other_code, ("train_target@mnist", "code")),
        (other_code, ("train_target@mnist", "code that ran")),
        (other_digest, ("train_target@mnist", "code that ran")),
        (other_digest, ("train_target@mnist", "code")),
    ],
)
def test_a_broken_link_is_found(
    project: Project, spoil: Callable[[Project], None], link: tuple[str, str]
) -> None:
    assert project.broken() == []
    spoil(project)
    assert link in project.broken()


def test_a_row_is_held_against_its_recipe_too(project: Project) -> None:
    params = project.lock["attack@mnist-pgd-test"]["params"]["params.yaml"]
    params["attack.mnist"] = {"recipe": "hard", "given": 2}
    params["recipes.hard"] = {"given": 7, "default": 3}
    folder = project.ws.root / workspace.record("mnist", "attack", "pgd-test")
    record = RunRecord.read(folder)
    used = {"seed": 1, "attack.mnist": {"recipe": "hard", "given": 2, "default": 3}}
    record.model_copy(update={"params": used}).write(folder)
    project.save_lock()
    assert project.broken() == []
    params["recipes.hard"] = {"given": 2, "default": 4}
    project.save_lock()
    assert project.broken() == [("attack@mnist-pgd-test", "params")]


@pytest.mark.parametrize(("source", "called"), [("arrays", "all own"), ("built_in", "official")])
def test_images_are_called_what_they_are(project: Project, source: str, called: str) -> None:
    """By the record of prepare, as the stage writes it."""
    folder = project.ws.root / workspace.record("mnist", "prepare")
    record = RunRecord.read(folder)
    used = {**record.params, "prepare.mnist": {"given": 2, "default": 3, "source": source}}
    record.model_copy(update={"params": used}).write(folder)
    text = shown(project, SPLITS[0])
    for word in ("all own", "official"):
        assert (f"{word} train" in text) == (word == called)


def test_a_small_number_in_the_lock_is_one(project: Project) -> None:
    """DVC writes 1e-06, which is text to YAML 1.1."""
    place = project.lock["attack@mnist-pgd-test"]["params"]["params.yaml"]
    place["attack.mnist"] |= {"tiny": 1e-06}
    folder = project.ws.root / workspace.record("mnist", "attack", "pgd-test")
    record = RunRecord.read(folder)
    used = {"seed": 1, "attack.mnist": {"given": 2, "default": 3, "tiny": 1e-06}}
    record.model_copy(update={"params": used}).write(folder)
    text = yaml.safe_dump({"schema": "2.0", "stages": project.lock}).replace("1.0e-06", "1e-06")
    assert ": 1e-06" in text
    project.write("dvc.lock", text)
    assert project.broken() == []


def test_a_fraction_in_the_lock_is_the_number_of_the_record(project: Project) -> None:
    place = project.lock["attack@mnist-pgd-test"]["params"]["params.yaml"]
    place["attack.mnist"] |= {"eps_step": "2/255"}
    folder = project.ws.root / workspace.record("mnist", "attack", "pgd-test")
    record = RunRecord.read(folder)
    used = {"seed": 1, "attack.mnist": {"given": 2, "default": 3, "eps_step": 2 / 255}}
    record.model_copy(update={"params": used}).write(folder)
    project.save_lock()
    assert project.broken() == []
    place["attack.mnist"] |= {"eps_step": "3/255"}
    project.save_lock()
    assert project.broken() == [("attack@mnist-pgd-test", "params")]


def taken_over(project: Project) -> set[str]:
    """The runs whose code or settings in the lock are not those that ran, beside the same outputs."""
    links = trace(project.ws, NUMBER, project.ws.root).all_links()
    return {where for where, link in links if link.verdict == TAKEN}


@pytest.mark.parametrize("spoil", [other_code, other_params])
def test_what_dvc_commit_took_over_is_said(
    project: Project, spoil: Callable[[Project], None]
) -> None:
    """The lock of the commit that brought the record says what ran, and that the outputs are the same."""
    project.keep()
    assert taken_over(project) == set()
    spoil(project)
    assert project.broken() == []
    stage = "attack@mnist-pgd-test" if spoil is other_params else "train_target@mnist"
    assert taken_over(project) == {stage}
    assert "taken over" in shown(project, NUMBER)


def test_the_lock_of_the_package_is_code_where_a_row_names_it(project: Project) -> None:
    deps = project.lock["train_target@mnist"]["deps"]
    deps.insert(0, {"path": LOCK, "md5": "a" * 32})
    project.save_lock()
    project.keep()
    deps[0]["md5"] = "b" * 32
    other_code(project)
    assert project.broken() == []
    assert taken_over(project) == {"train_target@mnist"}


@pytest.mark.parametrize("files", ["outs", "deps"])
def test_other_files_are_not_taken_over(project: Project, files: str) -> None:
    project.keep()
    other_code(project)
    project.lock["train_target@mnist"][files][0]["md5"] = "f" * 32
    project.save_lock()
    assert ("train_target@mnist", "code that ran") in project.broken()
    assert taken_over(project) == set()


def test_a_record_that_its_own_lock_denies_is_not_taken_over(project: Project) -> None:
    other_digest(project)
    project.keep()
    assert ("train_target@mnist", "code that ran") in project.broken()
    assert taken_over(project) == set()


def test_what_is_not_here_is_said_and_breaks_nothing(project: Project) -> None:
    """As in a clone that has pulled nothing."""
    (project.ws.root / TARGET).unlink()
    found = trace(project.ws, NUMBER, project.ws.root)
    assert found.broken() == []
    verdicts = {(where, link.name): link.verdict for where, link in found.all_links()}
    assert verdicts[TARGET, "file"] == "absent"
    assert verdicts[TARGET, "dvc.lock"] == "ok"


def code_links(project: Project) -> dict[str, str]:
    """The verdicts on the code of train_target."""
    links = trace(project.ws, TARGET, project.ws.root).all_links()
    own = [link for where, link in links if where == "train_target@mnist"]
    return {link.name: link.verdict for link in own if link.name.startswith("code")}


def test_an_old_record_has_no_digest_and_its_files_are_compared(project: Project) -> None:
    assert code_links(project) == {"code": "ok", "code that ran": "ok"}
    folder = project.ws.root / workspace.record("mnist", "train_target")
    old = RunRecord.read(folder).model_dump(mode="json", exclude={"code"})
    (folder / "run.json").write_text(json.dumps(old))
    assert code_links(project) == {"code": "ok"}
    other_code(project)
    assert code_links(project) == {"code": "broken"}


def test_code_in_a_folder_and_in_the_lock_of_the_package_is_verified(project: Project) -> None:
    root, digest = project.ws.root, "a" * 64
    project.write("mine/a.py", "A = 1\n")
    project.write("mine/more/b.py", "B = 1\n")
    project.write(LOCK, yaml.safe_dump({"version": "1", "stages": {"train_target": digest}}))
    git(root, "add", "mine", LOCK)
    git(root, "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-qm", "mine")
    project.commit = git(root, "rev-parse", "HEAD")
    project.write("mine/__pycache__/a.pyc", "")
    ran = {LOCK: digest, "mine": dvc_md5(root / "mine")}
    folder = root / workspace.record("mnist", "train_target")
    update = {"code": code_digest(ran), "git_commit": project.commit}
    RunRecord.read(folder).model_copy(update=update).write(folder)
    entry = project.lock["train_target@mnist"]
    entry["deps"] = [*entry["deps"][:-1], {"path": "mine", "md5": ran["mine"]}]
    entry["params"][LOCK] = {"stages.train_target": digest}
    project.save_lock()
    assert code_links(project) == {"code": "ok", "code that ran": "ok"}
    entry["params"][LOCK] = {"stages.train_target": "b" * 64}
    project.save_lock()
    assert code_links(project) == {"code": "broken", "code that ran": "broken"}


def test_code_of_an_unknown_commit_or_a_changed_tree_is_not_vouched_for(project: Project) -> None:
    folder = project.ws.root / workspace.record("mnist", "train_target")
    record = RunRecord.read(folder)
    for change in ({"git_dirty": True}, {"git_commit": "f" * 40}, {"git_commit": None}):
        record.model_copy(update=change).write(folder)
        links = trace(project.ws, TARGET, project.ws.root).all_links()
        found = {(where, link.name): link.verdict for where, link in links}
        assert found["train_target@mnist", "code"] == "absent"
        assert found["prepare@mnist", "code"] == "ok"


def no_git(monkeypatch: pytest.MonkeyPatch, folder: Path, why: str) -> None:
    """A ``git`` that fails, as it does in a folder of another user."""
    fake = folder / "bin/git"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "fatal: {why}" >&2\nexit 128\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")


DUBIOUS = (
    "detected dubious ownership in repository at '/project'\nTo add an exception for this directory, call:\n"
    "\n\tgit config --global --add safe.directory /project"
)
REMEDY = "git config --global --add safe.directory /project"


def test_a_repository_of_another_user_is_no_repository_without_the_commit(
    project: Project,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    no_git(monkeypatch, tmp_path_factory.mktemp("path"), DUBIOUS)
    links = trace(project.ws, TARGET, project.ws.root).all_links()
    said = {link.detail for _, link in links if link.name == "code"}
    begins = f"commit {project.commit[:7]}: git cannot be read: "
    assert all(one.startswith(begins) for one in said)
    assert all(one.endswith(REMEDY) for one in said)
    monkeypatch.chdir(project.ws.root)
    call_main(project.ws.root, "trace", TARGET)
    assert (
        capsys.readouterr().err == f"warning: no commit is compared: {' '.join(DUBIOUS.split())}\n"
    )


def test_a_commit_that_a_shallow_clone_lacks_is_said_to_be_fetched(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project.keep()
    top = provenance.repository(project.ws.root)
    copy = tmp_path_factory.mktemp("clone") / "copy"
    git(copy.parent, "clone", "-q", "--depth", "1", f"file://{top}", str(copy))
    shutil.copytree(
        project.ws.root,
        copy / project.ws.root.relative_to(str(top)),
        dirs_exist_ok=True,
        ignore=lambda *_: [".git"],
    )
    here = copy / project.ws.root.relative_to(str(top))
    links = trace(Workspace(here), TARGET, here).all_links()
    said = {link.detail for _, link in links if link.name == "code"}
    assert said == {
        f"commit {project.commit[:7]}: this is a shallow clone: `git fetch --unshallow` fetches the rest"
    }


def test_without_a_repository_that_is_said(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    here = tmp_path_factory.mktemp("copied") / "project"
    shutil.copytree(project.ws.root, here, ignore=lambda *_: [".git"])
    links = trace(Workspace(here), TARGET, here).all_links()
    said = {link.detail for _, link in links if link.name == "code"}
    assert said == {f"commit {project.commit[:7]}: the project lies in no git repository"}


def test_what_only_an_earlier_lock_could_tell_is_not_called_broken(
    project: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dvc commit` took over today's code; the lock of the commit that brought the run said what ran."""
    project.keep()
    entry = project.lock["train_target@mnist"]
    entry["params"]["params.yaml"]["train_target.mnist"]["given"] = 9
    for dep in entry["deps"]:
        if dep["path"] == CODE:
            dep["md5"] = "c" * 32
    project.save_lock()
    assert not project.broken(TARGET)
    no_git(monkeypatch, tmp_path_factory.mktemp("path"), DUBIOUS)
    found = trace(project.ws, TARGET, project.ws.root)
    assert not found.broken()
    details = [
        link.detail for _, link in found.all_links() if link.name in ("params", "code that ran")
    ]
    assert len([one for one in details if one.endswith(REMEDY)]) == 2
    entry["deps"][0]["md5"] = "d" * 32  # other images: no commit could mend that
    project.save_lock()
    assert project.broken(TARGET)


def test_links_of_dvc_s_cache_and_folders_elsewhere_lead_back(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere, root = tmp_path_factory.mktemp("cache"), project.ws.root
    (root / TARGET).rename(elsewhere / "d41d8cd9")
    (root / TARGET).symlink_to(elsewhere / "d41d8cd9")
    (root / "data").rename(elsewhere / "data")
    (root / "data").symlink_to(elsewhere / "data")
    link = elsewhere / "project"
    link.symlink_to(root)
    for what in (TARGET, f"./{TARGET}", str(root / TARGET), str(link / TARGET), f"{SET}/x.npy"):
        found = trace(project.ws, what, root)
        assert found.file.path == (SET if "data" in what else TARGET)
        assert not found.broken()
    assert not project.broken()


@pytest.mark.parametrize(
    ("what", "error", "says"),
    [
        (
            "nonsense",
            InputError,
            f"neither the output of a stage, such as {TARGET}, nor a number, such as",
        ),
        (
            "models/robust/mnist/nonsense.safetensors",
            InputError,
            "such as mnist/target/transfer/pgd ",
        ),
        ("../elsewhere", InputError, "outside the project"),
        ("letters/target/transfer/pgd", UnknownNameError, "choose from mnist"),
        ("mnist/nce/transfer/pgd", UnknownNameError, "network 'nce': choose from target"),
        ("mnist/target/whitebox/pgd", UnknownNameError, "protocol 'whitebox'"),
        ("mnist/target/transfer/lrp", UnknownNameError, "attack 'lrp': choose from pgd"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_ones(
    project: Project, what: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        trace(project.ws, what, project.ws.root)


def test_images_of_the_users_own_end_the_walk(project: Project) -> None:
    """No stage makes them; their hash is compared all the same."""
    project.write("data/own/mine/a.txt", "image")
    project.ran("prepare", "mnist", ["data/own/mine"], SPLITS)
    assert project.broken() == []
    project.write("data/own/mine/a.txt", "another")
    assert project.broken() == [("data/own/mine", "file")]


def test_without_records_it_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="repro` makes them"):
        trace(Workspace(tmp_path), NUMBER, tmp_path)


def test_the_command_ends_with_1_where_a_link_is_broken(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert call_main(project.ws.root, "trace", NUMBER, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["broken"] == []
    assert found["number"]["accuracy"] == 0.3
    assert found["file"]["run"]["inputs"][0]["run"]["name"] == "attack@mnist-pgd-test"
    changed_weights(project)
    assert call_main(project.ws.root, "trace", NUMBER, "--json") == 1
    captured = capsys.readouterr()
    assert [link["where"] for link in json.loads(captured.out)["broken"]] == [TARGET]
    assert captured.err.startswith(f"error: 1 broken: {TARGET}: file: the one here: ")
    assert call_main(project.ws.root, "trace", "mnist") == 2
    assert not (project.ws.root / "mlflow.db").exists(), "it only looks"


def test_the_command_names_the_mlflow_runs(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = project.ws.root
    sent = {run.name: run.run_id for run in sync(project.ws.runs, root)}
    assert call_main(root, "trace", TARGET, "--json") == 0
    known = json.loads(capsys.readouterr().out)["mlflow_runs"]
    assert set(known.values()) == {sent["prepare@mnist"], sent["train_target@mnist"]}


def test_every_committed_number_leads_back_without_a_break() -> None:
    """Whatever of the files is here; without any it is the records, dvc.lock and the code's commit."""
    ws = Workspace(ROOT)
    for dataset in source_names():
        found = trace(ws, workspace.results(dataset), ROOT)
        assert found.broken() == []
        ran = {where for where, _ in found.all_links()}
        assert {f"prepare@{dataset}", f"train_dgn@{dataset}-lrp"} <= ran


# The official data


@pytest.fixture
def small(tmp_path: Path) -> Workspace:
    """MNIST of three train images and one test image, prepared, with what is known of it beside."""
    x, y = np.arange(3 * 784, dtype=np.uint8).reshape(3, 1, 28, 28), np.array([1, 2, 3], np.uint8)
    whole, test = Split.whole(x, y), Split.whole(x[:1], y[:1])
    facts = {
        name: SplitFacts(len(part), sha256(part.x), sha256(part.y))
        for name, part in {"train": whole, "test": test}.items()
    }
    known = DatasetSpec("mnist", "MNIST", (1, 28, 28), tuple("0123456789"), facts)
    parts = {"train": whole.take(np.array([0, 2])), "val": whole.take(np.array([1])), "test": test}
    for name, part in parts.items():
        part.save(tmp_path / workspace.split("mnist", name))
    save_spec(known, tmp_path / workspace.dataset("mnist"))
    return Workspace(tmp_path)


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def official_verdicts(small: Workspace) -> dict[str, str]:
    """Split of the official data → what is said of it."""
    return {link.name.split()[1]: link.verdict for link in official_links(small, "mnist")}


def test_prepared_splits_together_are_the_official_ones(small: Workspace) -> None:
    assert official_verdicts(small) == {"train": "ok", "test": "ok"}


def test_own_images_are_not_called_official(small: Workspace) -> None:
    links = official_links(small, "mnist", own=True)
    assert [one.name for one in links] == ["all own train images", "all own test images"]
    assert {one.verdict for one in links} == {"ok"}


def test_one_other_pixel_is_not_official(small: Workspace) -> None:
    folder = small.root / workspace.split("mnist", "val")
    val = Split.load(folder, load_spec(small.root / workspace.dataset("mnist")))
    x = np.array(val.x)
    x[0, 0, 0, 0] ^= 1
    Split(x, val.y, val.index).save(folder)
    assert official_verdicts(small) == {"train": "broken", "test": "ok"}
    assert "sha256" in official_links(small, "mnist")[0].detail


def test_what_is_not_described_cannot_be_compared(small: Workspace) -> None:
    (small.root / workspace.dataset("mnist")).unlink()
    assert official_verdicts(small) == {"train": "absent", "test": "absent"}
    for found in official_links(small, "mnist"):
        assert found.detail.endswith("data/prepared/mnist/dataset.json: No such file or directory")


def test_a_part_of_the_official_data_cannot_be_compared(small: Workspace) -> None:
    folder = small.root / workspace.split("mnist", "val")
    val = Split.load(folder, load_spec(small.root / workspace.dataset("mnist")))
    val.take(slice(0, 0)).save(folder)
    assert official_verdicts(small)["train"] == "absent"
    assert "2 of its 3 images" in official_links(small, "mnist")[0].detail
