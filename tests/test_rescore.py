"""Scoring the published networks again: which stages run, what is said, what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import md5
from pathlib import Path

import pytest
import yaml
from pipeline_fixtures import ROOT

from deepcustom.base.errors import (
    DeepCustomError,
    InputError,
    OutputError,
    ParamsError,
    TrackingError,
)
from deepcustom.base.rows import adversarial_sets, networks
from deepcustom.base.rows import row as row_of
from deepcustom.cli.door import run_words
from deepcustom.evaluation.comparison import Comparison
from deepcustom.evaluation.results import Result, read_csv, write_csv
from deepcustom.pipeline import dvc, rescore, workspace
from deepcustom.pipeline.workspace import Workspace

TABLE = "reports/results/mnist.csv"
MODEL = "models/target/mnist.safetensors"


def entry(cmd: str, *outs: str) -> dict[str, object]:
    return {
        "cmd": f"deepcustom {cmd}",
        "outs": [{"path": out, "md5": md5(b"weights").hexdigest()} for out in outs],
    }


LOCK = {
    "evaluate@mnist": entry("evaluate --subject mnist", TABLE),
    "attack@mnist-pgd-test": entry("attack --subject mnist --attack pgd --split test"),
    "attack@mnist-pgd-train": entry("attack --subject mnist --attack pgd --split train"),
    "train_target@mnist": entry("train_target --subject mnist", MODEL),
    "generate@mnist-a-test-train": entry("generate --subject mnist --bank a-test --split train"),
    "generate@mnist-a-test": entry("generate --subject mnist --bank a --split test"),
    "relevance@mnist": entry("relevance --subject mnist", "data/analysis/mnist/r.safetensors"),
    "report@mnist": entry("report --subject mnist"),
    "prepare@mnist": entry("prepare --dataset mnist"),
}
ORDER = ["prepare@mnist", "generate@mnist-a-test", "attack@mnist-pgd-test"]


def row(correct: int) -> Result:
    return Result.of(
        dataset="mnist",
        network="target",
        protocol="transfer",
        attack="clean",
        correct=correct,
        n=100,
        network_md5="a" * 32,
        set_md5="b" * 32,
    )


def git(root: Path, *words: str) -> None:
    own = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *own, *words], cwd=root, check=True, capture_output=True)


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """A checkout with a model and a committed table of one number."""
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": LOCK}))
    (tmp_path / MODEL).parent.mkdir(parents=True)
    (tmp_path / MODEL).write_text("weights")
    write_csv([row(90)], tmp_path / TABLE)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", TABLE, "dvc.lock")
    git(tmp_path, "commit", "--quiet", "-m", "a")
    return Workspace(tmp_path)


Told = list[list[str]]


@pytest.fixture
def told(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> Told:
    """What DVC was asked to do, in place of its doing it."""
    asked: Told = []
    monkeypatch.setattr(rescore, "check", lambda *_: None)
    monkeypatch.setattr(dvc, "stage_names", lambda root: list(LOCK))
    monkeypatch.setattr(dvc, "run_dvc", lambda root, words, **more: asked.append(list(words)) or 0)
    monkeypatch.setattr(dvc, "status", lambda root: {})
    monkeypatch.setattr(dvc, "keep_outputs", lambda root, stages: asked.append(["keep", *stages]))

    def remake(
        ws: Workspace, stages: dict[str, str], names: list[str], run: object
    ) -> dict[str, list[Result]]:
        assert stages == {name: dvc.read_lock(ws.root)[name]["cmd"] for name in stages}
        assert run is run_words
        asked.append(list(stages))
        return {name: read_csv(ws.root / workspace.results(name)) for name in names}

    monkeypatch.setattr(rescore, "remake", remake)
    return asked


def rescored(
    ws: Workspace, say: Callable[[str], None] = print
) -> tuple[list[Result], list[Comparison]]:
    return rescore.rescore(ws, run_words, say)


def lock(ws: Workspace, stages: object) -> None:
    (ws.root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def test_only_test_sets_are_made_and_nothing_is_trained(ws: Workspace, told: Told) -> None:
    found, (compared,) = rescored(ws)
    assert found == [row(90)]
    assert (compared.dataset, compared.equal, compared.alike) == ("mnist", 1, True)
    assert told == [ORDER, ["keep", *ORDER]]


def test_numbers_are_shown_although_the_cache_is_full(
    ws: Workspace, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise OutputError("DVC's cache cannot be written: OSError: No space left on device")

    monkeypatch.setattr(dvc, "keep_outputs", full)
    said: list[str] = []
    found, _ = rescored(ws, said.append)
    assert found == [row(90)]
    assert said == ["warning: DVC's cache cannot be written: OSError: No space left on device"]


def test_mlflow_gets_the_runs_of_all_stages_at_once(
    ws: Workspace, told: Told, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = (ws.runs / "mnist/generate" / name for name in ("old", "new"))
    sent: list[list[Path]] = []

    def remake(*_: object) -> dict[str, list[Result]]:
        (new / "run.json").parent.mkdir()
        (new / "run.json").write_text("{}")
        return {"mnist": []}

    def fail(*_: object) -> None:
        raise TrackingError("MLflow is away")

    old.mkdir(parents=True)
    (old / "run.json").write_text("{}")
    os.utime(old / "run.json", (0, 0))
    monkeypatch.setattr(rescore, "remake", remake)
    monkeypatch.setattr(rescore, "send_kept", lambda folders, root: sent.append(folders))
    rescored(ws)
    assert sent == [[new]]
    shutil.rmtree(new)
    monkeypatch.setattr(rescore, "send_kept", fail)
    rescored(ws)
    assert "warning: MLflow is away" in capsys.readouterr().err


def test_only_the_quick_protocols_are_compared(ws: Workspace, told: Told) -> None:
    slow = replace(row(3), protocol="worst")
    after_square = replace(row(3), protocol="whitebox", attack="apgd-t-more")
    write_csv([row(90), slow, after_square], ws.root / TABLE)
    git(ws.root, "commit", "--quiet", "-am", "b")
    write_csv([row(90)], ws.root / TABLE)
    _, (compared,) = rescored(ws)
    assert (compared.equal, compared.missing) == (1, [])


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_quick_scoring_makes_every_row_that_it_is_compared_with(dataset: str) -> None:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    made = {("transfer", attack) for attack in ("clean", *adversarial_sets(tree, dataset))}
    whitebox = row_of(tree, "evaluate", dataset).settings["whitebox"]
    made |= {("whitebox", attack) for attack in (*whitebox, "apgd-ce", "apgd-t")}
    rows = rescore._committed(Workspace(ROOT), dataset)
    assert {(row.protocol, row.attack) for row in rows} == made
    assert len(rows) == len(made) * len(networks(tree, dataset))


def test_of_the_real_pipeline_every_test_set_and_no_training() -> None:
    found = rescore.scoring_stages(dvc.read_lock(ROOT))
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    for dataset in ("mnist", "cifar10"):
        made = [name for name in found if f"@{dataset}-" in name]
        sets = {f"{dataset}-{name}-test" for name in adversarial_sets(tree, dataset)}
        assert {name.split("@")[1] for name in made} == sets
    assert {name.split("@")[0] for name in found} == set(rescore.SCORING)
    steps = [rescore.SCORING.index(name.split("@")[0]) for name in found]
    assert steps == sorted(steps)


def test_a_mistake_in_the_settings_shows_before_anything_is_touched(
    ws: Workspace, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ParamsError("params.yaml: seed must be another")

    monkeypatch.setattr(rescore, "check", refuse)
    with pytest.raises(ParamsError, match="seed must be another"):
        rescored(ws)
    assert told == []


PULL = ["pull", "train_target"]


def test_models_that_are_not_here_are_pulled(
    ws: Workspace, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ws.root / MODEL).unlink()

    def run(root: Path, words: list[str], **more: object) -> int:
        told.append(list(words))
        if words[0] == "pull":
            (root / MODEL).write_text("weights")
        return 0

    monkeypatch.setattr(dvc, "run_dvc", run)
    rescored(ws)
    assert told == [PULL, ORDER, ["keep", *ORDER]]


def test_models_that_are_nowhere_are_named(ws: Workspace, told: Told) -> None:
    (ws.root / MODEL).unlink()
    with pytest.raises(InputError) as caught:
        rescored(ws)
    assert told == [PULL]
    assert str(caught.value) == (
        f"{MODEL} is neither here nor in the remote storage (1 of 1 models): "
        "`make repro` trains what is missing"
    )


def test_a_model_that_is_another_is_said(ws: Workspace, told: Told) -> None:
    (ws.root / MODEL).write_text("others")
    said: list[str] = []
    rescored(ws, said.append)
    back = f"`dvc checkout --force {MODEL}` brings that back"
    assert said == [f"warning: {MODEL} is not the one of dvc.lock ({back})"]


@pytest.mark.parametrize("stages", [{}, {"train_target@mnist": LOCK["train_target@mnist"]}, None])
def test_without_tables_in_the_lock_nothing_runs(ws: Workspace, told: Told, stages: object) -> None:
    """DVC without a target would run the whole pipeline."""
    (ws.root / "dvc.lock").unlink() if stages is None else lock(ws, stages)
    with pytest.raises(InputError, match=r"^dvc\.lock has no evaluate@mnist: `make repro` trains"):
        rescored(ws)
    assert told == []


def test_a_data_set_that_the_lock_lacks_is_named(
    ws: Workspace, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc, "stage_names", lambda root: [*LOCK, "evaluate@cifar10"])
    with pytest.raises(InputError, match=r"^dvc\.lock has no evaluate@cifar10: "):
        rescored(ws)
    assert told == []


def test_stages_that_dvc_yaml_has_no_longer_are_left_alone(ws: Workspace, told: Told) -> None:
    """DVC keeps them in its lock."""
    gone = entry("generate --subject mnist --bank gone --split test")
    bank = entry("train_dgn --subject mnist --bank gone", "models/dgn/mnist/gone.safetensors")
    lock(ws, {**LOCK, "generate@mnist-gone-test": gone, "train_dgn@mnist-gone": bank})
    rescored(ws)
    assert told == [ORDER, ["keep", *ORDER]]


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\na: 1\n", "- a\n", "stages: 3\n", "stages: {a: 1}"])
def test_a_broken_lock_is_one_line(ws: Workspace, told: Told, text: str) -> None:
    (ws.root / "dvc.lock").write_text(text)
    with pytest.raises(
        InputError, match=r"^dvc\.lock (is not readable|holds no stages): "
    ) as caught:
        rescored(ws)
    assert "\n" not in str(caught.value)
    assert told == []


def test_models_of_other_settings_or_code_are_said(
    ws: Workspace, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def status(root: Path) -> dict[str, list[object]]:
        deps = {
            "data/prepared/mnist/train": "deleted",
            "src/deepcustom/training/nets/base.py": "modified",
            "params.yaml": {"train_target.mnist.epochs": "modified"},
        }
        missing = {"changed outs": {"data/analysis/mnist/r.safetensors": "not in cache"}}
        return {
            "train_target@mnist": [{"changed deps": deps}, missing, "changed command"],
            "prepare@mnist": [{"changed deps": {"data/prepared/mnist/val": "deleted"}}, missing],
            **{f"attack@mnist-{k}-train": ["changed command"] for k in range(5)},
            "attack@mnist-unread-train": ["changed command"],
            "report@mnist": ["changed command"],
        }

    # The network reads the data set and five sets, and one of them reads an analysis.
    stages = {**LOCK, **{f"attack@mnist-{k}-train": entry("attack", f"data/{k}") for k in range(5)}}
    reads = ["src/a.py", "data/prepared/mnist/train", *(f"data/{k}" for k in range(4))]
    stages["train_target@mnist"] |= {"deps": [{"path": path, "md5": "c" * 32} for path in reads]}
    further = [{"path": "data/4", "md5": "c" * 32}]
    stages["attack@mnist-0-train"] |= {"deps": further}
    lock(ws, stages)

    monkeypatch.setattr(dvc, "status", status)
    monkeypatch.setattr(dvc, "stage_names", lambda root: list(stages))
    said: list[str] = []
    rescored(ws, said.append)
    changed = "src/deepcustom/training/nets/base.py, train_target.mnist.epochs, its command changed"
    first = "warning: train_target@mnist would run anew, and the models be others"
    assert said[0] == f"{first}: {changed}"
    assert (len(said), said[-1]) == (5, "warning: and 2 more like this")


def test_dvc_is_kept_out_meanwhile(
    ws: Workspace, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is not disturbed where it is at work."""

    def remake(*_: object) -> dict[str, list[Result]]:
        assert dvc.is_at_work(ws.root)
        with (
            pytest.raises(DeepCustomError, match=r"DVC is at work in .*: try again when it has"),
            dvc.kept_out(ws.root),
        ):
            pass
        raise InputError("so")

    monkeypatch.setattr(rescore, "remake", remake)
    with pytest.raises(InputError, match="so"):
        rescored(ws)
    assert not dvc.is_at_work(ws.root)


@pytest.fixture
def differences(ws: Workspace, told: Told) -> Callable[[int], list[str]]:
    """What is said of a number that came out so."""

    def say(correct: int) -> list[str]:
        write_csv([row(correct)], ws.root / TABLE)
        lines: list[str] = []
        rescore.say_differences(rescored(ws)[1], lines.append)
        return lines

    return say


def test_equal_numbers_are_said_to_be_equal(differences: Callable[[int], list[str]]) -> None:
    assert differences(90) == ["mnist: all 1 rows equal the committed ones, hashes included"]


def test_small_differences_are_told_and_large_ones_fail(
    differences: Callable[[int], list[str]],
) -> None:
    """Against the committed table, not the one that was on disk."""
    assert differences(89)[1] == (
        "  target, transfer, clean: 90.00 -> 89.00 %, inside [82.56, 94.48]"
    )
    with pytest.raises(DeepCustomError, match="mnist: other results than the committed ones") as e:
        differences(70)
    assert e.value.exit_code == 1


def test_a_table_that_was_never_committed_is_named_first(ws: Workspace, told: Told) -> None:
    git(ws.root, "rm", "--quiet", "--cached", TABLE)
    git(ws.root, "commit", "--quiet", "-m", "b")
    with pytest.raises(InputError, match=f"the last commit has no {TABLE} to compare with"):
        rescored(ws)
    assert told == []


def test_a_commit_that_git_does_not_show_is_not_called_empty(
    ws: Workspace, told: Told, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    why = "dubious ownership in repository at '/p'"
    fake = tmp_path / "bin/git"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "fatal: {why}" >&2\nexit 128\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with pytest.raises(InputError, match=f"{TABLE} is compared with, cannot be read: {why}$"):
        rescored(ws)
    assert told == []


# DVC itself


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A project with two stages, both run."""
    stages = {
        name: {
            "cmd": f"{sys.executable} -c \"open('{name}', 'a').write('{name}')\"",
            "outs": [name],
        }
        for name in ("one", "two")
    }
    stages["two"]["deps"] = ["one"]
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    dvc.run_dvc(tmp_path, ["init", "--quiet", "--no-scm"])
    dvc.run_dvc(tmp_path, ["repro", "--quiet"])
    return tmp_path


def test_what_changed_is_told_apart(real: Path) -> None:
    assert dvc.status(real) == {}
    assert list(dvc.read_lock(real)) == ["one", "two"]
    (real / "one").unlink()
    reasons = dvc.status(real)["two"]
    assert reasons == [{"changed deps": {"one": "deleted"}}]
    (real / "one").write_text("other")
    (reason, *_) = dvc.status(real)["two"]
    assert rescore._changes(reason) == ["one"]


def test_outputs_made_without_dvc_are_kept_where_they_are_those_of_the_lock(
    real: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """DVC then has no reason to run their stages again."""
    shutil.rmtree(real / ".dvc/cache")
    assert dvc.status(real)["one"] == [{"changed outs": {"one": "not in cache"}}]
    before = (real / "dvc.lock").read_bytes()
    dvc.keep_outputs(real, ["one", "two"])
    assert dvc.status(real) == {}
    (real / "two").write_text("other")
    dvc.keep_outputs(real, ["two"])
    assert dvc.status(real)["two"] == [{"changed outs": {"two": "modified"}}]
    assert (real / "dvc.lock").read_bytes() == before


def test_a_cache_that_cannot_be_written_is_one_line(
    real: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc.output import Output

    def full(*given: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Output, "save", full)
    with pytest.raises(
        OutputError, match=r"^DVC's cache cannot be written: OSError: .*No space"
    ) as e:
        dvc.keep_outputs(real, dvc.stage_names(real))
    assert "\n" not in str(e.value)


def test_dvc_waits_for_its_lock(real: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with dvc.kept_out(real):
        assert dvc.run_dvc(real, ["repro", "--force"], check=False) != 0
    assert "Unable to acquire lock" in capfd.readouterr().err
    dvc.run_dvc(real, ["repro", "--force"])


def test_a_change_further_up_is_seen(real: Path) -> None:
    assert dvc.stage_names(real) == ["one", "two"]
    stages = yaml.safe_load((real / "dvc.yaml").read_text())
    stages["stages"]["one"]["cmd"] += " && true"
    (real / "dvc.yaml").write_text(yaml.safe_dump(stages))
    assert dvc.status(real) == {"one": ["changed command"]}


def test_a_failure_of_dvc_is_one_line(real: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DeepCustomError, match=f"dvc repro failed in {real.name}, see above"):
        dvc.run_dvc(real, ["repro", "three"])
    (real / "dvc.yaml").write_text("stages: {three: 3}\n")
    with pytest.raises(DeepCustomError, match=r"dvc status failed in .*three"):
        dvc.status(real)
