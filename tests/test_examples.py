"""The example projects: what their README says is what their committed results say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from pipeline_fixtures import ROOT

from deepcustom.base.hashes import dvc_md5
from deepcustom.base.params import read_params
from deepcustom.base.rows import TRAINING, adversarial_sets, networks, row
from deepcustom.evaluation.files import read_checks
from deepcustom.evaluation.results import Result, pivot, read_csv
from deepcustom.pipeline.code_lock import check_lock
from deepcustom.pipeline.trace.walk import trace
from deepcustom.pipeline.workspace import Workspace
from deepcustom.stages import NAMES
from deepcustom.tracking.record import RUN_FILE, RunRecord

PROJECTS = {
    "fashion-mnist": "fashion",
    "mnist-small": "mnist-small",
    "cifar10-resnet20": "cifar10-resnet20",
    "mnist-l2": "mnist-l2",
    "cifar10-l2": "cifar10-l2",
}
"""Folder → subject."""
HARDENED = {
    "fashion-mnist": "madry",
    "mnist-small": "madry",
    "cifar10-resnet20": "online",
    "mnist-l2": "online",
    "cifar10-l2": "online",
}
"""Folder → the network whose worst case is traced."""


def results(folder: str) -> list[Result]:
    return read_csv(ROOT / f"examples/{folder}/reports/results/{PROJECTS[folder]}.csv")


def cells(folder: str, protocol: str) -> dict[tuple[str, str], Result]:
    return pivot(results(folder), PROJECTS[folder], protocol)[2]


def study() -> dict[tuple[str, str], Result]:
    """The worst cases of the study's network for MNIST, hardened by madry."""
    known = pivot(read_csv(ROOT / "reports/results/mnist.csv"), "mnist", "worst")[2]
    return {key: cell for key, cell in known.items() if key[0] == "madry"}


def tables(file: Path) -> dict[str, list[dict[str, str]]]:
    """Protocol → rows of the table that follows the comment with its name."""
    found = {}
    for name, text in re.findall(r"<!-- (\w+) -->\n((?:\|.*\n)+)", file.read_text()):
        lines = [
            [cell.strip() for cell in line.strip("|\n ").split("|")] for line in text.splitlines()
        ]
        found[name] = [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
    return found


@pytest.mark.parametrize("folder", PROJECTS)
def test_the_tables_of_a_readme_are_those_of_its_results(folder: str) -> None:
    found = tables(ROOT / f"examples/{folder}/README.md")
    assert {"worst", "transfer"} <= found.keys()
    for protocol, rows in found.items():
        known = study() if protocol == "study" else cells(folder, protocol)
        shown = {
            (line["network"], attack): text
            for line in rows
            for attack, text in line.items()
            if attack != "network"
        }
        assert shown == {key: f"{100 * cell.accuracy:.1f}" for key, cell in known.items()}


@pytest.mark.parametrize(
    "file", sorted((ROOT / "examples").glob("*/params.yaml")), ids=lambda file: file.parent.name
)
def test_an_example_is_for_the_code_of_this_checkout(file: Path) -> None:
    """Else its first stage would refuse to run; also where nothing has been run yet."""
    for stage in NAMES:
        check_lock(file.parent, stage)


def records(folder: str) -> list[RunRecord]:
    runs = ROOT / f"examples/{folder}/reports/runs"
    return [RunRecord.read(file.parent) for file in sorted(runs.rglob(RUN_FILE))]


def test_what_the_resnet_shows() -> None:
    """Generators beat FGSM; a fixed set hardens nothing, training against attacks in each step helps."""
    worst, transfer = cells("cifar10-resnet20", "worst"), cells("cifar10-resnet20", "transfer")
    left = {name: transfer["target", name].accuracy for name in ("clean", "nce", "margin", "fgsm")}
    assert left["clean"] >= 0.86
    assert left["nce"] < left["margin"] < left["fgsm"]
    assert transfer["margin", "margin"].accuracy > transfer["margin", "clean"].accuracy
    assert worst["margin", "all"].accuracy == 0
    assert worst["target", "clean"].n == 250
    assert worst["online", "all"].accuracy == pytest.approx(1 / 5, abs=0.02)
    lost = 1 - transfer["online", "clean"].accuracy / left["clean"]
    assert lost == pytest.approx(1 / 3, abs=0.05)
    clean = transfer["online", "clean"].accuracy
    assert all(clean - transfer["online", name].accuracy < 0.02 for name in ("margin", "nce"))
    checks = read_checks(ROOT / "examples/cifar10-resnet20/reports/checks/cifar10-resnet20.json")
    failed = {(check.name, check.about) for check in checks if check.verdict == "fail"}
    assert ("label-leak", "margin") in failed


def test_what_mnist_shows_in_l2() -> None:
    """The bank is stronger than FGSM; AutoAttack leaves what all attacks together leave."""
    worst, transfer = cells("mnist-l2", "worst"), cells("mnist-l2", "transfer")
    left = {name: transfer["target", name].accuracy for name in ("margin", "fgsm", "pgd")}
    assert left["margin"] < left["pgd"] < left["fgsm"]
    for name in ("madry", "online"):
        one = {attack: worst[name, attack].accuracy for attack in ("clean", "autoattack", "all")}
        assert worst[name, "all"].n == 1000
        assert 0 <= one["autoattack"] - one["all"] <= 0.001 + 1e-9
        assert one["all"] == pytest.approx(0.5, abs=0.02)
        assert 0.025 < worst["target", "clean"].accuracy - one["clean"] < 0.045
    apart = worst["online", "all"].accuracy - worst["madry", "all"].accuracy
    assert 0 < apart < worst["online", "all"].accuracy - worst["online", "all"].ci_low
    assert worst["target", "all"].accuracy == 0


def test_what_cifar10_shows_in_l2() -> None:
    """Here FGSM is the stronger; the ball is so small that the target keeps something."""
    worst, transfer = cells("cifar10-l2", "worst"), cells("cifar10-l2", "transfer")
    assert transfer["target", "fgsm"].accuracy < transfer["target", "margin"].accuracy
    for name in ("target", "madry", "online"):
        assert worst[name, "all"].n == 500
        assert worst[name, "all"].accuracy == worst[name, "autoattack"].accuracy
    lost = worst["target", "clean"].accuracy - worst["madry", "clean"].accuracy
    assert lost == pytest.approx(0.11, abs=0.005)
    assert worst["madry", "all"].accuracy == pytest.approx(0.40, abs=0.005)
    assert worst["online", "all"].accuracy == pytest.approx(0.35, abs=0.005)
    checks = read_checks(ROOT / "examples/cifar10-l2/reports/checks/cifar10-l2.json")
    (falls,) = (check for check in checks if check.name == "undefended-falls")
    assert (falls.verdict, falls.figures) == ("ok", {"foretold": 0.082, "left": 0.076})


def test_what_the_resnets_page_says_of_prices_and_losses() -> None:
    results = ROOT / "benchmarks/results/generators"
    known = json.loads((results / "resnet20/reference.json").read_text())["attacks"]
    base = json.loads((results / "cnn/base.json").read_text())  # the banks' network
    assert 6 <= known["fgsm"]["mflop"] / base["mflop"] < 7
    after_two = {
        file.stem: json.loads(file.read_text())
        for file in (results / "resnet20").glob("*.json")
        if file.stem != "reference"
    }
    assert all(one["val"] > known["fgsm"]["val"] for one in after_two.values())
    assert 2 <= after_two["cross-entropy"]["val"] / after_two["base"]["val"] < 2.5
    cnn = json.loads((results / "cnn/reference.json").read_text())["attacks"]["fgsm"]
    assert cnn["val"] < base["val"]
    assert cnn["mflop"] < base["mflop"]


def test_the_minutes_are_those_of_the_records() -> None:
    text = " ".join((ROOT / "examples/fashion-mnist/README.md").read_text().split())
    ran = records("fashion-mnist")
    trained = sum(one.seconds for one in ran if one.stage in TRAINING) / 60
    (evaluated,) = (one for one in ran if one.stage == "evaluate")
    attacked = sum(evaluated.timings.values()) / 60
    said = f"trainings together took {trained:.0f} minutes and the attacks of the evaluation {attacked:.0f},"
    assert said in text
    assert trained + attacked < 75
    whole = sum(one.seconds for one in records("cifar10-resnet20")) / 60
    text = " ".join((ROOT / "examples/cifar10-resnet20/README.md").read_text().split())
    assert f"all stages together took {whole:.0f} minutes of one core" in text
    for folder in ("mnist-l2", "cifar10-l2"):
        whole = sum(one.seconds for one in records(folder)) / 60
        text = " ".join((ROOT / f"examples/{folder}/README.md").read_text().split())
        assert f"all stages together took {whole:.0f} minutes of one core" in text
    (hardened,) = (one for one in records("mnist-small") if one.item == "mnist-small-madry")
    text = " ".join((ROOT / "examples/mnist-small/README.md").read_text().split())
    assert f"Hardening by `madry` took {hardened.seconds / 60:.0f} minutes by its record" in text
    assert hardened.seconds < 1800


def test_the_sizes_of_the_networks_are_those_of_the_runs() -> None:
    text = (ROOT / "examples/mnist-small/README.md").read_text()
    folders = {
        "reports/runs/mnist": "has {} parameters",
        "examples/mnist-small/reports/runs/mnist-small": "has {},",
    }
    for folder, words in folders.items():
        record = RunRecord.read(ROOT / folder / "train_target")
        assert words.format(f"{record.metrics['parameters']:,.0f}") in text


@pytest.mark.parametrize("folder", PROJECTS)
def test_the_results_are_whole_and_those_of_the_run(folder: str) -> None:
    root, subject = ROOT / "examples" / folder, PROJECTS[folder]
    tree = read_params(root / "params.yaml")
    assert {one.network for one in results(folder)} == set(networks(tree, subject))
    sets = {attack for _, attack in cells(folder, "transfer")}
    assert sets == {"clean", *adversarial_sets(tree, subject)}
    stages = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    outs = {out["path"]: out["md5"] for one in stages.values() for out in one["outs"]}
    kept = [path for path in outs if path.startswith("reports/") and (root / path).exists()]
    assert f"reports/results/{subject}.csv" in kept
    assert f"reports/{subject}.md" in kept
    assert {path: dvc_md5(root / path) for path in kept} == {path: outs[path] for path in kept}


@pytest.mark.parametrize("folder", PROJECTS)
def test_a_headline_leads_back_without_a_break(folder: str) -> None:
    root = ROOT / "examples" / folder
    found = trace(Workspace(root), f"{PROJECTS[folder]}/{HARDENED[folder]}/worst/all", root)
    assert found.broken() == []


def test_what_fashion_mnist_shows() -> None:
    """A generator breaks the target; training against attacks in each step helps, a fixed set does not."""
    worst, transfer = cells("fashion-mnist", "worst"), cells("fashion-mnist", "transfer")
    assert transfer["target", "clean"].accuracy >= 0.90
    assert transfer["target", "nce"].accuracy <= 0.20
    assert min(worst[name, "all"].accuracy for name in ("madry", "online")) >= 0.60
    assert worst["nce", "all"].accuracy == worst["target", "all"].accuracy == 0
    assert transfer["nce", "nce"].accuracy > transfer["nce", "clean"].accuracy
    madry, online = worst["madry", "all"], worst["online", "all"]
    assert max(madry.ci_low, online.ci_low) < min(madry.ci_high, online.ci_high)
    for name in ("madry", "online"):
        assert worst[name, "blackbox"].accuracy >= worst[name, "whitebox"].accuracy
    assert transfer["target", "lrp"].accuracy > 3 * transfer["target", "nce"].accuracy
    checks = read_checks(ROOT / "examples/fashion-mnist/reports/checks/fashion.json")
    failed = {(check.name, check.about) for check in checks if check.verdict == "fail"}
    assert {("label-leak", "nce"), ("label-in-perturbation", "nce (set)")} <= failed


def test_a_network_that_is_not_tiny_withstands_more() -> None:
    small = cells("mnist-small", "worst")["madry", "all"]
    tiny = study()["madry", "all"]
    assert small.n == tiny.n == 1000
    assert small.accuracy >= 0.75 > tiny.accuracy
    checks = read_checks(ROOT / "examples/mnist-small/reports/checks/mnist-small.json")
    (square,) = (c for c in checks if (c.name, c.about) == ("square-not-stronger", "madry"))
    assert square.verdict != "ok"
    trees = (ROOT / "params.yaml", ROOT / "examples/mnist-small/params.yaml")
    epochs = [
        row(read_params(file), "adversarial_train", subject, "madry").settings["training"]["epochs"]
        for file, subject in zip(trees, ("mnist", "mnist-small"), strict=True)
    ]
    assert epochs == [40, 20]


def test_every_project_among_the_examples_is_spared_when_old_models_go() -> None:
    text = (ROOT / "docs/models.md").read_text()
    for file in (ROOT / "examples").glob("*/dvc.lock"):
        assert f" examples/{file.parent.name}" in text
